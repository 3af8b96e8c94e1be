"""Configuration that lives in memory only: ``database = off``, filled from a declarative file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import md5
from typing import Any

from ..core.long_work import AtOnce, Breather, stepped
from ..core.storage_contract import Change, Dataset
from ..entities import Entity, EntityError
from ..entities.schema import Row
from ..entities.size import is_heavy
from ..net.slices import Slices
from .base import BaseStorage
from .row_store import RowStore

__all__ = ["MemoryStorage"]

FEW = 200
"""Changes that are made in place; for more of them a new store is made in slices, and swapped in at once."""

_NOT_HASHED = ("created_at", "updated_at", "expires_at")


class MemoryStorage(BaseStorage):
    """Rows in memory. Single writes are refused as Kong refuses them without a database (code 12); `swap` changes all."""

    writable = False
    _digest = 0
    """Sum of the hashes of all rows: the same whatever their order, and kept up with little work."""
    _states = 0

    def begin(self, dataset: Dataset) -> None:
        """Take these rows as they are, before anybody subscribed."""
        for name in self.registry:
            for row in dataset.get(name, {}).values():
                change = Change("create", name, row, None)
                self._store.apply([change])
                self._digest += _effect(change)

    def configuration_hash(self) -> str:
        """32 hex digits that are equal for equal configurations, whatever the order of their members and whenever they
        were loaded; zeros for an empty one."""
        return f"{self._digest % 2**128:032x}"

    async def replace(self, dataset: Dataset) -> None:
        await self.swap(dataset)

    async def swap(self, dataset: Dataset, slices: Slices | None = None) -> bool:
        """Put a whole new configuration in place of the present one, at once.

        Rows that are equal to those that are there stay the same objects. Nothing at all happens when all are.

        Args:
            dataset: entity to id to row.
            slices: how to let others have their turns; None: all in one turn.

        Returns:
            whether anything changed.
        """
        breather: Breather = slices or AtOnce()
        while True:
            await self._quiet()
            await self._released()
            state = self._states
            changes = await self._differences(dataset, breather)
            if not changes:
                return False
            digest = await self._digest_after(changes, breather)
            store = None
            if len(changes) > FEW or any(is_heavy(change.new) or is_heavy(change.old) for change in changes):
                store = await self._store_of(dataset, changes, breather)
            if state != self._states or self._committing is not None or self._held:
                continue  # a row expired meanwhile, or is about to
            if self._closed:
                raise EntityError.unavailable("the gateway is stopping")
            if store is None:
                self._store.apply(changes)
            else:
                self._store = store
            self._digest = digest
            self._states += 1
            self._tell(changes)
            return True

    async def _differences(self, dataset: Dataset, breather: Breather) -> list[Change]:
        """What must go, children before parents, then what is new."""
        nothing: Mapping[str, Row] = {}
        present, changes, looked_at = self.load(), [], 0
        for name in reversed(list(self.registry)):
            wanted = dataset.get(name, nothing)
            gone = [row for key, row in present.get(name, nothing).items() if key not in wanted]
            changes += [Change("delete", name, None, row) for row in gone]
        for name in self.registry:
            here = present.get(name, nothing)
            for key, row in dataset.get(name, nothing).items():
                old = here.get(key)
                if old is not row and old != row:
                    changes.append(Change("create" if old is None else "update", name, row, old))
                looked_at += 1
                if looked_at % 16 == 0:
                    await breather.breathe()
        return changes

    async def _store_of(self, dataset: Dataset, changes: list[Change], breather: Breather) -> RowStore:
        """A store of rows, those that are there already as they are."""
        store = RowStore(self.registry)
        present = self.load()
        changed = {(change.entity, change.new["id"]) for change in changes if change.new is not None}
        for name, rows in dataset.items():
            for key, row in rows.items():
                kept = row if (name, key) in changed else present[name].get(key, row)
                await stepped(store.apply_steps([Change("create", name, kept, None)]), breather)
        return store

    async def _digest_after(self, changes: Sequence[Change], breather: Breather) -> int:
        digest = self._digest
        for change in changes:
            digest += _effect(change)
            await breather.breathe()
        return digest

    def adopt(self, registry: Mapping[str, Entity], store: RowStore) -> None:
        before, after = self.load(), store.dataset()
        for name in [name for name in before if before[name] is not after.get(name)]:
            self._digest -= sum(_hash(name, row) for row in before[name].values())
            self._digest += sum(_hash(name, row) for row in after.get(name, {}).values())
        self._states += 1
        super().adopt(registry, store)

    async def _apply(self, changes: Sequence[Change]) -> None:
        await super()._apply(changes)
        self._digest = await self._digest_after(changes, self.long_work.slices())
        self._states += 1

    # -- refusing: what does not fit the schema first, as Kong does ----------------------------------------------------

    def plan_insert(self, store: RowStore, entity: str, data: Mapping[str, Any]) -> tuple[Row, list[Change]]:
        kind = self.registry[entity]
        kind.insert(store.resolve(kind, data), now=self._now(), new_id=self._new_id)
        raise EntityError.unsupported("create", entity)

    def plan_update(self, store: RowStore, entity: str, key: str, patch: Mapping[str, Any]) -> tuple[Row, list[Change]]:
        kind, stored = self.registry[entity], store.get(entity, key)
        if stored is None:
            raise EntityError.not_found({"id": key})
        kind.update(stored, store.resolve(kind, patch), now=self._now())
        raise EntityError.unsupported("update", entity)

    def plan_upsert(
        self, store: RowStore, entity: str, key: Mapping[str, Any], data: Mapping[str, Any]
    ) -> tuple[Row, list[Change]]:
        kind = self.registry[entity]
        kind.insert({**store.resolve(kind, data), **key}, now=self._now(), new_id=self._new_id)
        raise EntityError.unsupported("create or update", entity)

    @staticmethod
    def plan_delete(store: RowStore, entity: str, key: str) -> tuple[Row | None, list[Change]]:
        raise EntityError.unsupported("remove", entity)


def _effect(change: Change) -> int:
    """What a change adds to the digest."""
    made = 0 if change.new is None else _hash(change.entity, change.new)
    return made - (0 if change.old is None else _hash(change.entity, change.old))


def _hash(entity: str, row: Row) -> int:
    said = {name: value for name, value in row.items() if name not in _NOT_HASHED}
    text = json.dumps([entity, said], sort_keys=True)
    return int.from_bytes(md5(text.encode(), usedforsecurity=False).digest(), "big")
