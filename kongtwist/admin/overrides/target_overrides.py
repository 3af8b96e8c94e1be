"""Targets stand below their upstreams only, with what is known of their health (Kong 3.9, ``kong/api/routes/upstreams.lua``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ...entities import EntityError
from ...entities.schema import Row
from ...entities.targets import target_with_port
from ..endpoints.target_health import AllTargets, UpstreamHealth, health_switches, newest_first
from ..entity_rows import EntityRows, Parent
from ..json_resource import Branch, Call
from ..paging import numbered
from ..replies import Reply

__all__ = ["TargetRows", "UpstreamRows"]


class UpstreamRows(EntityRows):
    """Upstreams."""

    def below(self, key: str, parent: Parent | None) -> dict[str, Branch]:
        return {} if parent is not None else {"health": lambda _: UpstreamHealth(self, key)}


class TargetRows(EntityRows):
    """Targets: the newest first, never made by PUT."""

    top_level = False
    put_creates = False

    def beside(self, parent: Parent | None) -> dict[str, Branch]:
        return {"all": lambda _: AllTargets(self, parent)}

    def below(self, key: str, parent: Parent | None) -> dict[str, Branch]:
        return {} if parent is None else health_switches(self, key, parent)

    async def listed(self, call: Call, parent: Parent | None, above: Row | None) -> Reply | None:
        if parent is None or above is None:
            return None
        rows = newest_first(self.api, above)
        return await numbered(rows, call, f"/upstreams/{quote(parent.key, safe='')}/targets", self.shown)

    def stored_key(self, key: str) -> str:
        try:
            return target_with_port(key)
        except ValueError:  # no address, so no target has it
            return key

    async def insert(self, data: Mapping[str, Any]) -> Row:
        """A target that is no address is refused ahead of everything else, in words of its own (``kong/db/dao/targets.lua``)."""
        if isinstance(data.get("target"), str):
            try:
                target_with_port(data["target"])
            except ValueError as wrong:
                raise EntityError.schema_violation({"target": str(wrong)}) from None
        return await super().insert(data)
