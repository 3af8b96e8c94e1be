"""The longest of many prefixes of a path, in a number of steps that grows with the logarithm of their lengths.

Route paths are plain string prefixes without a segment boundary (``/foo`` matches ``/foobar``). Binary search over the
lengths, with marker entries leading to longer prefixes (Waldvogel et al., "Scalable high speed IP routing lookups", 1997).
The search goes through a length's bits, the largest first: a prefix of 13 bytes is found behind the markers at 8 and 12. So
the markers of a prefix depend on nothing but its own length, and no change makes those of others wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, MutableMapping

from ..layers import Layers

__all__ = ["PrefixIndex"]

PREFIXES_A_STEP = 1000
"""Prefixes of an index that are changed at a stretch."""

Table = Callable[[], MutableMapping[bytes, int]]


def _marks(prefix: bytes) -> list[bytes]:
    """Where a search for ``prefix`` must go on to longer ones: its beginnings of the lengths 8 and 12 if it has 13."""
    found = []
    left = len(prefix)
    length = 0
    while left:
        bit = 1 << (left.bit_length() - 1)
        left -= bit
        length += bit
        found.append(prefix[:length])
    return found[:-1]


class PrefixIndex:
    """A multiset of prefixes. Immutable: `changed` gives a new one, sharing the work where it can.

    Args:
        prefixes: what it holds.
        table: makes the mappings that look-ups are done in; a test counts in them.
    """

    __slots__ = ("_below", "_bits", "_counts", "_table")

    def __init__(self, prefixes: Iterable[bytes] = (), table: Table = dict) -> None:
        empty = Layers[bytes, int](None, table)
        self._counts = empty  # prefixes, and how often each was added
        self._table = empty  # prefixes and markers, and of how many prefixes each is one
        self._bits: tuple[int, ...] = ()
        self._below: dict[bytes, bytes | None] = {}
        added = list(prefixes)
        if added:
            self._fill(empty, empty, 0, (), added)

    def __len__(self) -> int:
        return len(self._counts)

    def changed(self, removed: Iterable[bytes], added: Iterable[bytes]) -> PrefixIndex:
        """An index without ``removed`` (each once) and with ``added``."""
        other = PrefixIndex()
        other._fill(self._counts, self._table, len(self._bits), removed, added)
        return other

    def steps(self, removed: list[bytes], added: list[bytes]) -> Generator[None, None, PrefixIndex]:
        """As `changed`, in steps; itself where the same prefixes go and come."""
        index = self
        if sorted(removed) != sorted(added):
            most = max(len(removed), len(added))
            for at in range(0, most, PREFIXES_A_STEP):
                index = index.changed(removed[at : at + PREFIXES_A_STEP], added[at : at + PREFIXES_A_STEP])
                if at + PREFIXES_A_STEP < most:
                    yield
        return index

    def _fill(
        self,
        counts: Layers[bytes, int],
        table: Layers[bytes, int],
        bits: int,
        removed: Iterable[bytes],
        added: Iterable[bytes],
    ) -> None:
        moves: dict[bytes, int] = {}
        for prefix in added:
            moves[prefix] = moves.get(prefix, 0) + 1
        for prefix in removed:
            moves[prefix] = moves.get(prefix, 0) - 1
        marks: dict[bytes, int] = {}
        for prefix, number in moves.items():
            before = counts.get(prefix, 0)
            step = (before + number > 0) - (before > 0)
            if step:
                for mark in (*_marks(prefix), prefix):
                    marks[mark] = marks.get(mark, 0) + step
            bits = max(bits, len(prefix).bit_length())
        self._counts = _added(counts, moves)
        self._table = _added(table, marks)
        self._bits = tuple(1 << bit for bit in range(bits - 1, -1, -1))

    def longest(self, path: bytes) -> bytes | None:
        """The longest prefix of ``path`` (itself included) in the index, or None."""
        table = self._table
        size = len(path)
        length = 0
        for bit in self._bits:
            longer = length + bit
            if longer <= size and path[:longer] in table:
                length = longer
        if not length:
            return None
        found = path[:length]
        return found if found in self._counts else self._longest_below(found)

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


def _added(counts: Layers[bytes, int], moves: dict[bytes, int]) -> Layers[bytes, int]:
    """Counts after moves; what has come to nothing is taken out."""
    new = {key: counts.get(key, 0) + number for key, number in moves.items() if number}
    return counts.changed({key: count for key, count in new.items() if count}, [key for key in new if not new[key]])
