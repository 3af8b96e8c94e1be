"""Lines for the error log that would come with every request: one a minute, or one for a configuration."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

__all__ = ["Once", "Seldom"]

EVERY = 60.0
"""Seconds between two lines."""


class Once:
    """Remembers what was said already."""

    __slots__ = ("_said",)

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, what: str) -> bool:
        """Whether this is the first time."""
        if what in self._said:
            return False
        self._said.add(what)
        return True


class Seldom:
    """Says something once in `EVERY` seconds, and how often it happened meanwhile.

    Args:
        say: writes a line.
        now: seconds.
    """

    __slots__ = ("_last", "_now", "_say", "_silent")

    def __init__(self, say: Callable[[str], None], now: Callable[[], float]) -> None:
        self._say, self._now = say, now
        self._last = -inf
        self._silent = 0

    def __call__(self, text: str) -> None:
        now = self._now()
        if now - self._last < EVERY:
            self._silent += 1
            return
        more = f" ({self._silent} more since the last line)" if self._silent else ""
        self._last, self._silent = now, 0
        self._say(text + more)
