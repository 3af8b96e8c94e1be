"""Integers by name that the workers of a node share: each writes its own, everybody reads the sum.

They tell a state (how much is under way, how much is left), so what a worker that died had is gone with it. A process that
is alone keeps them in a dict; the workers of a node in the memory of their counters (shared_counters.py): a table for each
worker, written by its owner only, so there is no lock. An entry is a tag made of name and position, and the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from ..core.chain.host import HostError

__all__ = ["CELL_ENTRIES", "CELL_WIDTH", "MAX_CELLS", "CellGroup", "CellsFull", "LocalCells", "SharedCells"]

MAX_CELLS = 4096
"""Cells that a process may have under all names together."""

CELL_ENTRIES = 16384
"""Entries of a worker's table."""
CELL_WIDTH = 2
"""Numbers of 8 bytes in an entry."""
_PROBES = 16
"""Entries, one behind the other, that a cell may stand in."""
_GONE = -1
"""Tag of an entry that was given back: it may be taken again, and others stand behind it."""


class CellsFull(HostError):
    """There is no room for another cell; the text says how much there is."""


@lru_cache(maxsize=MAX_CELLS)
def _tag(name: str, index: int) -> int:
    """A positive number of 63 bits, the same in every process."""
    text = f"{index}\0{name}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little") >> 1 or 1


def _found(table: memoryview, tag: int) -> int:
    """Where a tag stands in a table; -1 where it does not."""
    start = tag % CELL_ENTRIES
    for probe in range(_PROBES):
        at = (start + probe) % CELL_ENTRIES * CELL_WIDTH
        if table[at] == tag:
            return at
        if not table[at]:
            break
    return -1


class CellGroup:
    """The cells of one name as one process sees them (host.SharedCells): its own values are read and put by index.

    Args:
        own: where this process's values stand, and the table with them.
        others: other workers' tables.
        tags: of the cells, in order.
    """

    def __init__(
        self, own: tuple[memoryview | list[int], Sequence[int]], others: Sequence[memoryview], tags: Sequence[int]
    ) -> None:
        self._table, self._places = own
        self._others, self._tags = others, tags

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int, /) -> int:
        return self._table[self._places[index]]

    def __setitem__(self, index: int, value: int, /) -> None:
        self._table[self._places[index]] = value

    def total(self, index: int) -> int:
        """The sum over all workers."""
        found = self._table[self._places[index]]
        for table in self._others:
            at = _found(table, self._tags[index])
            if at >= 0:
                found += table[at + 1]
        return found


class LocalCells:
    """Cells of a gateway in one process, or of anybody who shares nothing.

    Args:
        max_cells: cells under all names together.
    """

    def __init__(self, max_cells: int = MAX_CELLS) -> None:
        self._max_cells = max_cells
        self._groups: dict[str, tuple[CellGroup, int]] = {}
        self._used = 0

    def claim(self, name: str, count: int) -> CellGroup:
        """The cells of a name, made at the first claim. As often as claimed they must be released.

        Raises:
            CellsFull: there is no room for them.
            HostError: the name is in use with another number of cells.
        """
        group, holders = self._groups.get(name, (None, 0))
        if group is None:
            if self._used + count > self._max_cells:
                raise CellsFull(f"no room for {count} cells named {name}: {self._used} of {self._max_cells} are in use")
            group = self._made(name, count)
            self._used += count
        if len(group) != count:
            raise HostError(f"the cells named {name} are {len(group)}, not {count}")
        self._groups[name] = (group, holders + 1)
        return group

    def release(self, name: str) -> None:
        """Give a claim back; the last one's values are gone."""
        group, holders = self._groups[name]
        if holders > 1:
            self._groups[name] = (group, holders - 1)
            return
        del self._groups[name]
        self._used -= len(group)
        self._dropped(name, group)

    def _made(self, name: str, count: int) -> CellGroup:
        return CellGroup(([0] * count, range(count)), (), ())

    def _dropped(self, name: str, group: CellGroup) -> None:
        """Nothing holds them any more."""


class SharedCells(LocalCells):
    """Cells over the workers of a node.

    Args:
        tables: a table for each process, of signed numbers, `CELL_ENTRIES` times `CELL_WIDTH` of them.
        own: number of this process's table.
        max_cells: cells of this process under all names together.
    """

    def __init__(self, tables: Sequence[memoryview], own: int, max_cells: int = MAX_CELLS) -> None:
        super().__init__(max_cells)
        self._own = tables[own]
        self._others = [table for index, table in enumerate(tables) if index != own]

    def share_with(self, tables: Sequence[memoryview]) -> None:
        """These are the tables of the others from now on, for groups that are claimed already, too."""
        self._others[:] = tables

    def _made(self, name: str, count: int) -> CellGroup:
        tags = [_tag(name, index) for index in range(count)]
        places: list[int] = []
        for tag in tags:
            at = self._free(tag)
            if at < 0:
                self._give_back(places)
                raise CellsFull(f"no room for {count} cells named {name} in the memory that workers share")
            self._own[at + 1] = 0
            self._own[at] = tag
            places.append(at + 1)
        return CellGroup((self._own, places), self._others, tags)

    def _free(self, tag: int) -> int:
        start = tag % CELL_ENTRIES
        for probe in range(_PROBES):
            at = (start + probe) % CELL_ENTRIES * CELL_WIDTH
            if self._own[at] in (0, _GONE):
                return at
        return -1

    def _dropped(self, name: str, group: CellGroup) -> None:
        self._give_back(group._places)

    def _give_back(self, places: Sequence[int]) -> None:
        for at in places:
            self._own[at] = 0
            self._own[at - 1] = _GONE
