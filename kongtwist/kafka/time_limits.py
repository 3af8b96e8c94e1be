"""Time limits of thousands of records with one timer."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall

__all__ = ["Limited", "TimeLimits"]

_SPARE = 1000
"""Those that are over, and may be kept until their time comes; more only where as many are not over."""


class Limited(Protocol):
    """What has a time limit."""

    @property
    def is_over(self) -> bool:
        """Nobody waits for it any more."""
        ...


class TimeLimits:
    """Calls back for what is not over in time. A call of the reactor's for each would cost a tenth of all that a record costs.

    Args:
        reactor: makes the one timer.
        late: called with what is late, never early.
    """

    __slots__ = ("_alive", "_held", "_late", "_number", "_reactor", "_timer")

    def __init__(self, reactor: Any, late: Callable[[Any], None]) -> None:
        self._reactor = reactor
        self._late = late
        self._held: list[tuple[float, int, Limited]] = []  # a heap; what is over stays in it until it comes up
        self._number = count()
        self._alive = 0
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._held)

    def add(self, item: Limited, now: float, seconds: float) -> None:
        """Call back when ``seconds`` have passed since ``now`` (the reactor's)."""
        held = self._held
        while held and held[0][2].is_over:
            heappop(held)
        if len(held) > 2 * self._alive + _SPARE:
            held[:] = [each for each in held if not each[2].is_over]
            heapify(held)
        when = now + seconds
        heappush(held, (when, next(self._number), item))
        self._alive += 1
        timer = self._timer
        if timer is None or timer.getTime() > when:
            self._wait(when, now)

    def done(self) -> None:
        """One of them, which says `is_over` by now, was in time."""
        self._alive -= 1
        if not self._alive:
            self._held.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _wait(self, when: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._reactor.callLater(max(when - now, 0.0), self._look)

    def _look(self) -> None:
        self._timer = None
        held, now = self._held, self._reactor.seconds()
        while held and (held[0][2].is_over or held[0][0] <= now):
            item = heappop(held)[2]
            if not item.is_over:
                self._late(item)  # which says so by `done`
        if held and self._timer is None:
            self._wait(held[0][0], now)
