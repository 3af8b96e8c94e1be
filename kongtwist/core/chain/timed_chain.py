"""The plugins of a request that asks what took how long (`core.request_timing`): the route's chain, with a clock at hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..answers import Answer
from .chain import Chain, Chosen

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..request_timing import RequestTiming
    from .filters import AnswerFilters

__all__ = ["TimedChain"]


class TimedChain(Chain):
    """Runs the same plugins with the same configurations.

    Args:
        chain: of the route, or of global plugins.
        timing: takes the times.
        told: called when the header filters have run, and when the request has been logged.
    """

    __slots__ = ("_timing", "_told")

    def __init__(self, chain: Any, timing: RequestTiming, told: Callable[[Exchange, bool], None]) -> None:
        for name in Chain.__slots__:
            setattr(self, name, getattr(chain, name))
        self._timing, self._told = timing, told
        self.empty = False
        self.logs = self.answers = True
        self.direct = self.idle = self.logs_in_batches = False
        self._rewrite = self._timed(self._rewrite, "rewrite")
        self._access = self._timed(self._access, "access")

    def _timed(self, calls: Iterable[tuple[Callable[..., Any], Any]], phase: str) -> tuple[tuple[Any, Any], ...]:
        return tuple((_TimedCall(call, self._timing, phase), conf) for call, conf in calls)

    def _turns(self, exchange: Exchange, chosen: Chosen) -> Iterator[tuple[Any, Any]]:
        for call, conf in super()._turns(exchange, chosen):
            yield _TimedCall(call, self._timing, "access"), conf

    def _later(self, exchange: Exchange, static: Any, phase: str) -> Iterable[tuple[Callable[..., Any], Any]]:
        return self._timed(super()._later(exchange, static, phase), phase)

    def run_rewrite(self, exchange: Exchange) -> Answer | Awaitable[Answer | None] | None:
        """As `Chain.run_rewrite`."""
        result: Answer | Awaitable[Answer | None] | None = self._phase("rewrite", super().run_rewrite, exchange)
        return result

    def run_access(self, exchange: Exchange) -> Answer | Awaitable[Answer | None] | None:
        """As `Chain.run_access`."""
        result: Answer | Awaitable[Answer | None] | None = self._phase("access", super().run_access, exchange)
        return result

    def run_header_filter(self, exchange: Exchange) -> Answer | None:
        """As `Chain.run_header_filter`; the tree is put into the answer behind it."""
        timing = self._timing
        begun = timing.clock()
        plain = self._header
        self._header = self._timed(plain, "header_filter") if self._dynamic is None else plain
        try:
            answer = super().run_header_filter(exchange)
        finally:
            self._header = plain
        timing.add(timing.clock() - begun, "header_filter")
        self._told(exchange, False)
        return answer

    def answer_filters(self, exchange: Exchange) -> AnswerFilters | None:
        """As `Chain.answer_filters`: their work is a phase of its own, of which only the beginning is seen here."""
        timing = self._timing
        begun = timing.clock()
        filters = super().answer_filters(exchange)
        timing.add(timing.clock() - begun, "body_filter")
        return filters

    def run_log(self, exchange: Exchange) -> None:
        """As `Chain.run_log`; the tree is logged behind it, where that was asked for."""
        timing = self._timing
        begun = timing.clock()
        super().run_log(exchange)
        timing.add(timing.clock() - begun, "log")
        self._told(exchange, True)

    def _phase(self, name: str, run: Callable[[Exchange], Any], exchange: Exchange) -> Any:
        timing = self._timing
        begun = timing.clock()
        result = run(exchange)
        if result is None or isinstance(result, Answer):
            timing.add(timing.clock() - begun, name)
            return result
        return _until(result, timing, begun, (name,))


class _TimedCall:
    """One plugin's phase."""

    __slots__ = ("__self__", "_call", "_path", "_timing", "authenticates", "name")

    def __init__(self, call: Callable[..., Any], timing: RequestTiming, phase: str) -> None:
        plugin = getattr(call, "__self__", call)
        self.__self__ = plugin
        self.name = str(getattr(plugin, "name", plugin))
        self.authenticates = bool(getattr(plugin, "authenticates", False))
        self._call, self._timing, self._path = call, timing, (phase, "plugins", self.name)

    def __call__(self, exchange: Any, conf: Any) -> Any:
        timing = self._timing
        path = (*self._path, _row_id(exchange, self.name))
        begun = timing.clock()
        result = self._call(exchange, conf)
        if hasattr(result, "__await__"):
            return _until(result, timing, begun, path)
        self._add(timing.clock() - begun, path)
        return result

    def _add(self, seconds: float, path: tuple[str, ...]) -> None:
        for depth in (2, 3, 4):
            self._timing.add(seconds, *path[:depth])


async def _until(waiting: Awaitable[Any], timing: RequestTiming, begun: float, path: tuple[str, ...]) -> Any:
    """What is waited for, and how long."""
    try:
        return await waiting
    finally:
        took = timing.clock() - begun
        for depth in range(min(2, len(path)), len(path) + 1):
            timing.add(took, *path[:depth])


def _row_id(exchange: Any, name: str) -> str:
    """The id of the plugin's configuration for this request: the one of its route, its service, or of all."""
    route = exchange.route
    places = [] if route is None else [("route", route.row["id"])]
    if route is not None and route.service is not None:
        places.append(("service", route.service["id"]))
    found = [row for row in exchange.snapshot.rows["plugins"].values() if row["name"] == name]
    for field, wanted in places:
        for row in found:
            if row.get(field) and row[field]["id"] == wanted:
                return str(row["id"])
    everywhere = [row for row in found if not row.get("route") and not row.get("service")]
    return str((everywhere or found or [{"id": name}])[0]["id"])
