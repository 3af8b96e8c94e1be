"""Where an entity departs from what its declaration gives: certificates with SNIs, targets, plugins, consumers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from ..entities import Entity, EntityError
from ..entities.schema import Row
from ..entities.size import is_heavy
from ..entities.upstreams_targets import target_with_port
from .endpoints.runtime import FilterChains, route_filters
from .endpoints.target_health import Targets, UpstreamHealth
from .json_resource import Branch, Call, Reply
from .payload import BadBody

__all__ = ["Special", "is_uuid"]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", re.IGNORECASE)


class Special:
    """The departures, by entity name.

    Args:
        site: the Admin API.
    """

    def __init__(self, site: Any) -> None:
        self.site = site

    # -- reading -------------------------------------------------------------------------------------------------------

    def shown(self, entity: Entity, row: Row) -> Row:
        """A row as an answer shows it."""
        found = entity.shown(row, self.site.now())
        if entity.ttl and found["ttl"] is None and not self.site.storage.writable:
            del found["ttl"]  # as Kong, which then knows the file's members only
        if entity.name == "certificates":
            found["snis"] = sorted(sni["name"] for sni in self._snis_of(row["id"]))
        return found

    def listed(self, entity: Entity, call: Call, parent: tuple[str, str] | None) -> Row | None:
        """A list that is not the usual one; None for the usual one."""
        if entity.name == "consumers" and parent is None and "custom_id" in call.query:
            values = call.all("custom_id")
            if len(values) != 1 or not values[0]:
                raise BadBody(Reply(400, {"message": "custom_id must be an unempty string"}))
            row = self.site.storage.find("consumers", "custom_id", values[0])
            return {"data": [] if row is None else [self.shown(entity, row)], "next": None}
        return None

    def key_of(self, entity: Entity, key: str) -> str:
        """A key in a path as it is stored."""
        if entity.name != "targets":
            return key
        try:
            return target_with_port(key)
        except ValueError:  # no address, so no target has it
            return key

    def certificate_of_sni(self, name: str) -> Row | None:
        """The certificate of an SNI's name.

        Raises:
            EntityError: it is no such name.
        """
        error = self.site.registry["snis"].key_error(name)
        if error is not None:
            raise error
        sni = self.site.storage.find("snis", "name", name)
        row: Row | None = None if sni is None else self.site.storage.get("certificates", sni["certificate"]["id"])
        return row

    def missing(self, entity: Entity, key: str) -> Reply | None:
        """An answer for a row that is not there, where it is not the usual one."""
        if entity.name == "certificates" and not is_uuid(key):
            return Reply(404, {"message": "SNI not found"})
        return None

    def below(self, entity: Entity, key: str, parent: tuple[Entity, str, str] | None) -> dict[str, Branch]:
        """Paths below a row that no foreign key gives."""
        if parent is not None:
            return {}
        if entity.name == "upstreams":
            targets = self.site.registry["targets"]
            return {
                "health": lambda _: UpstreamHealth(self.site, key),
                "targets": lambda _: Targets(self.site, targets, (entity, key, "upstream")),
            }
        if entity.name == "services":
            return {"filter-chains": lambda _: FilterChains(self.site)}
        if entity.name == "routes":
            return {"filter-chains": lambda _: FilterChains(self.site), "filters": lambda _: route_filters(self.site)}
        return {}

    def _snis_of(self, certificate: str) -> list[Row]:
        found: list[Row] = self.site.storage.children("snis", "certificate", certificate)
        return found

    # -- writing -------------------------------------------------------------------------------------------------------

    async def insert(self, entity: Entity, data: Mapping[str, Any]) -> Row:
        """Create a row and what comes with it."""
        await self._check(entity, data)
        if entity.name != "certificates":
            self._check_target(entity, data)
            return await self._stored(self.site.storage.insert(entity.name, data))
        return await self._together(lambda several: self.insert_in(several, entity, data), is_heavy(data))

    def insert_in(self, several: Any, entity: Entity, data: Mapping[str, Any]) -> Row:
        """The same as one of several writes."""
        self._check_plugin(entity, data)
        if entity.name != "certificates":
            row: Row = several.insert(entity.name, data)
            return row
        names = self._checked_snis(several, data.get("snis"), None)
        row = several.insert(entity.name, data)
        self._set_snis(several, row["id"], names or [])
        return row

    async def update(self, entity: Entity, row: Row, data: Mapping[str, Any]) -> Row:
        """Change a row and what comes with it."""
        await self._check(entity, {**row, **data})
        if entity.name != "certificates" or "snis" not in data:
            return await self._stored(self.site.storage.update(entity.name, row["id"], data))

        def work(several: Any) -> Row:
            names = self._checked_snis(several, _several_names(data["snis"]), row["id"])
            changed: Row = several.update(entity.name, row["id"], {**data, "snis": names})
            self._set_snis(several, row["id"], names or [])
            return changed

        return await self._together(work, is_heavy(data) or self.site.storage.is_large(entity.name, row["id"]))

    async def upsert(self, entity: Entity, key: Mapping[str, Any], data: Mapping[str, Any]) -> Row:
        """Replace or create a row and what comes with it."""
        await self._check(entity, data)
        if entity.name != "certificates":
            return await self._stored(self.site.storage.upsert(entity.name, key, data))

        def work(several: Any) -> Row:
            at, snis = key["id"], _several_names(data.get("snis"))
            if not is_uuid(at):  # the name of an SNI: its certificate, or a new one, which gets it beside other names
                if isinstance(snis, list) and at not in snis:
                    snis = [*snis, at]
                present = several.find("snis", "name", at)
                at = str(uuid4()) if present is None else present["certificate"]["id"]
            names = self._checked_snis(several, snis, at)
            row: Row = several.upsert(entity.name, {"id": at}, {**data, "snis": names})
            self._set_snis(several, row["id"], names or [])  # without any it keeps none
            return row

        present = (
            self.site.storage.get(entity.name, key["id"]) if is_uuid(key["id"]) else self.certificate_of_sni(key["id"])
        )
        large = present is not None and self.site.storage.is_large(entity.name, present["id"])
        return await self._together(work, large or is_heavy(data))

    async def delete(self, entity: Entity, row: Row) -> None:
        """Delete a row and what comes with it."""

        def work(several: Any) -> None:
            if entity.name == "certificates":
                for sni in several.children("snis", "certificate", row["id"]):
                    several.delete("snis", sni["id"])
            several.delete(entity.name, row["id"])

        await self._together(work, self.site.storage.is_large(entity.name, row["id"]))

    @staticmethod
    async def _stored(written: Any) -> Row:
        row: Row = await written
        return row

    async def _together(self, work: Callable[[Any], Row | None], heavy: bool) -> Row:
        """Writes that belong together: all are done, or none."""
        return await self._stored(self.site.storage.together(work, heavy))

    @staticmethod
    def _checked_snis(several: Any, names: Any, certificate: str | None) -> Any:
        """The names given for a certificate (its id; None for a new one); what is no list of texts is left to the schema.

        Raises:
            EntityError: one is there twice, or is another certificate's.
        """
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return names
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise EntityError.schema_violation({"snis": f"{name} is duplicated"})
            seen.add(name)
        for name in sorted(names):
            taken = several.find("snis", "name", name)
            if taken is not None and taken["certificate"]["id"] != certificate:
                holder = taken["certificate"]["id"]
                raise EntityError.schema_violation(
                    {"snis": f"{name} already associated with existing certificate '{holder}'"}
                )
        return names

    @staticmethod
    def _set_snis(several: Any, certificate: str, names: list[str]) -> None:
        present = {sni["name"]: sni for sni in several.children("snis", "certificate", certificate)}
        wanted = set(names)
        for name, sni in present.items():
            if name not in wanted:
                several.delete("snis", sni["id"])
        for name in names:
            if name not in present:
                several.insert("snis", {"name": name, "certificate": {"id": certificate}})

    @staticmethod
    def _check_target(entity: Entity, data: Mapping[str, Any]) -> None:
        """A target that is none is told of before all else, in words of its own (Kong 3.9, ``kong/db/dao/targets.lua``)."""
        if entity.name == "targets" and isinstance(data.get("target"), str):
            try:
                target_with_port(data["target"])
            except ValueError as wrong:
                raise EntityError.schema_violation({"target": str(wrong)}) from None

    async def _check(self, entity: Entity, data: Mapping[str, Any]) -> None:
        """As `_check_plugin`, beside the reactor where a service has many routes."""
        service = data.get("service")
        key = service.get("id") if isinstance(service, dict) else None
        if entity.name == "plugins" and isinstance(key, str) and self.site.storage.is_large("services", key):
            await self.site.turns.aside(self._check_plugin, entity, data)
        else:
            self._check_plugin(entity, data)

    def _check_plugin(self, entity: Entity, data: Mapping[str, Any]) -> None:
        """A plugin's protocols must be some that its route, or a route of its service, takes."""
        if entity.name != "plugins" or not isinstance(data.get("protocols"), list):
            return
        own = set(filter(lambda each: isinstance(each, str), data["protocols"]))
        route, service = data.get("route"), data.get("service")
        if isinstance(route, dict) and isinstance(route.get("id"), str):
            row = self.site.storage.get("routes", route["id"])
            if row is not None and not own & set(row["protocols"]):
                raise EntityError.schema_violation({"protocols": "must match the associated route's protocols"})
        elif isinstance(service, dict) and isinstance(service.get("id"), str):
            routes = self.site.storage.children("routes", "service", service["id"])
            if routes and not any(own & set(row["protocols"]) for row in routes):
                words = "must match the protocols of at least one route pointing to this Plugin's service"
                raise EntityError.schema_violation({"protocols": words})


def _several_names(snis: Any) -> Any:
    """What stands in ``snis``, one name as a list of it."""
    return [snis] if isinstance(snis, str) else snis


def is_uuid(text: str) -> bool:
    """Whether a path's key is an id."""
    return _UUID.match(text) is not None
