"""Waiting with a time limit."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

__all__ = ["Ended", "Promise", "Shared", "within"]

T = TypeVar("T")


async def within(
    reactor: IReactorTime, seconds: float, work: Coroutine[Any, Any, T] | Deferred[T], late: Callable[[], Exception]
) -> T:
    """What ``work`` gives, if it does so in time; else it is cancelled.

    Args:
        reactor: makes the timer, which is gone when this returns.
        seconds: how long the work may take; less than 0 is 0.
        work: what is waited for.
        late: makes the exception that is raised when the time is over.
    """
    running = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
    over = False

    def expire() -> None:
        nonlocal over
        over = True
        running.cancel()

    timer = reactor.callLater(max(seconds, 0.0), expire)
    try:
        return await running
    except Exception:
        if over:  # whatever the work makes of being cancelled
            raise late() from None
        raise
    finally:
        if timer.active():
            timer.cancel()


class Ended:
    """Something that ends once, and any number who wait for that."""

    __slots__ = ("_waiting", "over")

    def __init__(self) -> None:
        self.over = False
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        """Fires when it has ended; at once if it has. Cancelling concerns nobody else."""
        waiter: Deferred[None] = Deferred(self._forget)
        if self.over:
            waiter.callback(None)
        else:
            self._waiting.append(waiter)
        return waiter

    def end(self) -> None:
        """It has ended."""
        self.over = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def _forget(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)


class Promise:
    """See `kongtwist.core.chain.host.Promise`.

    Args:
        reactor: keeps time.
    """

    __slots__ = ("_reactor", "_result", "_waiting", "over")

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self.over = False
        self._result: Any = None
        self._waiting: list[Deferred[Any]] = []

    def give(self, value: Any = None) -> None:
        """See `kongtwist.core.chain.host.Promise`."""
        if self.over:
            return
        self.over, self._result = True, value
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(value)  # a Failure fails it

    def fail(self, error: Exception) -> None:
        """See `kongtwist.core.chain.host.Promise`."""
        self.give(Failure(error))

    def wait(self, seconds: float | None = None) -> Deferred[Any]:
        """See `kongtwist.core.chain.host.Promise`."""
        waiter: Deferred[Any] = Deferred(self._forget)
        if self.over:
            waiter.callback(self._result)
            return waiter
        self._waiting.append(waiter)
        if seconds is not None:
            timer = self._reactor.callLater(max(seconds, 0.0), self._late, waiter)
            _ = waiter.addBoth(_without, timer)
        return waiter

    def _late(self, waiter: Deferred[Any]) -> None:
        self._forget(waiter)
        waiter.errback(TimeoutError())

    def _forget(self, waiter: Deferred[Any]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)


def _without(result: Any, timer: IDelayedCall) -> Any:
    if timer.active():
        timer.cancel()
    return result


class Shared(Generic[T]):
    """Work that many ask for at a time, and that is done once for all of them. It goes on though one of them is cancelled."""

    def __init__(self) -> None:
        self._waiting: dict[Any, list[Deferred[T]]] = {}

    def get(self, key: Any, work: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """What ``work`` gives, or what it gave to who asked first and waits still.

        Args:
            key: what is asked for.
            work: makes the coroutine that finds it.
        """
        waiting = self._waiting.get(key)
        begun = waiting is not None
        if waiting is None:
            waiting = self._waiting[key] = []
        waiter: Deferred[T] = Deferred(waiting.remove)
        waiting.append(waiter)
        if not begun:
            Deferred.fromCoroutine(work()).addBoth(self._done, key)  # type: ignore[unused-awaitable]
        return waiter

    def _done(self, result: Any, key: Any) -> None:
        for each in self._waiting.pop(key):
            each.callback(result)  # a Failure fails it
