"""How the Admin API finds, shows and writes the rows of an entity (Kong 3.9, ``kong/api/endpoints.lua``).

An entity for which some of that is different has a subclass in `kongtwist.admin.overrides`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from ..entities import Entity, EntityError
from ..entities.schema import Row
from .admin_api import AdminAPI
from .json_resource import Branch, Call
from .replies import Reply, not_found

__all__ = ["EntityRows", "Parent", "Writes", "is_uuid"]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", re.IGNORECASE)


def is_uuid(text: str) -> bool:
    """Whether a path's key is an id."""
    return _UUID.match(text) is not None


class Writes(Protocol):
    """Writes that are made together, as `kongtwist.core.storage_contract.Storage.together` gives them to its work."""

    def find(self, entity: str, field: str, value: Any) -> Row | None:
        """A row by a unique field."""
        ...

    def children(self, entity: str, field: str, parent_id: str) -> list[Row]:
        """Rows that refer to another."""
        ...

    def insert(self, entity: str, data: Mapping[str, Any]) -> Row:
        """Validate and create."""
        ...

    def update(self, entity: str, key: str, patch: Mapping[str, Any]) -> Row:
        """Merge into the row and validate."""
        ...

    def upsert(self, entity: str, key: Mapping[str, Any], data: Mapping[str, Any]) -> Row:
        """Replace or create."""
        ...

    def delete(self, entity: str, key: str) -> Row | None:
        """Delete with its cascading children."""
        ...


class Parent(NamedTuple):
    """The row that a path names above a list or row."""

    rows: EntityRows
    key: str
    """As given in the path."""
    field: str
    """The foreign key by which the rows below refer to it."""

    def row(self) -> Row | None:
        """The row, if there is one. Raises EntityError as `EntityRows.look_up`."""
        return self.rows.look_up(self.key)


class EntityRows:
    """The rows of one entity.

    Args:
        api: the Admin API.
        entity: the entity.
        every: the rows of all entities that are stored, by name.
    """

    top_level: ClassVar[bool] = True
    """Whether the rows have paths of their own, beside those below their parents."""
    put_creates: ClassVar[bool] = True
    """Whether PUT replaces or creates a row; otherwise it changes one that is there."""
    hidden_parents: ClassVar[Collection[str]] = ()
    """Foreign keys that have no path below a row."""
    key_text: ClassVar[str | None] = None
    """What addresses a row in a path, for the documentation, where it is neither id nor endpoint key."""
    list_arguments: ClassVar[Mapping[str, str]] = {}
    """Query arguments of the list beside the usual ones, with their meaning."""

    def __init__(self, api: AdminAPI, entity: Entity, every: Mapping[str, EntityRows]) -> None:
        self.api, self.entity, self.every = api, entity, every
        self.name = entity.name

    # -- paths -----------------------------------------------------------------------------------------------------------

    def children(self) -> dict[str, tuple[EntityRows, str]]:
        """Entities that refer to this one: path segment -> (their rows, their foreign key)."""
        return {
            rows.entity.nested_name: (rows, field)
            for rows in self.every.values()
            for field, foreign in rows.entity.foreign.items()
            if foreign.reference == self.name
        }

    def beside(self, parent: Parent | None) -> dict[str, Branch]:
        """Paths beside the rows of a list, ahead of their keys."""
        return {}

    def below(self, key: str, parent: Parent | None) -> dict[str, Branch]:
        """Paths below a row that no foreign key gives."""
        return {}

    # -- reading ---------------------------------------------------------------------------------------------------------

    def look_up(self, key: str) -> Row | None:
        """A row by id or endpoint key.

        Raises:
            EntityError: a key that the field would not take.
        """
        if is_uuid(key):
            return self.api.storage.get(self.name, key.lower())
        if self.entity.endpoint_key is None:
            raise EntityError.invalid_primary_key({"id": "expected a valid UUID"})
        error = self.entity.key_error(key)
        if error is not None:
            raise error
        return self.api.storage.find(self.name, self.entity.endpoint_key, key)

    def row(self, key: str, parent: Parent | None) -> Row | None:
        """A row by its key, if it is there and belongs to the parent."""
        if parent is None:
            return self.look_up(key)
        above = parent.row()
        row = None if above is None else self.child(key, parent, above)
        return row if above is not None and row is not None and self.belongs(row, parent, above) else None

    def child(self, key: str, parent: Parent, above: Row) -> Row | None:
        """A row by its key. Where keys are unique within the parent only, it is looked for among its children.

        Args:
            key: as given in the path.
            parent: what the path names above it.
            above: the parent's row.
        """
        field = self.entity.endpoint_key
        if field is None or is_uuid(key) or self.entity.fields[field].unique:
            return self.look_up(key)
        wanted = self.stored_key(key)
        children = self.api.storage.children(self.name, parent.field, above["id"])
        return next((row for row in children if row[field] == wanted), None)

    @staticmethod
    def belongs(row: Row, parent: Parent, above: Row) -> bool:
        """Whether a row refers to the parent's row."""
        reference = row.get(parent.field) or {}
        return bool(reference.get("id") == above["id"])

    def stored_key(self, key: str) -> str:
        """A key in a path as it is stored."""
        return key

    def address(self, key: str) -> dict[str, str]:
        """The field and value that a path's key stands for."""
        if is_uuid(key) or self.entity.endpoint_key is None:
            return {"id": key.lower()}
        return {self.entity.endpoint_key: key}

    def put_address(self, key: str, present: Row | None, data: dict[str, Any]) -> dict[str, str]:
        """`address` of a row that PUT writes below a parent.

        Args:
            key: as given in the path.
            present: the row, if it is there.
            data: the body; what the key says of the row is put in where it lacks.
        """
        return self.address(key)

    def shown(self, row: Row) -> Row:
        """A row as an answer shows it."""
        found = self.entity.shown(row, self.api.now())
        if self.entity.ttl and found["ttl"] is None and not self.api.storage.writable:
            del found["ttl"]  # as Kong, which then knows the file's members only
        return found

    async def listed(self, call: Call, parent: Parent | None, above: Row | None) -> Reply | None:
        """A list that is not the usual one; None for the usual one.

        Args:
            call: the request.
            parent: what the path names above the list.
            above: its row.
        """
        return None

    def missing(self, key: str) -> Reply | None:
        """An answer for a row that is not there, where it is not the usual one."""
        return None

    def absent(self, key: str) -> Reply:
        """The answer where no row has a key."""
        return self.missing(key) or not_found()

    def unread(self, key: str) -> Reply:
        """The same to a GET of the row itself.

        Raises:
            EntityError: where that is the answer.
        """
        return self.absent(key)

    # -- writing ---------------------------------------------------------------------------------------------------------

    async def insert(self, data: Mapping[str, Any]) -> Row:
        """Create a row and what comes with it. All of these raise EntityError where the contract refuses."""
        return await self.api.storage.insert(self.name, data)

    def insert_in(self, writes: Writes, data: Mapping[str, Any]) -> Row:
        """The same as one of several writes."""
        return writes.insert(self.name, data)

    async def update(self, row: Row, data: Mapping[str, Any]) -> Row:
        """Change a row and what comes with it."""
        return await self.api.storage.update(self.name, row["id"], data)

    async def upsert(self, key: Mapping[str, Any], data: Mapping[str, Any]) -> Row:
        """Replace or create a row and what comes with it. ``key``: the field and value that address it."""
        return await self.api.storage.upsert(self.name, key, data)

    async def delete(self, row: Row) -> None:
        """Delete a row and what comes with it."""
        await self.api.storage.delete(self.name, row["id"])

    async def together(self, work: Callable[[Writes], Row], heavy: bool) -> Row:
        """Writes that belong together: all are made, or none."""
        return await self.api.storage.together(work, heavy)
