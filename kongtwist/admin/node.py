"""Endpoints about the node: ``/``, ``/status``, ``/schemas``, ``/plugins/enabled``, ``/endpoints``, ``/tags`` (Kong 3.9)."""

from __future__ import annotations

import os
import resource as rlimits
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from .. import KONG_VERSION, VERSION
from ..core.plugin import Plugin
from ..entities import EntityError
from ..entities.plugin_entity import describe_plugin
from .payload import BadBody, read_body
from .rows import CollectionResource, page_size
from .web import Branch, Call, JSONResource, Reply, not_found

__all__ = ["NodeFacts", "Ready", "fixed_paths"]

UNITS = {"b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


@dataclass
class NodeFacts:
    """What the Admin API tells of the node it runs in.

    Attributes:
        node_id: the node's UUID.
        hostname: the machine's name.
        plugins: the loaded plugins by name.
        configuration: all properties, secrets masked.
        counters: figures of `core.counters.CELL_NAMES`, over all workers.
        pids: process ids of the workers.
        master_pid: of the parent.
        memory: resident bytes by process id.
        ready: why traffic cannot be served yet; None when it can.
        log_level: the error log's level now.
        timers: timers scheduled in the reactor.
    """

    node_id: str
    hostname: str
    plugins: Mapping[str, Plugin]
    configuration: Callable[[], Mapping[str, Any]]
    counters: Callable[[], Mapping[str, int]]
    pids: Callable[[], Sequence[int]]
    master_pid: int
    memory: Callable[[], Mapping[int, int]]
    ready: Callable[[], str | None]
    log_level: Callable[[], str] = field(default=lambda: "notice")
    timers: Callable[[], int] = field(default=lambda: 0)


class _Get(JSONResource):
    """A path that only answers GET."""

    @property
    def methods(self) -> Mapping[str, Any]:
        return {"GET": self.get}

    async def get(self, call: Call) -> Reply:
        raise NotImplementedError


class Root(_Get):
    """``/``.

    Args:
        site: the Admin API.
        below: the resources of the first path segments.
    """

    def __init__(self, site: Any, below: Mapping[str, JSONResource]) -> None:
        super().__init__(site)
        self._below = dict(below)

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {name: lambda segment: self._below[segment] for name in self._below}

    async def get(self, call: Call) -> Reply:
        facts: NodeFacts = self.site.facts
        names = sorted({row["name"] for row in self.site.storage.load().get("plugins", {}).values()})
        return Reply(200, {
            "tagline": "Welcome to kong",
            "version": KONG_VERSION,
            "kongtwist_version": VERSION,
            "edition": "community",
            "hostname": facts.hostname,
            "node_id": facts.node_id,
            "lua_version": "none",
            "timers": {"running": 0, "pending": facts.timers()},
            "pids": {"master": facts.master_pid, "workers": list(facts.pids())},
            "plugins": {
                "available_on_server": {
                    name: {"version": plugin.version, "priority": plugin.priority} for name, plugin in facts.plugins.items()
                },
                "enabled_in_cluster": names,
            },
            "configuration": dict(facts.configuration()),
        })  # fmt: skip


class Status(_Get):
    """``/status``."""

    async def get(self, call: Call) -> Reply:
        facts: NodeFacts = self.site.facts
        unit, scale = call.query.get("unit", "m").lower(), call.query.get("scale", "2")
        if unit not in UNITS:
            text = f"invalid unit '{call.query['unit']}' (expected 'k/K', 'm/M', or 'g/G')"
            return Reply(400, {"message": text})
        if not scale.isdigit():
            return Reply(400, {"message": f"invalid scale '{scale}' (expected a non-negative integer)"})
        counts = dict(facts.counters())
        server = {
            f"connections_{name}": counts[name]
            for name in ("accepted", "active", "handled", "reading", "waiting", "writing")
        }
        memory = [
            {"pid": pid, "http_allocated_gc": _amount(size, unit, int(scale))} for pid, size in facts.memory().items()
        ]
        body: dict[str, Any] = {
            "server": server | {"total_requests": counts["requests"]},
            "connections": counts,
            "memory": {"workers_lua_vms": memory, "lua_shared_dicts": {}},
        }
        if self.site.storage.writable:
            body["database"] = {"reachable": self.site.storage.reachable()}
        else:
            body["configuration_hash"] = self.site.configuration_hash()
        return Reply(200, body)


def _amount(size: int, unit: str, scale: int) -> Any:
    if unit == "b":
        return size
    return f"{size / UNITS[unit]:.{scale}f} {unit.upper()}iB"


class Ready(_Get):
    """``/status/ready`` of the Status API."""

    async def get(self, call: Call) -> Reply:
        reason = self.site.facts.ready()
        return Reply(200, {"message": "ready"}) if reason is None else Reply(503, {"message": reason})


class Schemas(JSONResource):
    """``/schemas/{entity}``, ``/schemas/plugins/{name}`` and their ``validate``."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {
            "plugins": lambda _: PluginSchemas(self.site, "plugins"),
            "{name}": lambda name: SchemaOf(self.site, name),
        }


class SchemaOf(_Get):
    """``/schemas/{entity}``."""

    def __init__(self, site: Any, name: str) -> None:
        super().__init__(site)
        self.name = name

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"validate": lambda _: Validate(self.site, self.name)}

    async def get(self, call: Call) -> Reply:
        entity = self.site.registry.get(self.name)
        if entity is None:
            return Reply(404, {"message": f"No entity named '{self.name}'"})
        return Reply(200, entity.describe())


class PluginSchemas(SchemaOf):
    """``/schemas/plugins``, above one for each plugin."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {**super().branches, "{name}": lambda name: PluginSchema(self.site, name)}


class PluginSchema(_Get):
    """``/schemas/plugins/{name}``."""

    def __init__(self, site: Any, name: str, config_only: bool = False) -> None:
        super().__init__(site)
        self.name, self.config_only = name, config_only

    async def get(self, call: Call) -> Reply:
        plugin = self.site.facts.plugins.get(self.name)
        if plugin is None:
            return Reply(404, {"message": f"No plugin named '{self.name}'"})
        found = describe_plugin(plugin)
        if self.config_only:
            return Reply(200, next(each["config"] for each in found["fields"] if "config" in each))
        return Reply(200, found)


class Validate(JSONResource):
    """``/schemas/{entity}/validate``: would it be taken? Nothing is stored and no reference is looked up."""

    def __init__(self, site: Any, name: str) -> None:
        super().__init__(site)
        self.name = name

    @property
    def methods(self) -> Mapping[str, Any]:
        return {"POST": self._post}

    async def _post(self, call: Call) -> Reply:
        entity = self.site.registry.get(self.name)
        if entity is None:
            return Reply(404, {"message": f"No entity named '{self.name}'"})
        try:
            data = read_body(call, entity)
        except BadBody as bad:
            return bad.reply
        entity.insert(data, now=self.site.now(), new_id=lambda: "00000000-0000-4000-8000-000000000000")
        return Reply(200, {"message": "schema validation successful"})


class Plugins(CollectionResource):
    """``/plugins``: ``enabled`` and ``schema/{name}`` beside the rows."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {
            "enabled": lambda _: EnabledPlugins(self.site),
            "schema": lambda _: PluginConfigs(self.site),
            **super().branches,
        }


class EnabledPlugins(_Get):
    """``/plugins/enabled``."""

    async def get(self, call: Call) -> Reply:
        return Reply(200, {"enabled_plugins": list(self.site.facts.plugins)})


class PluginConfigs(JSONResource):
    """``/plugins/schema/{name}``: configuration only (deprecated in Kong)."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"{name}": lambda name: PluginSchema(self.site, name, config_only=True)}


class Tags(_Get):
    """``/tags`` and ``/tags/{tag}``."""

    def __init__(self, site: Any, tag: str | None = None) -> None:
        super().__init__(site)
        self.tag = tag

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"{tags}": lambda tag: Tags(self.site, tag)} if self.tag is None else {}

    async def get(self, call: Call) -> Reply:
        if self.tag is not None:
            error = self.site.registry["tags"].key_error(self.tag)
            if error is not None:
                raise error
        rows = [row for row in self.site.storage.tags() if self.tag in (None, row["tag"])]
        size, begin = page_size(call), _row_number(call.query.get("offset"))
        body: dict[str, Any] = {"data": rows[begin : begin + size], "next": None}
        if begin + size < len(rows):
            body["offset"] = urlsafe_b64encode(str(begin + size).encode()).decode().rstrip("=")
            path = "/tags" if self.tag is None else f"/tags/{quote(self.tag, safe='')}"
            body["next"] = f"{path}?offset={body['offset']}" + (f"&size={size}" if "size" in call.query else "")
        return Reply(200, body)


def _row_number(offset: str | None) -> int:
    """Where a page of tags begins.

    Raises:
        EntityError: not an offset that a page gave.
    """
    if offset is None:
        return 0
    try:
        return int(urlsafe_b64decode(offset + "=" * (-len(offset) % 4)))
    except ValueError:
        raise EntityError.invalid_offset(offset, "bad json encoding") from None


class Endpoints(_Get):
    """``/endpoints``: every path."""

    async def get(self, call: Call) -> Reply:
        found = {path.replace("{name}/validate", "{db_entity_name}/validate") for path, _ in self.site.paths()}
        shown = found - {"/robots.txt", "/openapi.json", "/schemas/plugins"}  # not among Kong's
        return Reply(200, {"data": sorted(shown, key=lambda path: path.split("/"))})


class Timers(_Get):
    """``/timers``."""

    async def get(self, call: Call) -> Reply:
        pending = self.site.facts.timers()
        counts = {"total": pending, "waiting": pending, "pending": pending, "running": 0, "runs": 0}
        empty = {"running": "", "pending": "", "elapsed_time": ""}
        return Reply(200, {"worker": {"id": 0, "count": len(self.site.facts.pids())}, "stats": {
            "sys": counts, "timers": {}, "flamegraph": empty,
        }})  # fmt: skip


class LogLevel(_Get):
    """``/debug/node/log-level``."""

    async def get(self, call: Call) -> Reply:
        return Reply(200, {"message": f"log level: {self.site.facts.log_level()}"})


class Robots(_Get):
    """``/robots.txt``."""

    async def get(self, call: Call) -> Reply:
        return Reply(200, b"User-agent: *\nDisallow: /", content_type="text/plain")


class Config(_Get):
    """``/config``: the declarative configuration, which only a node without a database has."""

    async def get(self, call: Call) -> Reply:
        if self.site.storage.writable:
            words = "this endpoint is only available when Kong is configured to not use a database"
            return Reply(400, {"message": words})
        text = self.site.declarative_text()
        return not_found() if text is None else Reply(200, {"config": text})


class Fork(JSONResource):
    """A path segment that only has others below it."""

    def __init__(self, site: Any, children: Mapping[str, JSONResource]) -> None:
        super().__init__(site)
        self._below = dict(children)

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {name: lambda segment: self._below[segment] for name in self._below}


def fixed_paths(site: Any) -> dict[str, JSONResource]:
    """First path segments that are not entities."""
    level = LogLevel(site)
    return {
        "status": Status(site), "schemas": Schemas(site), "tags": Tags(site), "endpoints": Endpoints(site),
        "timers": Timers(site), "robots.txt": Robots(site), "config": Config(site),
        "debug": Fork(site, {"node": Fork(site, {"log-level": level})}),
    }  # fmt: skip


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, bytes; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * rlimits.getpagesize()
    except (OSError, ValueError, IndexError):
        return rlimits.getrusage(rlimits.RUSAGE_SELF).ru_maxrss * 1024 if pid == os.getpid() else 0
