"""All rows in memory with their rules: unique values, references, cascades, order of lists.

Pure: no I/O. A plan works out what a write means, raising where the contract refuses; applying it cannot fail.
"""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from heapq import merge
from itertools import groupby
from typing import Any

from ..core.storage_contract import Change, Dataset, Page
from ..entities import Entity, EntityError
from ..entities.json_text import parse_json
from ..entities.schema import Array, Field, Foreign, Row, String

__all__ = ["RowStore", "is_living", "offset_of"]

ALWAYS = float("-inf")
"""A time at which every row lives."""

TAGS_A_STEP = 500
"""Tags of a row that are entered or taken out at a stretch: about a millisecond."""

_UNCHANGED: Any = object()
_GONE: Any = object()


def is_living(row: Row, now: float) -> bool:
    """Whether a row's time to live, if it has one, is not over at ``now`` (epoch seconds)."""
    until = row.get("expires_at")
    return until is None or bool(until >= now)


def _in_lower_case(field: Field | None, value: Any) -> Any:
    """A value whose ids, if it holds any, are in lower case (RFC 9562 4), as Kong's database writes them."""
    if isinstance(field, String) and field.attrs.get("uuid") and isinstance(value, str):
        return value.lower()
    if isinstance(field, Array) and isinstance(value, list) and field.elements.attrs.get("uuid"):
        return [_in_lower_case(field.elements, each) for each in value]
    if isinstance(field, Foreign) and isinstance(value, dict) and isinstance(value.get("id"), str):
        return value | {"id": value["id"].lower()}
    return value


def _value_of(row: Row, field: str) -> Any:
    value = row.get(field)
    return value.get("id") if isinstance(value, dict) else value


def _release(index: dict[Any, str], value: Any, key: str) -> None:
    """Take a value out of a unique index, unless another row of the same plan has it already (two that swap names)."""
    if value is not None and index.get(value) == key:
        del index[value]


def _leave(index: Any, value: str, key: str) -> None:
    """Take an id out of the list of a value."""
    ids = index.setdefault(value, [])  # there is one; of a draft's index this gives one of its own
    del ids[bisect_right(ids, key) - 1]
    if not ids:
        del index[value]


def _children_of(index: Any, parent: str) -> Sequence[str]:
    """The ids of a parent's children, in order."""
    ids: str | list[str] | None = index.get(parent)
    return () if ids is None else (ids,) if isinstance(ids, str) else ids


def _adopt(index: Any, parent: str, key: str) -> None:
    """Enter a child. An only one stands there as it is: of a hundred thousand lists of one id each the memory is better used."""
    ids = index.get(parent)
    if ids is None:
        index[parent] = key
    elif isinstance(ids, str):
        index[parent] = sorted((ids, key))
    else:
        insort(index.setdefault(parent, []), key)


def _disown(index: Any, parent: str, key: str) -> None:
    """Take a child out."""
    if isinstance(index.get(parent), str):
        del index[parent]
    else:
        _leave(index, parent, key)


class _Table:
    """Rows of one entity, with the indexes its declaration asks for."""

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        self.rows: Any = {}
        self.order: list[str] = []
        self.unique: Any = {field: {} for field in entity.unique}
        self.composite: Any = {}
        self.children: Any = {field: {} for field in entity.foreign}
        self.tagged: dict[str, list[str]] = {}
        self.expiring: list[tuple[float, str]] = []

    def put(self, old: Row | None, new: Row | None) -> Iterator[None]:
        """Put a row in another's place, in steps. At each all that is found is there, by whatever it is found."""
        before, after = (set(() if row is None else row.get("tags") or ()) for row in (old, new))
        key: str = (old if new is None else new)["id"]  # type: ignore[index]
        for number, tag in enumerate(before - after, 1):
            _leave(self.tagged, tag, key)
            if number % TAGS_A_STEP == 0:
                yield
        if old is not None:
            self._unlink(old)
            if new is None:
                del self.order[bisect_right(self.order, key) - 1]
            if old.get("expires_at") is not None:
                del self.expiring[bisect_right(self.expiring, (old["expires_at"], key)) - 1]
        if new is not None:
            self._link(new)
            if old is None:
                insort(self.order, key)
            if new.get("expires_at") is not None:
                insort(self.expiring, (new["expires_at"], key))
        for number, tag in enumerate(after - before, 1):
            insort(self.tagged.setdefault(tag, []), key)
            if number % TAGS_A_STEP == 0:
                yield

    def _link(self, row: Row) -> None:
        key = row["id"]
        self.rows[key] = row
        for field, index in self.unique.items():
            if row.get(field) is not None:
                index[row[field]] = key
        if self.entity.cache_key:
            self.composite[self.composite_of(row)] = key
        for field, by_parent in self.children.items():
            parent = _value_of(row, field)
            if parent is not None:
                _adopt(by_parent, parent, key)

    def _unlink(self, row: Row) -> None:
        key = row["id"]
        del self.rows[key]
        for field, index in self.unique.items():
            _release(index, row.get(field), key)
        if self.entity.cache_key:
            _release(self.composite, self.composite_of(row), key)
        for field, by_parent in self.children.items():
            parent = _value_of(row, field)
            if parent is not None:
                _disown(by_parent, parent, key)

    def ids_tagged(self, how: str, tags: Sequence[str], after: str | None) -> Iterator[str]:
        """Ids of rows with all ("and") or any ("or") of some tags, in order, those behind ``after``."""
        lists = sorted((self.tagged.get(tag, []) for tag in set(tags)), key=len)
        if how == "or":
            merged = merge(*(_ids_after(ids, after) for ids in lists))
            return (key for key, _ in groupby(merged))
        fewest, *others = lists
        return (key for key in _ids_after(fewest, after) if all(_is_among(key, ids) for ids in others))

    def composite_of(self, row: Row) -> tuple[Any, ...]:
        return tuple(_value_of(row, field) for field in self.entity.cache_key)


class _Over(MutableMapping[Any, Any]):
    """What a draft changes of a mapping that stays as it is."""

    __slots__ = ("_base", "_over")

    def __init__(self, base: Any) -> None:
        self._base, self._over = base, {}  # type: ignore[var-annotated]

    def __getitem__(self, key: Any) -> Any:
        found = self._over.get(key, _UNCHANGED)
        if found is _UNCHANGED:
            return self._base[key]
        if found is _GONE:
            raise KeyError(key)
        return found

    def get(self, key: Any, default: Any = None) -> Any:
        found = self._over.get(key, _UNCHANGED)
        if found is _UNCHANGED:
            return self._base.get(key, default)
        return default if found is _GONE else found

    def __contains__(self, key: object) -> bool:
        return self.get(key, _GONE) is not _GONE

    def __setitem__(self, key: Any, value: Any) -> None:
        self._over[key] = value

    def __delitem__(self, key: Any) -> None:
        self._over[key] = _GONE

    def __iter__(self) -> Iterator[Any]:
        yield from (key for key in self._base if key not in self._over)
        yield from (key for key, value in self._over.items() if value is not _GONE)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _OverLists(_Over):
    """The same of a mapping to lists: those that are changed are copies."""

    __slots__ = ()

    def setdefault(self, key: Any, default: Any = None) -> Any:
        own = self._over.get(key, _UNCHANGED)
        if own is _UNCHANGED or own is _GONE:
            known = default if own is _GONE else self._base.get(key, default)
            own = self._over[key] = list(known)
        return own


class _DraftTable(_Table):
    """A table with changes that nobody else sees. It has no order and finds nothing by tags: plans need neither."""

    def __init__(self, base: _Table) -> None:
        self.entity = base.entity
        self.rows = _Over(base.rows)
        self.unique = {field: _Over(index) for field, index in base.unique.items()}
        self.composite = _Over(base.composite)
        self.children = {field: _OverLists(index) for field, index in base.children.items()}
        self.expiring = base.expiring

    def put(self, old: Row | None, new: Row | None) -> Iterator[None]:
        if old is not None:
            self._unlink(old)
        if new is not None:
            self._link(new)
        yield


class _DraftTables(dict[str, _Table]):
    """The tables of a draft, each made when it is asked for."""

    def __init__(self, base: Mapping[str, _Table]) -> None:
        super().__init__()
        self._base = base

    def __missing__(self, name: str) -> _Table:
        made = self[name] = _DraftTable(self._base[name])
        return made

    def items(self) -> Any:
        return [(name, self[name]) for name in self._base]


class RowStore:
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

    def share(self, other: RowStore, name: str) -> None:
        """Have the rows of an entity that ``other`` has, which is not used any more when this one is."""
        if name in other._tables:
            self._tables[name] = other._tables[name]

    def draft(self) -> RowStore:
        """These rows, to try changes on: they are seen in the draft alone. The store must not change meanwhile; it may be
        read, and the draft be worked on in another thread."""
        made = RowStore.__new__(RowStore)
        made.registry, made._referring = self.registry, self._referring
        made._tables = _DraftTables(self._tables)
        return made

    # -- reading -------------------------------------------------------------------------------------------------------

    def dataset(self) -> Dataset:
        return {name: table.rows for name, table in self._tables.items()}

    def get(self, entity: str, key: str) -> Row | None:
        found: Row | None = self._tables[entity].rows.get(key)
        return found

    def find(self, entity: str, field: str, value: Any) -> Row | None:
        table = self._tables[entity]
        key = table.unique[field].get(value) if field in table.unique else None
        if key is None and field not in table.unique:
            return next((row for row in table.rows.values() if row.get(field) == value), None)
        return None if key is None else self.get(entity, key)

    def find_together(self, entity: str, values: Sequence[str | None]) -> Row | None:
        """The row whose fields that are unique together have these values, of references the ids."""
        table = self._tables[entity]
        key = table.composite.get(tuple(values))
        return None if key is None else self.get(entity, key)

    def children(self, entity: str, field: str, parent: str) -> list[Row]:
        table = self._tables[entity]
        return [table.rows[key] for key in _children_of(table.children[field], parent)]

    def dependents(self, entity: str, key: str) -> int:
        """How many rows refer to one."""
        return sum(
            len(_children_of(self._tables[child.name].children[field], key))
            for child, field in self._referring.get(entity, ())
        )

    def page(
        self,
        entity: str,
        size: int,
        offset: str | None,
        parent: tuple[str, str] | None,
        tags: tuple[str, Sequence[str]] | None,
        now: float = ALWAYS,
    ) -> Page:
        """As `kongtwist.core.storage_contract.Storage.page`; rows whose time to live is over take no place."""
        table = self._tables[entity]
        after = None if offset is None else _offset_id(offset)
        if parent is not None:
            found = _ids_after(_children_of(table.children[parent[0]], parent[1]), after)
        elif tags is not None:
            found = table.ids_tagged(tags[0], tags[1], after)
            tags = None
        else:
            found = _ids_after(table.order, after)
        rows: list[Row] = []
        for key in found:
            row = table.rows[key]
            if (tags is None or _tagged(row, tags)) and is_living(row, now):
                rows.append(row)
                if len(rows) > size:
                    break
        if len(rows) <= size:
            return Page(rows, None)
        rows.pop()
        return Page(rows, offset_of(rows[-1]["id"]))

    def tagged(self, tag: str | None, now: float = ALWAYS) -> Iterator[Row]:
        """One row for each tag of each row that lives, as ``/tags`` lists them; with ``tag`` for that one alone."""
        for name, table in self._tables.items():
            for key in table.order if tag is None else table.tagged.get(tag, ()):
                row = table.rows.get(key)
                if row is not None and is_living(row, now):
                    for each in (row.get("tags") or ()) if tag is None else (tag,):
                        yield {"tag": each, "entity_name": name, "entity_id": key}

    def expired(self, now: float) -> list[tuple[str, str]]:
        """(entity, id) of rows whose time to live is over."""
        return [
            (name, key)
            for name, table in self._tables.items()
            if table.expiring
            for _, key in table.expiring[: bisect_left(table.expiring, (now, ""))]
            if key in table.rows
        ]

    # -- planning --------------------------------------------------------------------------------------------------------

    def resolve(self, entity: Entity, data: Mapping[str, Any]) -> Row:
        """References by a name, or another unique field (``{"name": "x"}``), replaced by ids (Kong 3.9, ``resolve_foreign``).
        Ids are written in lower case, so that equal ones are equal text.

        Raises:
            EntityError: nothing has that name, or it is no text.
        """
        found = {name: _in_lower_case(entity.fields.get(name), value) for name, value in data.items()}
        missing: list[tuple[str, str, Any, str]] = []
        for field, foreign in entity.foreign.items():
            value = found.get(field)
            parent = self.registry.get(foreign.reference)
            if isinstance(value, dict) and parent is not None and foreign.inner_error(value) is not None:
                row, unknown = self._named(parent, field, value)
                if row is not None:
                    found[field] = {"id": row["id"]}
                missing += unknown
        if missing:
            raise EntityError.unresolved(missing)
        return found

    def _named(self, parent: Entity, field: str, value: Row) -> tuple[Row | None, list[tuple[str, str, Any, str]]]:
        """The row that a reference names, and the names of nothing that were tried before: for `EntityError.unresolved`."""
        missing: list[tuple[str, str, Any, str]] = []
        for by in dict.fromkeys((*parent.unique, *([parent.endpoint_key] if parent.endpoint_key else []))):
            name = value.get(by)
            if name is None:
                continue
            if not isinstance(name, str):
                raise EntityError.schema_violation({field: {by: "expected a string"}})
            if parent.fields[by].error(name) is None:
                row = self.find(parent.name, by, name)
                if row is not None:
                    return row, missing
                missing.append((field, by, name, parent.name))
        return None, missing

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
        for _ in self.apply_steps(changes):
            pass

    def apply_steps(self, changes: Iterable[Change]) -> Iterator[None]:
        """As `apply`, in steps. Rows that others refer to come before these and go after them, so what is read between two
        steps is whole."""
        for change in changes:
            yield from self._tables[change.entity].put(change.old, change.new)
            yield

    def revert(self, changes: Sequence[Change]) -> None:
        """Undo changes that could not be made durable, the last first."""
        for change in reversed(changes):
            for _ in self._tables[change.entity].put(change.new, change.old):
                pass


def _is_among(key: str, ids: Sequence[str]) -> bool:
    """Whether a sorted list has an id."""
    at = bisect_right(ids, key)
    return at > 0 and ids[at - 1] == key


def _ids_after(ids: Sequence[str], after: str | None) -> Iterator[str]:
    """Ids of a list in order, those behind ``after``."""
    at = 0 if after is None else bisect_right(ids, after)
    return (ids[place] for place in range(at, len(ids)))


def _tagged(row: Row, tags: tuple[str, Sequence[str]]) -> bool:
    how, wanted = tags
    own = row.get("tags") or ()
    return all(tag in own for tag in wanted) if how == "and" else any(tag in own for tag in wanted)


def offset_of(key: str) -> str:
    """The offset of the page behind a row."""
    return urlsafe_b64encode(json.dumps([key]).encode()).decode().rstrip("=")


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
