"""The contract of storage: what the Admin API, the publisher and the command line may ask of a back end.

Every back end keeps the whole configuration in memory (the data path needs it there anyway) and makes writes durable
before they are acknowledged. Reads therefore never wait. Writes are planned one after the other on the newest state, so
reading, merging, validating and writing of one PATCH cannot be interleaved with another's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from .rows import Row

__all__ = ["Change", "Dataset", "Page", "Storage"]

T = TypeVar("T")

Dataset = Mapping[str, Mapping[str, Row]]
"""All rows: entity name -> id -> row."""


class Change(NamedTuple):
    """One row that was created, updated or deleted."""

    op: str
    """``create``, ``update`` or ``delete``."""
    entity: str
    new: Row | None
    """The row as it is now; None when deleted."""
    old: Row | None
    """The row as it was; None when created."""


class Page(NamedTuple):
    """A part of a list."""

    rows: list[Row]
    offset: str | None
    """Where the next page begins; None at the end."""


class Storage(Protocol):
    """A back end. All awaitables fail with `kongtwist.entities.EntityError` where the contract refuses."""

    kind: str
    """``sqlite``, ``postgres`` or ``off``, as the property ``database``."""
    writable: bool
    shared: bool
    """Whether other nodes write too: what is here may be a moment old."""

    def open(self) -> Awaitable[None]:
        """Make ready: migrate, read everything. Raises StorageError with one sentence for the operator."""
        ...

    def close(self) -> Awaitable[None]:
        """Finish what is acknowledged and let go of files."""
        ...

    def reachable(self) -> bool:
        """Whether writes can be made durable now."""
        ...

    def refresh(self) -> Awaitable[bool]:
        """Bring in what other nodes have written until now; whether there was something."""
        ...

    def load(self) -> Dataset:
        """All rows as they are now. The mappings must not be changed."""
        ...

    def subscribe(self, callback: Callable[[Sequence[Change]], None]) -> None:
        """Have durable changes told, in order, before their writer is answered."""
        ...

    def get(self, entity: str, key: str) -> Row | None:
        """A row by id."""
        ...

    def find(self, entity: str, field: str, value: Any) -> Row | None:
        """A row by a unique field."""
        ...

    def find_together(self, entity: str, values: Sequence[str | None]) -> Row | None:
        """A row by the fields that are unique together (the entity's cache key), of references the ids."""
        ...

    def children(self, entity: str, field: str, parent_id: str) -> list[Row]:
        """Rows whose foreign key ``field`` refers to ``parent_id``, by id."""
        ...

    def page(
        self,
        entity: str,
        size: int,
        offset: str | None = None,
        *,
        parent: tuple[str, str] | None = None,
        tags: tuple[str, Sequence[str]] | None = None,
    ) -> Page:
        """A page of rows by id, stable while rows are added.

        Args:
            size: rows at the most.
            offset: as given by the page before.
            parent: (foreign key, parent's id): only its children.
            tags: ("and" | "or", tags): only rows that carry them.
        """
        ...

    def tagged(self, tag: str | None = None) -> Iterator[Row]:
        """The tags in use, or one of them: one row for each row that has it, also while rows come and go."""
        ...

    def offset(self, row: Row) -> str:
        """Where a page begins that goes on behind a row."""
        ...

    def insert(self, entity: str, data: Mapping[str, Any]) -> Awaitable[Row]:
        """Validate and create."""
        ...

    def update(self, entity: str, key: str, patch: Mapping[str, Any]) -> Awaitable[Row]:
        """Merge into the row and validate (PATCH)."""
        ...

    def upsert(self, entity: str, key: Mapping[str, Any], data: Mapping[str, Any]) -> Awaitable[Row]:
        """Replace or create (PUT). ``key``: the field and value that address the row."""
        ...

    def delete(self, entity: str, key: str) -> Awaitable[Row | None]:
        """Delete with its cascading children; None when there was nothing."""
        ...

    def is_large(self, entity: str, key: str) -> bool:
        """Whether changing or deleting a row takes long."""
        ...

    def together(self, work: Callable[[Any], T], heavy: bool = False) -> Awaitable[T]:
        """Several writes as one: all of them or none.

        Args:
            work: gets something with these methods, plain calls instead of awaitables; may be run more than once.
            heavy: it takes long, and only uses what it is given: it may be run in another thread.
        """
        ...
