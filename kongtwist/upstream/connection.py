"""Connections to upstreams: pooled, kept alive, one request at a time.

A connection has a user while a request is on it (`UpstreamUser`, in practice an `UpstreamExchange`). It parses the
response head, frames the body itself and tells its user what came. A connection goes back to its pool only after a
response whose end was seen, on a request that was sent whole, when both sides agree to keep it. Anything that arrives
while nobody uses it makes it untrustworthy and closes it.

For protocols that follow a ``101 Switching Protocols``: the user's `upgraded` is called with the connection, and
`UpstreamConnection.detach` hands over ``(transport, early_bytes)``; from then on this module has no part in it. The
client's side of the same is `HTTP1Exchange.take_transport`; `net.sending.switch_protocol` puts another protocol
on such a transport.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

from service_identity import CertificateError, VerificationError
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ..core.http.chunks import ChunkScanner, FramingError
from ..core.http.head import HeaderBlock, HeadError, parse_status_line
from ..core.http.lenient_heads import check_beginning, find_end, mended_lines
from ..core.http.lenient_heads import parse_status_line as parse_odd_status_line
from ..net.run_steps import run_steps
from ..net.sending import is_ending, is_plain, senders, unsent
from .client_tls import check_name
from .upstream_errors import ENDED, LARGE, MALFORMED, end_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.http.field_lines import FieldLines
    from ..core.http.head import BlockCache
    from ..core.limits import Limits
    from ..net.deadlines import Deadlines
    from .client_tls import TLSFacts

__all__ = ["ConnectionPool", "ResponseHead", "UpstreamConnection", "UpstreamContext", "UpstreamUser"]

HEAD, LENGTH, CHUNKED, UNTIL_CLOSE, DETACHED, CLOSED = range(6)


class _HeadTooLarge(HeadError):
    """The head of an answer is larger than `Limits.proxy_buffer_size`."""


class ResponseHead:
    """A parsed response head. Shared between responses with equal bytes: do not change.

    Attributes:
        dated: it has a Date.
        keep: the upstream lets the connection stay open.
        length: bytes of body announced, where the status allows a body; None when unknown.
        bodyless: no body follows whatever the head says (RFC 9112 6.3).
    """

    __slots__ = ("block", "bodyless", "dated", "keep", "length", "minor", "reason", "status")

    def __init__(self, minor: int, status: int, reason: bytes, block: HeaderBlock) -> None:
        self.keep = block.keeps_alive(minor)
        self.bodyless = status in (204, 304)
        self.length = block.content_length if status != 204 else None
        self.dated = b"date" in block
        self.minor = minor
        self.status = status
        self.reason = reason
        self.block = block


class UpstreamUser(Interface):
    """Who uses a connection for one request."""

    method: bytes  #: of the request; HEAD has no body in its answer
    read_timeout: float  #: seconds between two pieces of the answer

    def connected(self, connection: UpstreamConnection) -> None:
        """The connection is there; send the request."""

    def connect_failed(self, reason: Failure) -> None:
        """There will be no connection (refused, timed out, TLS failed). Raises nothing."""

    def interim(self, head: ResponseHead) -> None:
        """An informational head that is no 100."""

    def upgraded(self, connection: UpstreamConnection, head: ResponseHead) -> bool:
        """101 came. True: it was asked for, and the connection is detached by now."""

    def takes_raw_chunks(self) -> bool:
        """Whether the chunked body about to come is wanted with its framing. Asked before `answered`."""

    def answered(self, head: ResponseHead, length: int | None, first: bytes, last: bool, raw: bool = False) -> None:
        """The final head, and what came of the body with it; ``length`` None when unknown or none. With ``last`` the
        answer is complete and the connection is back in its pool. ``raw``: the body comes with the framing of its chunks."""

    def answer_chunk(self, data: bytes) -> None:
        """A piece of the body (framed, if `answered` said so)."""

    def answer_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The body is complete; the connection is back in its pool."""

    def broken(self, why: str, *, fault: str = ENDED, timeout: bool = False, unread: bool = False) -> None:
        """The connection was lost, or what came is no HTTP, before the answer's end. ``fault``: which of these
        (`upstream_errors`). ``unread``: not one byte came. Raises nothing."""

    def fault(self, failure: Failure | None = None, answering: bool = True) -> None:
        """Our own code failed, with ``failure`` if that is to be logged; ``answering``: while it handled what came, and the
        connection is cut. The client must not wait on."""

    def request_blocked(self) -> None:
        """The upstream reads slower than it is sent to."""

    def request_unblocked(self) -> None:
        """It has read what was held back."""


class UpstreamContext(Interface):
    """What connections to upstreams need of the gateway around them (`proxy.context.ProxyContext` is one)."""

    @property
    def reactor(self) -> Any: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def blocks(self) -> BlockCache: ...

    @property
    def field_lines(self) -> FieldLines: ...

    @property
    def deadlines(self) -> Deadlines: ...

    @property
    def monotonic(self) -> Callable[[], float]: ...

    @property
    def stopping(self) -> bool: ...


class ConnectionPool(Interface):
    """What a connection needs of its pool (`pool.Pool`)."""

    address: str
    port: int
    size: int
    max_requests: float
    idle_timeout: float
    idle: dict[UpstreamConnection, None]
    tls: TLSFacts | None

    @property
    def context(self) -> UpstreamContext: ...

    def lost(self, connection: UpstreamConnection) -> None:
        """``connection`` is closed, or somebody else's."""


@implementer(IPushProducer, IHandshakeListener)
class UpstreamConnection(Protocol):
    """One connection to an upstream.

    Attributes:
        user: whose request is on it, or None.
        reused: it has served a request before.
        send: sends bytes at once.
    """

    wake = inf
    deadline = inf

    def __init__(self, pool: ConnectionPool, user: UpstreamUser | None) -> None:
        self.pool = pool
        self.user = user
        self.reused = False
        self.send: Any = None
        self._ready = False
        self._requests = 0
        self._mode = HEAD
        self._left = 0
        self._buffer = b""
        self._read_any = False
        self._interims = 0
        self._scanner: ChunkScanner | None = None
        self._keep = self._raw = self._paused = self._sent = False
        self._last_raw = b""
        self._last_head: ResponseHead | None = None

    # -- the transport's calls -----------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        transport: Any = self.transport
        try:
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        except AttributeError:  # a unix socket has no Nagle
            pass
        transport.bufferSize = self.pool.context.limits.high_water
        if self.pool.tls is None:
            self._usable()
        # else: handshakeCompleted

    def handshakeCompleted(self) -> None:
        transport: Any = self.transport
        assert self.pool.tls is not None
        try:
            check_name(transport.getHandle(), self.pool.tls)
        except (CertificateError, VerificationError, ValueError) as error:  # ValueError: it is not a name
            user, self.user = self.user, None
            self.abort()
            if user is not None:
                user.connect_failed(Failure(error))
        else:
            self._usable()

    def _connected(self) -> None:
        transport: Any = self.transport
        self._ready = True
        self.send, _ = senders(transport)
        transport.registerProducer(self, True)
        self.pool.context.deadlines.set(self, inf)

    def _usable(self) -> None:
        self._connected()
        if self.user is None:  # it went while we connected
            self._rest()
        else:
            try:
                self.user.connected(self)
            except Exception:  # noqa: BLE001 - as in dataReceived
                self.user.fault(answering=False)

    def dataReceived(self, data: bytes) -> None:
        user = self.user
        if user is None:
            if self._mode != DETACHED:
                self.abort()  # unsolicited: whoever came next would take it for the answer to its request
            return
        mode = self._mode
        try:
            if mode == HEAD:
                self._read_any = True
                self._head(self._buffer + data if self._buffer else data, user)
            elif mode == LENGTH:
                self._length(data, user)
            elif mode == CHUNKED:
                self._chunked(data, user)
            elif mode == UNTIL_CLOSE:
                user.answer_chunk(data)
        except (HeadError, FramingError) as error:
            self._fail(error)
        except Exception:  # noqa: BLE001 - a fault of ours must not leave the client waiting for ever
            failure = Failure()
            self.abort()
            user.fault(failure)
        else:
            if self.user is not None and not self._paused:
                self.expect(self.user.read_timeout)

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        user, self.user = self.user, None
        mode, self._mode = self._mode, CLOSED
        self.send = None
        self.transport = None
        run_steps(
            partial(self.pool.context.deadlines.drop, self),
            partial(self.pool.lost, self),
            partial(self._tell_lost, user, mode, reason),
        )

    def _tell_lost(self, user: UpstreamUser | None, mode: int, reason: Failure) -> None:
        """Tell whose request was on it."""
        if user is None:
            return
        if not self._ready:
            user.connect_failed(reason)
        elif mode == UNTIL_CLOSE and reason.check(ConnectionDone):
            try:
                user.answer_end([])
            except Exception:  # noqa: BLE001 - as in dataReceived
                user.fault(Failure())
        else:
            user.broken(end_text(reason), unread=not self._read_any)

    def pauseProducing(self) -> None:
        if self.user is not None:
            self.user.request_blocked()

    def resumeProducing(self) -> None:
        if self.user is not None:
            self.user.request_unblocked()

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` tells."""

    def expire(self, now: float) -> None:
        """The deadline has passed: an idle connection's time is over, or the upstream does not answer."""
        user = self.user
        if user is None:
            if self._mode == CLOSED:
                self.abort()  # told to close before: it takes nothing, or under TLS does not answer our close_notify
            else:
                self.close()
        elif not self._ready:
            self.user = None
            self.abort()
            user.connect_failed(Failure(TimeoutError("TLS handshake")))
        else:
            self.user = None
            self.abort()
            user.broken("no answer in time", timeout=True, unread=not self._read_any)

    # -- the user's calls ----------------------------------------------------------------------------------------------

    def begin(self, user: UpstreamUser, when: float, whole: bool = True) -> None:
        """A request is about to be sent for ``user``.

        Args:
            user: who is told what comes.
            when: monotonic seconds by which something must have come; ``inf`` if the request is not sent whole yet.
            whole: it is sent whole at once; else `sent_whole` is called when it has been.
        """
        self._sent = whole
        self.user = user
        self.reused = self._requests > 0
        self._requests += 1
        self._read_any = False
        self._interims = 0
        self.deadline = when
        if when < self.wake:
            self.pool.context.deadlines.set(self, when)

    def sent_whole(self, seconds: float) -> None:
        """The last of the request has been sent; the answer is expected within ``seconds``."""
        self._sent = True
        self.expect(seconds)

    def expect(self, seconds: float) -> None:
        """Let the connection expire after ``seconds`` without a byte from the upstream."""
        context = self.pool.context
        self.deadline = when = context.monotonic() + seconds
        if when < self.wake:
            context.deadlines.set(self, when)

    def pause(self) -> None:
        """Read no more for now."""
        self._paused = True
        self.transport.pauseProducing()  # type: ignore[union-attr]
        self.deadline = inf

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        self.transport.resumeProducing()  # type: ignore[union-attr]
        if self.user is not None:
            self.expect(self.user.read_timeout)

    @property
    def may_end_here(self) -> bool:
        """Whether who passes the body on may end it behind the last piece: that has no framing, or ended with a chunk."""
        return self._scanner is None or not self._raw or self._scanner.between_chunks

    def detach(self) -> tuple[Any, bytes]:
        """Give the transport away after a 101.

        Returns:
            the transport, and bytes that came behind the head. Its protocol is still this one; put another on it
            (`net.sending.switch_protocol`) before returning to the reactor.
        """
        transport: Any = self.transport
        early, self._buffer = self._buffer, b""
        self.user = None
        self._mode = DETACHED
        transport.unregisterProducer()
        self.pool.context.deadlines.drop(self)
        self.pool.lost(self)
        self.send = None
        return transport, early

    @property
    def movable(self) -> bool:
        """Whether another process can go on with the answer that is being read: plain TCP, and nothing is to be sent."""
        open_ended = self._sent and (self._mode == UNTIL_CLOSE or (self._mode == CHUNKED and self._scanner is not None))
        transport: Any = self.transport
        return open_ended and is_plain(transport) and not unsent(transport) and not is_ending(transport)

    def written(self) -> dict[str, Any]:
        """What another process has to know of the answer that is being read."""
        scanner = None if self._scanner is None else self._scanner.written()
        return {"raw": self._raw, "keep": self._keep, "requests": self._requests, "scanner": scanner}

    def abort(self) -> None:
        """Cut the connection; its user, if any, hears nothing more."""
        self.pool.idle.pop(self, None)  # now: the transport tells of its end only in the reactor's next turn
        self.user = None
        self._mode = CLOSED
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close a connection that nobody uses, in bounded time."""
        self._mode = CLOSED
        self.pool.idle.pop(self, None)
        transport: Any = self.transport
        if transport is not None:
            self.expect(self.pool.context.limits.lingering_timeout)
            transport.unregisterProducer()
            transport.loseConnection()

    def tls_ended(self) -> None:
        """The upstream has ended TLS (`tls_transport`): the connection closes, which `connectionLost` tells."""
        if self.user is None:
            self.close()
        elif self._ready:
            self.transport.unregisterProducer()  # type: ignore[union-attr]

    # -- reading -------------------------------------------------------------------------------------------------------

    def _fail(self, refused: ValueError) -> None:
        user, self.user = self.user, None
        self.abort()
        if user is not None:
            user.broken(str(refused), fault=LARGE if isinstance(refused, _HeadTooLarge) else MALFORMED)

    def _head(self, data: bytes, user: UpstreamUser) -> None:
        head = self._last_head
        last = self._last_raw
        if head is not None and data.startswith(last):
            rest = data[len(last) :]
        else:
            end = data.find(b"\r\n\r\n")
            size = end + 4
            try:
                if end < 0 or end > self.pool.context.limits.proxy_buffer_size:
                    raise HeadError(502, None, "no end")
                line, _, lines = data[: end + 2].partition(b"\r\n")
                head = ResponseHead(*parse_status_line(line), self.pool.context.blocks.response(lines))
            except HeadError:
                head, size = self._odd_head(data)
                if head is None:
                    self._buffer = data
                    return
            self._last_raw, self._last_head = data[:size], head
            rest = data[size:]
        self._buffer = b""
        if head.status < 200:
            self._informational(head, rest, user)
            return
        self._keep = self._sent and head.keep
        length = head.length
        if head.bodyless or user.method == b"HEAD":
            self._done(user, rest)
            user.answered(head, length, b"", True)
            return
        if length is not None:
            self._left = left = length - len(rest)
            if left <= 0:
                self._done(user, rest[length:])
                user.answered(head, length, rest[:length] if left else rest, True)
            else:
                self._mode = LENGTH
                user.answered(head, length, rest, False)
        elif head.block.chunked:
            self._begin_chunks(head, rest, user)
        else:
            self._mode = UNTIL_CLOSE
            user.answered(head, None, rest, False)

    def _odd_head(self, data: bytes) -> tuple[ResponseHead | None, int]:
        """A head that is not complete yet, or not as it should be: core/http/lenient_heads.py.

        Returns:
            the head, and how many bytes of ``data`` it is; None while it is not complete.

        Raises:
            HeadError: it is malformed.
        """
        context = self.pool.context
        limit = context.limits.proxy_buffer_size
        empty = find_end(data)
        if (len(data) if empty is None else empty.start()) > limit:
            raise _HeadTooLarge(502, None, f"the head is larger than {limit} bytes")
        if empty is None:
            check_beginning(data, len(self._buffer))
            return None, 0
        line, _, lines = data[: empty.start()].partition(b"\n")
        return ResponseHead(*parse_odd_status_line(line), context.blocks.response(mended_lines(lines))), empty.end()

    def _informational(self, head: ResponseHead, rest: bytes, user: UpstreamUser) -> None:
        if head.status == 101:
            self._buffer = rest
            if not user.upgraded(self, head):
                raise HeadError(502, None, "unasked 101 from the upstream")
            return
        self._interims += 1
        if self._interims > self.pool.context.limits.max_interim:
            raise HeadError(502, None, "too many informational heads from the upstream")
        if head.status != 100:
            user.interim(head)
        if rest:
            self._head(rest, user)

    def _begin_chunks(self, head: ResponseHead, rest: bytes, user: UpstreamUser) -> None:
        if head.minor == 0:  # RFC 9112 6.1: its framing is not to be trusted any further than this
            self._keep = False
        scanner = ChunkScanner(self.pool.context.limits.trailer_size, upstream=True)
        self._raw = raw = user.takes_raw_chunks()
        first = _scan(scanner, rest, raw) if rest else b""
        if scanner.done and not scanner.trailers:
            self._done(user, scanner.rest)
            user.answered(head, None, first, True, raw)
            return
        self._scanner = scanner
        self._mode = CHUNKED
        user.answered(head, None, first, False, raw)
        if scanner.done and self.user is user:
            self._done(user, scanner.rest)
            user.answer_end(scanner.trailers)

    def _length(self, data: bytes, user: UpstreamUser) -> None:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            user.answer_chunk(data)
            return
        if left:
            data, extra = data[:left], data[left:]
            self._done(user, extra)
        else:
            self._done(user, b"")
        user.answer_chunk(data)
        user.answer_end([])

    def _chunked(self, data: bytes, user: UpstreamUser) -> None:
        scanner = self._scanner
        assert scanner is not None
        piece = _scan(scanner, data, self._raw)
        if not scanner.done:
            if piece:
                user.answer_chunk(piece)
            return
        self._done(user, scanner.rest)
        if piece:
            user.answer_chunk(piece)
        user.answer_end(scanner.trailers)

    def _done(self, user: UpstreamUser, extra: bytes) -> None:
        """The response is complete: back to the pool, or closed. ``extra``: bytes nobody asked for."""
        self.user = None
        self._mode = HEAD
        self._scanner = None
        if extra:
            self.abort()
        elif not self._keep:
            self.close()
        else:
            if self._paused:
                self.resume()
            self._rest()

    def _rest(self) -> None:
        """Nobody's for now."""
        pool = self.pool
        context = pool.context
        idle = pool.idle
        if self._requests >= pool.max_requests or len(idle) >= pool.size or context.stopping:
            self.close()
            return
        idle[self] = None
        monotonic = context.monotonic
        self.deadline = when = monotonic() + pool.idle_timeout
        if when < self.wake:
            context.deadlines.set(self, when)


def _scan(scanner: ChunkScanner, data: bytes, raw: bool) -> bytes:
    """What may be passed on of ``data``: with its framing, or the payload."""
    if raw:
        return scanner.feed(data, None)
    pieces: list[bytes] = []
    scanner.feed(data, pieces)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
