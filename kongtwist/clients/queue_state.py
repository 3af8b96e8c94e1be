"""What Kong's queue decides (Kong 3.9.3, kong/tools/queue.lua): what is taken in, what is thrown out, when a batch is due.

No time passes here: time comes in as a number.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Any, NamedTuple

from ..core.chain.host import QueueSettings

__all__ = ["FULL", "Drops", "Line", "LineBudget", "QueueState", "pause", "size_of", "too_long"]

WARN_AT = 0.8
"""Part of ``max_entries`` from which on a warning is written, once."""
SHORTEST_WAIT = 0.05
"""Seconds: a rest of the coalescing delay below this is not waited for; the whole delay while the gateway stops."""
_LINES_EVERY = 60.0
"""Seconds between two lines about entries that were dropped for one reason; each tells how many. (Kong writes one for each entry that is
dropped for its bytes, and none of how many.)"""
FULL = "queue full, dropping old entries until processing is successful again"

_FAILURES = 10
"""Lines a second about failed tries. (Kong writes all: with a server that is away as many as there are requests.)"""
STOPPING_PAUSE = 1.0
"""Seconds between two tries at the most while the gateway stops: there is no time for long ones."""


class Line(NamedTuple):
    """A line for the log."""

    level: str  #: ``debug``, ``info``, ``warn``, ``error``
    text: str


class LineBudget:
    """So many lines a second; the others are counted."""

    def __init__(self) -> None:
        self._until = 0.0
        self._left = 0
        self._unsaid = 0

    def take(self, now: float) -> int | None:
        """How many were left out before one that is written at ``now`` (seconds); None: it is left out itself."""
        if now >= self._until:
            self._until, self._left = now + 1.0, _FAILURES
        if not self._left:
            self._unsaid += 1
            return None
        self._left -= 1
        unsaid, self._unsaid = self._unsaid, 0
        return unsaid


class _Reason:
    """Entries that were dropped for one reason: how many are in no line yet, and when there may be one."""

    __slots__ = ("text", "unsaid", "until")

    def __init__(self) -> None:
        self.text, self.unsaid, self.until = "", 0, 0.0


class Drops:
    """Entries thrown out, or not taken in.

    Attributes:
        count: of all.
    """

    def __init__(self) -> None:
        self.count = 0
        self._reasons: dict[str, _Reason] = {}

    def one(self, reason: str, text: str) -> None:
        """One more; ``text`` is what a line about it says."""
        self.count += 1
        found = self._reasons.get(reason)
        if found is None:
            found = self._reasons[reason] = _Reason()
        found.text = text
        found.unsaid += 1

    def lines(self, now: float) -> list[Line]:
        """What is to be said at ``now`` (seconds): of each reason a line a minute, the first at once."""
        said = []
        for each in self._reasons.values():
            if each.unsaid and now >= each.until:
                more = f" ({each.unsaid} queue entries were dropped since this was said last)" if each.until else ""
                said.append(Line("error", each.text + more))
                each.unsaid, each.until = 0, now + _LINES_EVERY
        return said


def pause(settings: QueueSettings, tries: int, stopping: bool = False) -> float:
    """Seconds to wait after ``tries`` failed tries (1 or more)."""
    longest = min(settings.max_retry_delay, STOPPING_PAUSE) if stopping else settings.max_retry_delay
    return min(longest, 2.0 ** min(tries - 1, 1000) * settings.initial_retry_delay)


def size_of(entry: Any) -> int | None:
    """Bytes of an entry; None where it is neither bytes nor text."""
    if isinstance(entry, bytes):
        return len(entry)
    return len(entry.encode("utf-8", "surrogatepass")) if isinstance(entry, str) else None


def too_long(size: int, limit: int) -> str:
    """What is said of an entry that is not taken."""
    return f"string to be queued is longer ({size} bytes) than the queue's max_bytes ({limit} bytes)"


class QueueState:
    """Entries that wait.

    Args:
        settings: see `settings`; may be replaced.
        otherwise: bytes, where ``settings.max_bytes`` is None; None: no bound.

    Attributes:
        bytes: of the entries that wait, as far as known.
        max_bytes: that may wait; None: no bound.
        drops: entries thrown out, or not taken in, for want of room.
    """

    def __init__(self, settings: QueueSettings, otherwise: int | None = None) -> None:
        self._otherwise = otherwise
        self.bytes = 0
        self.drops = Drops()
        self._entries: deque[tuple[Any, int]] = deque()
        self.settings = settings
        self._began: float | None = None  # the batch that is being collected
        self._warned = False
        self._dropping = False

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def settings(self) -> QueueSettings:
        """Bounds, and when a batch is due."""
        return self._settings

    @settings.setter
    def settings(self, settings: QueueSettings) -> None:
        self._settings = settings
        limit = settings.max_bytes
        self.max_bytes = self._otherwise if limit is None else limit
        # Without a batch to add to, or each alone, nothing can be put.
        self._few = -1 if settings.concurrency_limit == -1 else settings.max_entries * WARN_AT - 1
        self._most = inf if self.max_bytes is None else self.max_bytes

    @property
    def is_full(self) -> bool:
        """Whether a batch is due for its number of entries."""
        return len(self._entries) >= self._settings.max_batch_size

    def put(self, entry: Any) -> bool:
        """Take in an entry of bytes that there is nothing to be said of, as most are; else it is for `add`."""
        entries = self._entries
        if type(entry) is not bytes or not entries or len(entries) > self._few or self._warned:
            return False
        size = len(entry)
        held = self.bytes + size
        if held > self._most:
            return False
        self.bytes = held
        entries.append((entry, size))
        return True

    # -- in ------------------------------------------------------------------------------------------------------------

    def add(self, entry: Any, now: float) -> list[Line]:
        """Take an entry in, and throw out the oldest where there is no room.

        Args:
            entry: anything; its bytes count where they are known (`size_of`).
            now: seconds.

        Returns:
            What is to be logged.
        """
        settings, lines = self.settings, list[Line]()
        if len(self._entries) < settings.max_entries * WARN_AT:
            self._warned = False
        elif not self._warned:
            self._warned = True
            lines.append(Line("warn", f"queue at {WARN_AT * 100:g}% capacity"))
        size, limit = 0, self.max_bytes
        if limit is not None:
            known = size_of(entry)
            if known is None and settings.max_bytes is not None:
                text = "queuing non-string entry to a queue that has queue.max_bytes set"
                lines.append(Line("error", f"{text}, capacity monitoring will not be correct"))
            size = known or 0
            if size > limit:
                self.drops.one("long", too_long(size, limit))
                return lines + self.drops.lines(now)
        self._make_room(size, limit)
        lines += self.drops.lines(now)
        if not self._entries and self._began is None:
            self._began = now
        self._entries.append((entry, size))
        self.bytes += size
        return lines

    def has_room(self, entry: Any) -> bool:
        """Whether an entry can be taken in without another one that is thrown out."""
        limit = self.max_bytes
        return len(self._entries) < self.settings.max_entries and (
            limit is None or self.bytes + (size_of(entry) or 0) <= limit
        )

    def refuse(self, now: float) -> list[Line]:
        """An entry is not taken in, because there is no room; what is to be logged, at ``now`` (seconds)."""
        self.drops.one("new", "queue full, new queue entries are dropped")
        return self.drops.lines(now)

    def _make_room(self, size: int, limit: int | None) -> None:
        settings = self.settings
        while len(self._entries) >= settings.max_entries:
            self._drop("full", FULL)
        while limit is not None and self._entries and self.bytes + size > limit:
            self._drop("bytes", "byte capacity exceeded, old queue entries are dropped")

    def _drop(self, reason: str, text: str) -> None:
        self.bytes -= self._entries.popleft()[1]
        self.drops.one(reason, text)
        self._dropping = True

    # -- out -----------------------------------------------------------------------------------------------------------

    def due(self, now: float, stopping: bool = False) -> float | None:
        """When the next batch is to be sent.

        Args:
            now: seconds.
            stopping: the gateway stops, and waits for nothing that it need not wait for.

        Returns:
            Seconds from now, 0 for at once; None while nothing waits.
        """
        if not self._entries:
            return None
        if self._began is None:
            self._began = now
        settings = self.settings
        delay = min(settings.max_coalescing_delay, SHORTEST_WAIT) if stopping else settings.max_coalescing_delay
        rest = self._began + delay - now
        if len(self._entries) >= settings.max_batch_size or (rest < SHORTEST_WAIT and not stopping):
            return 0.0
        return max(rest, 0.0)

    def take(self) -> tuple[list[Any], list[Line]]:
        """The next batch, which waits here no longer, and what is to be logged."""
        batch = list[Any]()
        while self._entries and len(batch) < self.settings.max_batch_size:
            entry, size = self._entries.popleft()
            self.bytes -= size
            batch.append(entry)
        self._began = None
        if not self._dropping:
            return batch, []
        self._dropping = False
        return batch, [Line("info", "queue resumed processing")]

    def clear(self) -> int:
        """Throw out everything; how many entries that were."""
        count = len(self._entries)
        self._entries.clear()
        self.bytes = 0
        self._began = None
        return count
