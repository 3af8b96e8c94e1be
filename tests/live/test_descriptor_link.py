"""Messages with descriptors over real Unix sockets, under a reactor that turns when the test says so."""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from kongtwist.net import descriptor_link
from kongtwist.net.descriptor_link import MAX_DESCRIPTORS, MAX_MESSAGE, DescriptorLink, LinkGone, Message

from .streams_kit import SplicedTestCase

LIMIT = 300


def descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))


class End:
    """One end of a link, and what it got."""

    def __init__(self) -> None:
        self.messages: list[tuple[Message, tuple[int, ...]]] = []
        self.over = 0
        self.link = DescriptorLink(lambda *got: self.messages.append(got), self.gone)

    def gone(self) -> None:
        self.over += 1


class LinkTests(SplicedTestCase):
    """A pair of ends."""

    def setUp(self) -> None:
        super().setUp()
        self.before = descriptors()
        self.pairs: list[socket.socket] = []

    def adopt(self, sock: socket.socket, end: End) -> None:
        factory = Factory.forProtocol(lambda: end.link)
        factory.noisy = False
        self.reactor.adoptStreamConnection(sock.fileno(), socket.AF_UNIX, factory)
        sock.close()
        self.addCleanup(end.link.abort)

    def pair(self) -> tuple[End, End]:
        one, two = End(), End()
        for sock, end in zip(socket.socketpair(socket.AF_UNIX), (one, two), strict=True):
            self.adopt(sock, end)
        return one, two

    def half(self) -> tuple[End, socket.socket]:
        """An end, and the socket of whoever pretends to be the other."""
        end = End()
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        self.adopt(ours, end)
        self.addCleanup(theirs.close)
        return end, theirs

    def work(self, turns: int = 40) -> None:
        for _ in range(turns):
            self.reactor.iterate(0)

    def marked(self, mark: int) -> int:
        """A descriptor that can be told from others, wherever it goes."""
        read, write = os.pipe()
        os.write(write, struct.pack("i", mark))
        os.close(write)
        return read

    def mark_of(self, descriptor: int) -> int:
        data = os.read(descriptor, 10)
        os.close(descriptor)
        return int(struct.unpack("i", data)[0])

    def test_order(self) -> None:
        """Messages of all sizes with none to sixteen descriptors, both ways at once: each comes whole, in order and with its own."""
        chance = random.Random(5)
        ends = self.pair()
        sent: tuple[list[Any], list[Any]] = ([], [])
        for number in range(400):
            for end, log in zip(ends, sent, strict=True):
                marks = [chance.randrange(1 << 30) for _ in range(chance.choice((0, 0, 1, 2, 2, MAX_DESCRIPTORS)))]
                text = "ä" * chance.choice((0, 3, 70, 70_000 if chance.random() < 0.05 else 9))
                end.link.send({"n": number, "text": text}, tuple([self.marked(each) for each in marks]))
                log.append((number, text, marks))
            if chance.random() < 0.3:
                self.work(3)
        self.work(600)
        for end, log in zip(reversed(ends), sent, strict=True):
            got = [(each["n"], each["text"], [self.mark_of(one) for one in found]) for each, found in end.messages]
            self.assertEqual(got, log)
            end.messages.clear()
        for end in ends:
            end.link.close()
        self.work()
        self.assertEqual(([end.over for end in ends], descriptors()), ([1, 1], self.before))

    def test_slow_reader(self) -> None:
        """A side that reads slowly makes the other one wait: `room` comes when it has read."""
        end, other = self.half()
        while end.link._size < descriptor_link.HIGH_WATER:
            end.link.send({"text": "x" * 100_000})
        waiting = Deferred.fromCoroutine(end.link.room())
        self.work()
        self.assertNoResult(waiting)
        other.setblocking(False)
        for _ in range(400):
            try:
                other.recv(1 << 20)
            except BlockingIOError:
                pass
            self.work(2)
        self.assertIsNone(self.successResultOf(waiting))
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(end.link.room())))

    def test_gone(self) -> None:
        """The other side dies while messages wait: their descriptors are closed, whoever waits is told, later ones are closed too."""
        end, other = self.half()
        while end.link._size < descriptor_link.HIGH_WATER:
            end.link.send({"text": "x" * 100_000}, (self.marked(1), self.marked(2)))
        waiting = Deferred.fromCoroutine(end.link.room())
        self.work()
        other.close()
        self.work()
        self.failureResultOf(waiting, LinkGone)
        self.assertEqual((end.over, end.link.open), (1, False))
        end.link.send({"late": True}, (self.marked(3),))
        self.failureResultOf(Deferred.fromCoroutine(end.link.room()), LinkGone)
        self.assertEqual(descriptors(), self.before)

    def test_half_a_message(self) -> None:
        """The other side dies in the middle of a message: its descriptors, which are here already, are closed."""
        end, other = self.half()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("2i", self.marked(1), self.marked(2)))]
        other.sendmsg([struct.pack(">IB", 100, 2) + b'{"half":'], rights)
        for each in struct.unpack("2i", rights[0][2]):
            os.close(each)
        self.work()
        self.assertEqual((end.messages, descriptors()), ([], self.before + 4))
        other.close()
        self.work()
        self.assertEqual((end.over, descriptors()), (1, self.before))

    def test_garbage(self) -> None:
        """What is no message ends the link, before much of it is kept."""
        for data in (
            struct.pack(">IB", MAX_MESSAGE + 1, 0),
            struct.pack(">IB", 2, MAX_DESCRIPTORS + 1) + b"{}",
            struct.pack(">IB", 2, 1) + b"{}",
            struct.pack(">IB", 2, 0) + b"[]",
            struct.pack(">IB", 4, 0) + b"nope",
            struct.pack(">IB", 1, 0) + b"\xff",
        ):
            end, other = self.half()
            other.sendall(data)
            self.work()
            self.assertEqual((end.messages, end.over), ([], 1), data)

    def test_too_large(self) -> None:
        """What the other side would refuse is not sent; its descriptors are still the caller's."""
        end, _ = self.half()
        mine = self.marked(9)
        self.assertRaises(ValueError, end.link.send, {"text": "x" * MAX_MESSAGE}, (mine,))
        self.assertRaises(ValueError, end.link.send, {}, (mine,) * (MAX_DESCRIPTORS + 1))
        self.assertEqual(self.mark_of(mine), 9)
        self.assertTrue(end.link.open)

    def test_no_room_for_rights(self) -> None:
        """The kernel has no room for descriptors (ETOOMANYREFS): the message is tried again, and those behind it wait."""
        one, two = self.pair()
        self.work()
        whole = one.link._socket
        assert whole is not None
        full = mock.Mock(wraps=whole)
        full.sendmsg.side_effect = OSError(errno.ETOOMANYREFS, "too many")
        one.link._socket = full
        one.link.send({"n": 1}, (self.marked(1),))
        one.link.send({"n": 2})
        self.work()
        full.sendmsg.side_effect = None
        one.link._socket = whole
        for _ in range(500):
            self.reactor.iterate(0.01)
            if len(two.messages) == 2:
                break
        self.assertEqual([each["n"] for each, _ in two.messages], [1, 2])
        self.assertEqual(self.mark_of(two.messages[0][1][0]), 1)

    def test_close_behind(self) -> None:
        """Closed politely, what was sent before arrives."""
        one, two = self.pair()
        for number in range(50):
            one.link.send({"n": number, "text": "x" * 20_000})
        one.link.close()
        self.work(300)
        self.assertEqual([each["n"] for each, _ in two.messages], list(range(50)))
        self.assertEqual((one.over, two.over), (1, 1))
