"""TCP connections of plugins, with TLS and without, to a peer that reads, does not read, or is of another name."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from kongtwist.clients import connections
from kongtwist.clients.connections import Connection, Connector
from kongtwist.clients.tls import Trust
from kongtwist.core.chain.host import ConnectFailed, ConnectionLost, TLSSettings
from kongtwist.core.limits import Limits
from kongtwist.net.resolver import Resolver
from tests.live.pki import authority
from tests.live.support import PATIENCE


class Peer(Protocol):
    """Keeps what comes, and reads only while told to."""

    transport: Any

    def connectionMade(self) -> None:
        self.factory: Any
        self.factory.peers.append(self)
        self.received = bytearray()
        self.over = False

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if not self.factory.reads:
            self.transport.pauseProducing()

    def connectionLost(self, reason: Any = None) -> None:
        self.over = True


class ConnectionTests(TestCase):
    """Each in plain TCP and in TLS."""

    timeout = 2 * PATIENCE

    def setUp(self) -> None:
        self.clock: Any = cast(Any, reactor)
        self.authority = authority()
        resolver = Resolver(self.clock, Limits(), self.clock.seconds)
        self.connector = Connector(self.clock, resolver, Trust((self.authority.pem,)))
        self.addCleanup(self.until, lambda: not self.connector.links and all(peer.over for peer in self.peers))
        self.addCleanup(self.connector.close)
        self.peers: list[Peer] = []

    def listen(self, tls: bool, *, reads: bool = True) -> int:
        """A peer; its port."""
        factory: Any = ServerFactory.forProtocol(Peer)
        factory.noisy, factory.peers, factory.reads = False, self.peers, reads
        if tls:
            signed = self.authority.sign("syslog.test")
            options = PrivateCertificate.loadPEM(signed.pem + signed.key_pem).options()
            port = self.clock.listenSSL(0, factory, options, interface="127.0.0.1")
        else:
            port = self.clock.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    async def open(self, port: int, tls: TLSSettings | None, timeout: float = PATIENCE) -> Connection:
        connection = Connection(self.clock, timeout)
        return await self.connector.open("127.0.0.1", port, connection, tls=tls, timeout=PATIENCE)

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the reactor work until then; the test's own time limit ends it."""
        while not condition():
            await deferLater(self.clock, 0.01, lambda: None)

    async def test_both_ways(self) -> None:
        """In order, whole, and to the end."""
        data = os.urandom(5_000_000)
        for tls in (None, TLSSettings(verify=True, server_name="syslog.test")):
            connection = await self.open(self.listen(tls is not None), tls)
            await self.until(lambda: self.peers)
            peer = self.peers.pop()
            for start in range(0, len(data), 100_000):
                await connection.write(data[start : start + 100_000])
            peer.transport.write(b"answer")
            self.assertEqual(await connection.read(), b"answer")
            await connection.close()
            await self.until(lambda: peer.over)  # noqa: B023 - waited for within the round
            self.assertEqual(bytes(peer.received), data)

    async def test_a_peer_that_reads_nothing(self) -> None:
        """A write waits as soon as buffers are full, and not for ever."""
        for tls in (None, TLSSettings()):
            connection = await self.open(self.listen(tls is not None, reads=False), tls, timeout=0.5)
            try:
                for _ in range(1000):
                    await connection.write(b"x" * 100_000)
            except ConnectionLost as error:
                problem = str(error)
            self.assertEqual(problem, f"{connection.where} did not read what is sent for 0.5 s")
            await connection.ended.wait()
            for peer in self.peers:
                peer.transport.abortConnection()

    async def test_close_does_not_wait_for_ever(self) -> None:
        """Where the peer takes nothing any more, in TLS too."""
        self.patch(connections, "_CLOSE_TIME", 0.3)
        for tls in (None, TLSSettings()):
            connection = await self.open(self.listen(tls is not None, reads=False), tls)
            writing = Deferred.fromCoroutine(connection.write(b"x" * 20_000_000))
            closing = connection.close()
            await closing
            await writing.addErrback(lambda failure: failure.trap(ConnectionLost))
            for peer in self.peers:
                peer.transport.abortConnection()

    async def test_another_name(self) -> None:
        port = self.listen(True)
        with self.assertRaises(ConnectFailed) as caught:
            await self.open(port, TLSSettings(verify=True, server_name="other.test"))
        self.assertEqual(
            str(caught.exception), f"cannot connect to 127.0.0.1:{port}: its certificate is for another name"
        )
        await self.until(lambda: not self.connector.links)

    async def test_a_peer_that_leaves(self) -> None:
        for tls in (None, TLSSettings()):
            connection = await self.open(self.listen(tls is not None), tls)
            await self.until(lambda: self.peers)
            self.peers.pop().transport.loseConnection()
            self.assertEqual(await connection.read(), b"")
            with self.assertRaises(ConnectionLost):
                await connection.write(b"x")
