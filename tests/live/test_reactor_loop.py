"""The lean reactor's own main loop runs everything the stock one does, in the same order."""

from __future__ import annotations

import socket
import threading

from twisted.internet.epollreactor import EPollReactor
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.net.reactor import LeanEPollReactor


def play(reactor: EPollReactor) -> list[str]:
    """What happens, in order, in a run of ``reactor`` with calls of every kind."""
    told: list[str] = []
    mine, other = socket.socketpair()

    class Reader:
        def fileno(self) -> int:
            return mine.fileno()

        def logPrefix(self) -> str:
            return "reader"

        def doRead(self) -> None:
            told.append("read " + mine.recv(10).decode())
            threading.Thread(target=lambda: reactor.callFromThread(from_thread)).start()

        def connectionLost(self, reason: object) -> None:
            told.append("lost")

    def from_thread() -> None:
        told.append("from a thread")
        reactor.callLater(0, at_once)

    def at_once() -> None:
        told.append("at once")
        reactor.callLater(0.02, late)
        for _ in range(60):
            reactor.callLater(1000, told.append, "never").cancel()
        postponed = reactor.callLater(0.01, told.append, "postponed")
        postponed.delay(0.04)
        reactor.callLater(0.01, lambda: 1 / 0)

    def late() -> None:
        told.append("late")
        reactor.callLater(0.1, reactor.stop)

    reactor.addSystemEventTrigger("during", "shutdown", told.append, "shutdown")
    reader = Reader()
    reactor.addReader(reader)
    reactor.callWhenRunning(other.send, b"hello")
    reactor.run(installSignalHandlers=False)
    mine.close()
    other.close()
    return told


class MainLoopTests(SynchronousTestCase):
    """`LeanEPollReactor.mainLoop`."""

    def test_asTheStockReactor(self) -> None:
        """Reads, calls from threads, calls for now and later, postponed, cancelled and failing ones, the shutdown."""
        expected = play(EPollReactor())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(play(LeanEPollReactor()), expected)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(expected, ["read hello", "from a thread", "at once", "late", "postponed", "lost", "shutdown"])

    def test_rounds_are_short(self) -> None:
        """However many sockets have something to read, timed calls come between, and all are read."""
        reactor = LeanEPollReactor()
        rounds = [0]
        pairs = [socket.socketpair() for _ in range(200)]

        class Reader:
            def __init__(self, mine: socket.socket) -> None:
                self.fileno = mine.fileno

            def logPrefix(self) -> str:
                return "reader"

            def doRead(self) -> None:
                rounds[-1] += 1
                reactor.removeReader(self)
                if sum(rounds) == len(pairs):
                    reactor.stop()

            def connectionLost(self, reason: object) -> None:
                pass

        def timed() -> None:
            rounds.append(0)
            reactor.callLater(0, timed)

        for mine, other in pairs:
            other.send(b"x")
            reactor.addReader(Reader(mine))
        reactor.callLater(0, timed)
        reactor.run(installSignalHandlers=False)
        for pair in pairs:
            for each in pair:
                each.close()
        self.assertEqual(sum(rounds), 200)
        self.assertLessEqual(max(rounds), 40)
