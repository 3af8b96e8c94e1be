"""What monitors ask: ``/status``, ``/status/ready`` and ``/status/dns`` (Kong 3.9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..admin_api import AdminAPI
from ..entity_rows import EntityRows, Parent
from ..get_only import Get, Segment
from ..json_resource import Branch, Call, JSONResource, Methods
from ..payload import BadBody, read_body
from ..replies import Reply
from ..row_resources import CollectionResource, RowResource
from .metrics_page import STATES, STREAMS, Metrics
from .target_health import AllTargets, UpstreamHealth

__all__ = ["Ready", "Status", "monitored"]

UNITS = {"b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
MAX_SCALE = 20
"""Digits behind the point that ``scale`` may ask for."""


class Status(Get):
    """``/status``."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"dns": lambda _: StatusDNS(self.api)}

    async def get(self, call: Call) -> Reply:
        facts = self.api.facts
        given, scale = call.query.get("unit", "m"), call.query.get("scale", "2")
        unit = given.lower()
        if unit not in UNITS:
            return Reply(400, {"message": f"invalid unit '{given}' (expected 'k/K', 'm/M', or 'g/G')"})
        if not (scale.isascii() and scale.isdigit()):
            return Reply(400, {"message": f"invalid scale '{scale}' (expected a non-negative integer)"})
        digits = min(int(scale[:3]), MAX_SCALE)
        counts = dict(facts.counters())
        memory = [
            {"pid": pid, "http_allocated_gc": _amount(size, unit, digits)} for pid, size in facts.memory().items()
        ]
        shared = {
            name: {"allocated_slabs": _amount(used, unit, digits), "capacity": _amount(most, unit, digits)}
            for name, (used, most) in facts.shared_memory().items()
        }
        body: dict[str, Any] = {
            "server": {f"connections_{name}": counts[name] for name in STATES} | {"total_requests": counts["requests"]},
            "connections": {name: counts[name] for name in (*STATES, "requests")},
            "streams": {kind: counts[kind] for kind in STREAMS},
            "memory": {"workers_lua_vms": memory, "lua_shared_dicts": shared},
        }
        if self.api.storage.writable:
            body["database"] = {"reachable": self.api.storage.reachable()}
        else:
            body["configuration_hash"] = self.api.configuration_hash()
        return Reply(200, body)


def _amount(size: int, unit: str, digits: int) -> Any:
    if unit == "b":
        return size
    return f"{size / UNITS[unit]:.{digits}f} {unit.upper()}iB"


class StatusDNS(Get):
    """``/status/dns``: figures that the resolver does not keep."""

    async def get(self, call: Call) -> Reply:
        return Reply(501, {"message": "not implemented with the legacy DNS client"})


class MonitorStatus(Status):
    """``/status`` of the Status API, which alone has ``/status/ready``."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {**super().branches, "ready": lambda _: Ready(self.api)}


class Ready(JSONResource):
    """``/status/ready``: whether traffic should come. A POST with ``status=draining`` says that it should stop."""

    @property
    def methods(self) -> Methods:
        return {"GET": self._get, "POST": self._post}

    async def _get(self, call: Call) -> Reply:
        reason = self.api.facts.ready()
        return Reply(200, {"message": "ready"}) if reason is None else Reply(503, {"message": reason})

    async def _post(self, call: Call) -> Reply:
        try:
            body = await read_body(call)
        except BadBody as bad:
            return bad.reply
        status = body.get("status") or call.query.get("status")
        if status != "draining":
            return Reply(400, {"message": "status must be 'draining'"})
        self.api.facts.drain()
        return Reply(204)


# -- the Status API --------------------------------------------------------------------------------------------------------


def monitored(api: AdminAPI, rows: Mapping[str, EntityRows]) -> dict[str, JSONResource]:
    """The first path segments of the Status API: nothing there could change anything but readiness.

    Args:
        api: the Status API.
        rows: the rows of every entity that is stored.
    """
    below: dict[str, JSONResource] = {"status": MonitorStatus(api), "metrics": Metrics(api)}
    if not api.storage.writable:
        below["upstreams"] = _Upstreams(rows["upstreams"])
    return below


class _Upstreams(JSONResource):
    """``/upstreams`` of a node without a database: health and targets, to be read."""

    def __init__(self, upstreams: EntityRows) -> None:
        super().__init__(upstreams.api)
        self._rows = upstreams

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"{upstreams}": lambda key: Segment(self.api, {
            "health": UpstreamHealth(self._rows, key),
            "targets": _ReadTargets(self._rows.every["targets"], Parent(self._rows, key, "upstream")),
        })}  # fmt: skip


class _ReadTargets(CollectionResource):
    @property
    def methods(self) -> Methods:
        return {"GET": self._list}

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {
            "all": lambda _: AllTargets(self.rows, self.parent),
            "{targets}": lambda key: _ReadTarget(self.rows, key, self.parent),
        }


class _ReadTarget(RowResource):
    @property
    def methods(self) -> Methods:
        return {"GET": self._get}

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {}
