"""Bodies on their way through plugins, decided chunk by chunk; whoever moves the bytes calls `feed` and does what it says.

A filter costs what it does and no more: without one there is no object, and nothing here is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..answers import Answer
from ..exchange import Exchange
from .failures import PluginFailed, failed, is_cancelled
from .phases import BodyFilter, WholeBody

__all__ = ["AnswerFilters", "RequestFilters", "body_filter_of"]

Named = tuple[str, "BodyFilter | WholeBody"]
"""A plugin's name, and what it does with the body."""


def body_filter_of(exchange: Exchange, call: Callable[..., bytes], conf: Any) -> BodyFilter:
    """A plugin's method ``body_filter`` as a filter."""
    return BodyFilter(lambda chunk, last: call(exchange, conf, chunk, last))


def _checked(made: Any) -> bytes:
    """What a filter passes on. One that forgets its ``return`` would empty the body, and nobody would notice."""
    if not isinstance(made, (bytes, bytearray, memoryview)):
        raise TypeError(f"expected bytes of a filter, not {made!r:.100}")
    return made  # type: ignore[return-value]


class RequestFilters:
    """What the body of one request passes through on its way to the upstream.

    Args:
        exchange: the request.
        stages: filters in the order they run.

    Attributes:
        keeps_length: what comes out is as long as what goes in, all in all; the request may go up with its Content-Length.
    """

    __slots__ = ("_balance", "_exchange", "_stages", "keeps_length")

    def __init__(self, exchange: Exchange, stages: Sequence[tuple[str, BodyFilter]]) -> None:
        self._exchange = exchange
        self._stages = stages
        self._balance = 0
        self.keeps_length = all(stage.keeps_length for _, stage in stages)

    def feed(self, chunk: bytes, last: bool) -> bytes | Answer:
        """What goes up in place of a chunk; may be empty.

        Args:
            chunk: as the client sent it; may be empty if it is the last.
            last: nothing comes behind it.

        Returns:
            bytes to send; or an `Answer`: the request is refused with it (or cut, if an answer has begun), and nothing
            further may be fed. A filter that raises gives a 500.
        """
        self._balance += len(chunk)
        name = ""
        try:
            for name, stage in self._stages:  # noqa: B007 - named where one raises
                if not chunk and not last:
                    return b""
                made = stage.call(chunk, last)
                if isinstance(made, Answer):
                    return made
                chunk = _checked(made)
            self._balance -= len(chunk)
            if self.keeps_length and (self._balance < 0 or (last and self._balance)):
                raise ValueError("a filter that keeps the length of a body has not kept it")
        except Exception as error:
            if is_cancelled(error):
                raise
            return failed(self._exchange, name, "request_body_filter", error)
        return chunk


class _Holding:
    """A stage that waits for the whole body."""

    __slots__ = ("chunks", "passing", "size", "whole")

    def __init__(self, whole: WholeBody) -> None:
        self.whole = whole
        self.chunks: list[bytes] = []
        self.size = 0
        self.passing = False

    def feed(self, chunk: bytes, last: bool) -> bytes | Answer | None:
        """What is passed on; None: it waits for more."""
        if self.passing:
            return chunk
        self.chunks.append(chunk)
        self.size += len(chunk)
        if self.size > self.whole.limit:
            self.passing = True
            answer = None if self.whole.too_large is None else self.whole.too_large()
            return answer if answer is not None else self._held()
        if not last:
            return None
        self.passing = True
        return self.whole.call(self._held())

    def _held(self) -> bytes:
        held, self.chunks = b"".join(self.chunks), []
        return held


class AnswerFilters:
    """What the body of one answer passes through on its way to the client.

    Args:
        exchange: the request.
        stages: in the order they run.

    Attributes:
        holding: nothing may be sent yet, the head neither: a plugin waits for the whole body. Look again after each `feed`.
        keeps_length: what comes out is as long as what goes in; Content-Length may stay.
    """

    __slots__ = ("_exchange", "_stages", "holding", "keeps_length")

    def __init__(self, exchange: Exchange, stages: Sequence[Named]) -> None:
        self._exchange = exchange
        self._stages: list[tuple[str, BodyFilter | _Holding]] = [
            (name, _Holding(stage) if isinstance(stage, WholeBody) else stage) for name, stage in stages
        ]
        self.holding = any(isinstance(stage, _Holding) for _, stage in self._stages)
        self.keeps_length = all(isinstance(stage, BodyFilter) and stage.keeps_length for _, stage in stages)

    def feed(self, chunk: bytes, last: bool) -> bytes | Answer:
        """What is sent in place of a chunk; may be empty.

        Args:
            chunk: as it came; may be empty if it is the last.
            last: nothing comes behind it.

        Returns:
            bytes to send: behind the head, or, while `holding`, none yet. An `Answer`, only where `holding` was set before
            the call: it replaces the answer, passes no filter, and nothing further may be fed.

        Raises:
            PluginFailed: a filter failed after something may have been sent: cut the client's connection.
        """
        name = ""
        try:
            for name, stage in self._stages:  # noqa: B007 - named where one raises
                if not chunk and not last:
                    break
                made = stage.call(chunk, last) if isinstance(stage, BodyFilter) else stage.feed(chunk, last)
                if made is None and isinstance(stage, _Holding) and not stage.passing:
                    return b""
                if isinstance(made, Answer):
                    if not self.holding:
                        raise TypeError("a filter gave an answer where one has begun")
                    return made
                chunk = _checked(made)
        except Exception as error:
            if is_cancelled(error):
                raise
            answer = failed(self._exchange, name, "body_filter", error)
            if self.holding:
                return answer
            raise PluginFailed(name) from error
        if self.holding:
            self.holding = not all(stage.passing for _, stage in self._stages if isinstance(stage, _Holding))
        return chunk
