"""The request body of an exchange whose connection hands it in piece by piece: kept until somebody takes it, in bounds."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from ..core.error_lines import request_line, too_large_line
from ..core.exchange import Answer, BodySink, BodyTooLarge, Exchange
from .run_steps import run_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.limits import Limits

__all__ = ["BodyContext", "BodyExchange", "leave"]

_log = Logger(namespace="kongtwist.proxy")


class BodyContext(Protocol):
    """See the attributes and methods of the same name of `proxy.context.ProxyContext`."""

    @property
    def limits(self) -> Limits: ...

    @property
    def finished(self) -> Callable[[Exchange], None]: ...

    @property
    def send_answer(self) -> Callable[..., None]: ...


def leave(exchange: Exchange, why: str) -> list[Callable[[], object]]:
    """Note that the client of an open request went away.

    Returns:
        steps (see `run_steps`) by which whoever was about to answer is told ``why``.
    """
    if not exchange.begun:
        exchange.status = 499
    sink, exchange.answer_sink = exchange.answer_sink, None
    exchange.body_sink = None
    return [] if sink is None else [partial(sink.client_gone, why)]


class BodyExchange(Exchange):
    """See `Exchange`. A subclass sets all attributes at once (an exchange is made for every request), says how its connection is
    told to wait, and hands in the body.

    Attributes:
        body_complete: the whole request is here.
        open: the client still waits for (the rest of) the answer.
    """

    __slots__ = ("_pending", "_pending_size", "_reader", "_reader_limit", "_trailers", "body_complete", "open")

    body_complete: bool
    _pending: list[bytes] | None  #: what came and nobody has taken; None: it is taken, or there is no body
    _pending_size: int  #: bytes of it
    _reader: Deferred[bytes] | None  #: fires with the whole body
    _reader_limit: int  #: bytes that it may have
    _trailers: list[tuple[bytes, bytes]]

    # -- what a subclass does ------------------------------------------------------------------------------------------

    def _context(self) -> BodyContext:
        raise NotImplementedError

    def _hold_body(self) -> None:
        """Nobody takes the body yet, and enough of it is here: read no more."""
        raise NotImplementedError

    def _release_body(self) -> None:
        """Somebody takes it now: read on."""
        raise NotImplementedError

    # -- the connection's calls ----------------------------------------------------------------------------------------

    def body_received(self, data: bytes) -> None:
        """A piece of the body came."""
        size = len(data)
        self.bytes_in += size
        sink = self.body_sink
        if sink is not None:
            sink.body_chunk(data)
        elif self._pending is not None:
            self._pending.append(data)
            self._pending_size += size
            if self._reader is not None:
                if self._pending_size > self._reader_limit:
                    reader, self._reader = self._reader, None
                    reader.errback(BodyTooLarge())
            elif self._pending_size > self._context().limits.client_body_buffer_size:
                self._hold_body()

    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The body is complete."""
        self.body_complete = True
        if self.body_sink is not None:
            self.body_sink.body_end(trailers)
            return
        self._trailers = trailers
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.callback(b"".join(self._pending or ()))

    # -- its ends ------------------------------------------------------------------------------------------------------

    def too_large(self) -> None:
        """The body is larger than allowed."""
        _log.error("{line}", line=too_large_line(self, self._context().limits.client_max_body_size))
        self.refuse(Answer.error(413, "Payload too large"), "body too large")

    def malformed(self, why: str) -> None:
        """The body's framing is broken."""
        _log.info("{line}", line=request_line(self, f"client sent a malformed request body: {why}"))
        self.refuse(Answer.error(400, "Bad request"), "malformed body")

    def refuse(self, answer: Answer, why: str) -> None:
        """Answer in place of whoever was about to, who is told ``why``; cut where that is too late."""
        if self.begun:
            self.abort()
            return
        sink, self.answer_sink = self.answer_sink, None
        if sink is not None:
            sink.client_gone(why)
        self._context().send_answer(self, answer, upstream=True)

    def gone(self, why: str) -> None:
        """The client went away in the middle: the one place where an open request gives back what it has then."""
        if not self.open:
            return
        self.open = False
        steps = leave(self, why)
        reader, self._reader = self._reader, None
        self._pending = None
        if reader is not None:
            steps.append(reader.cancel)
        run_steps(*steps, partial(self._context().finished, self))

    # -- who takes it --------------------------------------------------------------------------------------------------

    def receive_body(self, sink: BodySink) -> None:
        pending, self._pending = self._pending, None
        if pending is None or not self.open:
            return
        self.body_sink = sink
        for piece in pending:
            sink.body_chunk(piece)
        if self.body_complete:
            sink.body_end(self._trailers)
        else:
            self._release_body()

    def read_body(self, limit: int) -> Deferred[bytes]:
        if not self.block.has_body:
            return succeed(b"")
        if not self.body_complete and (self.block.content_length or 0) > limit:
            return fail(BodyTooLarge())
        return self._read_whole(limit)

    def _read_whole(self, limit: int) -> Deferred[bytes]:
        """`read_body`, whatever the head announced."""
        if self.body_complete:
            body = b"".join(self._pending or ())
            return succeed(body) if len(body) <= limit else fail(BodyTooLarge())
        if self._pending_size > limit:
            return fail(BodyTooLarge())
        self._reader = Deferred()
        self._reader_limit = limit
        self.continue_request()
        self._release_body()
        return self._reader
