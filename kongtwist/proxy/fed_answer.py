"""Answers whose body is given when it is there (`FedAnswer`): one call for each piece, down to the socket.

A piece that many clients get comes with its framing as a chunk; for a client of HTTP/1.1 whose answer no plugin looks at, that goes
to the connection as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core.chain.failures import PluginFailed
from .streamed_answer import AnswerContext, AnswerStream

if TYPE_CHECKING:
    from ..core.answers import AnswerFeeder
    from ..core.exchange import Exchange

__all__ = ["FedStream"]


class FedStream(AnswerStream):
    """Sends the body of one fed answer, as the exchange's ``answer_sink``; the feeder's `AnswerWriter`. See `AnswerStream`."""

    def __init__(self, context: AnswerContext, exchange: Exchange, answer: Any, *rest: Any) -> None:
        super().__init__(context, exchange, answer, *rest)
        self._feeder: AnswerFeeder = answer.feeder
        self.write_chunk: Callable[[bytes], None] | None = None

    def start(self) -> None:
        """Begin to send. The head is sent, and the exchange's ``answer_sink`` is this."""
        if self._filtered is None:
            if self._is_events:
                self._open_events()
            if self.exchange.takes_raw_chunks():
                self.write_chunk = self.exchange.raw_sender()
        else:
            self.write(b"")  # the head leaves now, unless it is held
        if not self._over:
            self._feeder.begin(self)

    def write(self, data: bytes, chunk: bytes | None = None) -> None:
        """See `AnswerWriter`."""
        if chunk is not None and self.write_chunk is not None:
            if not self._over:
                self.write_chunk(chunk)  # whole events only: where the stream may end is known without looking
            return
        try:
            self._write(data)
        except PluginFailed:  # reported where it was raised
            self._cut(None)

    def finish(self) -> None:
        """See `AnswerWriter`."""
        if self._over:
            return
        try:
            if self._filtered is not None:
                self._write(b"", True)
        except PluginFailed:
            self._cut(None)
            return
        if not self._over:
            self._end("ended")
            self.exchange.finish()

    def pause_answer(self) -> None:
        self._feeder.pause()

    def resume_answer(self) -> None:
        self._feeder.resume()

    def _end(self, why: str, tell: bool = True) -> None:
        super()._end(why, tell)
        self._feeder.gone(why)
