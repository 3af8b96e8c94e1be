"""Timers and coroutines that belong to somebody, and end with him."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import isawaitable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.host import HostError
from .waiting import Ended, within

__all__ = ["Tasks"]

_log = Logger(namespace="kongtwist.plugins")


class Timer:
    """Something that is going to be called, once or again and again."""

    def __init__(self, tasks: Tasks, seconds: float, call: Callable[[], object], again: bool) -> None:
        self._tasks = tasks
        self._seconds = seconds
        self._call = call
        self._again = again
        self._next: IDelayedCall | None = None
        self._running: Deferred[Any] | None = None
        self._cancelled = False
        self._wait()

    def cancel(self) -> None:
        """Do not call it any more, and cancel what a call still waits for; no harm if it is over."""
        self._cancelled = True
        self._tasks.forget(self)
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._running is not None:
            self._running.cancel()

    def _wait(self) -> None:
        self._next = self._tasks.reactor.callLater(self._seconds, self._fire)

    def _fire(self) -> None:
        self._next = None
        try:
            result = self._call()
        except Exception:  # noqa: BLE001 - a timer goes on, whatever a call of it does
            self._tasks.failed("a timer", Failure())
        else:
            if isawaitable(result):
                self._running = Deferred.fromCoroutine(_awaited(result))
                self._running = self._running.addErrback(self._failed).addBoth(lambda _: self._done())
                return
        self._done()

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._tasks.failed("a timer", failure)

    def _done(self) -> None:
        self._running = None
        if self._cancelled:
            return
        if self._again:
            self._wait()
        else:
            self._tasks.forget(self)


class _Coroutine:
    """A coroutine that runs."""

    def __init__(self, tasks: Tasks, name: str, coroutine: Coroutine[Any, Any, object]) -> None:
        self._tasks = tasks
        self._name = name
        self.over = False
        running: Deferred[Any] = Deferred.fromCoroutine(coroutine)
        self.running = running.addErrback(self._failed).addBoth(lambda _: self._ended())

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._tasks.failed(self._name, failure)

    def _ended(self) -> None:
        self.over = True
        self._tasks.ended(self)


class Tasks:
    """Timers and coroutines of one owner.

    Args:
        reactor: for time.
        name: the owner, for the log.
    """

    def __init__(self, reactor: IReactorTime, name: str) -> None:
        self.reactor = reactor
        self._name = name
        self._timers: dict[Timer, None] = {}
        self._coroutines: dict[_Coroutine, None] = {}
        self._closed = False
        self._idle = Ended()

    def __len__(self) -> int:
        return len(self._timers) + len(self._coroutines)

    def every(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call again and again, first in ``seconds``. What it raises is logged; the next pause begins when the call, and
        what it gives to wait for, is over.

        Raises:
            HostError: the owner has closed.
        """
        return self._timer(seconds, call, True)

    def later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call once. What it raises is logged. Raises as `every`."""
        return self._timer(seconds, call, False)

    def _timer(self, seconds: float, call: Callable[[], object], again: bool) -> Timer:
        if self._closed:
            raise HostError(f"{self._name} has closed: no timer can begin")
        timer = Timer(self, seconds, call, again)
        self._timers[timer] = None
        return timer

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine. Its failure is logged with ``name``. Raises as `every`."""
        if self._closed:
            coroutine.close()
            raise HostError(f"{self._name} has closed: {name} cannot begin")
        task = _Coroutine(self, name, coroutine)
        if not task.over:
            self._coroutines[task] = None

    def ended(self, task: _Coroutine) -> None:
        """A coroutine is over."""
        self._coroutines.pop(task, None)
        if not self._coroutines:
            idle, self._idle = self._idle, Ended()
            idle.end()

    def failed(self, what: str, failure: Failure) -> None:
        """Log what failed."""
        _log.failure("{owner}: {what} failed", failure, owner=self._name, what=what)

    def forget(self, timer: Timer) -> None:
        """A timer is over."""
        self._timers.pop(timer, None)

    async def close(self, seconds: float) -> None:
        """Cancel everything, and wait for coroutines that tidy up.

        Args:
            seconds: how long they may take.
        """
        self._closed = True
        for timer in list(self._timers):
            timer.cancel()
        for task in list(self._coroutines):
            task.running.cancel()
        if self._coroutines:
            try:
                await within(self.reactor, seconds, self._idle.wait(), TimeoutError)
            except TimeoutError:
                _log.error("{owner}: {count} coroutines go on after they were cancelled", owner=self._name,
                           count=len(self._coroutines))  # fmt: skip


async def _awaited(result: Any) -> object:
    return await result
