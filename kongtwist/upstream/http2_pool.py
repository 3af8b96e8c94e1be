"""Connections over HTTP/2 to one upstream address: few of them, each with many streams.

A request takes a stream on the first connection that has room. Where none has, it waits: for the connection being made, for the
settings of one that was just made (until they come 100 streams are assumed, RFC 9113 6.5.2 has no better guess), for another connection
once those that are there are full, and when there are as many as may be, for a stream to end.
"""

from __future__ import annotations

from math import ceil, inf
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from ..net.tls_transport import TLSClientFactory
from .client_tls import ClientConnections, TLSFacts
from .http2_upstream import HTTP2Upstream

if TYPE_CHECKING:
    from .connection import UpstreamContext, UpstreamUser
    from .upstream_stream import UpstreamStream

__all__ = ["Asking", "HTTP2Pool", "QueueFull"]


ASSUMED_STREAMS = 100
"""Streams that an upstream takes at a time, until it says so for the first time."""


class QueueFull(Exception):
    """Too many requests wait for a stream."""


class Asking:
    """A request that waits for a stream.

    Attributes:
        pool: where it waits.
        user: whose request it is; None: nobody's any more.
    """

    __slots__ = ("deadline", "pool", "user", "wake")

    def __init__(self, pool: HTTP2Pool, user: UpstreamUser) -> None:
        self.pool = pool
        self.user: UpstreamUser | None = user
        self.deadline = self.wake = inf

    def cancel(self) -> None:
        """The user has no use for it any more, and hears nothing of it."""
        self.user = None
        self.pool.forget(self)

    def fail(self, reason: Failure) -> None:
        """There will be no stream."""
        user, self.user = self.user, None
        self.pool.forget(self)
        if user is not None:
            user.connect_failed(reason)

    def expire(self, now: float) -> None:
        """It has waited for too long."""
        self.fail(Failure(TimeoutError("no stream in time")))


class _Dialling(ClientFactory):
    """Makes one connection."""

    noisy = False

    def __init__(self, pool: HTTP2Pool, seconds: float) -> None:
        self.pool = pool
        self._seconds = seconds
        self.connector: Any = None
        self.connection: HTTP2Upstream | None = None

    def buildProtocol(self, addr: Any) -> HTTP2Upstream:
        connection = self.connection = HTTP2Upstream(self.pool, self._seconds)
        self.pool.all[connection] = None
        return connection

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.pool.dial_failed(self, reason)


class HTTP2Pool:
    """Connections to one address with the same TLS facts, and who waits for them.

    Attributes:
        all: every open connection, those still in their handshake too.
        assumed: streams that a new connection takes until it has said so.
        waiting: requests that wait for a stream, the longest first.
        max_requests, idle_timeout: of one connection (`Limits`).
    """

    __slots__ = (
        "_creator", "_dialling", "_most", "_usable", "_waiting_most", "address", "all", "assumed", "context", "idle_timeout",
        "max_requests", "port", "size", "tls", "waiting",
    )  # fmt: skip

    def __init__(self, context: UpstreamContext, address: str, port: int, tls: TLSFacts | None) -> None:
        self.context = context
        self.address = address
        self.port = port
        self.tls = tls
        self.all: dict[HTTP2Upstream, None] = {}
        self._usable: list[HTTP2Upstream] = []
        self._dialling: dict[_Dialling, None] = {}
        self.waiting: dict[Asking, None] = {}
        self.assumed: float = ASSUMED_STREAMS
        self._creator: ClientConnections | None = None
        limits = context.limits
        self.size = limits.upstream_keepalive_pool_size
        self.max_requests: float = limits.upstream_keepalive_max_requests or inf
        self.idle_timeout = limits.upstream_keepalive_idle_timeout or inf
        self._most = limits.upstream_http2_connections
        self._waiting_most = limits.upstream_http2_queue

    # -- what requests ask for -------------------------------------------------------------------------------------

    def take(self) -> UpstreamStream | None:
        """A stream, or None where no connection has room for one now, or somebody waits already."""
        connection = self.with_room()
        return None if connection is None else connection.take()

    def with_room(self) -> HTTP2Upstream | None:
        """A connection that has room for a stream now; None where there is none, or somebody waits already."""
        if not self.waiting:
            for connection in self._usable:
                if connection.has_room():
                    return connection
        return None

    def connect(self, user: UpstreamUser, seconds: float) -> Asking:
        """Get ``user`` a stream: its ``connected`` or ``connect_failed`` is called, not before this has returned.

        Args:
            user: whose request it is.
            seconds: it may take in all, and a connection, and its TLS handshake.

        Raises:
            QueueFull: too many wait already.
            OpenSSL.SSL.Error: our certificate or key for it is unusable.
            BadServerName: the name cannot be asked for in TLS.
        """
        if len(self.waiting) >= self._waiting_most:
            raise QueueFull(f"{len(self.waiting)} requests wait for a stream already")
        if self.tls is not None and self._creator is None:
            self._creator = ClientConnections(self.tls)
        asking = Asking(self, user)
        self.waiting[asking] = None
        context = self.context
        context.deadlines.set(asking, context.monotonic() + seconds)
        self._dial(seconds)
        return asking

    def forget(self, asking: Asking) -> None:
        """It waits no more."""
        self.waiting.pop(asking, None)
        self.context.deadlines.drop(asking)

    # -- connections -------------------------------------------------------------------------------------------------

    def _dial(self, seconds: float) -> None:
        """Make the connections that those who wait need, as far as that can be told by now."""
        if not all(connection.settled for connection in self._usable):
            return  # what they take is known in a moment
        if self._usable and self.assumed < 1:
            return  # another connection would take nothing either
        streams = self.assumed if self._usable else inf
        wanted = max(1, ceil(len(self.waiting) / streams))
        most = self._most - len(self.all) + sum(each.connection is not None for each in self._dialling)
        for _ in range(min(wanted, most) - len(self._dialling)):
            dialling = _Dialling(self, seconds)
            self._dialling[dialling] = None
            wrapped: Any = dialling
            if self._creator is not None:
                wrapped = TLSClientFactory(self._creator, True, dialling, self.context.reactor)
            dialling.connector = self.context.reactor.connectTCP(self.address, self.port, wrapped, seconds)

    def dial_failed(self, dialling: _Dialling, reason: Failure) -> None:
        """There is no connection. Where there is no other either, who waits is told."""
        self._dialling.pop(dialling, None)
        if self._usable or self._dialling:
            return
        for asking in list(self.waiting):
            asking.fail(reason)

    def ready(self, connection: HTTP2Upstream) -> None:
        """It takes streams."""
        self._done_dialling(connection)
        self._usable.append(connection)
        self.serve()

    def not_ready(self, connection: HTTP2Upstream, reason: Failure) -> None:
        """It never came to that."""
        self.all.pop(connection, None)
        for dialling in [each for each in self._dialling if each.connection is connection]:
            self.dial_failed(dialling, reason)

    def _done_dialling(self, connection: HTTP2Upstream) -> None:
        for dialling in [each for each in self._dialling if each.connection is connection]:
            del self._dialling[dialling]

    def retire(self, connection: HTTP2Upstream) -> None:
        """It takes no further streams; those it has go on."""
        if connection in self._usable:
            self._usable.remove(connection)
            self.serve()

    def serve(self) -> None:
        """There may be room for who waits: a stream has ended, or the upstream has said how many it takes."""
        waiting = self.waiting
        while waiting:
            connection = next((each for each in self._usable if each.has_room()), None)
            if connection is None:
                break
            asking = next(iter(waiting))
            user, asking.user = asking.user, None
            self.forget(asking)
            if user is not None:
                stream = connection.take()
                try:
                    user.connected(stream)  # type: ignore[arg-type]
                except Exception:  # noqa: BLE001 - a fault of ours: its client gets an answer, and the others go on
                    user.fault(Failure(), answering=False)
        if waiting:
            self._dial(max(next(iter(waiting)).deadline - self.context.monotonic(), 0.1))

    def lost(self, connection: HTTP2Upstream) -> None:
        """It is closed."""
        self.all.pop(connection, None)
        self.retire(connection)
        if self.waiting:
            self.serve()

    @property
    def used(self) -> bool:
        """Whether it has connections, or is about to."""
        return bool(self.all or self._dialling)

    @property
    def idle(self) -> int:
        """Connections without a stream."""
        return sum(not each.streams for each in self._usable)

    def close_idle(self) -> None:
        """Close connections without a stream."""
        for connection in [each for each in self._usable if not each.streams]:
            connection.leave()

    def close(self) -> None:
        """Cut every connection; who waits is told."""
        dialling, self._dialling = self._dialling, {}
        for each in dialling:
            if each.connection is None:
                each.connector.disconnect()
        for connection in list(self.all):
            connection.abort()
        for asking in list(self.waiting):
            asking.fail(Failure(ConnectionAbortedError("the gateway stops")))
