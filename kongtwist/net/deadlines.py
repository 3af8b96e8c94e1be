"""Deadlines of thousands of connections with one timer.

Every connection has one deadline that moves with nearly every byte. A `callLater` each would cost more than relaying
the byte, so a deadline is an attribute, and setting it to a later time is an assignment: the connection sits in a
bucket of some earlier time, and when that bucket's time comes, it is put where it belongs by then. Buckets are a tenth
of a second wide for what is near and a second for what is far, and are looked at when they end; a connection is never
expired early. A deadline that moves back and forth within its bucket, as that of a connection in use does, is an
assignment too.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

__all__ = ["Deadlines", "Expiring"]

_log = Logger(namespace="kongtwist.proxy")

_FINE = 10
"""Buckets in a second of deadlines that are near."""
_FAR = 5.0
"""Seconds from which on whole seconds are good enough."""
_OFFSET = 0.05
"""Where buckets of a second begin, so that none begins when one of the others does."""


class Expiring(Protocol):
    """What has a deadline."""

    deadline: float  #: monotonic seconds; ``inf`` for none
    wake: float  #: when its bucket begins: earlier deadlines belong elsewhere; ``inf`` when it is in none

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
        self._times: list[tuple[float, float]] = []  # when a bucket is to be looked at, and when it begins
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
            bucket = self._buckets[item.wake]
            bucket.pop(item, None)
            if not bucket:
                bucket.clear()  # else it keeps the room that it once had, until its time comes
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
        if when - self._monotonic() > _FAR:
            begin = int(when - _OFFSET) + _OFFSET
            end = begin + 1.0
        else:
            tick = int(when * _FINE)
            begin = tick / _FINE
            end = (tick + 1) / _FINE
        item.wake = begin
        bucket = self._buckets.get(begin)
        if bucket is None:
            bucket = self._buckets[begin] = {}
            heappush(self._times, (end, begin))
            if end < self._timer_at:
                self._schedule(end)
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
            while self._times and self._times[0][0] <= now:
                bucket = self._buckets[self._times[0][1]]
                while bucket:
                    item = bucket.popitem()[0]
                    item.wake = inf
                    if item.deadline > now:
                        if item.deadline != inf:
                            self._put(item, item.deadline)
                    else:
                        item.deadline = inf
                        try:
                            item.expire(now)
                        except Exception:  # noqa: BLE001 - one that fails must not keep the others from their end
                            _log.failure("the end of the time of {item!r} failed", item=item)
                del self._buckets[heappop(self._times)[1]]
        finally:  # whatever expiring one raised, the others are still watched
            if self._times and self._times[0][0] < self._timer_at:
                self._schedule(self._times[0][0])
