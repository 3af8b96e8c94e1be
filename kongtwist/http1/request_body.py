"""The part of a client's connection that reads request bodies: framing, limits, and what is thrown away."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from twisted.internet.protocol import Protocol
from twisted.logger import Logger

from ..core.error_lines import error_line
from ..core.http.chunks import ChunkScanner, FramingError
from ..core.http.head import HeaderBlock

if TYPE_CHECKING:
    from .http1_context import HTTP1Context
    from .http1_exchange import HTTP1Exchange

__all__ = ["BODY", "CLOSED", "HEAD", "LINGER", "TAKEN", "WAIT", "RequestBodies"]

_log = Logger(namespace="kongtwist.proxy")

HEAD, BODY, WAIT, LINGER, TAKEN, CLOSED = range(6)
"""What is read: a head (or nothing, when idle), a body, the next requests while an answer is pending, what comes after
an answer that ended the connection; a transport that is somebody else's; nothing."""


class RequestBodies(Protocol):
    """Reads bodies for `HTTP1Channel`, which says how heads are read and how a connection ends.

    Attributes:
        exchange: the request being served, or None.
        deadline, wake: see `deadlines.Expiring`.
    """

    context: HTTP1Context
    peer_ip: str
    exchange: HTTP1Exchange | None = None
    deadline = inf
    wake = inf
    _state = HEAD
    _partial = b""
    _left = 0
    _scanner: ChunkScanner | None = None
    _discarded = 0
    _stopped = 0  #: reasons to read no more, as bits
    _linger_until = inf

    def _requests(self, data: bytes) -> None:
        """Serve requests from ``data``."""
        raise NotImplementedError

    def _idle(self) -> None:
        """Wait for the next request."""
        raise NotImplementedError

    def _close(self, linger: bool) -> None:
        """No more requests."""
        raise NotImplementedError

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        raise NotImplementedError

    def _within(self, seconds: float) -> None:
        """Let the connection expire after ``seconds``."""
        self.deadline = when = self.context.monotonic() + seconds
        if when < self.wake:
            self.context.deadlines.set(self, when)

    def _expect_body(self, exchange: HTTP1Exchange, block: HeaderBlock, rest: bytes) -> None:
        limits = self.context.limits
        exchange.expect_body()
        self._state = BODY
        if block.chunked:
            self._scanner = ChunkScanner(limits.trailer_size)
        else:
            self._left = length = block.content_length or 0
            if limits.client_max_body_size and length > limits.client_max_body_size:
                exchange.too_large()
                return
        self._within(limits.client_body_timeout)
        if rest:
            self._body(rest)

    def _body(self, data: bytes) -> None:
        """Go on with a request body."""
        scanner = self._scanner
        try:
            if scanner is None:
                left = self._left - len(data)
                if left > 0:
                    self._left = left
                    self._body_piece(data)
                    return
                rest = data[left:] if left else b""
                self._end_body(data[:left] if left else data, rest, [])
                return
            pieces: list[bytes] = []
            try:
                scanner.feed(data, pieces)
            finally:
                piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if scanner.done:
                self._end_body(piece, scanner.rest, scanner.trailers)
            elif piece:
                self._body_piece(piece)
            elif self.exchange is not None:
                self._await_more()
        except FramingError as error:
            self._bad_body(error)

    def _bad_body(self, error: FramingError) -> None:
        exchange = self.exchange
        if exchange is None:
            _log.info("{line}", line=error_line(f"client sent a malformed request body: {error}", client=self.peer_ip))
            self._close(linger=True)
            return
        self._linger_until = 0.0  # its end will not be found: the connection ends behind the answer
        exchange.malformed(str(error))

    def _body_piece(self, data: bytes) -> None:
        exchange = self.exchange
        limits = self.context.limits
        if exchange is None:
            self._discard(len(data))
            return
        self._await_more()
        exchange.body_received(data)
        if limits.client_max_body_size and exchange.bytes_in > limits.client_max_body_size and exchange.open:
            exchange.too_large()

    def _await_more(self) -> None:
        """The client has time for its next piece. Not while nothing is read from it: TLS hands out what it has decrypted
        after it was told to stop, and then nothing more can come."""
        if not self._stopped:
            self._within(self.context.limits.client_body_timeout)

    def _end_body(self, data: bytes, rest: bytes, trailers: list[tuple[bytes, bytes]]) -> None:
        exchange = self.exchange
        self._scanner = None
        if exchange is None:  # all of a body whose request was answered early is discarded by now
            self._idle()
            if rest:
                self._requests(rest)
            return
        self._state = WAIT
        self.deadline = inf
        self._partial = rest
        if data:
            limit = self.context.limits.client_max_body_size
            if limit and exchange.bytes_in + len(data) > limit:
                exchange.body_complete = True
                exchange.too_large()
                return
            exchange.body_received(data)
        if exchange.open:
            exchange.body_ended(trailers)

    def _discard(self, size: int) -> None:
        """Throw away a piece of a body whose request was answered early."""
        self._discarded += size
        limits = self.context.limits
        now = self.context.monotonic()
        if self._discarded > limits.drain_size or now > self._linger_until:
            self._close(linger=True)
        else:
            self._within(limits.lingering_timeout)
