"""Asking a broker that does not wait.

A broker that has nothing new holds a fetch for as long as the client allows (``fetch.max.wait.ms``). Some small ones, as they are used in
tests and demos, answer at once, and a client that only waits for records would ask without end: a processor's time for silence. How
much of its time a poll without records was busy tells them apart; from those, records are asked for at intervals.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["PollingPace"]

_BUSY = 0.1
"""Part of a poll's time that the thread may be busy while nothing comes: a broker that waits leaves hardly anything to do."""
_SHORTEST = 0.09
"""Seconds that a poll must have lasted to tell."""
_PAUSE = 0.04
"""Seconds between two questions to a broker that does not wait."""
_ROUNDS = 500
"""Questions after which it is tried anew."""


class PollingPace:
    """The polls of one consumer, for the thread that makes them.

    Args:
        pause: waits so many seconds, or until the thread is to end.
        clock: seconds that pass.
        used: seconds of the processor that the thread has used.
    """

    def __init__(
        self,
        pause: Callable[[float], object],
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.thread_time,
    ) -> None:
        self._pause, self._clock, self._used = pause, clock, used
        self._rounds = 0

    def poll(self, consumer: Any, milliseconds: int, records: int, whole: bool = False) -> dict[Any, list[Any]]:
        """What a consumer has, at most ``records``; waits for it up to ``milliseconds``.

        Args:
            consumer: polls.
            milliseconds, records: see above.
            whole: give it that time, whatever the broker.
        """
        if self._rounds and not whole:
            self._rounds -= 1
            found: dict[Any, list[Any]] = consumer.poll(timeout_ms=0, max_records=records)
            if not found:
                self._pause(min(_PAUSE, milliseconds / 1000))
            return found
        begun, used = self._clock(), self._used()
        found = consumer.poll(timeout_ms=milliseconds, max_records=records)
        passed = self._clock() - begun
        if not found and not whole and passed >= _SHORTEST and self._used() - used > passed * _BUSY:
            self._rounds = _ROUNDS
        return found
