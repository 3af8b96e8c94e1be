"""The lean reactor serves what it polls as the stock one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.net import reactor
from kongtwist.net.reactor import LeanEPollReactor

from .support import ROOT


class Reader:
    """One end of a pair, in the reactor."""

    def __init__(self, reactor: LeanEPollReactor, outcome: Any = None) -> None:
        self.reactor = reactor
        self.outcome = outcome
        self.mine, self.other = socket.socketpair()
        self.mine.setblocking(False)
        self.got = b""
        self.lost: Failure | None = None
        reactor.addReader(self)

    def fileno(self) -> int:
        return self.mine.fileno()

    def logPrefix(self) -> str:
        raise AssertionError("nobody needs it")

    def doRead(self) -> Any:
        self.got += self.mine.recv(100)
        if isinstance(self.outcome, Exception) and self.outcome is not CONNECTION_DONE:
            raise self.outcome
        return self.outcome

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason

    def close(self) -> None:
        self.reactor.removeReader(self)
        self.mine.close()
        self.other.close()


class Flushed:
    """Tells when it is flushed."""

    def __init__(self, told: list[str], name: str) -> None:
        self._told, self._name = told, name

    def flush(self) -> None:
        self._told.append(self._name)


class LeanReactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = LeanEPollReactor()
        self.addCleanup(self._close)

    def _close(self) -> None:
        self.reactor.removeAll()
        self.reactor._poller.close()
        for waker in (self.reactor.waker,):
            if waker is not None:
                os.close(waker.o)
                os.close(waker.i)

    def reader(self, outcome: Any = None) -> Reader:
        made = Reader(self.reactor, outcome)
        self.addCleanup(made.close)
        return made

    def test_reads(self) -> None:
        reader = self.reader()
        reader.other.send(b"abc")
        self.reactor.doPoll(1)
        self.assertEqual(reader.got, b"abc")
        self.assertIsNone(reader.lost)

    def test_what_it_returns_disconnects(self) -> None:
        reader = self.reader(CONNECTION_DONE)
        reader.other.send(b"abc")
        self.reactor.doPoll(1)
        assert reader.lost is not None
        self.assertNotIn(reader, self.reactor.getReaders())

    def test_what_it_raises_is_logged_and_disconnects_only_it(self) -> None:
        faulty, other = self.reader(RuntimeError("a fault")), self.reader()
        faulty.other.send(b"a")
        other.other.send(b"b")
        self.reactor.doPoll(1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        assert faulty.lost is not None
        self.assertEqual(other.got, b"b")

    def test_hang_up(self) -> None:
        reader = self.reader(CONNECTION_DONE)
        reader.other.close()
        self.reactor.doPoll(1)
        self.assertIsNotNone(reader.lost)

    def test_number_of_a_descriptor_used_again(self) -> None:
        """An event of a descriptor that was closed in the same round is not told to who has its number by then."""
        first, second = self.reader(), self.reader()
        made: list[Reader] = []

        def read() -> None:
            number = second.fileno()
            second.close()
            made.append(self.reader())
            self.assertEqual(made[0].fileno(), number)

        first.doRead = read  # type: ignore[method-assign]
        first.other.send(b"a")
        second.other.send(b"b")
        second.other.close()
        self.reactor.doPoll(1)
        self.assertEqual(len(made), 1)
        self.assertIsNone(made[0].lost)
        self.assertIn(made[0], self.reactor.getReaders())

    def test_flushes(self) -> None:
        """What is to be sent is, behind the events of the round; what may wait does so while there are events, but not for long."""
        told: list[str] = []

        reader = self.reader()
        now = 100.0
        self.patch(reactor, "monotonic", lambda: now)

        def turn() -> None:
            self.reactor.to_flush.append(Flushed(told, "now"))
            reader.other.send(b"x")
            self.reactor.doPoll(10)

        self.reactor.to_flush_late[Flushed(told, "late")] = now
        turn()
        now += 0.004
        turn()
        self.assertEqual(told, ["now", "now"])
        now += 0.002
        turn()
        self.assertEqual(told, ["now", "now", "now", "late"])
        self.reactor.to_flush_late[Flushed(told, "later")] = now
        turn()
        self.reactor.doPoll(10)  # does not wait for so long
        self.assertEqual(told[4:], ["now", "later"])
        self.assertEqual(reader.got, b"x" * 4)

    def test_flushes_last(self) -> None:
        """What nobody waits for comes behind all that is sent in a round, and behind timed calls too."""
        told: list[str] = []

        self.reactor.to_flush_last.append(Flushed(told, "timed"))
        self.reactor.doPoll(0)
        self.assertEqual(told, ["timed"])
        reader = self.reader()

        def read() -> None:
            for to in (self.reactor.to_flush_last, self.reactor.to_flush):
                to.append(Flushed(told, "last" if to is self.reactor.to_flush_last else "sent"))

        reader.doRead = read  # type: ignore[method-assign]
        reader.other.send(b"x")
        self.reactor.doPoll(1)
        self.assertEqual(told, ["timed", "sent", "last"])
        self.assertEqual(self.reactor.to_flush_last, [])

    def test_last_ones_begin_something(self) -> None:
        """What those who come last send, and the timed calls they make, do not wait until something else happens: requests may end in
        timed calls, behind which the reactor waits for events."""
        told: list[str] = []
        timeouts: list[float] = []
        poller = self.reactor._poller

        class Poller:
            def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
                timeouts.append(timeout)
                return []

        class Sending:
            def flush(self) -> None:
                told.append("sent")

        class Beginning:
            """Gives a peer that takes nothing some time."""

            def flush(_) -> None:
                self.reactor.callLater(5, told.append, "late")

        class Telling:
            def __init__(self, reactor: LeanEPollReactor, timed: bool) -> None:
                self.reactor, self.timed = reactor, timed

            def flush(self) -> None:
                told.append("told")
                self.reactor.to_flush.append(Sending())
                if self.timed:
                    self.reactor.callLater(0, told.append, "timed")

        self.reactor._poller = Poller()
        try:
            for timed, expected in ((False, [60]), (True, [60, 0])):
                self.reactor.to_flush_last.append(Telling(self.reactor, timed))
                self.reactor.doPoll(60)
                self.assertEqual(timeouts, expected)
                self.assertEqual(told, ["told", "sent"])
                told.clear()
            self.reactor.runUntilCurrent()
            timeouts.clear()
            self.reactor.to_flush.append(Beginning())
            self.reactor.doPoll(60)
            self.assertEqual(timeouts, [0])
        finally:
            self.reactor._poller = poller

    def test_timeout(self) -> None:
        self.reactor.doPoll(0)

    def test_installed_only_where_there_is_none(self) -> None:
        code = (
            "from kongtwist.net.reactor import install; print(install());"
            "from twisted.internet import reactor; print(type(reactor).__name__, install())"
        )
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
        self.assertEqual(shown, "True\nLeanEPollReactor False\n")
