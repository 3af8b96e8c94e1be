"""The processes of a run: upstreams, nginx and the gateway, on free loopback ports, ended together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit
from types import TracebackType
from urllib.error import URLError
from urllib.request import urlopen

__all__ = ["Server", "Stage", "free_port", "resident"]

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 180.0
"""Seconds within which a server must be up."""


def free_port() -> int:
    """A port nobody listens on, outside the range that outgoing connections use."""
    while True:
        port = 10_000 + int.from_bytes(os.urandom(2)) % 20_000
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port


def resident(pid: int) -> int:
    """Bytes of memory a process has in use (VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no VmRSS of {pid}")


class Server:
    """A proxy under test.

    Args:
        name: ``nginx`` or ``kongtwist``.
        pid: the process that does the work.
        port: where it is reached.
        admin: where its Admin API is, if it has one.
        folder: where its files are, if they matter.

    Attributes:
        latest: seconds that a timer came late at the most, as of the last `longest_round`.
    """

    def __init__(self, name: str, pid: int, port: int, admin: int = 0, folder: str = "") -> None:
        self.name = name
        self.pid = pid
        self.port = port
        self.admin = admin
        self.folder = folder
        self.latest = 0.0

    def processes(self) -> list[int]:
        """It and its workers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()
        return [self.pid, *map(int, children)]

    def longest_round(self) -> float:
        """CPU seconds of the longest round that a reactor of its processes has made since the last call."""
        longest = self.latest = 0.0
        for pid in self.processes():
            told = Path(self.folder, "rounds", str(pid))
            told.unlink(missing_ok=True)
            os.kill(pid, signal.SIGUSR2)
            until = time.monotonic() + PATIENCE
            while not (told.exists() and len(told.read_text(encoding="ascii").split()) == 2):
                if time.monotonic() > until:
                    raise RuntimeError(f"process {pid} says nothing of its rounds")
                time.sleep(0.01)
            busy, late = map(float, told.read_text(encoding="ascii").split())
            longest, self.latest = max(longest, busy), max(self.latest, late)
        return longest


class Stage:
    """Starts servers; as a context manager it ends all of them."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="kongtwist-bench-")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._load = os.path.join(self.folder, "load")
        self.numbers = count()  #: makes the names of servers differ; an id() may come again

    def __enter__(self) -> Stage:
        source = Path(__file__).with_name("load.c")
        subprocess.run(["cc", "-O2", "-o", self._load, str(source)], check=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in reversed(self._processes):
            self.end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def spawn(self, words: Sequence[str], **options: object) -> subprocess.Popen[bytes]:
        """Start a process in a group of its own."""
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(list(words), start_new_session=True, **{**quiet, **options})  # type: ignore[call-overload]
        self._processes.append(process)
        return process  # type: ignore[no-any-return]

    def end(self, process: subprocess.Popen[bytes] | Server) -> None:
        """Kill a process and its children."""
        if isinstance(process, Server):
            process = next(each for each in self._processes if each.pid == process.pid)
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()

    def load(self, *words: object, **options: object) -> subprocess.Popen[bytes]:
        """Start the load generator with these arguments (see load.c)."""
        return self.spawn([self._load, *map(str, words)], stderr=None, **options)

    def grpc_load(self, *words: object, **options: object) -> subprocess.Popen[bytes]:
        """Start the load generator for HTTP/2 and gRPC with these arguments (see grpc/main.go); it is built first.

        Raises:
            SystemExit: Go is missing.
        """
        program = os.path.join(self.folder, "grpc-load")
        if not os.path.exists(program):
            if shutil.which("go") is None:
                raise SystemExit("the rows on HTTP/2 and gRPC need go")
            source = Path(__file__).with_name("grpc")
            subprocess.run(["go", "build", "-o", program, "."], cwd=source, check=True)
        return self.spawn([program, *map(str, words)], stderr=None, **options)

    def grpc_echo(self) -> int:
        """A gRPC echo server; returns its port."""
        port = free_port()
        self.wait(port, self.grpc_load("echo", port))
        return port

    def echo_upstream(self) -> int:
        """A WebSocket echo server; returns its port."""
        port = free_port()
        self.wait(port, self.load("echo", port))
        return port

    def nginx(self, name: str, directives: str, main: str = "") -> int:
        """Start an nginx with these directives in its http block, and ``main`` beside it; returns its worker's process id."""
        folder = os.path.join(self.folder, name)
        os.makedirs(folder)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        text = (
            f"daemon off; {'' if os.getuid() else 'user root; '}worker_processes 1; pid {folder}/pid;\n"
            f"worker_rlimit_nofile {getrlimit(RLIMIT_NOFILE)[1]};\n{main}"
            f"error_log {folder}/error.log crit; events {{ worker_connections 20000; }}\n"
            f"http {{ access_log off; keepalive_requests 1000000000; {temporary}\n{directives}\n}}\n"
        )
        Path(folder, "nginx.conf").write_text(text, encoding="utf-8")
        path = shutil.which("nginx") or "/usr/sbin/nginx"
        master = self.spawn([path, "-p", folder, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"])
        children = Path(f"/proc/{master.pid}/task/{master.pid}/children")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and master.poll() is None:
            if workers := children.read_text(encoding="ascii").split():
                return int(workers[0])
            time.sleep(0.02)
        raise SystemExit(f"nginx did not start: {Path(folder, 'error.log').read_text(encoding='utf-8')}")

    def kongtwist(
        self,
        name: str,
        declarative: object,
        access_log: str = "off",
        *,
        rounds: bool = False,
        conf: dict[str, str] | None = None,
    ) -> Server:
        """Start a gateway with one worker and this declarative configuration, default limits on; ``conf``: further properties."""
        file = os.path.join(self.folder, f"{name}.json")
        Path(file).write_text(json.dumps(declarative), encoding="utf-8")
        given = {"database": "off", "declarative_config": file, "proxy_access_log": access_log}
        return self._gateway(name, given | (conf or {}), rounds=rounds)

    def kongtwist_http2(self, name: str, declarative: object, certificate: str, key: str) -> tuple[Server, Server]:
        """Start a gateway that speaks HTTP/2 too; returns it twice, at its plain port and at the one with TLS."""
        file = os.path.join(self.folder, f"{name}.json")
        Path(file).write_text(json.dumps(declarative), encoding="utf-8")
        plain, secure = free_port(), free_port()
        server = self._gateway(name, {
            "database": "off", "declarative_config": file, "proxy_access_log": "off", "ssl_cert": certificate,
            "ssl_cert_key": key, "proxy_listen":
            f"127.0.0.1:{plain} http2 backlog=4096, 127.0.0.1:{secure} http2 ssl backlog=4096",
        })  # fmt: skip
        return Server(server.name, server.pid, plain), Server(server.name, server.pid, secure)

    def on_sqlite(self, name: str, workers: int = 1) -> Server:
        """Start a gateway on a SQLite file, which may be there already as ``name/prefix/kongtwist.db``."""
        conf = {"database": "sqlite", "sqlite_path": "kongtwist.db", "proxy_access_log": "off"}
        return self._gateway(name, conf | {"nginx_worker_processes": str(workers)}, rounds=True)

    def _gateway(self, name: str, special: dict[str, str], *, rounds: bool = False) -> Server:
        """Start a gateway; with ``rounds`` it notes how long its reactor's rounds take."""
        folder = os.path.join(self.folder, name)
        os.makedirs(folder, exist_ok=True)
        proxy, admin = free_port(), free_port()
        conf = {
            "proxy_listen": f"127.0.0.1:{proxy} backlog=4096", "admin_listen": f"127.0.0.1:{admin}",
            "admin_access_log": "off", "nginx_worker_processes": "1",
        } | special  # fmt: skip
        path = os.path.join(folder, "kong.conf")
        Path(path).write_text("".join(f"{key} = {value}\n" for key, value in conf.items()), encoding="utf-8")
        env = {key: value for key, value in os.environ.items() if not key.startswith("KONG_")}
        paths = [str(ROOT)]
        if rounds:
            os.makedirs(os.path.join(folder, "rounds"))
            env["KONGTWIST_ROUNDS"] = os.path.join(folder, "rounds")
            paths.append(str(Path(__file__).with_name("rounds")))
        words = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile="]
        with open(os.path.join(folder, "out"), "wb") as output:
            process = self.spawn(
                [*words, "kongtwist", "--conf", path, "--prefix", os.path.join(folder, "prefix")],
                env={**env, "PYTHONPATH": os.pathsep.join(paths)}, cwd=folder, stdout=output, stderr=output,
            )  # fmt: skip
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and process.poll() is None:
            try:
                with urlopen(f"http://127.0.0.1:{admin}/status", timeout=5):
                    return Server("kongtwist", process.pid, proxy, admin, folder)
            except (URLError, OSError):
                time.sleep(0.05)
        raise SystemExit(f"kongtwist did not start:\n{Path(folder, 'out').read_text(encoding='utf-8')[-4000:]}")

    def wait(self, port: int, process: subprocess.Popen[bytes]) -> None:
        """Wait until a process listens. Raises SystemExit: it does not."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise SystemExit(f"nothing listens on port {port}")
