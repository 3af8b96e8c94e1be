"""Pools of connections to upstreams, and how connections are made."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from ..net.tls_transport import TLSClientFactory
from .client_tls import ClientConnections, TLSFacts
from .connection import UpstreamConnection, UpstreamUser
from .http2_pool import HTTP2Pool

if TYPE_CHECKING:
    from .connection import UpstreamContext

__all__ = ["Attempt", "Pool", "UpstreamPools"]


_REMEMBERED = 60.0
"""Seconds that an upstream is not asked again for the HTTP/2 it did not choose."""


class _Connecting(ClientFactory):
    """Makes one connection for one user."""

    noisy = False

    def __init__(self, pool: Pool, user: UpstreamUser, seconds: float) -> None:
        self.pool = pool
        self.user: UpstreamUser | None = user
        self._seconds = seconds
        self.connection: UpstreamConnection | None = None

    def buildProtocol(self, addr: Any) -> UpstreamConnection:
        user, self.user = self.user, None  # a connector keeps its factory: the first request would live as long as it
        connection = self.connection = UpstreamConnection(self.pool, user)
        self.pool.all[connection] = None
        if self.pool.tls is not None:
            connection.expect(self._seconds)
        return connection

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if self.user is not None:
            self.user.connect_failed(reason)


class Attempt(NamedTuple):
    """A connection being made."""

    connector: Any
    factory: _Connecting

    @property
    def pool(self) -> Pool:
        """Whose connection it is to be."""
        return self.factory.pool

    def cancel(self) -> None:
        """The user has no use for it any more, and hears nothing of it."""
        connection = self.factory.connection
        if connection is not None:
            connection.abort()
        else:
            self.factory.user = None
            self.connector.disconnect()


class Pool:
    """Connections to one address with the same TLS facts.

    Attributes:
        idle: connections nobody uses; the one used last is taken first.
        size: idle connections kept; max_requests: on one connection; idle_timeout: seconds (`Limits`).
        all: every open connection.
    """

    __slots__ = ("_creator", "address", "all", "context", "idle", "idle_timeout", "max_requests", "port", "size", "tls")

    def __init__(self, context: UpstreamContext, address: str, port: int, tls: TLSFacts | None) -> None:
        self.context = context
        self.address = address
        self.port = port
        self.tls = tls
        self.idle: dict[UpstreamConnection, None] = {}
        self.all: dict[UpstreamConnection, None] = {}
        self._creator: ClientConnections | None = None
        limits = context.limits
        self.size = limits.upstream_keepalive_pool_size
        self.max_requests: float = limits.upstream_keepalive_max_requests or inf
        self.idle_timeout = limits.upstream_keepalive_idle_timeout or inf

    def take(self) -> UpstreamConnection | None:
        """An idle connection, or None."""
        return self.idle.popitem()[0] if self.idle else None

    def connect(self, user: UpstreamUser, seconds: float) -> Attempt:
        """Make a connection for ``user``; it and its TLS handshake may take ``seconds`` each.

        Raises:
            OpenSSL.SSL.Error: our certificate or key for it is unusable.
        """
        factory = _Connecting(self, user, seconds)
        wrapped: Any = factory
        if self.tls is not None:
            if self._creator is None:
                self._creator = ClientConnections(self.tls)
            wrapped = TLSClientFactory(self._creator, True, factory, self.context.reactor)
        return Attempt(self.context.reactor.connectTCP(self.address, self.port, wrapped, seconds), factory)

    def lost(self, connection: UpstreamConnection) -> None:
        """Forget a connection: it is closed, or somebody else's."""
        self.idle.pop(connection, None)
        self.all.pop(connection, None)


class UpstreamPools:
    """All pools of one gateway."""

    def __init__(self, context: UpstreamContext) -> None:
        self._context = context
        self._pools: dict[tuple[str, int, TLSFacts | None], Pool] = {}
        self._no_http2: dict[tuple[str, int], float] = {}
        self._http2: dict[tuple[str, int, TLSFacts | None], HTTP2Pool] = {}

    def get(self, address: str, port: int, tls: TLSFacts | None) -> Pool:
        """The pool for an address (not a name), a port and how TLS is spoken to it."""
        key = (address, port, tls)
        pool = self._pools.get(key)
        if pool is None:
            if len(self._pools) >= 1024:
                self._pools = {key: each for key, each in self._pools.items() if each.all}
            pool = self._pools[key] = Pool(self._context, address, port, tls)
        return pool

    def http2(self, address: str, port: int, tls: TLSFacts | None) -> HTTP2Pool:
        """As `get`, for HTTP/2."""
        key = (address, port, tls)
        pool = self._http2.get(key)
        if pool is None:
            if len(self._http2) >= 1024:
                self._http2 = {key: each for key, each in self._http2.items() if each.used}
            pool = self._http2[key] = HTTP2Pool(self._context, address, port, tls)
        return pool

    def note_no_http2(self, address: str, port: int) -> None:
        """Remember for a minute that an upstream was asked for HTTP/2 in vain."""
        if len(self._no_http2) >= 1024:
            self._no_http2.clear()
        monotonic = self._context.monotonic
        self._no_http2[address, port] = monotonic() + _REMEMBERED

    def speaks_http2(self, address: str, port: int) -> bool:
        """Whether it is worth asking for it."""
        until = self._no_http2.get((address, port))
        if until is None:
            return True
        monotonic = self._context.monotonic
        return until < monotonic()

    def close_idle(self) -> None:
        """Close connections that nobody uses."""
        for pool in self._pools.values():
            for connection in list(pool.idle):
                connection.close()
        for each in self._http2.values():
            each.close_idle()

    def close(self) -> None:
        """Cut every connection."""
        for pool in self._pools.values():
            for connection in list(pool.all):
                connection.abort()
        self._pools.clear()
        for each in self._http2.values():
            each.close()
        self._http2.clear()
