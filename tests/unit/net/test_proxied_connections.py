"""Connections that begin with a PROXY header."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.proxy_protocol import ProxiedPeer
from kongtwist.net.proxied_connections import ProxiedFactory, ProxyRules

HEADER = b"PROXY TCP4 192.0.2.1 198.51.100.2 5 6\r\n"
PEER = IPv4Address("TCP", "127.0.0.1", 4000)


class _Server(Protocol):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = 0

    def connectionMade(self) -> None:
        assert self.transport is not None
        if self.factory.refuses:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost += 1


class _Factory(Factory):
    """Makes servers, and keeps them and the addresses it was given."""

    refuses = False
    none = False

    def __init__(self) -> None:
        self.made: list[_Server] = []
        self.addresses: list[Any] = []
        self.running = 0

    def startFactory(self) -> None:
        self.running += 1

    def stopFactory(self) -> None:
        self.running -= 1

    def buildProtocol(self, addr: Any) -> _Server | None:
        self.addresses.append(addr)
        if self.none:
            return None
        server = _Server()
        server.factory = self
        self.made.append(server)
        return server


class FrontTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.inner = _Factory()
        self.waiting: list[Any] = []
        self.rules = ProxyRules(10.0, self.waiting.append, self.waiting.remove)

    def connect(self, tells: bool = True) -> tuple[Any, Any]:
        """A connection's first protocol, and its transport."""
        front = ProxiedFactory(self.clock, self.inner, self.rules, tells).buildProtocol(PEER)
        transport: Any = StringTransport()
        transport.protocol = front
        front.makeConnection(transport)
        return front, transport

    def over(self) -> None:
        """Nothing is left of the waiting."""
        self.assertEqual((self.waiting, self.clock.getDelayedCalls()), ([], []))

    def test_served_behind_the_header(self) -> None:
        """In one piece or byte by byte, the server gets what stands behind the header, and the address it names."""
        for pieces in ([HEADER + b"hello"], [*(bytes((each,)) for each in HEADER), b"hello"], [HEADER, b"hello"]):
            self.setUp()
            _, transport = self.connect()
            self.assertEqual(len(self.waiting), 1)
            for piece in pieces:
                transport.protocol.dataReceived(piece)
            self.assertEqual(self.inner.made[0].data, b"hello")
            address = self.inner.addresses[0]
            assert isinstance(address, ProxiedPeer)
            self.assertEqual((address.peer, address.header.source), (PEER, "192.0.2.1"))
            self.assertIs(transport.protocol, self.inner.made[0])
            self.over()

    def test_plain_address(self) -> None:
        """A factory that knows nothing of the protocol gets the peer's address."""
        front, _ = self.connect(tells=False)
        front.dataReceived(HEADER)
        self.assertEqual(self.inner.addresses, [PEER])

    def test_malformed(self) -> None:
        """The connection is closed; nobody hears of it."""
        front, transport = self.connect()
        front.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        front.dataReceived(HEADER)
        self.assertTrue(transport.disconnected)
        self.assertEqual((self.inner.made, transport.value()), ([], b""))
        self.over()

    def test_late(self) -> None:
        """Slow bytes gain no time."""
        front, transport = self.connect()
        for _ in range(9):
            self.clock.advance(1)
            front.dataReceived(b"PROXY TCP4"[len(front._data) : len(front._data) + 1])
        self.assertFalse(transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(transport.disconnected)
        self.over()

    def test_refused(self) -> None:
        """There are too many of its peer: it is closed at once, whatever it says, and nobody is told of its end."""
        self.rules = ProxyRules(10.0, lambda connection: connection.peer != PEER.host, self.waiting.remove)
        front, transport = self.connect()
        self.assertTrue(transport.disconnected)
        front.dataReceived(HEADER + b"hello")
        front.connectionLost()
        self.assertEqual(self.inner.made, [])
        self.over()

    def test_client_leaves(self) -> None:
        front, _ = self.connect()
        front.dataReceived(b"PROXY")
        front.connectionLost()
        self.over()

    def test_gateway_stops(self) -> None:
        for end in ("drain", "cut"):
            front, transport = self.connect()
            getattr(front, end)()
            self.assertTrue(transport.disconnected)
            self.over()

    def test_server_that_closes_at_once(self) -> None:
        """It gets no more."""
        self.inner.refuses = True
        front, transport = self.connect()
        transport.connected = True
        front.dataReceived(HEADER + b"hello")
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.inner.made[0].data, b"")

    def test_no_server(self) -> None:
        self.inner.none = True
        front, transport = self.connect()
        front.dataReceived(HEADER + b"hello")
        self.assertTrue(transport.disconnecting)
        self.over()

    def test_life_of_the_factory(self) -> None:
        """The server's factory begins and ends with the port."""
        factory = ProxiedFactory(self.clock, self.inner, self.rules, True)
        factory.doStart()
        self.assertEqual(self.inner.running, 1)
        factory.doStop()
        self.assertEqual(self.inner.running, 0)
