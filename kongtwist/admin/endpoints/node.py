"""Endpoints about the node: ``/``, ``/schemas``, ``/plugins/enabled``, ``/endpoints``, ``/tags`` (Kong 3.9)."""

from __future__ import annotations

import os
import resource as rlimits
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ... import KONG_VERSION, VERSION
from ...core.balancing.balancer import Balancer
from ...core.chain.plugin import Plugin
from ...core.long_work import AtOnce
from ...entities import EntityError
from ...entities.plugin_rows import describe_plugin
from ...entities.schema import Row
from ...entities.size import is_heavy
from ...entities.vaults import describe_vault
from ..get_only import Get
from ..json_resource import Branch, Call, JSONResource, Reply
from ..payload import BadBody, read_body
from ..row_resources import CollectionResource, page_size
from .declarative_config import Config
from .runtime import Cache, FilterChains, clustering, debug
from .status import Metrics, Ready, Status
from .target_health import numbered, row_number

__all__ = ["NodeFacts", "Ready", "Status", "fixed_paths"]


async def _none_of(_hosts: AbstractSet[str]) -> AbstractSet[str]:
    return frozenset()


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
        ready: why no traffic should come, in a few words; None when it may.
        shared_memory: memory that workers share: name -> (bytes in use, bytes at most).
        drain: have `ready` say from now on that no traffic should come.
        log_level: the error log's level now.
        change_log_level: changes it (level, seconds); None where the log is not the gateway's.
        balancer: the balancer of an upstream's id, or None.
        mark: whether a target may be chosen (upstream's id, target, yes or no); gives whether there is such a target.
        unresolved: which of these hosts have no address now.
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
    shared_memory: Callable[[], Mapping[str, tuple[int, int]]] = field(default=dict)
    drain: Callable[[], None] = field(default=lambda: None)
    balancer: Callable[[str], Balancer | None] = field(default=lambda upstream: None)
    mark: Callable[[str, str, bool], Awaitable[bool]] | None = None
    unresolved: Callable[[AbstractSet[str]], Awaitable[AbstractSet[str]]] = field(default=lambda hosts: _none_of(hosts))
    change_log_level: Callable[[str, float], None] | None = None
    log_level: Callable[[], str] = field(default=lambda: "notice")
    timers: Callable[[], int] = field(default=lambda: 0)


class Root(Get):
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


class Schemas(JSONResource):
    """``/schemas/{entity}``, ``/schemas/plugins/{name}`` and their ``validate``."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {
            "plugins": lambda _: PluginSchemas(self.site, "plugins"),
            "vaults": lambda _: VaultSchemas(self.site, "vaults"),
            "filters": lambda _: FilterSchemas(self.site, "filters"),
            "{name}": lambda name: SchemaOf(self.site, name),
        }


class SchemaOf(Get):
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


class PluginSchema(Get):
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


class VaultSchemas(SchemaOf):
    """``/schemas/vaults``, above one for each kind of vault."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {**super().branches, "{name}": lambda name: VaultSchema(self.site, name)}


class VaultSchema(Get):
    """``/schemas/vaults/{name}``."""

    def __init__(self, site: Any, name: str) -> None:
        super().__init__(site)
        self.name = name

    async def get(self, call: Call) -> Reply:
        found = describe_vault(self.name)
        return Reply(404, {"message": f"No vault named '{self.name}'"}) if found is None else Reply(200, found)


class FilterSchemas(SchemaOf):
    """``/schemas/filters``, above one for each WebAssembly filter: there are none."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {**super().branches, "{name}": lambda name: FilterSchema(self.site, name)}


class FilterSchema(Get):
    """``/schemas/filters/{name}``."""

    def __init__(self, site: Any, name: str) -> None:
        super().__init__(site)
        self.name = name

    async def get(self, call: Call) -> Reply:
        return Reply(404, {"message": f"Filter '{self.name}' not found"})


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
            data = await read_body(call, entity)
        except BadBody as bad:
            return bad.reply

        def judge() -> None:
            entity.insert(data, now=self.site.now(), new_id=lambda: "00000000-0000-4000-8000-000000000000")

        await (call.turns if is_heavy(data) else AtOnce()).aside(judge)
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


class EnabledPlugins(Get):
    """``/plugins/enabled``."""

    async def get(self, call: Call) -> Reply:
        return Reply(200, {"enabled_plugins": list(self.site.facts.plugins)})


class PluginConfigs(JSONResource):
    """``/plugins/schema/{name}``: configuration only (deprecated in Kong)."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"{name}": lambda name: PluginSchema(self.site, name, config_only=True)}


class Tags(Get):
    """``/tags`` and ``/tags/{tag}``."""

    def __init__(self, site: Any, tag: str | None = None) -> None:
        super().__init__(site)
        self.tag = tag

    @property
    def methods(self) -> Mapping[str, Any]:
        return super().methods if self.tag is not None else {**super().methods, "POST": self._post}

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"{tags}": lambda tag: Tags(self.site, tag)} if self.tag is None else {}

    async def get(self, call: Call) -> Reply:
        if self.tag is not None:
            error = self.site.registry["tags"].key_error(self.tag)
            if error is not None:
                raise error
        breather, size, begin = call.turns.slices(), page_size(call), row_number(call.query.get("offset"))
        rows: list[Row] = []
        for number, row in enumerate(self.site.storage.tagged(self.tag)):
            if number >= begin:
                rows.append(row)
            if len(rows) > size:
                break
            if number % 100 == 0:
                await breather.breathe()
        path = "/tags" if self.tag is None else f"/tags/{quote(self.tag, safe='')}"
        return await numbered(rows, call, path, lambda row: row, first=begin)

    async def _post(self, call: Call) -> Reply:
        raise EntityError.schema_violation({"tags": "does not support insert/upsert/update/delete operations"})


SWITCHED_OFF = frozenset(("/snis/{snis}/certificate", "/targets", "/targets/{targets}", "/targets/{targets}/upstream"))
"""Paths that Kong lists and answers 404."""


OWN = frozenset((
    "/robots.txt", "/openapi.json", "/schemas/plugins", "/schemas/vaults", "/schemas/filters", "/schemas/filters/validate",
))  # fmt: skip
"""Paths that are there and that Kong does not list."""


class Endpoints(Get):
    """``/endpoints``: every path."""

    async def get(self, call: Call) -> Reply:
        found = {path.replace("{name}/validate", "{db_entity_name}/validate") for path, _ in self.site.paths()}
        return Reply(200, {"data": sorted((found - OWN) | SWITCHED_OFF, key=lambda path: path.split("/"))})


class Timers(Get):
    """``/timers``."""

    async def get(self, call: Call) -> Reply:
        pending = self.site.facts.timers()
        counts = {"total": pending, "waiting": pending, "pending": pending, "running": 0, "runs": 0}
        empty = {"running": "", "pending": "", "elapsed_time": ""}
        return Reply(200, {"worker": {"id": 0, "count": len(self.site.facts.pids())}, "stats": {
            "sys": counts, "timers": {}, "flamegraph": empty,
        }})  # fmt: skip


class Robots(Get):
    """``/robots.txt``."""

    async def get(self, call: Call) -> Reply:
        return Reply(200, b"User-agent: *\nDisallow: /", content_type="text/plain")


def fixed_paths(site: Any) -> dict[str, JSONResource]:
    """First path segments that are not entities."""
    return {
        "status": Status(site), "metrics": Metrics(site), "cache": Cache(site), "clustering": clustering(site),
        "filter-chains": FilterChains(site, "route", "service"), "schemas": Schemas(site), "tags": Tags(site), "endpoints": Endpoints(site),
        "timers": Timers(site), "robots.txt": Robots(site), "config": Config(site),
        "debug": debug(site),
    }  # fmt: skip


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, bytes; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * rlimits.getpagesize()
    except (OSError, ValueError, IndexError):
        return rlimits.getrusage(rlimits.RUSAGE_SELF).ru_maxrss * 1024 if pid == os.getpid() else 0
