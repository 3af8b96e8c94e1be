"""Threads for what blocks as long as a client of Kafka lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from ..net.work_thread import DaemonThreads

__all__ = ["defer_to_own_thread"]


def defer_to_own_thread(reactor: Any, name: str, work: Callable[[], None]) -> Deferred[None]:
    """Run ``work`` in a thread that does nothing else: it would keep one of a pool's from everybody else.

    Args:
        reactor: its thread pool is left alone; gets the end.
        name: of the thread, for whoever looks at the process.
        work: blocks, for hours maybe.

    Returns:
        fires when ``work`` has returned and its thread has ended; fails with what it raised.
    """
    pool = DaemonThreads(0, 1, name)
    pool.start()

    def ended(result: Any) -> Any:
        pool.stop()  # its thread has nothing left to do: this takes no time
        return result

    return deferToThreadPool(reactor, pool, work).addBoth(ended)
