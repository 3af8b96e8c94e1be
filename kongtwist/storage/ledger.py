"""All rows in memory with their rules: unique values, references, cascades, order of lists.

Pure: no I/O. A plan works out what a write means, raising where the contract refuses; applying it cannot fail.
"""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import groupby
from typing import Any

from ..core.storage import Change, Dataset, Page
from ..entities import Entity, EntityError
from ..entities.json_text import parse_json
from ..entities.schema import Row

__all__ = ["Ledger"]


def _value_of(row: Row, field: str) -> Any:
    value = row.get(field)
    return value.get("id") if isinstance(value, dict) else value


def _release(index: dict[Any, str], value: Any, key: str) -> None:
    """Take a value out of a unique index, unless another row of the same plan has it already (two that swap names)."""
    if value is not None and index.get(value) == key:
        del index[value]


def _leave(index: dict[str, list[str]], value: str, key: str) -> None:
    """Take an id out of the list of a value."""
    ids = index[value]
    del ids[bisect_right(ids, key) - 1]
    if not ids:
        del index[value]


class _Table:
    """Rows of one entity, with the indexes its declaration asks for."""

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        self.rows: dict[str, Row] = {}
        self.order: list[str] = []
        self.unique: dict[str, dict[Any, str]] = {field: {} for field in entity.unique}
        self.composite: dict[tuple[Any, ...], str] = {}
        self.children: dict[str, dict[str, list[str]]] = {field: {} for field in entity.foreign}
        self.tagged: dict[str, list[str]] = {}
        self.expiring: set[str] = set()

    def add(self, row: Row) -> None:
        key = row["id"]
        self.rows[key] = row
        insort(self.order, key)
        for field, index in self.unique.items():
            if row.get(field) is not None:
                index[row[field]] = key
        if self.entity.cache_key:
            self.composite[self.composite_of(row)] = key
        for field, by_parent in self.children.items():
            parent = _value_of(row, field)
            if parent is not None:
                insort(by_parent.setdefault(parent, []), key)
        for tag in set(row.get("tags") or ()):
            insort(self.tagged.setdefault(tag, []), key)
        if row.get("expires_at") is not None:
            self.expiring.add(key)

    def remove(self, row: Row) -> None:
        key = row["id"]
        del self.rows[key]
        del self.order[bisect_right(self.order, key) - 1]
        for field, index in self.unique.items():
            _release(index, row.get(field), key)
        if self.entity.cache_key:
            _release(self.composite, self.composite_of(row), key)
        for field, by_parent in self.children.items():
            parent = _value_of(row, field)
            if parent is not None:
                _leave(by_parent, parent, key)
        for tag in set(row.get("tags") or ()):
            _leave(self.tagged, tag, key)
        self.expiring.discard(key)

    def ids_tagged(self, how: str, tags: Sequence[str], after: str | None) -> Iterator[str]:
        """Ids of rows with all ("and") or any ("or") of some tags, in order, those behind ``after``."""
        lists = [self.tagged.get(tag, ()) for tag in set(tags)]
        if how == "or":
            merged = merge(*(_ids_after(ids, after) for ids in lists))
            return (key for key, _ in groupby(merged))
        fewest = min(lists, key=len)
        wanted = set(tags)
        return (key for key in _ids_after(fewest, after) if wanted.issubset(self.rows[key]["tags"]))

    def composite_of(self, row: Row) -> tuple[Any, ...]:
        return tuple(_value_of(row, field) for field in self.entity.cache_key)


class Ledger:
    """Rows of all entities.

    Args:
        registry: the entities by name.
    """

    def __init__(self, registry: Mapping[str, Entity]) -> None:
        self.registry = registry
        self._tables = {name: _Table(entity) for name, entity in registry.items() if entity.stored}
        self._referring: dict[str, list[tuple[Entity, str]]] = {}
        for entity in filter(lambda each: each.stored, registry.values()):
            for field, foreign in entity.foreign.items():
                self._referring.setdefault(foreign.reference, []).append((entity, field))

    # -- reading -------------------------------------------------------------------------------------------------------

    def dataset(self) -> Dataset:
        return {name: table.rows for name, table in self._tables.items()}

    def get(self, entity: str, key: str) -> Row | None:
        return self._tables[entity].rows.get(key)

    def find(self, entity: str, field: str, value: Any) -> Row | None:
        table = self._tables[entity]
        key = table.unique[field].get(value) if field in table.unique else None
        if key is None and field not in table.unique:
            return next((row for row in table.rows.values() if row.get(field) == value), None)
        return None if key is None else table.rows[key]

    def children(self, entity: str, field: str, parent: str) -> list[Row]:
        table = self._tables[entity]
        return [table.rows[key] for key in table.children[field].get(parent, ())]

    def page(
        self,
        entity: str,
        size: int,
        offset: str | None,
        parent: tuple[str, str] | None,
        tags: tuple[str, Sequence[str]] | None,
    ) -> Page:
        table = self._tables[entity]
        after = None if offset is None else _offset_id(offset)
        if parent is not None:
            found = _ids_after(table.children[parent[0]].get(parent[1], ()), after)
        elif tags is not None:
            found = table.ids_tagged(tags[0], tags[1], after)
            tags = None
        else:
            found = _ids_after(table.order, after)
        rows: list[Row] = []
        for key in found:
            row = table.rows[key]
            if tags is None or _tagged(row, tags):
                rows.append(row)
                if len(rows) > size:
                    break
        if len(rows) <= size:
            return Page(rows, None)
        rows.pop()
        return Page(rows, urlsafe_b64encode(json.dumps([rows[-1]["id"]]).encode()).decode().rstrip("="))

    def tagged(self) -> Iterable[Row]:
        """One row for each tag of each row, as ``/tags`` lists them."""
        for name, table in self._tables.items():
            for key in table.order:
                for tag in table.rows[key].get("tags") or ():
                    yield {"tag": tag, "entity_name": name, "entity_id": key}

    def expired(self, now: float) -> list[tuple[str, str]]:
        """(entity, id) of rows whose time to live is over."""
        return [
            (name, key)
            for name, table in self._tables.items()
            if table.entity.ttl
            for key in sorted(table.expiring)
            if (table.rows[key].get("expires_at") or now) < now
        ]

    # -- planning --------------------------------------------------------------------------------------------------------

    def resolve(self, entity: Entity, data: Mapping[str, Any]) -> Row:
        """References by name (``{"name": "x"}``) replaced by ids.

        Raises:
            EntityError: nothing has that name, or it is no text.
        """
        found = dict(data)
        for field, foreign in entity.foreign.items():
            value = found.get(field)
            parent = self.registry.get(foreign.reference)
            if not isinstance(value, dict) or "id" in value or parent is None or parent.endpoint_key is None:
                continue
            if parent.endpoint_key not in value:
                continue
            name = value[parent.endpoint_key]
            if name is not None and not isinstance(name, str):
                raise EntityError.schema_violation({field: {parent.endpoint_key: "expected a string"}})
            row = self.find(parent.name, parent.endpoint_key, name)
            if row is None:
                raise EntityError.unresolved(field, parent.endpoint_key, name, parent.name)
            found[field] = {"id": row["id"]}
        return found

    def plan_write(self, entity: str, row: Row) -> list[Change]:
        """What storing a complete, valid row means: a creation, or an update of the row with its id."""
        table = self._tables[entity]
        old = table.rows.get(row["id"])
        self._check_references(table.entity, row)
        self._check_unique(table, row)
        return [Change("create" if old is None else "update", entity, row, old)]

    def plan_delete(self, entity: str, row: Row) -> list[Change]:
        """What deleting a row means: first its cascading children."""
        changes: list[Change] = []
        for child, field in self._referring.get(entity, ()):
            rows = self.children(child.name, field, row["id"])
            if rows and child.foreign[field].on_delete != "cascade":
                raise EntityError.referenced(child.name, entity)
            for each in rows:
                changes.extend(self.plan_delete(child.name, each))
        if entity == "ca_certificates":
            self._check_authority(row["id"])
        return [*changes, Change("delete", entity, None, row)]

    def _check_authority(self, key: str) -> None:
        for row in self._tables["services"].rows.values():
            if key in (row.get("ca_certificates") or ()):
                raise EntityError.still_referenced(
                    f"ca certificate {key} is still referenced by services (id = {row['id']})"
                )

    def _check_references(self, entity: Entity, row: Row) -> None:
        for field, foreign in entity.foreign.items():
            value = row.get(field)
            if value is not None and value["id"] not in self._tables[foreign.reference].rows:
                raise EntityError.foreign_key_violation(field, foreign.reference, {"id": value["id"]})

    @staticmethod
    def _check_unique(table: _Table, row: Row) -> None:
        for field, index in table.unique.items():
            value = row.get(field)
            if value is not None and index.get(value, row["id"]) != row["id"]:
                raise EntityError.unique_violation({field: value})
        if table.entity.cache_key:
            holder = table.composite.get(table.composite_of(row), row["id"])
            if holder != row["id"]:
                raise EntityError.unique_violation({field: row.get(field) for field in table.entity.cache_key})

    # -- applying --------------------------------------------------------------------------------------------------------

    def apply(self, changes: Iterable[Change]) -> None:
        """Make planned changes."""
        for change in changes:
            table = self._tables[change.entity]
            if change.old is not None:
                table.remove(change.old)
            if change.new is not None:
                table.add(change.new)

    def revert(self, changes: Sequence[Change]) -> None:
        """Undo changes that could not be made durable, the last first."""
        for change in reversed(changes):
            table = self._tables[change.entity]
            if change.new is not None:
                table.remove(change.new)
            if change.old is not None:
                table.add(change.old)


def _ids_after(ids: Sequence[str], after: str | None) -> Iterator[str]:
    """Ids of a list in order, those behind ``after``."""
    at = 0 if after is None else bisect_right(ids, after)
    return (ids[place] for place in range(at, len(ids)))


def _tagged(row: Row, tags: tuple[str, Sequence[str]]) -> bool:
    how, wanted = tags
    own = row.get("tags") or ()
    return all(tag in own for tag in wanted) if how == "and" else any(tag in own for tag in wanted)


def _offset_id(offset: str) -> str:
    """The id after which a page begins.

    Raises:
        EntityError: not an offset that a page gave.
    """
    try:
        plain = offset.rstrip("=").replace("-", "+").replace("_", "/")
        text = b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (BadBase64, ValueError):
        raise EntityError.invalid_offset(offset, "bad base64 encoding") from None
    try:
        (key,) = parse_json(text)
    except (ValueError, TypeError):
        raise EntityError.invalid_offset(offset, "bad json encoding") from None
    if not isinstance(key, str) or len(key) != 36:
        raise EntityError.invalid_offset(offset, "bad json encoding")
    return key
