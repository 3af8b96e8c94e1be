"""What stands for `kongtwist.core.chain.host.Promise` while plugins are tested."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

__all__ = ["StandInPromise"]


class StandInPromise:
    """See `kongtwist.core.chain.host.Promise`. Time passes when the test says so."""

    def __init__(self, clock: Clock) -> None:
        self.over = False
        self._clock = clock
        self._result: Any = None
        self._waiting: list[Deferred[Any]] = []

    def give(self, value: Any = None) -> None:
        """See `kongtwist.core.chain.host.Promise`."""
        if not self.over:
            self.over, self._result = True, value
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(value)

    def fail(self, error: Exception) -> None:
        """See `kongtwist.core.chain.host.Promise`."""
        self.give(Failure(error))

    def wait(self, seconds: float | None = None) -> Deferred[Any]:
        """See `kongtwist.core.chain.host.Promise`."""
        waiter: Deferred[Any] = Deferred(self._waiting.remove)
        if self.over:
            waiter.callback(self._result)
            return waiter
        self._waiting.append(waiter)
        if seconds is not None:
            _ = waiter.addTimeout(seconds, self._clock, lambda _, limit: Failure(TimeoutError()))
        return waiter
