"""One connection to an upstream that speaks HTTP/2: its streams are its pool's to give out.

Nothing is sent to keep it alive, unless that is configured (``upstream_http2_ping_interval``): servers of gRPC end connections of clients
that ping (``too_many_pings``), TCP's keep-alive does it.
"""

from __future__ import annotations

from functools import lru_cache, partial
from math import inf
from typing import TYPE_CHECKING, Any

from service_identity import CertificateError, VerificationError
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..core.http2.frames import error_name
from ..core.http2.hpack import Decoder, Encoder, encode_field
from ..net.http2_connection import HTTP2Connection
from ..net.http2_pings import ConnectionPings
from ..net.run_steps import run_steps
from .client_tls import check_name
from .upstream_errors import NoHTTP2, end_text
from .upstream_stream import UpstreamStream

if TYPE_CHECKING:
    from .http2_parts import StreamsPool

__all__ = ["HTTP2Upstream", "HeadTooLarge", "encoded_head"]

_log = Logger(namespace="kongtwist.proxy")

_DENSE = 12
"""A byte of an encoded block is at most so many bytes of the list (RFC 9113 6.5.2 counts 32 for each field), ours being literals."""

_LAST_ID = 2**31 - 1
"""The highest id of a stream (RFC 9113 5.1.1)."""


@lru_cache(maxsize=1024)
def _start(method: bytes, scheme: bytes, authority: bytes, target: bytes, never: frozenset[bytes]) -> bytes:
    """The pseudo-header fields of a request, encoded (RFC 9113 8.3.1)."""
    pairs = ((b":method", method), (b":scheme", scheme), (b":path", target), (b":authority", authority))
    return b"".join([encode_field(name, value, name in never) for name, value in pairs])


def encoded_head(
    method: bytes, scheme: bytes, authority: bytes, target: bytes, lines: bytes, never: frozenset[bytes] = frozenset()
) -> bytes:
    """A request's head, encoded for any connection (`HTTP2Upstream.checked` makes it that of one).

    Args:
        method, scheme, authority, target: its pseudo-header fields (RFC 9113 8.3.1).
        lines: its other fields, ``Name: value`` with CRLF each.
        never: names, in lower case, of fields that the client sent as never indexed.
    """
    return Encoder().block(_start(method, scheme, authority, target, never), lines.split(b"\r\n")[:-1], never)


class HeadTooLarge(ValueError):
    """A request's head is larger than the upstream takes."""


@implementer(IHandshakeListener)
class HTTP2Upstream(HTTP2Connection):
    """See the module.

    Args:
        pool: whose it is.
        seconds: its TLS handshake may take.

    Attributes:
        settled: the upstream has said how many streams it takes.
    """

    client = True
    credit_at_once = True  # what is held is bounded stream by stream: one that is slow does not stop the others
    wake = inf
    deadline = inf
    _pings: ConnectionPings | None = None

    def __init__(self, pool: StreamsPool, seconds: float) -> None:
        context = pool.context
        super().__init__(context.reactor, context.limits, context.monotonic)
        self.pool = pool
        self.list_size = context.limits.proxy_buffer_size
        self.field_lines = context.field_lines
        self.settled = False
        self.peer_streams = inf  # no limit, where the upstream says nothing of one
        self._seconds = seconds
        self._ready = False
        self._requests = 0

    # -- the transport's calls -----------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        transport: Any = self.transport
        try:
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        except AttributeError:  # a unix socket has no Nagle
            pass
        if self.pool.tls is None:
            self._usable()
        else:
            self._expect(self._seconds)

    def handshakeCompleted(self) -> None:
        transport: Any = self.transport
        assert self.pool.tls is not None
        try:
            check_name(transport.getHandle(), self.pool.tls)
            chosen = transport.negotiatedProtocol
            if chosen != b"h2" and (chosen is not None or self.pool.tls.alpn != b"h2"):  # None: it knows no ALPN
                raise NoHTTP2("the upstream does not choose HTTP/2 in TLS")
        except (CertificateError, VerificationError, ValueError):  # ValueError: it is not a name
            self._give_up(Failure())
        else:
            self._usable()

    def _usable(self) -> None:
        self._ready = True
        HTTP2Connection.connectionMade(self)
        self._expect(self.pool.idle_timeout)
        context = self.pool.context
        if seconds := context.limits.upstream_http2_ping_interval:
            self._pings = ConnectionPings(context.deadlines, self, seconds, self._vanished)
        self.pool.ready(self)

    def _vanished(self, seconds: float) -> None:
        self.vanish(f"the upstream has not answered a PING within {seconds:g} s")

    def _give_up(self, reason: Failure) -> None:
        """It never becomes usable."""
        self._ready = True  # told
        self.abort()
        self.pool.not_ready(self, reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._ready:
            self.failed = True
            run_steps(partial(self.pool.context.deadlines.drop, self), partial(self.pool.not_ready, self, reason))
            return
        HTTP2Connection.connectionLost(self, Failure(ConnectionError(end_text(reason))))

    def connection_lost(self, why: str) -> None:
        """See `HTTP2Connection`."""
        pings = () if self._pings is None else (self._pings.stop,)
        run_steps(*pings, partial(self.pool.context.deadlines.drop, self), partial(self.pool.lost, self))

    # -- time ----------------------------------------------------------------------------------------------------------

    def _expect(self, seconds: float) -> None:
        context = self.pool.context
        self.deadline = when = context.monotonic() + seconds
        if when < self.wake:
            context.deadlines.set(self, when)

    def expire(self, now: float) -> None:
        """The handshake, the time without streams, or that of closing is over."""
        if not self._ready:
            self._give_up(Failure(TimeoutError("TLS handshake")))
        elif not self.streams and not self.failed:
            self.leave()

    def leave(self) -> None:
        """Take no further streams, and close behind the last one."""
        self.pool.retire(self)
        self.shut_down()

    # -- streams -------------------------------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Whether there is room for a stream now. Until the upstream has said how many it takes, it is what it took on the connection
        before."""
        most = self.peer_streams if self.settled else self.pool.assumed
        return len(self.streams) < most and not (self.draining or self.failed)

    def take(self) -> UpstreamStream:
        """A stream for a request that is sent at once."""
        return UpstreamStream(self)

    def opened(self) -> None:
        """A request was sent on a stream of its own. A connection has so many of them, and so many ids."""
        self._requests += 1
        if self._requests >= self.pool.max_requests or self.next_id > _LAST_ID:
            self.leave()

    def surely_takes(self, size: int) -> bool:
        """Whether a request's head of ``size`` bytes, encoded, cannot be too large for it."""
        return self.peer_list_size is None or size <= self.peer_list_size // _DENSE

    def checked(self, block: bytes) -> bytes:
        """A request's head as it is sent here.

        Raises:
            HeadTooLarge: the upstream has said that it takes none of that size (RFC 9113 6.5.2).
        """
        if not self.surely_takes(len(block)):
            size = sum([field.size for field in Decoder().decode(block)])
            if self.peer_list_size is not None and size > self.peer_list_size:
                raise HeadTooLarge(f"the upstream takes {self.peer_list_size} bytes of header list, not {size}")
        return self.encoder.whole(block)

    def streams_changed(self) -> None:
        """See `HTTP2Connection`."""
        pool = self.pool
        if pool.waiting:
            pool.serve()
        if not self.streams and not self.failed and not self.draining:
            if pool.context.stopping or pool.idle > pool.size:
                self.leave()
            else:
                self._expect(pool.idle_timeout)

    def settings_received(self) -> None:
        """See `HTTP2Connection`."""
        self.settled = True
        self.pool.assumed = self.peer_streams
        self.pool.serve()

    def goaway_received(self, last: int, code: int, why: bytes) -> None:
        """See `HTTP2Connection`."""
        if code:
            _log.warn(
                "the upstream {address}:{port} ends an HTTP/2 connection: {code} {why}; see its own log",
                address=self.pool.address, port=self.pool.port, code=error_name(code), why=why[:200].decode("latin-1"),
            )  # fmt: skip
        self.pool.retire(self)

    def failing(self, code: int, why: str) -> None:
        """See `HTTP2Connection`."""
        _log.error(
            "the upstream {address}:{port} broke HTTP/2: {code}, {why}; correct it, or what stands before it",
            address=self.pool.address, port=self.pool.port, code=error_name(code), why=why,
        )  # fmt: skip
        self.pool.retire(self)
