"""The rows of a configuration with indexes over their fields. Immutable: a change makes new tables sharing the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exchange import Row
    from .storage import Change

__all__ = ["CORE_ENTITIES", "Tables", "differences"]

CORE_ENTITIES = (
    "services", "routes", "consumers", "plugins", "upstreams", "targets", "certificates", "snis", "ca_certificates",
    "vaults", "key_sets", "keys",
)  # fmt: skip
"""Entities whose tables are always there, empty or not."""

_Index = dict[Any, "tuple[Row, ...]"]
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
        return index.get(value, _NONE)

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
        return {value: tuple(found) for value, found in lists.items()}

    def changed(self, changes: Iterable[Change]) -> Tables:
        """Tables after these changes, with the same indexes."""
        copies: dict[str, dict[str, Row]] = {}
        moves: dict[str, list[tuple[Row | None, Row | None]]] = {}
        for _, entity, new, old in changes:
            table = copies.get(entity)
            if table is None:
                table = copies[entity] = dict(self.rows.get(entity, {}))
            row = new if new is not None else old
            if row is None:
                continue
            before = table.pop(row["id"], None) if new is None else table.get(row["id"])
            if new is not None:
                table[row["id"]] = new
            moves.setdefault(entity, []).append((before, new))
        other = Tables({**self.rows, **copies})
        for (entity, field), index in self._indexes.items():
            other._indexes[entity, field] = _moved(index, field, moves[entity]) if entity in moves else index
        return other


def _moved(index: _Index, field: str, moves: list[tuple[Row | None, Row | None]]) -> _Index:
    copy = index.copy()
    for before, after in moves:
        if before is not None:
            value = _value(before, field)
            kept = tuple(row for row in copy.get(value, _NONE) if row is not before)
            if kept:
                copy[value] = kept
            else:
                copy.pop(value, None)
        if after is not None:
            value = _value(after, field)
            if value is not None:
                copy[value] = (*copy.get(value, _NONE), after)
    return copy


def differences(old: Mapping[str, Mapping[str, Row]], new: Mapping[str, Mapping[str, Row]]) -> list[Change]:
    """The changes that lead from one set of rows to another."""
    changes: list[Any] = []
    for entity in {**old, **new}:
        before, after = old.get(entity, {}), new.get(entity, {})
        for row_id, row in before.items():
            if row_id not in after:
                changes.append(("delete", entity, None, row))
        for row_id, row in after.items():
            known = before.get(row_id)
            if known is None:
                changes.append(("create", entity, row, None))
            elif known is not row and known != row:
                changes.append(("update", entity, row, known))
    return changes
