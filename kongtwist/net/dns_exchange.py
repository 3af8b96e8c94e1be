"""One question to one name server, over UDP or TCP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import ClientFactory, DatagramProtocol
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from ..core.dns.records import Reply, Server

__all__ = ["Exchange", "ServerSilent", "ServerUnusable"]

T = TypeVar("T")

_FORGED = 64
"""Datagrams that answer another question before the question is asked over TCP: somebody may be guessing."""


class ServerSilent(Exception):
    """It did not answer in time."""


class ServerUnusable(Exception):
    """It cannot be reached, or what it answers cannot be read. The text says what."""


class Exchange:
    """Asks name servers.

    Each question has a socket of its own, so that the system chooses another source port each time and takes datagrams of this
    server only (RFC 5452 9).

    Args:
        reactor: sends, connects, keeps time.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    async def over_udp(
        self, query: bytes, server: Server, seconds: float, read: Callable[[bytes], Reply | None]
    ) -> Reply | None:
        """Ask over UDP.

        Args:
            query: the message.
            server: whom.
            seconds: how long it has.
            read: gives the reply; None for what answers another question; raises ValueError for what cannot be read.

        Returns:
            None where too much came that answers another question.

        Raises:
            ServerSilent: nothing came.
            ServerUnusable: there is no way to it, or it sends nonsense.
        """
        answered: Deferred[Reply | None] = Deferred()
        protocol = _Datagram(query, server, read, answered)
        try:
            port = self._reactor.listenUDP(
                0, protocol, interface="::" if ":" in server.host else "", maxPacketSize=65535
            )
        except (error.CannotListenError, OSError) as why:
            raise ServerUnusable(str(why)) from None
        try:
            return await _within(self._reactor, answered, seconds)
        finally:
            port.stopListening()

    async def over_tcp(
        self, query: bytes, server: Server, seconds: float, read: Callable[[bytes], Reply | None]
    ) -> Reply:
        """Ask over TCP (RFC 7766); see `over_udp`."""
        answered: Deferred[Reply] = Deferred()
        factory = _Streams(query, read, answered)
        connector = self._reactor.connectTCP(server.host, server.port, factory, timeout=None)
        try:
            return await _within(self._reactor, answered, seconds)
        finally:
            connector.disconnect()


async def _within(reactor: Any, answered: Deferred[T], seconds: float) -> T:
    late: list[bool] = []

    def give_up() -> None:
        late.append(True)
        answered.cancel()

    timer = reactor.callLater(seconds, give_up)
    try:
        return await answered
    except CancelledError:
        if late:
            raise ServerSilent from None
        raise
    finally:
        if timer.active():
            timer.cancel()


class _Datagram(DatagramProtocol):
    noisy = False

    def __init__(
        self, query: bytes, server: Server, read: Callable[[bytes], Reply | None], answered: Deferred[Reply | None]
    ) -> None:
        self._query, self._server, self._read, self._answered = query, server, read, answered
        self._others = 0

    def startProtocol(self) -> None:
        transport: Any = self.transport
        try:
            transport.connect(self._server.host, self._server.port)
            transport.write(self._query)
        except OSError as why:
            self._fail(ServerUnusable(why.strerror or str(why)))

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if self._answered.called:
            return
        try:
            reply = self._read(datagram)
        except ValueError as why:
            self._fail(ServerUnusable(str(why)))
            return
        if reply is not None:
            self._answered.callback(reply)
            return
        self._others += 1
        if self._others >= _FORGED:
            self._answered.callback(None)

    def connectionRefused(self) -> None:
        self._fail(ServerUnusable("nobody listens there (connection refused)"))

    def stopProtocol(self) -> None:
        # The reactor that polls closes a socket that has an error (ICMP) and nothing to be read, and tells this.
        self.connectionRefused()

    def _fail(self, why: Exception) -> None:
        if not self._answered.called:
            self._answered.errback(Failure(why))


class _Stream(Int16StringReceiver):
    def __init__(self, query: bytes, read: Callable[[bytes], Reply | None], answered: Deferred[Reply]) -> None:
        self._query, self._read, self._answered = query, read, answered

    def connectionMade(self) -> None:
        self.sendString(self._query)

    def stringReceived(self, string: bytes) -> None:
        if self._answered.called:
            return
        try:
            reply = self._read(string)
        except ValueError as why:
            self._answered.errback(Failure(ServerUnusable(str(why))))
            return
        if reply is None:
            self._answered.errback(Failure(ServerUnusable("it answers another question")))
        else:
            self._answered.callback(reply)

    def connectionLost(self, reason: Failure = Failure(error.ConnectionDone())) -> None:  # noqa: B008 - Twisted's default
        if not self._answered.called:
            self._answered.errback(Failure(ServerUnusable("it closed the connection")))


class _Streams(ClientFactory[_Stream]):
    noisy = False

    def __init__(self, query: bytes, read: Callable[[bytes], Reply | None], answered: Deferred[Reply]) -> None:
        self._query, self._read, self._answered = query, read, answered

    def buildProtocol(self, addr: Any) -> _Stream:
        return _Stream(self._query, self._read, self._answered)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if not self._answered.called:
            self._answered.errback(Failure(ServerUnusable(f"no connection over TCP ({reason.getErrorMessage()})")))
