"""Ends of TLS connections, handshake and all, in memory."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any
from weakref import ref

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import DN, CertificateOptions, KeyPair, PrivateCertificate
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.net.tls_transport import TLSTransport


class Failing(Protocol):
    """Raises for whatever comes."""

    def __init__(self) -> None:
        self.ends: list[Failure] = []

    def dataReceived(self, data: bytes) -> None:
        raise ValueError(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ends.append(reason)


class Below(StringTransport):
    """Takes all that it is given at once."""

    dataBuffer = b""
    offset = _tempDataLen = 0


class Connected(SynchronousTestCase):
    """A connection of TLS in memory."""

    def server(self, user: Protocol) -> TLSTransport:
        """Our end of a connection that a client makes."""
        key = KeyPair.generate(size=2048)
        name = DN(CN="localhost")
        request = key.certificateRequest(name)
        signed = key.signCertificateRequest(name, request, lambda _: True, 1)
        own = PrivateCertificate.load(signed, key, 2)
        options = CertificateOptions(own.privateKey.original, own.original)
        return TLSTransport(TLSMemoryBIOFactory(options, False, Factory.forProtocol(lambda: user)), user)

    def client(self, user: Protocol) -> TLSTransport:
        """Our end of a connection that we make."""
        return TLSTransport(TLSMemoryBIOFactory(CertificateOptions(), True, Factory.forProtocol(lambda: user)), user)

    def connected(self, user: Protocol, queue: list[Any] | None = None) -> tuple[Any, Any, Below]:
        """Both ends behind their handshake, ours with ``user`` above it; and what theirs writes to.

        Args:
            user: the protocol above our end.
            queue: ``to_flush`` of our end's reactor; None: it has no such thing.
        """
        ours = self.server(user)
        theirs: Any = TLSMemoryBIOFactory(CertificateOptions(), True, Factory.forProtocol(Protocol)).buildProtocol(
            IPv4Address("TCP", "127.0.0.1", 1)
        )
        below, above = Below(), Below()
        if queue is not None:
            below.reactor = SimpleNamespace(to_flush=queue)  # type: ignore[attr-defined]
        ours.makeConnection(below)
        theirs.makeConnection(above)
        for _ in range(4):
            sent, answered = above.value(), below.value()
            above.clear()
            below.clear()
            if sent:
                ours.dataReceived(sent)
            if answered:
                theirs.dataReceived(answered)
        return ours, theirs, above


class EndTests(Connected):
    """`TLSTransport.connectionLost`."""

    def test_a_protocol_that_raises(self) -> None:
        """It is told of the end, once, though it raises for the bytes that are read while the connection is being lost."""
        user = Failing()
        ours, theirs, above = self.connected(user)
        theirs.write(b"x")
        theirs._aggregator.flush()
        ours._tlsConnection.bio_write(above.value())
        ours.connectionLost(Failure(ConnectionLost()))
        self.assertEqual([failure.type for failure in self.flushLoggedErrors()], [ValueError])
        self.assertEqual(len(user.ends), 1)
        self.assertFalse(ours.connected)

    def test_nothing_is_left_to_the_garbage_collector(self) -> None:
        """Of a connection that ends without close_notify."""
        user = Protocol()
        ours = self.connected(user)[0]
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        ours.connectionLost(Failure(ConnectionDone()))
        left = ref(ours)
        user.transport = None
        del ours
        self.assertIsNone(left())

    def test_close_notify_within_the_handshake(self) -> None:
        """From either end: the connection is lost, and that is all."""
        for made in (self.client, self.server):
            user = Failing()
            ours = made(user)
            theirs = (self.server if made == self.client else self.client)(Protocol())
            below, above = Below(), Below()
            for end, transport in ((ours, below), (theirs, above)):
                end.makeConnection(transport)
            if made == self.server:
                ours.dataReceived(above.value())
            ours.dataReceived(b"\x15\x03\x03\x00\x02\x01\x00")  # RFC 8446 6.1: warning, close_notify
            self.assertTrue(below.disconnecting)
            ours.connectionLost(Failure(ConnectionDone()))
            self.assertEqual([failure.type for failure in user.ends], [ConnectionLost])


class Reader(Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.came = b""

    def dataReceived(self, data: bytes) -> None:
        self.came += data


class RoundTests(Connected):
    """What is written in a round of the reactor."""

    def setUp(self) -> None:
        self.queue: list[Any] = []
        self.ours, self.theirs, self.above = self.connected(Protocol(), self.queue)
        self.above.clear()
        self.reader = self.theirs.wrappedProtocol = Reader()
        self.below = self.ours.transport

    def round(self) -> None:
        """The events are served."""
        waiting, self.queue[:] = self.queue[:], []
        for each in waiting:
            each.flush()

    def came(self) -> bytes:
        """What the other end has read by now."""
        sent = self.below.value()
        self.below.clear()
        if sent:
            self.theirs.dataReceived(sent)
        return self.reader.came

    def test_one_record(self) -> None:
        """It goes out when the events are served, as one."""
        self.ours.write(b"abc")
        self.ours.writeSequence([b"d", b"ef"])
        self.assertEqual((self.came(), len(self.queue)), (b"", 1))
        self.round()
        record = self.below.value()
        self.assertEqual(5 + int.from_bytes(record[3:5]), len(record))  # RFC 8446 5.1
        self.assertEqual(self.came(), b"abcdef")
        self.ours.write(b"ghi")
        self.round()
        self.assertEqual(self.came(), b"abcdefghi")

    def test_much_does_not_wait(self) -> None:
        for _ in range(8):
            self.ours.write(b"a" * 10000)
        self.assertEqual(self.came(), b"a" * 70000)
        self.round()
        self.assertEqual(self.came(), b"a" * 80000)

    def test_a_close_comes_behind_it(self) -> None:
        self.ours.write(b"abc")
        self.ours.loseConnection()
        self.assertEqual(self.came(), b"abc")
        self.assertTrue(self.below.disconnecting)
        self.round()
        self.ours.connectionLost(Failure(ConnectionLost()))
        self.ours.write(b"late")
        self.round()
        self.assertEqual(self.came(), b"abc")

    def test_close_notify_comes_in_the_round(self) -> None:
        """With what is answered: the other end has not said that it reads no more."""

        class Answering(Protocol):
            def dataReceived(_, data: bytes) -> None:
                self.ours.write(b"answer to " + data)

        self.ours.wrappedProtocol = Answering()
        self.theirs.write(b"request")
        self.theirs._aggregator.flush()
        self.theirs.getHandle().shutdown()
        self.theirs._flushSendBIO()
        self.ours.wrappedProtocol.makeConnection(self.ours)
        self.ours.dataReceived(self.above.value())
        self.assertEqual(self.came(), b"answer to request")
        self.assertTrue(self.below.disconnecting)

    def test_nothing_comes_behind_an_abort(self) -> None:
        self.below.abortConnection = lambda: None
        self.ours.write(b"abc")
        self.ours.abortConnection()
        self.round()
        self.assertEqual(self.came(), b"")

    def test_the_end_of_writing_comes_behind_it(self) -> None:
        self.ours.write(b"abc")
        self.ours.end_writing()
        self.assertEqual(self.came(), b"abc")
        self.round()
        self.assertFalse(self.below.disconnecting)
