"""The longest of many prefixes of a path, in a number of steps that grows with the logarithm of their lengths.

Route paths are plain string prefixes without a segment boundary (``/foo`` matches ``/foobar``). Binary search over the
distinct lengths, with marker entries leading to longer prefixes (Waldvogel et al., "Scalable high speed IP routing
lookups", 1997): 10,000 paths of 100 lengths take 7 look-ups, 10 paths of 10 lengths take 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping

__all__ = ["PrefixIndex"]

Table = Callable[[], MutableMapping[bytes, None]]


class PrefixIndex:
    """A multiset of prefixes. Immutable: `changed` gives a new one, sharing the work where it can.

    Args:
        counts: each prefix and how often it was added.
        table: makes the mapping that look-ups are done in; a test counts in it.
    """

    __slots__ = ("_below", "_counts", "_lengths", "_stale", "_steps", "_table", "_table_type")

    def __init__(self, counts: dict[bytes, int], table: Table = dict) -> None:
        self._counts = counts
        self._table_type = table
        self._lengths = sorted({len(prefix) for prefix in counts})
        self._steps = {length: self._trail(index) for index, length in enumerate(self._lengths)}
        self._table = table()
        self._stale = 0
        for prefix in counts:
            self._mark(prefix)
        self._below: dict[bytes, bytes | None] = {}

    @classmethod
    def of(cls, prefixes: Iterable[bytes], table: Table = dict) -> PrefixIndex:
        """An index of ``prefixes``."""
        counts: dict[bytes, int] = {}
        for prefix in prefixes:
            counts[prefix] = counts.get(prefix, 0) + 1
        return cls(counts, table)

    def __len__(self) -> int:
        return len(self._counts)

    def changed(self, removed: Iterable[bytes], added: Iterable[bytes]) -> PrefixIndex:
        """An index without ``removed`` (each once) and with ``added``."""
        counts = self._counts.copy()
        stale = self._stale
        new = []
        for prefix in added:
            if prefix not in counts:
                new.append(prefix)
            counts[prefix] = counts.get(prefix, 0) + 1
        for prefix in removed:
            counts[prefix] -= 1
            if not counts[prefix]:
                del counts[prefix]
                stale += 1
        if stale * 2 > len(counts) + 64 or any(len(prefix) not in self._steps for prefix in new):
            return PrefixIndex(counts, self._table_type)
        # Markers of removed prefixes stay: they only lead a search to a longer length in vain.
        other = PrefixIndex.__new__(PrefixIndex)
        other._counts = counts
        other._table_type = self._table_type
        other._lengths = self._lengths
        other._steps = self._steps
        other._table = self._table
        other._stale = stale
        other._below = {}
        if new:
            other._table = self._table_type()
            other._table.update(self._table)
            for prefix in new:
                other._mark(prefix)
        return other

    def _trail(self, index: int) -> tuple[int, ...]:
        """The lengths at which a search for the length at ``index`` must go on to longer ones."""
        trail = []
        low, high = 0, len(self._lengths) - 1
        while low <= high:
            middle = (low + high) >> 1
            if middle == index:
                break
            if middle < index:
                trail.append(self._lengths[middle])
                low = middle + 1
            else:
                high = middle - 1
        return tuple(trail)

    def _mark(self, prefix: bytes) -> None:
        table = self._table
        table[prefix] = None
        for length in self._steps[len(prefix)]:
            table[prefix[:length]] = None

    def longest(self, path: bytes) -> bytes | None:
        """The longest prefix of ``path`` (itself included) in the index, or None."""
        table = self._table
        lengths = self._lengths
        size = len(path)
        found = None
        low, high = 0, len(lengths) - 1
        while low <= high:
            middle = (low + high) >> 1
            length = lengths[middle]
            if length <= size and path[:length] in table:
                found = path[:length]
                low = middle + 1
            else:
                high = middle - 1
        if found is None or found in self._counts:
            return found
        return self._longest_below(found)

    def below(self, prefix: bytes) -> bytes | None:
        """The longest prefix in the index that is shorter than ``prefix`` and begins it."""
        return self._longest_below(prefix)

    def _longest_below(self, text: bytes) -> bytes | None:
        """As `below`, remembered. ``text`` is a prefix or a marker, so there are no more entries than in the table."""
        try:
            return self._below[text]
        except KeyError:
            found = self.longest(text[:-1]) if text else None
            self._below[text] = found
            return found
