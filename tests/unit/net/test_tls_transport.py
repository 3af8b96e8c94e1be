"""Ends of TLS connections, handshake and all, in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
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


class EndTests(SynchronousTestCase):
    """`TLSTransport.connectionLost`."""

    def connected(self, user: Protocol) -> tuple[Any, Any, StringTransport]:
        """Both ends behind their handshake, ours with ``user`` above it; and what ours writes to."""
        key = KeyPair.generate(size=2048)
        name = DN(CN="localhost")
        request = key.certificateRequest(name)
        signed = key.signCertificateRequest(name, request, lambda _: True, 1)
        own = PrivateCertificate.load(signed, key, 2)
        server = TLSMemoryBIOFactory(
            CertificateOptions(own.privateKey.original, own.original), False, Factory.forProtocol(lambda: user)
        )
        client = TLSMemoryBIOFactory(CertificateOptions(), True, Factory.forProtocol(Protocol))
        ours, theirs = TLSTransport(server, user), client.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        assert theirs is not None
        below, above = StringTransport(), StringTransport()
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
