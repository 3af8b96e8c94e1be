"""Groups of a consumer are also addressed by their names (Kong 3.9, ``kong/plugins/acl/api.lua``)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from ...entities.schema import Row
from ..entity_rows import EntityRows, Parent, is_uuid

__all__ = ["GroupRows"]


class GroupRows(EntityRows):
    """The plugin acl's groups: below a consumer, by id or name; elsewhere by id."""

    def child(self, key: str, parent: Parent, above: Row) -> Row | None:
        if is_uuid(key):
            return self.look_up(key)
        children = self.api.storage.children(self.name, parent.field, above["id"])
        return next((row for row in children if row["group"] == key), None)

    def put_address(self, key: str, present: Row | None, data: dict[str, Any]) -> dict[str, str]:
        if is_uuid(key):
            return super().put_address(key, present, data)
        if not data.get("group"):
            data["group"] = key
        return {"id": str(uuid4()) if present is None else present["id"]}
