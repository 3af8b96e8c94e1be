"""Configuration that lives in memory only: ``database = off``, filled from a declarative file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.storage import Change, Dataset
from ..entities import EntityError
from ..entities.schema import Row
from .base import BaseStorage

__all__ = ["MemoryStorage"]


class MemoryStorage(BaseStorage):
    """Rows in memory. Single writes are refused as Kong refuses them without a database (code 12); `replace` swaps all."""

    writable = False

    def begin(self, dataset: Dataset) -> None:
        """Take these rows as they are, before anybody subscribed."""
        for name in self.registry:
            for row in dataset.get(name, {}).values():
                self._ledger.apply([Change("create", name, row, None)])

    def _refuse(self, verb: str, entity: str) -> EntityError:
        return EntityError.unsupported(f"cannot {verb} '{entity}' entities when not using a database")

    async def insert(self, entity: str, data: Mapping[str, Any]) -> Row:
        raise self._refuse("create", entity)

    async def update(self, entity: str, key: str, patch: Mapping[str, Any]) -> Row:
        raise self._refuse("update", entity)

    async def upsert(self, entity: str, key: Mapping[str, Any], data: Mapping[str, Any]) -> Row:
        raise self._refuse("create or update", entity)

    async def delete(self, entity: str, key: str) -> Row | None:
        raise self._refuse("remove", entity)
