"""What routers of all flavors have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, Self

from ..layers import Layers
from ..views import Match, RouteView
from .patterns import TIME_LIMIT

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..rows import Row

__all__ = ["CACHED_BYTES", "CACHE_SIZE", "RouterBase"]

CACHE_SIZE = 5000
"""Requests whose match is remembered, as in Kong."""

CACHED_BYTES = 512
"""Bytes of the longest path and host together that are remembered, so that the memory of all is bounded."""


class RouterBase(ABC):
    """All routes of a configuration. Immutable but for what it remembers: `changed` gives a new one.

    What is compared is made from the routes' rows alone; a compiled route is asked for when a request matches.

    Attributes:
        routes: the compiled routes by id.
        remembers: which route a request belongs to depends on its method, host and path, and on the listener, alone.
    """

    remembers: bool

    def __init__(
        self, routes: Mapping[str, RouteView], known: Layers[str, Any], faults: Layers[str, list[str]]
    ) -> None:
        self.routes = routes
        self._known = known  # what is compared, by id of the route
        self._faults = faults
        self._cache: dict[Any, Match] = {}
        self._reported: dict[str, int] = {}  # patterns that took too long, and on how many requests

    def changed(self, removed: Iterable[str], added: Iterable[Row], routes: Mapping[str, RouteView]) -> Self:
        """A router without the routes of these ids and with the routes of these rows.

        Args:
            removed: ids of routes it has.
            added: rows; one may take the place of the row of its id.
            routes: the compiled routes of all.
        """
        steps = self.steps(removed, added, routes)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                found: Self = done.value
                return found

    @abstractmethod
    def steps(
        self, removed: Iterable[str], added: Iterable[Row], routes: Mapping[str, RouteView]
    ) -> Generator[None, None, Self]:
        """As `changed`, in steps: a few rows with few attributes are one."""

    @abstractmethod
    def find(self, exchange: Exchange) -> Match | None:
        """The route of a request, or None. On a mount the target is relative to it already."""

    def over(self, routes: Mapping[str, RouteView]) -> Self:
        """The same routes, compiled differently."""
        other = copy(self)
        other.routes = routes
        other._cache = {}
        return other

    def __contains__(self, route_id: str) -> bool:
        return route_id in self._known

    @property
    def faults(self) -> list[str]:
        """Sentences about routes, or paths of routes, that can never match because their pattern is broken."""
        return [sentence for found in self._faults.values() for sentence in found]

    def __len__(self) -> int:
        return len(self._known)

    def _changed_faults(self, faults: Mapping[str, list[str]], touched: Iterable[str]) -> Layers[str, list[str]]:
        repaired = [route_id for route_id in touched if route_id in self._faults]
        return self._faults.changed(faults, repaired) if faults or repaired else self._faults

    def _remember(self, key: Any, size: int, match: Match) -> None:
        if size <= CACHED_BYTES:
            if len(self._cache) >= CACHE_SIZE:
                self._cache.clear()
            self._cache[key] = match

    def _report(self, given_up: list[str], exchange: Exchange) -> None:
        """Say which pattern used up the time, with those behind it as a number: a request is one line at most. For the first
        time, the tenth, the hundredth, ..."""
        what, behind = given_up[0], len(given_up) - 1
        count = self._reported[what] = self._reported.get(what, 0) + 1
        if count == 10 ** (len(str(count)) - 1):
            others = f", as were {behind} behind it, for which no time was left" if behind else ""
            exchange.report(
                f"{what} used up the {TIME_LIMIT * 1000:.0f} ms that patterns may take of a request and was taken not "
                f"to match{others} (so far {count} requests)",
                "write it so that a text can be matched in one way only",
            )
