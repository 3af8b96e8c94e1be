"""The rows of a configuration with indexes over their fields. Immutable: a change makes new tables sharing the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..layers import Layers

if TYPE_CHECKING:
    from ..rows import Row
    from ..storage_contract import Change

__all__ = ["CORE_ENTITIES", "Move", "Moves", "Tables", "differences"]

CORE_ENTITIES = (
    "services", "routes", "consumers", "plugins", "upstreams", "targets", "certificates", "snis", "ca_certificates",
    "vaults", "key_sets", "keys",
)  # fmt: skip
"""Entities whose tables are always there, empty or not."""

_Index = Layers[Any, "Row | tuple[Row, ...]"]
"""Value to the row that has it, or to the rows: a tuple for each of many rows with values of their own would cost more than it tells."""
Move = tuple["Row | None", "Row | None"]
"""A row before and after."""
Moves = dict[str, dict[str, Move]]
"""Entity to id to what became of the row."""
_NONE: tuple[Row, ...] = ()


def _value(row: Row, field: str) -> Any:
    """What a row is found by: the field's value, of a foreign key its id; None for what cannot be looked up."""
    value = row.get(field)
    if isinstance(value, Mapping):
        value = value.get("id")
    return None if isinstance(value, list) else value


class Tables:
    """Rows by entity and id.

    Args:
        rows: entity to id to row. Not copied; nobody may change it afterwards.

    Attributes:
        rows: as given, with an empty table for each of `CORE_ENTITIES` that was not.
    """

    __slots__ = ("_indexes", "rows")

    def __init__(self, rows: Mapping[str, Mapping[str, Row]]) -> None:
        self.rows: dict[str, Mapping[str, Row]] = {**{entity: {} for entity in CORE_ENTITIES}, **rows}
        self._indexes: dict[tuple[str, str], _Index] = {}

    def many(self, entity: str, field: str, value: Any) -> tuple[Row, ...]:
        """The rows whose ``field`` is ``value`` (for a foreign key: its id). The index is built at the first call."""
        index = self._indexes.get((entity, field))
        if index is None:
            index = self._indexes[entity, field] = self._built(entity, field)
        return _rows_of(index, value)

    def one(self, entity: str, field: str, value: Any) -> Row | None:
        """The row whose unique ``field`` is ``value``, or None."""
        found = self.many(entity, field, value)
        return found[0] if found else None

    def _built(self, entity: str, field: str) -> _Index:
        lists: dict[Any, list[Row]] = {}
        for row in self.rows.get(entity, {}).values():
            value = _value(row, field)
            if value is not None:
                lists.setdefault(value, []).append(row)
        return Layers({value: _compact(found) for value, found in lists.items()})

    def changed(self, changes: Iterable[Change]) -> Tables:
        """Tables after these changes, with the same indexes."""
        other, _ = self.moved(changes)
        return other

    def moved(self, changes: Iterable[Change]) -> tuple[Tables, Moves]:
        """Tables after these changes, and what became of each row that they name."""
        moves: Moves = {}
        for _, entity, new, old in changes:
            row = new if new is not None else old
            if row is None:
                continue
            its = moves.setdefault(entity, {})
            known = its.get(row["id"])
            before = self.rows.get(entity, {}).get(row["id"]) if known is None else known[0]
            its[row["id"]] = (before, new)
        rows = dict(self.rows)
        for entity, its in moves.items():
            table = rows.get(entity, {})
            layers: Layers[str, Row] = table if isinstance(table, Layers) else Layers(dict(table))
            put = {key: after for key, (_, after) in its.items() if after is not None}
            rows[entity] = layers.changed(put, [key for key, (_, after) in its.items() if after is None])
        other = Tables(rows)
        for (entity, field), index in self._indexes.items():
            other._indexes[entity, field] = _moved(index, field, moves[entity]) if entity in moves else index
        return other, moves


def _rows_of(index: _Index, value: Any) -> tuple[Row, ...]:
    found = index.get(value, _NONE)
    return found if isinstance(found, tuple) else (found,)


def _compact(rows: Sequence[Row]) -> Row | tuple[Row, ...]:
    return rows[0] if len(rows) == 1 else tuple(rows)


def _moved(index: _Index, field: str, moves: Mapping[str, Move]) -> _Index:
    """An index after moves. A value that many rows share costs one pass over them, however many of them move."""
    out: dict[Any, set[int]] = {}
    new: dict[Any, list[Row]] = {}
    for before, after in moves.values():
        value = None if before is None else _value(before, field)
        if value is not None:
            out.setdefault(value, set()).add(id(before))
        value = None if after is None else _value(after, field)
        if after is not None and value is not None:
            new.setdefault(value, []).append(after)
    put: dict[Any, Row | tuple[Row, ...]] = {}
    empty: list[Any] = []
    for value in {**out, **new}:
        rows, gone = _rows_of(index, value), out.get(value)
        if gone:
            rows = tuple([row for row in rows if id(row) not in gone])
        rows = (*rows, *new.get(value, ()))
        if rows:
            put[value] = _compact(rows)
        else:
            empty.append(value)
    return index.changed(put, empty)


def differences(old: Mapping[str, Mapping[str, Row]], new: Mapping[str, Mapping[str, Row]]) -> Iterator[Change | None]:
    """The changes that lead from one set of rows to another; None for each row that is the same."""
    one: Any
    for entity in {**old, **new}:
        before, after = old.get(entity, {}), new.get(entity, {})
        for row_id, row in before.items():
            one = ("delete", entity, None, row) if row_id not in after else None
            yield one
        for row_id, row in after.items():
            known = before.get(row_id)
            one = None
            if known is None:
                one = ("create", entity, row, None)
            elif known is not row and known != row:
                one = ("update", entity, row, known)
            yield one
