"""Deadlines of thousands of connections with one timer.

Every connection has one deadline that moves with nearly every byte. A `callLater` each would cost more than relaying
the byte, so a deadline is an attribute, and setting it to a later time is an assignment: the connection sits in a
bucket of some earlier time, and when that bucket's time comes, it is put where it belongs by then. Buckets are a tenth
of a second wide for what is near and a second for what is far; a connection is never expired early.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Deadlines", "Expiring"]

_FINE = 0.1
"""Seconds between buckets of deadlines that are near."""
_FAR = 5.0
"""Seconds from which on whole seconds are good enough."""


class Expiring(Protocol):
    """What has a deadline."""

    deadline: float  #: monotonic seconds; ``inf`` for none
    wake: float  #: when its bucket is looked at; ``inf`` when it is in none

    def expire(self, now: float) -> None:
        """The deadline has passed; it is ``inf`` from now on unless set again."""


class Deadlines:
    """Watches deadlines.

    Args:
        reactor: makes the one timer.
        monotonic: seconds.
    """

    __slots__ = ("_buckets", "_monotonic", "_reactor", "_timer", "_timer_at", "_times")

    def __init__(self, reactor: IReactorTime, monotonic: Callable[[], float]) -> None:
        self._reactor = reactor
        self._monotonic = monotonic
        self._buckets: dict[float, dict[Any, None]] = {}
        self._times: list[float] = []
        self._timer: IDelayedCall | None = None
        self._timer_at = inf

    def set(self, item: Expiring, when: float) -> None:
        """Give ``item`` the deadline ``when`` (monotonic seconds, ``inf`` for none).

        Where speed matters the caller writes ``item.deadline = when`` itself if ``when >= item.wake``.
        """
        item.deadline = when
        if when < item.wake:
            if item.wake != inf:
                self._buckets[item.wake].pop(item, None)
            self._put(item, when)

    def drop(self, item: Expiring) -> None:
        """Forget ``item``: it is closed."""
        item.deadline = inf
        if item.wake != inf:
            self._buckets[item.wake].pop(item, None)
            item.wake = inf

    def stop(self) -> None:
        """Forget everything."""
        for bucket in self._buckets.values():
            for item in bucket:
                item.wake = inf
        self._buckets.clear()
        self._times.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = inf

    def _put(self, item: Expiring, when: float) -> None:
        width = 1.0 if when - self._monotonic() > _FAR else _FINE
        at = round((when // width + 1) * width, 1)
        item.wake = at
        bucket = self._buckets.get(at)
        if bucket is None:
            bucket = self._buckets[at] = {}
            heappush(self._times, at)
            if at < self._timer_at:
                self._schedule(at)
        bucket[item] = None

    def _schedule(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._reactor.callLater(max(0.0, at - self._monotonic()), self._look)

    def _look(self) -> None:
        """Go through the buckets whose time has come."""
        self._timer = None
        self._timer_at = inf
        now = self._monotonic()
        try:
            while self._times and self._times[0] <= now:
                bucket = self._buckets[self._times[0]]
                while bucket:
                    item = bucket.popitem()[0]
                    item.wake = inf
                    if item.deadline > now:
                        if item.deadline != inf:
                            self._put(item, item.deadline)
                    else:
                        item.deadline = inf
                        item.expire(now)
                del self._buckets[heappop(self._times)]
        finally:  # whatever expiring one raised, the others are still watched
            if self._times and self._times[0] < self._timer_at:
                self._schedule(self._times[0])
