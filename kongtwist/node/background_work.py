"""Long work of the Admin API beside the traffic of the same process.

Work that computes in Python goes into a thread. By itself that would be no help: a thread that computes keeps the interpreter
for 5 ms each time that the reactor waits for a socket, and a request waits for several. While such work runs threads are
therefore asked to give way after `SWITCH` seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from twisted.internet.defer import Deferred

from ..net.slices import Slices
from ..net.work_thread import WorkThread

__all__ = ["SWITCH", "BackgroundWork"]

SWITCH = 0.0005
"""Seconds after which a thread gives the interpreter to another that waits for it (``sys.setswitchinterval``)."""

T = TypeVar("T")


class BackgroundWork:
    """Slices, and a thread (`kongtwist.core.long_work.LongWork`).

    Args:
        reactor: for turns and results.
    """

    _computing: ClassVar[int] = 0
    _interval: ClassVar[float] = 0.0

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._thread = WorkThread(reactor, "kongtwist-aside")

    def aside(self, work: Callable[..., T], *args: Any) -> Deferred[T]:
        """Do work that only computes in the thread, behind all that was asked for before."""
        self._begin()
        return self._thread.do(work, *args).addBoth(self._end)

    def slices(self) -> Slices:
        """For work in the reactor's thread."""
        return Slices(self._reactor)

    def stop(self) -> None:
        """End the thread when it has done what it was asked for."""
        self._thread.stop()

    @classmethod
    def _begin(cls) -> None:
        if not BackgroundWork._computing:
            BackgroundWork._interval = sys.getswitchinterval()
            sys.setswitchinterval(min(SWITCH, BackgroundWork._interval))
        BackgroundWork._computing += 1

    @classmethod
    def _end(cls, result: Any) -> Any:
        BackgroundWork._computing -= 1
        if not BackgroundWork._computing:
            sys.setswitchinterval(BackgroundWork._interval)
        return result
