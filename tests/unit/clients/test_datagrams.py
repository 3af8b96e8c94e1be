"""Datagrams: sent at once or dropped, whatever becomes of name, receiver and socket (kongtwist/clients/datagrams.py)."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.clients.datagrams import WAITING, DatagramSocket
from kongtwist.net.resolver import NameNotResolved
from tests.unit.clients.memory_net import Names


class _Socket:
    """Notes what is sent; fails as it is told."""

    def __init__(self, where: tuple[str, int | None]) -> None:
        self.where = where
        self.sent: list[bytes] = []
        self.fails: list[int] = []
        self.closed = False

    def send(self, data: bytes) -> int:
        if self.fails:
            raise OSError(self.fails.pop(0), "")
        self.sent.append(data)
        return len(data)

    def close(self) -> None:
        self.closed = True


class DatagramTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.names = Clock(), Names()
        self.reports: list[str] = []
        self.sockets: list[_Socket] = []
        self.refused = 0

    def opened(self, address: str = "10.0.0.9", port: int | None = 514) -> DatagramSocket:
        def connect(*where: Any) -> _Socket:
            if self.refused:
                raise OSError(self.refused, "")
            self.sockets.append(_Socket(where))
            return self.sockets[-1]

        made = DatagramSocket(self.names, self.clock.seconds, self.reports.append, address, port, connect)
        self.addCleanup(made.close)
        return made

    def test_sent(self) -> None:
        """All over one socket, which is made anew after a minute: the address may have changed."""
        opened = self.opened()
        opened.send(b"1")
        self.clock.advance(59)
        opened.send(b"2")
        self.clock.advance(2)
        opened.send(b"3")
        self.assertEqual([each.sent for each in self.sockets], [[b"1", b"2"], [b"3"]])
        self.assertEqual([each.closed for each in self.sockets], [True, False])
        self.assertEqual(self.sockets[0].where, ("10.0.0.9", 514))

    def test_a_path(self) -> None:
        self.opened("/dev/log", None).send(b"1")
        self.assertEqual(self.sockets[0].where, ("/dev/log", None))

    def test_what_is_too_large_or_too_much(self) -> None:
        """One is dropped, the socket is kept, and the log says so once a minute."""
        opened = self.opened()
        opened.send(b"1")
        self.sockets[0].fails = [errno.EMSGSIZE, errno.EAGAIN, errno.EAGAIN]
        for data in (b"2", b"3", b"4", b"5"):
            opened.send(data)
        self.assertEqual((self.sockets[0].sent, len(self.sockets)), ([b"1", b"5"], 1))
        self.assertEqual(
            self.reports, ["a datagram for 10.0.0.9:514 could not be sent: it is larger than a datagram can be"]
        )
        self.clock.advance(61)
        opened.send(b"6")
        self.sockets[1].fails = [errno.EAGAIN]
        opened.send(b"7")
        self.assertEqual(
            self.reports[1:], ["3 datagrams for 10.0.0.9:514 could not be sent: the receiver takes none at the moment"]
        )

    def test_a_receiver_that_begins_anew(self) -> None:
        """An error may be for an earlier datagram: this one is sent once more, over another socket."""
        opened = self.opened()
        opened.send(b"1")
        self.sockets[0].fails = [errno.ECONNREFUSED]
        opened.send(b"2")
        self.assertEqual([each.sent for each in self.sockets], [[b"1"], [b"2"]])
        self.assertTrue(self.sockets[0].closed)
        self.assertEqual(self.reports, [])

    def test_nobody_listens(self) -> None:
        """It is tried again each second, not for each datagram."""
        opened = self.opened("/dev/log", None)
        self.refused = errno.ENOENT
        for _ in range(5):
            opened.send(b"1")
        self.assertEqual(self.reports, ["a datagram for /dev/log could not be sent: there is no such socket"])
        self.refused = 0
        opened.send(b"2")
        self.assertEqual(self.sockets, [])
        self.clock.advance(1)
        opened.send(b"3")
        self.assertEqual(self.sockets[0].sent, [b"3"])

    def test_a_name(self) -> None:
        """While it is looked up datagrams wait, the newest of them."""
        opened = self.opened("slow.test")
        for number in range(WAITING + 10):
            opened.send(b"%d" % number)
        self.assertEqual(self.sockets, [])
        self.names.waiting.pop().callback("10.0.0.7")
        self.assertEqual(self.sockets[0].where, ("10.0.0.7", 514))
        self.assertEqual(self.sockets[0].sent, [b"%d" % number for number in range(10, WAITING + 10)])
        opened.send(b"last")
        self.assertEqual(self.sockets[0].sent[-1], b"last")

    def test_a_name_that_is_none(self) -> None:
        """What waited is counted; nobody is asked again at once."""
        opened = self.opened("slow.test")
        opened.send(b"1")
        opened.send(b"2")
        self.names.waiting.pop().errback(NameNotResolved("slow.test"))
        self.assertEqual(self.reports, ["2 datagrams for slow.test:514 could not be sent: the name cannot be resolved"])
        opened.send(b"3")
        self.assertEqual(self.names.waiting, [])
        self.clock.advance(2)
        opened.send(b"4")
        self.names.waiting.pop().callback("10.0.0.7")
        self.assertEqual(self.sockets[0].sent, [b"4"])
        refused = self.opened("nowhere.test")
        refused.send(b"1")
        self.assertEqual(len(self.reports), 2)

    def test_closed(self) -> None:
        """It sends nothing more, and gives back what it has; what was dropped is said at last."""
        opened = self.opened()
        opened.send(b"1")
        self.sockets[0].fails = [errno.EAGAIN, errno.EAGAIN]
        opened.send(b"2")
        opened.send(b"3")
        opened.close()
        opened.send(b"4")
        self.assertTrue(self.sockets[0].closed)
        self.assertEqual(len(self.reports), 2)
        looking = self.opened("slow.test")
        looking.send(b"1")
        looking.close()
        self.assertEqual(len(self.sockets), 1)
