"""How many connections a port accepts in one round."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.net.listeners import _Accepting


class _Socket:
    """One that many clients knock at."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting

    def accept(self) -> tuple[Any, Any]:
        if not self.waiting:
            raise BlockingIOError
        self.waiting -= 1
        return self, None

    def fileno(self) -> int:
        return 9


class _Room:
    may_accept = None
    highest = 100


class _Port(_Accepting):
    def __init__(self, waiting: int) -> None:
        self.socket = _Socket(waiting)
        self.room: Any = _Room()
        self.numberAccepts = 1
        self.begun = 0

    def _begin(self, sock: Any, address: Any) -> None:
        self.begun += 1


class AcceptingTests(SynchronousTestCase):
    def test_more_in_each_round_but_not_all(self) -> None:
        port = _Port(10_000)
        found = []
        for _ in range(10):
            before = port.begun
            port.doRead()
            found.append(port.begun - before)
        self.assertEqual((found[0], max(found), found[-1]), (1, 32, 32))

    def test_all_that_wait(self) -> None:
        port = _Port(50)
        for _ in range(5):
            port.doRead()
        self.assertEqual((port.begun, port.socket.waiting), (50, 0))
