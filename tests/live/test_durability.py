"""A gateway killed in the middle of writes has lost nothing that it acknowledged."""

from __future__ import annotations

import os
import sqlite3
import sys
from typing import Any

from twisted.internet import error, protocol, reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from kongtwist.entities import registry
from kongtwist.storage.sqlite.sqlite_storage import SQLiteStorage
from tests.places import ROOT

ENOUGH = 200
"""Acknowledged writes after which a child is killed."""


class Child(protocol.ProcessProtocol):
    """Collects what a child acknowledged, and kills it when that is enough."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()
        self.output = b""
        self.errors = b""
        self.killed = False

    def outReceived(self, data: bytes) -> None:
        self.output += data
        if not self.killed and self.output.count(b"\n") >= ENOUGH:
            self.killed = True
            self.transport.signalProcess("KILL")  # type: ignore[union-attr]

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)
        assert reason.check(error.ProcessTerminated, error.ProcessDone)

    def acknowledged(self) -> dict[str, set[str]]:
        """Ids by what was done; a line that was cut by the end does not count."""
        found: dict[str, set[str]] = {"insert": set(), "update": set()}
        for line in self.output.decode().split("\n")[:-1]:
            what, key = line.split()
            found[what].add(key)
        return found


class KillTests(TestCase):
    timeout = 120

    async def run_until_killed(self, path: str) -> Child:
        """A child that writes until SIGKILL."""
        child = Child()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        any_reactor: Any = reactor
        arguments = [sys.executable, "-m", "tests.live.durability_child", path]
        process = any_reactor.spawnProcess(child, sys.executable, arguments, environment, str(ROOT))

        def end() -> None:
            if process.pid is not None:
                process.signalProcess("KILL")

        self.addCleanup(end)
        await child.ended
        self.assertTrue(child.killed, child.errors.decode())
        return child

    async def test_kill_in_the_middle_of_writes(self) -> None:
        """Three times on the same file: every acknowledged insert and update is there, and the file is sound."""
        path = os.path.abspath(self.mktemp())
        inserted: set[str] = set()
        updated: set[str] = set()
        for _ in range(3):
            child = await self.run_until_killed(path)
            acknowledged = child.acknowledged()
            inserted |= acknowledged["insert"]
            updated |= acknowledged["update"]
            storage = SQLiteStorage(path, registry({}), reactor, lambda: 0.0)
            await storage.open()  # the lock went with the process
            try:
                rows = storage.load()["services"]
                self.assertEqual(inserted - set(rows), set())
                self.assertEqual({key for key in updated if rows[key]["retries"] != 1}, set())
                self.assertEqual(len(storage.page("services", 10**6).rows), len(rows))
            finally:
                await storage.close()
            connection = sqlite3.connect(path)
            self.assertEqual(connection.execute("PRAGMA integrity_check").fetchone(), ("ok",))
            connection.close()
        self.assertGreaterEqual(len(inserted) + len(updated), 3 * ENOUGH)
