"""The chain of a route on which a plugin traces (`Plugin.traces`): it notes when phases begin and end, and a span for each plugin.

A chain without such a plugin is a plain `Chain`, and pays nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

from ..answers import Answer
from ..exchange import Exchange
from ..tracing.trace import CURRENT, Noted, Trace, begin_trace
from .chain import Chain, Chosen, EndpointsBefore, Step, StreamWatches
from .compiled import Compiled
from .lifetimes import Lifetimes
from .stream_watch import StreamInfo, StreamWatch

__all__ = ["Timed", "TracedChain"]

_Calls = tuple[tuple[Callable[..., Any], Any], ...]

_WATCHED = frozenset(("http_client", "db_query"))
"""Instrumentations that need to know for which request a plugin is at work."""


class Timed:
    """A plugin's call in one phase, noted as a span where that is wanted.

    Args:
        call: what is called.
        phase: its name.

    Attributes:
        inner: what is called.
        name: the plugin's.
        authenticates: as of the plugin.
    """

    __slots__ = ("_kind", "_span", "authenticates", "inner", "name")

    def __init__(self, call: Callable[..., Any], phase: str) -> None:
        self.inner = call
        plugin = getattr(call, "__self__", call)
        self.name = str(getattr(plugin, "name", call))
        self.authenticates = bool(getattr(plugin, "authenticates", False))
        self._kind = f"plugin_{phase}"
        self._span = f"kong.{phase}.plugin.{self.name}"

    def __call__(self, exchange: Exchange, conf: Any) -> Any:
        trace = begin_trace(exchange)
        kinds = trace.kinds
        if self._kind not in kinds and kinds.isdisjoint(_WATCHED):
            return self.inner(exchange, conf)
        now = exchange.gateway.now
        before = trace.active
        span = trace.begin(self._span, now()) if self._kind in kinds else None
        trace.active = span or before
        token = CURRENT.set(trace)
        waits = False
        try:
            result = self.inner(exchange, conf)
            waits = result is not None and hasattr(result, "__await__")
        finally:
            CURRENT.reset(token)
            if not waits:
                _end(trace, span, before, now)
        return self._waited(result, trace, span, before, now) if waits else result

    @staticmethod
    async def _waited(
        result: Awaitable[Any], trace: Trace, span: Noted | None, before: Noted | None, now: Callable[[], float]
    ) -> Any:
        token = CURRENT.set(trace)
        try:
            return await result
        finally:
            CURRENT.reset(token)
            _end(trace, span, before, now)


def _end(trace: Trace, span: Noted | None, before: Noted | None, now: Callable[[], float]) -> None:
    if span is not None:
        span.end = now()
    trace.active = before


def _timed(calls: Iterable[tuple[Callable[..., Any], Any]], phase: str) -> _Calls:
    return tuple((Timed(call, phase), conf) for call, conf in calls)


class TracedChain(Chain):
    """A chain with a plugin that traces."""

    __slots__ = ()

    traced: ClassVar[bool] = True

    def __init__(
        self, steps: Sequence[Step] = (), everywhere: Sequence[Compiled] = (), lifetimes: Lifetimes | None = None
    ) -> None:
        super().__init__(steps, everywhere, lifetimes)
        self._rewrite = _timed(self._rewrite, "rewrite")
        self._access = _timed(self._access, "access")
        self._header = _timed(self._header, "header_filter")

    def run_rewrite(self, exchange: Exchange) -> Answer | Awaitable[Answer | None] | None:
        trace = begin_trace(exchange)
        result = super().run_rewrite(exchange)
        if result is None or isinstance(result, Answer):
            trace.rewrite_end = exchange.gateway.now()
            return result
        return _noting(result, exchange, trace, "rewrite_end")

    def run_access(self, exchange: Exchange) -> Answer | Awaitable[Answer | None] | None:
        trace = begin_trace(exchange)
        trace.access_start = exchange.gateway.now()
        result = super().run_access(exchange)
        if result is None or isinstance(result, Answer):
            trace.access_end = exchange.gateway.now()
            return result
        return _noting(result, exchange, trace, "access_end")

    def run_header_filter(self, exchange: Exchange) -> Answer | None:
        trace = begin_trace(exchange)
        trace.header_start = exchange.gateway.now()
        answer = super().run_header_filter(exchange)
        trace.header_end = exchange.gateway.now()
        return answer

    def has_endpoint(self, exchange: Exchange) -> bool:
        found = (call.inner for call, _ in self._access if isinstance(call, Timed))
        return any(isinstance(call, EndpointsBefore) and any(True for _ in call.matching(exchange)) for call in found)

    def run_open(self, exchange: Exchange, stream: StreamInfo) -> StreamWatches | None:
        watches = super().run_open(exchange, stream) or StreamWatches(exchange)
        watches.add("tracing", _StreamFacts(stream, begin_trace(exchange)))
        return watches

    def same(self, other: Chain) -> bool:
        return isinstance(other, TracedChain) and super().same(other)

    def _turns(self, exchange: Exchange, chosen: Chosen) -> Iterator[tuple[Callable[..., Any], Any]]:
        return ((Timed(call, "access"), conf) for call, conf in super()._turns(exchange, chosen))

    def _later(self, exchange: Exchange, static: _Calls, phase: str) -> Iterable[tuple[Callable[..., Any], Any]]:
        found = super()._later(exchange, static, phase)
        return found if found is static or phase != "header_filter" else _timed(found, phase)


class _StreamFacts(StreamWatch):
    """Notes at the end of a stream what its span tells of it."""

    def __init__(self, stream: StreamInfo, trace: Trace) -> None:
        self._stream, self._trace = stream, trace

    def on_close(self, why: str) -> None:
        stream = self._stream
        self._trace.stream = {
            "kongtwist.stream.kind": stream.kind,
            "kongtwist.stream.end": why,
            "kongtwist.stream.close_code": getattr(stream, "end", ("", 0))[1] or None,
            "kongtwist.stream.bytes_in": stream.bytes_in,
            "kongtwist.stream.bytes_out": stream.bytes_out,
            "kongtwist.stream.messages_in": stream.messages_in,
            "kongtwist.stream.messages_out": stream.messages_out,
        }


async def _noting(result: Awaitable[Answer | None], exchange: Exchange, trace: Trace, field: str) -> Answer | None:
    try:
        return await result
    finally:  # cancelled, too
        setattr(trace, field, exchange.gateway.now())
