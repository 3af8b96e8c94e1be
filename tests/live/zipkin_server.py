"""Zipkin itself for tests (Java 17), with its storage in memory: ``python -m tests.live.zipkin_server`` fetches it from Maven Central
once, below ``~/.cache/kongtwist-peers``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from tests.live.kafka_server import FETCH_SECONDS, tied
from tests.live.programs import find_program
from tests.live.support import LiveTestCase, free_port, request, wait_until

__all__ = ["ZipkinServer"]

VERSION = "3.5.1"
_SHA256 = "7ac633a6832647e71e50012a5e3e91fbc7054414955261724526030faf271d8d"
_JVM = ("-Xmx192m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xshare:auto")
_START_SECONDS = 180.0
"""Seconds that it may take to serve on a busy machine."""


@cache
def _jar() -> Path:
    """The program; it is fetched first where it is not there yet."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    home = Path(root, "kongtwist-peers", f"zipkin-{VERSION}")
    jar = home / f"zipkin-server-{VERSION}-exec.jar"
    done = home / "done"
    if not done.exists():
        home.mkdir(parents=True, exist_ok=True)
        with (home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # tests of several processes may want it at the same time
            if not done.exists():
                _fetch(home, jar)
                done.touch()
    return jar


def _fetch(home: Path, jar: Path) -> None:
    words = [find_program("mvn"), "-q", "-B", "dependency:copy"]
    words += [f"-Dartifact=io.zipkin:zipkin-server:{VERSION}:jar:exec", f"-DoutputDirectory={home}"]
    got = subprocess.run(words, cwd=home, check=False, capture_output=True, text=True, timeout=FETCH_SECONDS)
    if got.returncode:
        raise RuntimeError(f"Zipkin could not be fetched:\n{got.stdout[-2000:]}{got.stderr[-2000:]}")
    if hashlib.sha256(jar.read_bytes()).hexdigest() != _SHA256:
        raise RuntimeError(f"{jar} is not what was expected")


class ZipkinServer:
    """A server for one test.

    Attributes:
        endpoint: where spans go.
    """

    def __init__(self, case: LiveTestCase) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}/api/v2/spans"
        self._case = case
        settings = {"QUERY_PORT": str(self.port), "STORAGE_TYPE": "mem", "SELF_TRACING_ENABLED": "false"}
        self._words = ["env", *(f"{name}={value}" for name, value in settings.items())]
        self._words += [find_program("java"), *_JVM, "-jar", str(_jar())]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        process = self.process = self._case.start(tied(self._words), "zipkin")

        def serves() -> bool:
            if not process.running:
                raise AssertionError(f"Zipkin ended:\n{process.output()[-4000:]}")
            try:
                return bool(request(self.port, "GET", "/health").status == 200)
            except OSError:
                return False

        wait_until(serves, "Zipkin", _START_SECONDS)

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """The spans of a trace, as Zipkin shows them; none while it knows none."""
        answer = request(self.port, "GET", f"/api/v2/trace/{trace_id}")
        return list(answer.json) if answer.status == 200 else []

    def ask(self, path: str) -> Any:
        """What its API tells at a path."""
        return request(self.port, "GET", f"/api/v2{path}").json


if __name__ == "__main__":
    print(_jar())
