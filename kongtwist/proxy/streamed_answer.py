"""Answers that plugins make while they are sent (`StreamedAnswer`).

The next chunk is asked for when the client has taken the one before, so a slow client slows the producer down and nothing is
collected here. A producer that always has something gives the reactor its turn after `TURN` chunks.

One that is an event stream is registered like an upstream's: a stop of the gateway ends it behind a whole event.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.answers import BrokenOff, FedAnswer
from ..core.chain.failures import PluginFailed
from ..streams.server_sent_events import EventStream
from ..streams.stream_context import StreamContext

if TYPE_CHECKING:
    from ..core.answers import Answer, StreamedAnswer
    from ..core.exchange import Exchange
    from ..core.views import ChainView, WatchesView
    from .filtered_answer import FilteredAnswer

__all__ = ["AnswerContext", "AnswerStream", "discard"]

_log = Logger(namespace="kongtwist.proxy")

TURN = 32
"""Chunks sent in one turn of the reactor."""


class AnswerContext(StreamContext, Protocol):
    """What streamed answers need of the gateway around them (`proxy.context.ProxyContext` is one)."""

    @property
    def reactor(self) -> Any: ...


class _WrongLength(Exception):
    """The chunks are more bytes than were promised."""


class AnswerStream:
    """Sends the body of one streamed answer, as the exchange's ``answer_sink``.

    Args:
        context: its reactor gives turns; event streams are registered there.
        exchange: the request.
        answer: whose chunks are sent.
        filtered: passes them through plugins, and sends the head; None: it is sent.
        replace: sends another answer in place of this one, of which nothing has been sent.
        chain: the plugins that hear of an event stream; None: nobody does.
    """

    def __init__(
        self,
        context: AnswerContext,
        exchange: Exchange,
        answer: StreamedAnswer,
        filtered: FilteredAnswer | None,
        replace: Callable[[Answer], None],
        chain: ChainView | None,
    ) -> None:
        self.context = context
        self.exchange = exchange
        self._chain = chain
        self._is_events = any(
            name.lower() == b"content-type" and value[:17].lower() == b"text/event-stream"
            for name, value in answer.headers
        )
        self._events: EventStream | None = None
        self._watches: WatchesView | None = None
        self._writing = False
        self._chunks: Any = answer.chunks
        self._left = answer.length
        self._filtered = filtered
        self._replace = replace
        self._waiting: Deferred[None] | None = None
        self._paused = self._over = False
        self._deferred: Deferred[None] | None = None

    def start(self) -> None:
        """Begin to send. The head is sent, and the exchange's ``answer_sink`` is this."""
        if self._filtered is None and self._is_events:
            self._open_events()
        self._deferred = ensureDeferred(self._send())
        self._deferred.addErrback(_unexpected)  # type: ignore[unused-awaitable]

    # -- the client (AnswerSink) -----------------------------------------------------------------------------------

    def pause_answer(self) -> None:
        """The client has enough for now."""
        self._paused = True

    def resume_answer(self) -> None:
        """It has taken it."""
        self._paused = False
        self._go_on()

    def client_gone(self, reason: str) -> None:
        """Nobody takes the rest: the producer is told at once, where it waits or where it has given a chunk."""
        if not self._over:
            self._end(reason)

    def _end(self, why: str, tell: bool = True) -> None:
        """Nothing more is sent.

        Args:
            why: for those who watch an event stream.
            tell: the producer, if it waits; where it has just given something, it is closed behind that.
        """
        self._over = True
        self.exchange.answer_sink = None
        events, self._events = self._events, None
        if events is not None:
            events.over()
        if self._watches is not None:
            self._watches.on_close(why)
        if tell and not self._writing and self._deferred is not None:
            self._deferred.cancel()

    # -- an event stream (server_sent_events.Answering) --------------------------------------------------------------

    def _open_events(self) -> None:
        """It is registered, and plugins are told."""
        self._is_events = False
        self._events = EventStream(self, False)
        if self._chain is not None and not self._chain.empty:
            try:
                self._watches = self._chain.run_open(self.exchange, self._events)
            except PluginFailed:
                self._cut(None)

    def may_end_answer(self) -> bool:
        """Every piece is a chunk of its own."""
        return True

    def write_event(self, data: bytes) -> None:
        """See `server_sent_events.Answering`."""
        if self._over:
            return
        if self._filtered is None:
            self.exchange.write(data)
            return
        try:
            self._write(data)
        except PluginFailed:  # reported where it was raised
            self._cut(None)

    def end_answer(self) -> None:
        """The gateway ends it, complete for the client."""
        if not self._over:
            self._end("closed by the gateway")
            self.exchange.finish()

    def fault(self) -> None:
        """Cut it."""
        if not self._over:
            self._end("cut")
            self.exchange.abort()

    def _go_on(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    # -- the producer ----------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        """Ask for chunks and send them until the last one, or until the client is gone."""
        exchange = self.exchange
        iterator: Any = None
        try:
            iterator = _iterator(self._chunks)
            await self._send_all(iterator)
        except CancelledError:
            if not self._over:  # it was not we who cancelled: the producer's own wait was
                self._cut("its producer was cancelled")
            raise
        except PluginFailed:  # reported where it was raised
            self._cut(None)
        except BrokenOff as why:
            self._cut(str(why))
        except Exception as error:  # noqa: BLE001 - reported, and the client sees a cut
            self._cut(f"{error!r}", "".join(traceback.format_exception(error)))
        else:
            if not self._over:
                self._end("ended", tell=False)
                exchange.finish()
        finally:
            await _close(iterator)

    async def _send_all(self, iterator: AsyncIterator[bytes] | Iterator[bytes]) -> None:
        if self._filtered is not None:
            self._write(b"")  # the head leaves now, unless it is held
        count = 0
        ended = object()
        while not self._over:
            if self._paused:
                self._waiting = Deferred()
                await self._waiting
            elif count == TURN:
                count = 0
                self._waiting = Deferred()
                self.context.reactor.callLater(0, self._go_on)
                await self._waiting
            else:
                count += 1
                if isinstance(iterator, AsyncIterator):
                    chunk: Any = await anext(iterator, ended)
                else:
                    chunk = next(iterator, ended)
                if chunk is ended:
                    break
                if chunk:
                    self._write(chunk)
        if self._filtered is not None:
            self._write(b"", True)

    def _write(self, data: bytes, last: bool = False) -> None:
        if self._over:
            return
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise _WrongLength("more bytes than its Content-Length says")
        self._writing = True
        try:
            if self._filtered is None:
                self.exchange.write(bytes(data))
            else:
                replaced = self._filtered.feed(bytes(data), last)
                if replaced is not None:
                    self._end("replaced")
                    self._replace(replaced)
                elif self._filtered.begun and self._is_events and not last:
                    self._open_events()
            if self._events is not None and data:
                self._events.passed(data)
        finally:
            self._writing = False

    def _cut(self, why: str | None, detail: str = "") -> None:
        """The answer cannot be completed."""
        if self._over:
            return
        exchange = self.exchange
        self._end("cut", tell=False)
        if why is not None:
            remedy = "correct what makes it: see the lines behind this one" if detail else ""
            exchange.report(f"a streamed answer broke off: {why}", remedy, detail)
        exchange.abort()


def discard(answer: StreamedAnswer) -> None:
    """Close an answer's iteration of which nothing is asked for, or tell what would have fed it."""
    if isinstance(answer, FedAnswer):
        answer.feeder.gone("nothing of it is sent")
        return
    ensureDeferred(_close(answer.chunks)).addErrback(_unexpected)  # type: ignore[unused-awaitable]


def _iterator(chunks: Any) -> Any:
    return chunks.__aiter__() if hasattr(chunks, "__aiter__") else iter(chunks)


async def _close(iterator: Any) -> None:
    """Let an iteration end where it is. Generators have something to close, other iterations may."""
    if hasattr(iterator, "aclose"):
        await iterator.aclose()
    elif hasattr(iterator, "close"):
        iterator.close()


def _unexpected(failure: Failure) -> None:
    if not failure.check(CancelledError):
        _log.failure("ending a streamed answer failed", failure)
