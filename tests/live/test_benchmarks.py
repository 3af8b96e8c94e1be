"""The benchmarks run; what they say is not judged here."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from unittest import SkipTest

from tests.live.support import PATIENCE, ROOT, LiveTestCase


class BenchmarkTests(LiveTestCase):
    """``python -m benchmarks --quick``."""

    def test_quick(self) -> None:
        """A row of each kind is measured for both servers, and written as a page; nothing is left running."""
        for tool in ("nginx", "wrk", "cc", "go"):
            if not (shutil.which(tool) or Path("/usr/sbin", tool).exists()):
                raise SkipTest(f"needs {tool}")
        folder = self.folder()
        rows = [
            "heads that differ", "WebSocket 16 KB", "SSE event", "idle WebSocket pair", "Admin create beside",
            "gRPC unary, 8x4", "gRPC bidirectional, 1 MB", "gRPC-Web", "GET with TLS", "TLS handshake", "idle gRPC stream (",
            "consumers beside", "Choosing among", "Matching among",
        ]  # fmt: skip
        words = [sys.executable, "-m", "benchmarks", "--quick", "--write", "page.md", "--only", *rows]
        process = self.start(words, "benchmarks", env={"PYTHONPATH": str(ROOT), "TMPDIR": folder}, folder=folder)
        self.assertEqual(process.wait(20 * PATIENCE), 0, process.output())
        page = Path(folder, "page.md").read_text(encoding="utf-8")
        figures = [
            line.split(" | ") for line in page.splitlines() if any(row in line for row in rows) and "us |" in line
        ]
        self.assertEqual(len(figures), 18, page)
        for cells in figures:
            self.assertGreater(float(cells[2]), 0)
            self.assertGreater(float(cells[4]), 0)
        self.assertEqual([name for name in os.listdir(folder) if name.startswith("kongtwist-bench")], [])
