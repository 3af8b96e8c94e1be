"""Plugins must take protocols of their route or service (Kong 3.9, ``kong/db/dao/plugins.lua``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...entities import EntityError
from ...entities.schema import Row
from ..endpoints.node_information import EnabledPlugins, PluginConfigs
from ..entity_rows import EntityRows, Parent, Writes
from ..json_resource import Branch

__all__ = ["PluginRows"]


class PluginRows(EntityRows):
    """Plugins."""

    def beside(self, parent: Parent | None) -> dict[str, Branch]:
        if parent is not None:
            return {}
        return {"enabled": lambda _: EnabledPlugins(self.api), "schema": lambda _: PluginConfigs(self.api)}

    async def insert(self, data: Mapping[str, Any]) -> Row:
        await self._check(data)
        await self._examine(data, {})
        return await super().insert(data)

    def insert_in(self, writes: Writes, data: Mapping[str, Any]) -> Row:
        self._check_protocols(data)
        return super().insert_in(writes, data)

    async def update(self, row: Row, data: Mapping[str, Any]) -> Row:
        await self._check({**row, **data})
        await self._examine(data, row)
        return await super().update(row, data)

    async def upsert(self, key: Mapping[str, Any], data: Mapping[str, Any]) -> Row:
        await self._check(data)
        await self._examine(data, {})
        return await super().upsert(key, data)

    async def _examine(self, data: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        """Let the plugin look at what would be stored.

        Args:
            data: what is written.
            row: what it is written over.
        """
        name, given = data.get("name", row.get("name")), data.get("config")
        plugin = self.api.facts.plugins.get(name) if isinstance(name, str) else None
        if plugin is None or self.api.host is None or not isinstance(given, dict):
            return
        looking = plugin.examine({**row.get("config", {}), **given}, self.api.host)
        if looking is not None:
            await looking

    async def _check(self, data: Mapping[str, Any]) -> None:
        """As `_check_protocols`, beside the reactor where a service has many routes."""
        service = data.get("service")
        key = service.get("id") if isinstance(service, dict) else None
        if isinstance(key, str) and self.api.storage.is_large("services", key):
            await self.api.long_work.aside(self._check_protocols, data)
        else:
            self._check_protocols(data)

    def _check_protocols(self, data: Mapping[str, Any]) -> None:
        """A plugin's protocols must be some that its route, or a route of its service, takes."""
        if not isinstance(data.get("protocols"), list):
            return
        own = set(filter(lambda each: isinstance(each, str), data["protocols"]))
        route, service = data.get("route"), data.get("service")
        if isinstance(route, dict) and isinstance(route.get("id"), str):
            row = self.api.storage.get("routes", route["id"])
            if row is not None and not own & set(row["protocols"]):
                raise EntityError.schema_violation({"protocols": "must match the associated route's protocols"})
        elif isinstance(service, dict) and isinstance(service.get("id"), str):
            routes = self.api.storage.children("routes", "service", service["id"])
            if routes and not any(own & set(row["protocols"]) for row in routes):
                words = "must match the protocols of at least one route pointing to this Plugin's service"
                raise EntityError.schema_violation({"protocols": words})
