"""A collector of traces in a process of its own."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from tests.places import ROOT

from .support import LiveTestCase, free_port, wait_until

__all__ = ["TraceCollector"]


class TraceCollector:
    """A collector's process, and what it took."""

    def __init__(self, case: LiveTestCase) -> None:
        self._case = case
        self.port = free_port()
        folder = case.folder()
        self._file, self._mode = os.path.join(folder, "taken"), os.path.join(folder, "mode")
        self.traces, self.logs, self.zipkin = (
            f"http://127.0.0.1:{self.port}{path}" for path in ("/v1/traces", "/v1/logs", "/api/v2/spans")
        )
        program = str(ROOT / "tests" / "live" / "trace_collector.py")
        self.process = case.start([sys.executable, program, str(self.port), self._file, self._mode], "collector")
        case.wait_for_port(self.port, self.process)

    def mode(self, text: str) -> None:
        with open(self._mode, "w", encoding="utf-8") as file:
            file.write(text)

    def taken(self, path: str = "/v1/traces") -> list[dict[str, Any]]:
        """What came to ``path``, whole lines only."""
        if not os.path.exists(self._file):
            return []
        with open(self._file, encoding="utf-8") as file:
            found = [json.loads(line) for line in file if line.endswith("\n")]
        return [each for each in found if each["path"] == path]

    def spans(self, *names: str, path: str = "/v1/traces") -> list[dict[str, Any]]:
        """Wait for a span of each of these names; all that came by then."""
        wait_until(lambda: set(names) <= {each["name"] for each in self.taken(path)}, f"spans {names}")
        return self.taken(path)
