"""When messages of one stream passed, for its own line in a log; `message_times` is about all streams together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .message_times import MessageTimes

__all__ = ["MessageSpans", "together"]


class MessageSpans(MessageTimes):
    """Keeps two figures of either direction.

    Attributes:
        first: seconds from the stream's opening to its first message, by direction; -1: there was none.
        longest: the longest time between two messages, seconds, by direction.
    """

    __slots__ = ("first", "longest")

    def __init__(self) -> None:
        self._last = [0.0, 0.0]
        self._opened = 0.0
        self.first = [-1.0, -1.0]
        self.longest = [0.0, 0.0]

    def begin(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._opened = clock()

    def written(self) -> dict[str, Any]:
        passed = max(self.first) >= 0.0
        return {
            "opened": self._opened, "last": list(self._last), "passed": passed, "first": list(self.first), "longest": list(self.longest),
        }  # fmt: skip

    def resume(self, written: Mapping[str, Any]) -> None:
        """See `MessageTimes.resume`. Where nobody kept these figures before, they begin here."""
        self._opened, self._last = written["opened"], list(written["last"])
        if "first" in written:
            self.first, self.longest = list(written["first"]), list(written["longest"])

    def passed(self, direction: int, count: int = 1) -> None:
        now = self._clock()
        if self.first[direction] < 0.0:
            self.first[direction] = now - self._opened
        elif now - self._last[direction] > self.longest[direction]:
            self.longest[direction] = now - self._last[direction]
        self._last[direction] = now


class _Both(MessageTimes):
    """Two that are told."""

    __slots__ = ("_one", "_other")

    def __init__(self, one: MessageTimes, other: MessageTimes) -> None:
        self._one, self._other = one, other

    def begin(self, clock: Callable[[], float]) -> None:
        """Both have begun."""

    def written(self) -> dict[str, Any]:
        return {**self._one.written(), **self._other.written()}

    def resume(self, written: Mapping[str, Any]) -> None:
        """Both have been resumed."""

    def passed(self, direction: int, count: int = 1) -> None:
        self._one.passed(direction, count)
        self._other.passed(direction, count)


def together(one: MessageTimes | None, other: MessageTimes) -> MessageTimes:
    """What tells both; ``one`` is who was told before, if there was anybody."""
    return other if one is None else _Both(one, other)
