"""Counters and rate-limit windows of a node: in one process, or in memory shared by its workers.

`LocalCounters` serves a gateway that is one process. `SharedCounters` lives in a memfd that the parent makes and every
worker maps: a row of cells, a table of windows and one of named cells (shared_cells.py) per worker. Each row is written
by its owner only and read by all, so there is no lock; aligned 8-byte stores are not torn on the machines we run on. Behind
the workers' rows lies one more row, for workers that are gone: when a worker dies the parent adds its totals there and
sets its gauges to zero.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import Any

from ..core.counters import ACCEPTED, CELL_NAMES, CELLS, GAUGES, HANDLED, REQUESTS, Cells, RateWindow, Windows
from .shared_cells import CELL_ENTRIES, CELL_WIDTH, LocalCells, SharedCells

__all__ = ["LocalCounters", "LocalWindows", "SharedCounters", "SharedWindows"]

MAX_KEYS = 65536
"""Keys kept per window in one process; beyond it the least used of the oldest go."""

SETS = 16384
"""Sets in a worker's shared table of windows."""
WAYS = 4
"""Entries in a set; a key of a window can be in one set only."""
_ENTRY = 3  # cells of an entry: tag, epoch second it expires, count
_STRIDE = WAYS * _ENTRY
_NAMED = CELL_ENTRIES * CELL_WIDTH  # numbers in a worker's table of named cells
_MASK = (1 << 64) - 1
_FULL = 1 << 60  # no count grows beyond it, so that the sum over workers fits a cell
_TAKEN = _MASK  # tag of an entry that is just being replaced: no key's (its chance is 2**-64)


CARRIED = 1000
"""Counts in one piece of what a process that takes over is told."""

Message = dict[str, Any]


class LocalWindows:
    """Rate-limit windows of one process: exact, bounded, no shared memory."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._tables: dict[int, dict[str, int]] = {}
        self._expires: dict[int, float] = {}
        self._max_keys = max_keys

    def take(self, key: str, frames: Sequence[RateWindow], now: float) -> list[int]:
        """See `kongtwist.core.counters.Windows.take`."""
        tables = self._tables
        used: list[int] = []
        found: list[dict[str, int]] = []
        fits = True
        for window, expires, limit in frames:
            table = tables.get(window)
            if table is None:
                table = self._open(window, expires, now)
            count = table.get(key, 0)
            used.append(count)
            found.append(table)
            if count >= limit:
                fits = False
        if fits:
            for table, count in zip(found, used, strict=True):
                if not count and len(table) >= self._max_keys:
                    self._make_room(table)
                table[key] = count + 1
        return used

    def read(self, key: str, frames: Sequence[RateWindow]) -> list[int]:
        """See `kongtwist.core.counters.Windows.read`."""
        return [self._tables.get(frame.window, {}).get(key, 0) for frame in frames]

    def add(self, key: str, frames: Sequence[RateWindow], amount: int, now: float) -> None:
        """See `kongtwist.core.counters.Windows.add`."""
        for window, expires, _ in frames:
            table = self._tables.get(window)
            if table is None:
                table = self._open(window, expires, now)
            count = table.get(key, 0)
            if not count and len(table) >= self._max_keys:
                self._make_room(table)
            table[key] = count + amount

    def carried(self, now: float) -> Iterator[Message]:
        """What is counted, in pieces, for the process that takes over."""
        for window, table in self._tables.items():
            items = iter(list(table.items()) if self._expires[window] > now else ())
            while some := list(islice(items, CARRIED)):
                yield {"window": window, "expires": self._expires[window], "keys": some}

    def carry(self, piece: Message, now: float) -> None:
        """Go on from what another process counted. What was counted for several workers cannot be taken: it has no keys."""
        frame = RateWindow(piece.get("window", 0), piece.get("expires", 0.0), 0)
        for key, count in piece.get("keys", ()):
            self.add(key, (frame,), count, now)

    def _open(self, window: int, expires: float, now: float) -> dict[str, int]:
        for old in [each for each, end in self._expires.items() if end <= now]:
            del self._tables[old], self._expires[old]
        self._expires[window] = expires
        table = self._tables[window] = {}
        return table

    @staticmethod
    def _make_room(table: dict[str, int]) -> None:
        """Drop the least used of the eight oldest keys; the others get a second chance at the end of the line.

        So a flood of made-up keys (addresses, header values) pushes out one another, not those near their limit.
        """
        oldest = list(islice(table.items(), 8))
        victim = min(oldest, key=lambda item: item[1])[0]
        for key, count in oldest:
            del table[key]
            if key != victim:
                table[key] = count


class LocalCounters:
    """Counters of a gateway in one process."""

    def __init__(self) -> None:
        self.cells: Cells = [0] * CELLS
        self.windows: Windows = LocalWindows()
        self.named = LocalCells()

    def totals(self) -> dict[str, int]:
        """The node's figures by name."""
        return {name: max(0, self.cells[index]) for index, name in enumerate(CELL_NAMES)}


@lru_cache(maxsize=16384)
def _hash(key: str) -> int:
    """64 bits of ``key``, the same in every process (Python's own hash differs per process)."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


@lru_cache(maxsize=32768)
def _spot(key: str, window: int, sets: int) -> tuple[int, int]:
    """What a window's entry for ``key`` is found by (never 0, which marks an empty entry), and where its set begins."""
    mixed = (_hash(key) + window * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 32)) * 0xD6E8FEB86659FD93) & _MASK  # neighbouring windows must not share a set
    tag = mixed or 1
    return tag, tag % sets * _STRIDE


def _find(table: memoryview, tag: int, start: int) -> int:
    """Index of the entry with ``tag`` in its set, or -1. Entries fill a set from the front and never become empty."""
    for at in range(start, start + _STRIDE, _ENTRY):
        found = table[at]
        if found == tag:
            return at
        if not found:
            break
    return -1


class SharedWindows:
    """Rate-limit windows over the workers of a node: one table per worker, read by all, written by its owner.

    A table is set-associative: an entry lies in one of `WAYS` places of its set. A full set gives up a window that is
    over, else the one with the lowest count.
    """

    def __init__(self, tables: Sequence[memoryview], own: int, sets: int) -> None:
        self._own = tables[own]
        self._others = [table for index, table in enumerate(tables) if index != own]
        self._sets = sets

    def share_with(self, tables: Sequence[memoryview]) -> None:
        """These are the tables of the others from now on."""
        self._others = list(tables)

    def take(self, key: str, frames: Sequence[RateWindow], now: float) -> list[int]:
        """See `kongtwist.core.counters.Windows.take`."""
        used = []
        places = []
        fits = True
        own = self._own
        others = self._others
        for window, _, limit in frames:
            tag, start = _spot(key, window, self._sets)
            # The first place of a set is nearly always the right one: look there without a call.
            place = start if own[start] == tag else _find(own, tag, start)
            count = own[place + 2] if place >= 0 else 0
            for table in others:
                found = table[start]
                if found == tag:
                    count += table[start + 2]
                elif found:
                    at = _find(table, tag, start)
                    if at >= 0:
                        count += table[at + 2]
            used.append(count)
            places.append(place)
            if count >= limit:
                fits = False
        if fits:
            for frame, place in zip(frames, places, strict=True):
                if place >= 0:
                    own[place + 2] += 1
                else:
                    self._enter(*_spot(key, frame[0], self._sets), frame, now)
        return used

    def read(self, key: str, frames: Sequence[RateWindow]) -> list[int]:
        """See `kongtwist.core.counters.Windows.read`."""
        return [self._count(*_spot(key, frame.window, self._sets)) for frame in frames]

    def _count(self, tag: int, start: int) -> int:
        found = [(table, _find(table, tag, start)) for table in (self._own, *self._others)]
        return sum(table[at + 2] for table, at in found if at >= 0)

    def add(self, key: str, frames: Sequence[RateWindow], amount: int, now: float) -> None:
        """See `kongtwist.core.counters.Windows.add`."""
        for frame in frames:
            tag, start = _spot(key, frame.window, self._sets)
            place = _find(self._own, tag, start)
            if place >= 0:
                self._own[place + 2] = min(self._own[place + 2] + amount, _FULL)
            else:
                self._enter(tag, start, frame, now, amount)

    def carried(self, now: float) -> Iterator[Message]:
        """See `LocalWindows.carried`; keys are not known here, only where their entries are."""
        for table in (self._own, *self._others):
            found = zip(table[::_ENTRY].tolist(), table[1::_ENTRY].tolist(), table[2::_ENTRY].tolist(), strict=True)
            living = (each for each in found if each[0] not in (0, _TAKEN) and each[1] > now)
            while some := list(islice(living, CARRIED)):
                yield {"entries": some}

    def carry(self, piece: Message, now: float) -> None:
        """See `LocalWindows.carry`."""
        LocalWindows.carry(self, piece, now)  # type: ignore[arg-type]
        for tag, expires, count in piece.get("entries", ()):
            start = tag % self._sets * _STRIDE
            place = _find(self._own, tag, start)
            if place >= 0:
                self._own[place + 2] = min(self._own[place + 2] + count, _FULL)
            else:
                self._enter(tag, start, RateWindow(0, expires, 0), now, count)

    def _enter(self, tag: int, start: int, frame: RateWindow, now: float, amount: int = 1) -> None:
        """Begin an entry, in a free place of its set or in the place of the one that is missed least."""
        own = self._own
        places = range(start, start + _STRIDE, _ENTRY)
        place = min(places, key=lambda at: 0 if own[at] == 0 or own[at + 1] <= now else own[at + 2])
        if own[place]:
            own[place] = _TAKEN  # readers must not take the old tag with the new count
        own[place + 1] = int(frame.expires)
        own[place + 2] = amount
        own[place] = tag


class SharedCounters:
    """Counters of a node with several workers, in one memfd.

    The parent calls `create` and hands `fileno()` down; a worker calls `attach` with its row. The parent itself uses
    the row behind the workers' (it may serve nothing, but its totals include everybody's).

    Args:
        fd: the memfd; owned by this object from now on.
        workers: rows for workers.
        row: this process's row, from 0; ``workers`` is the parent's own (that of workers that are gone).
        sets: sets in each table of windows.

    Attributes:
        workers: as given.
    """

    def __init__(self, fd: int, workers: int, row: int, sets: int = SETS) -> None:
        self._fd = fd
        self._row = row
        self.workers = workers
        cells = CELLS * (workers + 1)
        table = sets * WAYS * _ENTRY
        self._map = mmap.mmap(fd, self.size(workers, sets))
        view = memoryview(self._map)
        # Signed cells: a gauge that is one off must show as such, not stop a connection with an overflow.
        signed = view[: cells * 8].cast("q")
        self._rows = [signed[at : at + CELLS] for at in range(0, cells, CELLS)]
        unsigned = view[cells * 8 : (cells + table * (workers + 1)) * 8].cast("Q")
        tables = [unsigned[at * table : (at + 1) * table] for at in range(workers + 1)]
        self.cells: Cells = self._rows[row]
        self._tables = tables
        self.windows: Windows = SharedWindows(tables, row, sets)
        named = view[(cells + table * (workers + 1)) * 8 :].cast("q")
        self._named = [named[at * _NAMED : (at + 1) * _NAMED] for at in range(workers + 1)]
        self.named = SharedCells(self._named, row)

    def use(self, rows: int) -> None:
        """Look at the windows and cells of this many workers, and of the parent: those of rows nobody ever had cost time and
        memory for nothing."""
        others = [each for each in (*range(rows), self.workers) if each != self._row]
        assert isinstance(self.windows, SharedWindows)
        self.windows.share_with([self._tables[each] for each in others])
        self.named.share_with([self._named[each] for each in others])

    @staticmethod
    def size(workers: int, sets: int = SETS) -> int:
        """Bytes of memory; pages nobody touched cost nothing."""
        return (workers + 1) * 8 * (CELLS + sets * WAYS * _ENTRY + _NAMED)

    @classmethod
    def create(cls, workers: int, sets: int = SETS) -> SharedCounters:
        """Make the memory, in the parent."""
        fd = os.memfd_create("kongtwist-counters")
        os.ftruncate(fd, cls.size(workers, sets))
        return cls(fd, workers, workers, sets)

    @classmethod
    def attach(cls, fd: int, workers: int, row: int, sets: int = SETS) -> SharedCounters:
        """Map the parent's memory, in worker ``row``.

        Raises:
            ValueError: the memory has another size than this number of workers needs.
        """
        if os.fstat(fd).st_size != cls.size(workers, sets):
            raise ValueError(f"the counters' memory does not fit {workers} workers")
        return cls(fd, workers, row, sets)

    def memory(self) -> tuple[int, int]:
        """Bytes of memory in use, and at most."""
        found = os.fstat(self._fd)
        return found.st_blocks * 512, found.st_size

    def fileno(self) -> int:
        """The memfd, to be inherited by workers."""
        return self._fd

    def totals(self) -> dict[str, int]:
        """The node's figures by name, over all workers."""
        return {name: max(0, sum(row[index] for row in self._rows)) for index, name in enumerate(CELL_NAMES)}

    def retire(self, row: int) -> None:
        """A worker died: add its totals to the last row, drop its gauges. Only by the parent, before a new one
        starts.

        The worker's windows stay: its successor takes them over, so a crash opens no rate limit.
        """
        dead = self._rows[row]
        gone = self._rows[self.workers]
        for cell in (ACCEPTED, HANDLED, REQUESTS):
            gone[cell] += dead[cell]
            dead[cell] = 0
        for cell in GAUGES:
            dead[cell] = 0
        named = self._named[row].cast("B")
        named[:] = bytes(len(named))

    def close(self) -> None:
        """Let go of the file descriptor; the memory stays mapped while somebody uses it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
