"""`HangUpWatch`: a peer that hangs up while nothing is read is noticed, unread bytes or not, without a timer."""

from __future__ import annotations

import os
import socket
import struct

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.net.hangups import HangUpWatch, notice_vanished
from kongtwist.net.reactor import LeanEPollReactor


class Item:
    """What is watched."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    def peer_gone(self, reset: bool) -> None:
        self.told.append(reset)


class HangUpWatchTests(SynchronousTestCase):
    """On real sockets."""

    def setUp(self) -> None:
        self.reactor = LeanEPollReactor()
        self.gone = HangUpWatch(self.reactor)
        self.addCleanup(self._close)

    def _close(self) -> None:
        self.gone.close()
        self.reactor.removeAll()
        self.reactor._poller.close()

    def pair(self, family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket]:
        """Our socket and its peer."""
        if family == socket.AF_UNIX:
            ours, peer = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as server:
                peer = socket.create_connection(server.getsockname())
                ours, _ = server.accept()
        self.addCleanup(ours.close)
        self.addCleanup(peer.close)
        return ours, peer

    def work(self) -> None:
        for _ in range(5):
            self.reactor.iterate(0)

    def test_fin(self) -> None:
        """A FIN behind unread bytes; told once; the reactor has nothing of ours left to poll."""
        for family in (socket.AF_INET, socket.AF_UNIX):
            ours, peer = self.pair(family)
            item = Item()
            self.gone.watch(ours.fileno(), item)
            self.assertIn(self.gone, self.reactor.getReaders())
            peer.send(b"unread")
            self.work()
            self.assertEqual(item.told, [])
            peer.shutdown(socket.SHUT_WR)
            self.work()
            self.assertEqual((item.told, len(self.gone)), ([False], 0))
            self.assertNotIn(self.gone, self.reactor.getReaders())

    def test_reset(self) -> None:
        """A reset is told as such."""
        ours, peer = self.pair()
        item = Item()
        self.gone.watch(ours.fileno(), item)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        self.work()
        self.assertEqual(item.told, [True])

    def test_halfClosed(self) -> None:
        """Who may have sent its FIN already is told of only when it is gone for good."""
        ours, peer = self.pair()
        item = Item()
        peer.shutdown(socket.SHUT_WR)
        self.gone.watch(ours.fileno(), item, half_closed=True)
        self.work()
        self.assertEqual(item.told, [])
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        self.work()
        self.assertEqual(item.told, [True])

    def test_unwatched(self) -> None:
        """Who reads again finds out himself; watching twice changes what is news."""
        ours, peer = self.pair()
        item, other = Item(), Item()
        self.gone.watch(ours.fileno(), item)
        self.gone.unwatch(ours.fileno(), item)
        self.gone.unwatch(ours.fileno(), item)
        self.gone.watch(ours.fileno(), item, half_closed=True)
        self.gone.watch(ours.fileno(), other)
        peer.shutdown(socket.SHUT_WR)
        self.work()
        self.assertEqual((item.told, other.told), ([], [False]))

    def test_oneEndsAnother(self) -> None:
        """An item that unwatches another while it is told: the other hears nothing."""
        first, second = self.pair(), self.pair()
        told: list[int] = []
        watch = self.gone

        class Ending(Item):
            def __init__(self, number: int) -> None:
                super().__init__()
                self.number = number

            def peer_gone(self, reset: bool) -> None:
                told.append(self.number)
                for (ours, _), item in zip((first, second), items, strict=True):
                    watch.unwatch(ours.fileno(), item)

        items = [Ending(0), Ending(1)]
        for (ours, peer), item in zip((first, second), items, strict=True):
            self.gone.watch(ours.fileno(), item)
            peer.close()
        self.work()
        self.assertEqual(len(told), 1)

    def test_closed_before(self) -> None:
        """A reactor closes a socket before it tells of the end: unwatching it then is no fault, and the others are still
        told. Its number may be another connection's by then, which stays watched."""
        (ours, _), (other, peer) = self.pair(), self.pair()
        item, waiting = Item(), Item()
        fd = ours.fileno()
        self.gone.watch(fd, item)
        self.gone.watch(other.fileno(), waiting)
        ours.close()
        self.gone.unwatch(fd, item)
        self.assertEqual(len(self.gone), 1)
        self.gone.unwatch(other.fileno(), item)
        peer.close()
        self.work()
        self.assertEqual((item.told, waiting.told), ([], [False]))

    def test_number_given_anew(self) -> None:
        """A socket that was closed unwatched: the next one of its number is watched as any other."""
        ours, _ = self.pair()
        stale, item = Item(), Item()
        fd = ours.fileno()
        self.gone.watch(fd, stale)
        other, peer = self.pair()
        os.dup2(other.fileno(), fd)
        self.gone.watch(fd, item)
        peer.close()
        other.close()
        self.work()
        self.assertEqual((stale.told, item.told), ([], [False]))

    def test_one_that_fails(self) -> None:
        """An item that raises is logged; the others are told, now and later."""
        first, second, third = self.pair(), self.pair(), self.pair()

        class Failing(Item):
            def peer_gone(self, reset: bool) -> None:
                raise RuntimeError("a fault")

        later, last = Item(), Item()
        self.gone.watch(first[0].fileno(), Failing())
        self.gone.watch(second[0].fileno(), later)
        self.gone.watch(third[0].fileno(), last)
        first[1].close()
        second[1].close()
        self.work()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        third[1].close()
        self.work()
        self.assertEqual((later.told, last.told), ([False], [False]))

    def test_vanishedHosts(self) -> None:
        """The kernel asks silent peers whether they are there, and gives up on bytes nobody acknowledges."""
        ours, _ = self.pair()
        notice_vanished(ours)
        self.assertEqual(ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
        self.assertEqual(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 60)
        self.assertEqual(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), 120_000)
        unix, _ = self.pair(socket.AF_UNIX)
        notice_vanished(unix)
        ours.close()
        notice_vanished(ours)
