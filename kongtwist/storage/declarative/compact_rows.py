"""Rows as they come out of JSON, made small: of a hundred thousand consumers each byte counts a hundred thousand times.

JSON gives each row the names of its fields and each id and time again, and dictionaries with room for more.
"""

from __future__ import annotations

from typing import Any

from ...entities.schema import Row

__all__ = ["CompactRows"]

_SHARED_NAMES = 30
"""Fields of the largest row whose dictionary shares the names of its fields with others (CPython: SHARED_KEYS_MAX_SIZE)."""


class CompactRows:
    """Makes rows small. One is for one load: what it remembers is gone with it."""

    __slots__ = ("_forms", "_ids", "_reference", "_times")

    def __init__(self) -> None:
        self._forms: dict[str, type] = {}
        self._reference = _form("reference")
        self._ids: dict[str, str] = {}
        self._times: dict[Any, Any] = {}

    def row(self, entity: str, row: Row) -> Row:
        """An equal row that takes less memory; parents come before rows that refer to them.

        Args:
            entity: what it is a row of.
            row: as JSON gives it; its members are taken over.
        """
        if len(row) > _SHARED_NAMES:
            return row
        form = self._forms.get(entity)
        if form is None:
            form = self._forms[entity] = _form(entity)
        made = form()
        for field, value in row.items():
            kind = value.__class__
            if kind is int:
                value = self._times.setdefault(value, value)
            elif kind is dict and len(value) == 1 and "id" in value:
                reference = self._reference()
                reference.id = self._ids.get(value["id"], value["id"])
                value = vars(reference)
            setattr(made, field, value)
        key = row["id"]
        self._ids[key] = key
        # The dictionary of an object shares its keys with those of all objects of its class (PEP 412): it takes half of what
        # another one does. It outlives the object, and is a dictionary like any other.
        found: Row = vars(made)
        return found


def _form(name: str) -> type:
    """A class whose objects' dictionaries are rows of one entity."""
    return type(name, (), {})
