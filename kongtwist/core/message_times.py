"""When messages of a stream pass: how long until the first one, and how far apart they are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

__all__ = ["EGRESS", "INGRESS", "Buckets", "MessageTimes"]

INGRESS, EGRESS = 0, 1
"""Directions: from the client, and to it."""


class Buckets(Protocol):
    """A histogram (`observability.plugin_metrics.Histogram`)."""

    counts: list[int]
    total: float

    @property
    def bounds(self) -> Sequence[float]: ...


class MessageTimes:
    """Watches one stream.

    Args:
        first: takes the seconds from the stream's opening to its first message, in whichever direction.
        gaps: take the seconds between two messages from the client, and to it.
    """

    __slots__ = ("_clock", "_first", "_gaps", "_last", "_opened")

    def __init__(self, first: Buckets, gaps: Sequence[Buckets]) -> None:
        self._first: Buckets | None = first
        self._gaps = gaps
        self._last = [0.0, 0.0]
        self._opened = 0.0
        self._clock: Callable[[], float]

    def begin(self, clock: Callable[[], float]) -> None:
        """The stream is open. ``clock``: tells seconds."""
        self._clock = clock
        self._opened = clock()

    def written(self) -> dict[str, Any]:
        """What another process needs to go on (`resume`)."""
        return {"opened": self._opened, "last": list(self._last), "passed": self._first is None}

    def resume(self, written: Mapping[str, Any]) -> None:
        """Go on with what was `written` of the same stream; behind `begin`."""
        self._opened, self._last = written["opened"], list(written["last"])
        if written["passed"]:
            self._first = None

    def passed(self, direction: int, count: int = 1) -> None:
        """Messages have passed, together. Of those that came together only the first has a time of its own."""
        now = self._clock()
        last = self._last
        before, last[direction] = last[direction], now
        if before:
            gap, gaps = now - before, self._gaps[direction]
            gaps.counts[bisect_left(gaps.bounds, gap)] += 1
            gaps.total += gap
        if count > 1:
            self._gaps[direction].counts[0] += count - 1
        first = self._first
        if first is not None:
            self._first = None
            waited = now - self._opened
            first.counts[bisect_left(first.bounds, waited)] += 1
            first.total += waited
