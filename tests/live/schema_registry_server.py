"""A registry of schemas for tests: Apicurio Registry (Java 17), which has Confluent's REST interface, in memory.
``python -m tests.live.schema_registry_server`` fetches it from Maven Central once, below ``~/.cache/kongtwist-peers``.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from tests.live.kafka_server import FETCH_SECONDS, tied
from tests.live.programs import find_program
from tests.live.support import Process, free_port, request, wait_until

__all__ = ["SchemaRegistryServer", "shared_registry"]

VERSION = "3.0.9"
"""The newest for Java 17."""
_ARCHIVE = f"apicurio-registry-app-{VERSION}-all.tar.gz"
_SHA256 = "2b28181501a20cbf6efcd77f9b7153908fc01f3d3a7c32024c0bd9e1b04c8a43"
_JVM = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xshare:auto")
START_SECONDS = 180.0
"""Seconds that it may take to serve on a busy machine."""


@cache
def _home() -> Path:
    """The folder of the program; it is fetched first where it is not there yet."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    home = Path(root, "kongtwist-peers", f"apicurio-{VERSION}")
    done = home / "app.done"
    if not done.exists():
        home.mkdir(parents=True, exist_ok=True)
        with (home / "app.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # tests of several processes may want it at the same time
            if not done.exists():
                _fetch(home)
                done.touch()
    return home / "app"


def _fetch(home: Path) -> None:
    words = [find_program("mvn"), "-q", "-B", "dependency:copy"]
    words += [f"-Dartifact=io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all", f"-DoutputDirectory={home}"]
    got = subprocess.run(words, cwd=home, check=False, capture_output=True, text=True, timeout=FETCH_SECONDS)
    if got.returncode:
        raise RuntimeError(f"Apicurio could not be fetched:\n{got.stdout[-2000:]}{got.stderr[-2000:]}")
    archive = home / _ARCHIVE
    if hashlib.sha256(archive.read_bytes()).hexdigest() != _SHA256:
        raise RuntimeError(f"{archive} is not what was expected")
    with tarfile.open(archive) as files:
        files.extractall(home / "app", filter="data")
    archive.unlink()


class SchemaRegistryServer:
    """One registry, on a port of its own.

    Args:
        folder: where its output goes.

    Attributes:
        url: what clients are configured with.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/apis/ccompat/v7"
        self._process: Process | None = None

    def start(self) -> SchemaRegistryServer:
        """Start it, and wait until it answers."""
        words = [find_program("java"), *_JVM, "-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={self._port}"]
        words += ["-jar", str(_home() / f"apicurio-registry-app-{VERSION}-runner.jar")]
        process = self._process = Process(tied(words), self._folder, "registry")

        def serves() -> bool:
            if not process.running:
                raise AssertionError(f"the registry ended:\n{process.output()[-4000:]}")
            return bool(self._ask("GET", "/subjects").status == 200)

        wait_until(serves, "the registry of schemas", START_SECONDS)
        return self

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        return request(self._port, method, f"/apis/ccompat/v7{path}", **options)

    def register(
        self, subject: str, schema: Any, kind: str = "AVRO", references: list[dict[str, Any]] | None = None
    ) -> int:
        """Make it the newest version of a subject; returns its id."""
        said = {"schema": schema if isinstance(schema, str) else json.dumps(schema), "schemaType": kind}
        if references:
            said["references"] = references  # type: ignore[assignment]
        answer = self._ask(
            "POST",
            f"/subjects/{subject}/versions",
            headers={"Content-Type": "application/json"},
            body=json.dumps(said).encode(),
        )
        if answer.status != 200:
            raise AssertionError(f"not registered: {answer}")
        return int(answer.json["id"])

    def signal(self, number: int) -> None:
        """Send it a signal, such as SIGSTOP: connections are taken then, and nothing is answered."""
        assert self._process is not None
        self._process.signal(number)

    def kill(self) -> None:
        """Kill it, frozen or not."""
        if self._process is not None:
            self._process.kill()


_shared: list[SchemaRegistryServer] = []


def shared_registry() -> SchemaRegistryServer:
    """The registry that all tests of this process share, started for the first of them and killed at its end."""
    if not _shared:
        folder = tempfile.mkdtemp(prefix="kongtwist-registry-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        server = SchemaRegistryServer(folder)
        atexit.register(server.kill)
        _shared.append(server.start())
    return _shared[0]


if __name__ == "__main__":
    begun = time.monotonic()
    print(_home(), f"{time.monotonic() - begun:.1f} s")
