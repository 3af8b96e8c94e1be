"""Connections to the upstreams of stream routes: made for one session each, plain or with TLS, and handed over as transports."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from service_identity import CertificateError, VerificationError
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ..net.tls_transport import TLSClientFactory
from .client_tls import ClientConnections, TLSFacts, check_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..net.deadlines import Deadlines

__all__ = ["SessionAttempt", "SessionTarget", "SessionUser"]


class SessionTarget(NamedTuple):
    """Where a session goes (`upstream_errors.Destination`)."""

    address: str
    port: int
    tls: TLSFacts | None


class SessionUser(Protocol):
    """Who wants the connection; one of the two is called, once."""

    def upstream_connected(self, transport: Any) -> None:
        """It is there, its handshake done; its protocol is to be changed at once."""

    def upstream_failed(self, reason: Failure) -> None:
        """There is none."""


class ConnectorContext(Protocol):
    """See the attributes of the same name of `proxy.context.ProxyContext`."""

    @property
    def reactor(self) -> Any: ...

    @property
    def deadlines(self) -> Deadlines: ...

    @property
    def monotonic(self) -> Callable[[], float]: ...


@implementer(IHandshakeListener)
class _Handshake(TwistedProtocol):
    """Stands at the end of a connection until it can be used."""

    wake = inf
    deadline = inf

    def __init__(self, attempt: SessionAttempt) -> None:
        self._attempt = attempt
        self._why: Failure | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        attempt = self._attempt
        transport.setTcpNoDelay(True)
        if attempt.target.tls is None:
            attempt.made(transport)
        else:
            context = attempt.context
            context.deadlines.set(self, context.monotonic() + attempt.seconds)

    def handshakeCompleted(self) -> None:
        transport: Any = self.transport
        attempt = self._attempt
        assert attempt.target.tls is not None
        attempt.context.deadlines.drop(self)
        try:
            check_name(transport.getHandle(), attempt.target.tls)
        except (CertificateError, VerificationError, ValueError) as error:  # ValueError: it is not a name
            self._why = Failure(error)
            transport.abortConnection()
        else:
            attempt.made(transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._attempt.context.deadlines.drop(self)
        self._attempt.lost(self._why or reason)

    def expire(self, now: float) -> None:
        """The handshake takes too long."""
        self._why = Failure(TimeoutError())
        self.abort()

    def abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


class SessionAttempt(ClientFactory):
    """A connection being made.

    Args:
        context: the gateway's facilities.
        user: told how it ends.
        target: where it goes.
        seconds: for connecting, and once more for the handshake.

    Raises:
        OpenSSL.SSL.Error: our certificate or key for it is unusable.
        BadServerName: the name cannot be asked for.
    """

    noisy = False

    def __init__(self, context: ConnectorContext, user: SessionUser, target: SessionTarget, seconds: float) -> None:
        self.context, self.target, self.seconds = context, target, seconds
        self._user: SessionUser | None = user
        self._protocol: _Handshake | None = None
        factory: Any = self
        if target.tls is not None:
            factory = TLSClientFactory(ClientConnections(target.tls), True, self, context.reactor)
        self._connector = context.reactor.connectTCP(target.address, target.port, factory, seconds)

    def buildProtocol(self, addr: Any) -> TwistedProtocol:
        protocol = self._protocol = _Handshake(self)
        return protocol

    def made(self, transport: Any) -> None:
        """The connection can be used."""
        user, self._user = self._user, None
        if user is not None:
            user.upstream_connected(transport)

    def lost(self, reason: Failure) -> None:
        """It ended before."""
        user, self._user = self._user, None
        if user is not None:
            user.upstream_failed(reason)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.lost(reason)

    def cancel(self) -> None:
        """Nobody wants it any more; the user hears nothing of it."""
        self._user = None
        if self._protocol is not None:
            self._protocol.abort()
        else:
            self._connector.disconnect()
