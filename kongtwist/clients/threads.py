"""Calls that block, in threads of the gateway's own: what plugins do there keeps neither names from being looked up nor
the storage from its work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from ..core.chain.host import HostError
from ..net.work_thread import DaemonThreads
from .waiting import Ended, within

__all__ = ["Threads", "ThreadsBusy"]

T = TypeVar("T")

Call = tuple[Callable[..., Any], tuple[Any, ...]]


class ThreadsBusy(HostError):
    """Too many calls wait for a thread, or the gateway stops."""


class Threads:
    """A bounded pool.

    Args:
        reactor: gets the results.
        size: calls that run at a time.
        backlog: calls that may wait for their turn.
        pool: runs them; by default threads that begin when needed, and do not keep the process.
    """

    def __init__(self, reactor: Any, size: int = 10, backlog: int = 1000, pool: ThreadPool | None = None) -> None:
        self._reactor = reactor
        self._size = size
        self._backlog = backlog
        self._pool = pool or DaemonThreads(0, size, "kongtwist-plugins")
        self._waiting: deque[tuple[Deferred[Any], Call]] = deque()
        self._working: dict[Deferred[Any], Deferred[Any] | None] = {}
        self._closed = False
        self._idle = Ended()

    @property
    def running(self) -> int:
        """Calls at work."""
        return len(self._working)

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return len(self._waiting)

    def run(self, call: Callable[..., T], *args: Any) -> Deferred[T]:
        """What ``call(*args)`` gives, which runs in a thread.

        Cancelling takes a call back that has not begun; one that runs goes on, and nobody hears of its result.

        Raises (by the Deferred):
            ThreadsBusy: too many calls wait, or the gateway stops.
        """
        done: Deferred[T] = Deferred(self._give_up)
        if self._closed:
            done.errback(ThreadsBusy("the gateway is stopping: no call is taken for a thread"))
        elif self.running >= self._size and len(self._waiting) >= self._backlog:
            text = f"{self.running} calls run in threads and {len(self._waiting)} wait for one"
            done.errback(ThreadsBusy(f"{text}: no more are taken"))
        elif self.running >= self._size:
            self._waiting.append((done, (call, args)))
        else:
            self._start(done, (call, args))
        return done

    def _start(self, done: Deferred[Any], call: Call) -> None:
        if not self._pool.started:
            self._pool.start()
        self._working[done] = result = deferToThreadPool(self._reactor, self._pool, call[0], *call[1])
        self._working[done] = result.addBoth(self._ended, done)

    def _ended(self, result: Any, done: Deferred[Any]) -> None:
        del self._working[done]
        while self._waiting and self.running < self._size:
            self._start(*self._waiting.popleft())
        if not self._working:
            idle, self._idle = self._idle, Ended()
            idle.end()
        if not done.called:
            done.callback(result)  # a Failure fails it

    def _give_up(self, done: Deferred[Any]) -> None:
        for each in self._waiting:
            if each[0] is done:
                self._waiting.remove(each)
                return

    async def close(self, seconds: float) -> None:
        """Take no further calls, fail those that have not begun, and wait for the others.

        Args:
            seconds: how long; a thread that still hangs then ends with the process.
        """
        self._closed = True
        waiting, self._waiting = self._waiting, deque()
        for done, _ in waiting:
            done.errback(ThreadsBusy("the gateway is stopping: the call was not begun"))
        if self._working:
            try:
                await within(self._reactor, seconds, self._idle.wait(), TimeoutError)
            except TimeoutError:
                return
        if self._pool.started and not self._pool.joined:
            self._pool.stop()
