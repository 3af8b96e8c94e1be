"""Two children between which streams move (moving_child.py), and how tests tell them what to do."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from tests.live.support import PATIENCE, ROOT, LiveTestCase, Process, free_port, wait_until

__all__ = ["Child", "MovingTestCase"]


class Child:
    """One process.

    Args:
        test: ends it.
        name: of it.
        folder: for its sockets and logs.
    """

    def __init__(self, test: LiveTestCase, name: str, folder: str) -> None:
        self.port = free_port()
        self.prefix = os.path.join(folder, name)
        os.mkdir(self.prefix)
        self.control, self.streams = (os.path.join(self.prefix, each) for each in ("control", "streams"))
        child = os.path.join(os.path.dirname(__file__), "moving_child.py")
        words = [sys.executable, child, str(self.port), self.control, self.streams, self.prefix]
        self.process = Process(words, self.prefix, name, {"PYTHONPATH": str(ROOT)})
        test.addCleanup(self.process.kill)
        self._socket = socket.socket(socket.AF_UNIX)
        test.addCleanup(self._socket.close)
        wait_until(self._connect, f"{name} listens")
        self._file = self._socket.makefile("rb")
        test.addCleanup(self._file.close)

    def _connect(self) -> bool:
        if not self.process.running:
            raise AssertionError(self.process.output())
        self._socket.connect(self.control)
        self._socket.settimeout(PATIENCE)
        return True

    def begin(self, do: str, **more: Any) -> None:
        """Say something."""
        self._socket.sendall(json.dumps({"do": do, **more}).encode() + b"\n")

    def answer(self) -> dict[str, Any]:
        """What it answers."""
        told: dict[str, Any] = json.loads(self._file.readline())
        if "error" in told:
            raise AssertionError(f"{told['error']}\n{self.process.output()}")
        return told

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Say something, and wait for the answer."""
        self.begin(do, **more)
        return self.answer()

    def tell(self) -> dict[str, Any]:
        """What is open and counted there."""
        return self.ask("tell")

    def move(self, to: Child, seconds: float = 30.0) -> dict[str, Any]:
        """Move all streams."""
        return self.ask("move", to=to.streams, seconds=seconds)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The lines of a log of JSON."""
        try:
            with open(os.path.join(self.prefix, name), encoding="utf-8") as file:
                return [json.loads(line) for line in file]
        except FileNotFoundError:
            return []


class MovingTestCase(LiveTestCase):
    """With two children."""

    def children(self, rows: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> tuple[Child, Child]:
        """Two that serve ``rows`` (the second one: ``other``, if given)."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder, True)
        one, two = Child(self, "one", folder), Child(self, "two", folder)
        one.ask("publish", rows=rows)
        two.ask("publish", rows=rows if other is None else other)
        return one, two
