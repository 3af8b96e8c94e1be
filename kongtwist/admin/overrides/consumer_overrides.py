"""Consumers are also found by their own ids (Kong 3.9, ``kong/api/routes/consumers.lua``)."""

from __future__ import annotations

from ...entities.schema import Row
from ..entity_rows import EntityRows, Parent
from ..json_resource import Call
from ..replies import Reply

__all__ = ["ConsumerRows"]


class ConsumerRows(EntityRows):
    """Consumers."""

    list_arguments = {"custom_id": "Only the consumer with this custom_id."}

    async def listed(self, call: Call, parent: Parent | None, above: Row | None) -> Reply | None:
        if parent is not None or "custom_id" not in call.query:
            return None
        values = call.all("custom_id")
        if len(values) != 1 or not values[0]:
            return Reply(400, {"message": "custom_id must be an unempty string"})
        row = self.api.storage.find(self.name, "custom_id", values[0])
        return Reply(200, {"data": [] if row is None else [self.shown(row)], "next": None})
