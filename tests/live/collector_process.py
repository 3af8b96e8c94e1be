"""An HTTP server in a process of its own that log plugins send to, see `collector`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from tests.live.pki import authority
from tests.live.support import LiveTestCase, Process, free_port, wait_until
from tests.places import ROOT

__all__ = ["Collector"]


class Collector:
    """A collector's process, and what it took."""

    def __init__(self, case: LiveTestCase, *, tls: bool = False) -> None:
        self._case = case
        self.port = free_port()
        folder = case.folder()
        self._file, self._mode = os.path.join(folder, "taken"), os.path.join(folder, "mode")
        self._tls = authority().sign("collector").write(folder, "collector") if tls else ()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/logs"
        self.process: Process | None = None
        self.start()

    def start(self) -> None:
        program = str(ROOT / "tests" / "live" / "collector.py")
        words = [sys.executable, program, str(self.port), self._file, self._mode, *self._tls]
        self.process = self._case.start(words, "collector")
        self._case.wait_for_port(self.port, self.process)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    def mode(self, text: str) -> None:
        with open(self._mode, "w", encoding="utf-8") as file:
            file.write(text)

    def requests(self) -> list[dict[str, Any]]:
        if not os.path.exists(self._file):
            return []
        with open(self._file, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def records(self) -> list[dict[str, Any]]:
        """All records, of batches too."""
        found: list[dict[str, Any]] = []
        for each in self.requests():
            body = json.loads(each["body"])
            found += body if isinstance(body, list) else [body]
        return found

    def wait(self, count: int) -> list[dict[str, Any]]:
        wait_until(lambda: len(self.records()) >= count, f"{count} records")
        return self.records()
