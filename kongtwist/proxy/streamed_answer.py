"""Answers that plugins make while they are sent (`StreamedAnswer`).

The next chunk is asked for when the client has taken the one before, so a slow client slows the producer down and nothing is
collected here. A producer that always has something gives the reactor its turn after `TURN` chunks.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.failures import PluginFailed

if TYPE_CHECKING:
    from ..core.answers import Answer, StreamedAnswer
    from ..core.exchange import Exchange
    from .filtered_answer import FilteredAnswer

__all__ = ["AnswerStream", "discard"]

_log = Logger(namespace="kongtwist.proxy")

TURN = 32
"""Chunks sent in one turn of the reactor."""

Later = Callable[..., object]
"""``reactor.callLater``."""


class _WrongLength(Exception):
    """The chunks are more bytes than were promised."""


class AnswerStream:
    """Sends the body of one streamed answer, as the exchange's ``answer_sink``.

    Args:
        exchange: the request.
        answer: whose chunks are sent.
        filtered: passes them through plugins, and sends the head; None: it is sent.
        replace: sends another answer in place of this one, of which nothing has been sent.
        later: ``reactor.callLater``.
    """

    def __init__(
        self,
        exchange: Exchange,
        answer: StreamedAnswer,
        filtered: FilteredAnswer | None,
        replace: Callable[[Answer], None],
        later: Later,
    ) -> None:
        self._exchange = exchange
        self._chunks: Any = answer.chunks
        self._left = answer.length
        self._filtered = filtered
        self._replace = replace
        self._later = later
        self._waiting: Deferred[None] | None = None
        self._paused = self._over = False
        self._deferred: Deferred[None] | None = None

    def start(self) -> None:
        """Begin to send. The head is sent, and the exchange's ``answer_sink`` is this."""
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
            self._over = True
            if self._deferred is not None:
                self._deferred.cancel()

    def _go_on(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    # -- the producer ----------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        """Ask for chunks and send them until the last one, or until the client is gone."""
        exchange = self._exchange
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
        except Exception as error:  # noqa: BLE001 - reported, and the client sees a cut
            self._cut(f"{error!r}", "".join(traceback.format_exception(error)))
        else:
            if not self._over:
                self._over = True
                exchange.answer_sink = None
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
                self._later(0, self._go_on)
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
        if self._filtered is None:
            self._exchange.write(bytes(data))
            return
        replaced = self._filtered.feed(bytes(data), last)
        if replaced is not None:
            self._over = True
            self._exchange.answer_sink = None
            self._replace(replaced)

    def _cut(self, why: str | None, detail: str = "") -> None:
        """The answer cannot be completed."""
        if self._over:
            return
        self._over = True
        exchange = self._exchange
        exchange.answer_sink = None
        if why is not None:
            exchange.report(f"a streamed answer broke off: {why}", detail=detail)
        exchange.abort()


def discard(answer: StreamedAnswer) -> None:
    """Close an answer's iteration of which nothing is asked for."""
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
