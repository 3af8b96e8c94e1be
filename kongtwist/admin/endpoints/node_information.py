"""Endpoints about the node: ``/``, ``/schemas``, ``/plugins/enabled``, ``/endpoints``, ``/tags`` (Kong 3.9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote

from ... import KONG_VERSION, VERSION
from ...core.long_work import AtOnce
from ...entities import EntityError
from ...entities.plugin_rows import describe_plugin
from ...entities.schema import Row
from ...entities.size import is_heavy
from ...entities.vaults import describe_vault
from ..admin_api import AdminAPI
from ..entity_rows import EntityRows
from ..get_only import Get
from ..json_resource import Branch, Call, JSONResource, Methods
from ..paging import numbered, page_size, row_number
from ..payload import BadBody, read_body
from ..replies import Reply
from .declarative_config import Config
from .metrics_page import Metrics
from .runtime import Cache, FilterChains, clustering, debug
from .status import Status

__all__ = ["Root", "fixed_paths"]


class Root(Get):
    """``/``."""

    async def get(self, call: Call) -> Reply:
        facts = self.api.facts
        names = sorted({row["name"] for row in self.api.storage.load().get("plugins", {}).values()})
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
            "plugins": lambda _: PluginSchemas(self.api, "plugins"),
            "vaults": lambda _: VaultSchemas(self.api, "vaults"),
            "filters": lambda _: FilterSchemas(self.api, "filters"),
            "{name}": lambda name: SchemaOf(self.api, name),
        }


class SchemaOf(Get):
    """``/schemas/{entity}``."""

    def __init__(self, api: AdminAPI, name: str) -> None:
        super().__init__(api)
        self.name = name

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"validate": lambda _: Validate(self.api, self.name)}

    async def get(self, call: Call) -> Reply:
        entity = self.api.registry.get(self.name)
        if entity is None:
            return Reply(404, {"message": f"No entity named '{self.name}'"})
        return Reply(200, entity.describe())


class PluginSchemas(SchemaOf):
    """``/schemas/plugins``, above one for each plugin."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {**super().branches, "{name}": lambda name: PluginSchema(self.api, name)}


class PluginSchema(Get):
    """``/schemas/plugins/{name}``."""

    def __init__(self, api: AdminAPI, name: str, config_only: bool = False) -> None:
        super().__init__(api)
        self.name, self.config_only = name, config_only

    async def get(self, call: Call) -> Reply:
        plugin = self.api.facts.plugins.get(self.name)
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
        return {**super().branches, "{name}": lambda name: VaultSchema(self.api, name)}


class VaultSchema(Get):
    """``/schemas/vaults/{name}``."""

    def __init__(self, api: AdminAPI, name: str) -> None:
        super().__init__(api)
        self.name = name

    async def get(self, call: Call) -> Reply:
        found = describe_vault(self.name)
        return Reply(404, {"message": f"No vault named '{self.name}'"}) if found is None else Reply(200, found)


class FilterSchemas(SchemaOf):
    """``/schemas/filters``, above one for each WebAssembly filter: there are none."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {**super().branches, "{name}": lambda name: FilterSchema(self.api, name)}


class FilterSchema(Get):
    """``/schemas/filters/{name}``."""

    def __init__(self, api: AdminAPI, name: str) -> None:
        super().__init__(api)
        self.name = name

    async def get(self, call: Call) -> Reply:
        return Reply(404, {"message": f"Filter '{self.name}' not found"})


class Validate(JSONResource):
    """``/schemas/{entity}/validate``: would it be taken? Nothing is stored and no reference is looked up."""

    def __init__(self, api: AdminAPI, name: str) -> None:
        super().__init__(api)
        self.name = name

    @property
    def methods(self) -> Methods:
        return {"POST": self._post}

    async def _post(self, call: Call) -> Reply:
        entity = self.api.registry.get(self.name)
        if entity is None:
            return Reply(404, {"message": f"No entity named '{self.name}'"})
        try:
            data = await read_body(call, entity)
        except BadBody as bad:
            return bad.reply

        def judge() -> None:
            entity.insert(data, now=self.api.now(), new_id=lambda: "00000000-0000-4000-8000-000000000000")

        await (call.long_work if is_heavy(data) else AtOnce()).aside(judge)
        return Reply(200, {"message": "schema validation successful"})


class EnabledPlugins(Get):
    """``/plugins/enabled``."""

    async def get(self, call: Call) -> Reply:
        return Reply(200, {"enabled_plugins": list(self.api.facts.plugins)})


class PluginConfigs(JSONResource):
    """``/plugins/schema/{name}``: configuration only (deprecated in Kong)."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"{name}": lambda name: PluginSchema(self.api, name, config_only=True)}


class Tags(Get):
    """``/tags`` and ``/tags/{tag}``."""

    def __init__(self, api: AdminAPI, tag: str | None = None) -> None:
        super().__init__(api)
        self.tag = tag

    @property
    def methods(self) -> Methods:
        return super().methods if self.tag is not None else {**super().methods, "POST": self._post}

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"{tags}": lambda tag: Tags(self.api, tag)} if self.tag is None else {}

    async def get(self, call: Call) -> Reply:
        if self.tag is not None:
            error = self.api.registry["tags"].key_error(self.tag)
            if error is not None:
                raise error
        breather, size, begin = call.long_work.slices(), page_size(call), row_number(call.query.get("offset"))
        rows: list[Row] = []
        for number, row in enumerate(self.api.storage.tagged(self.tag)):
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
    """``/endpoints``: every path.

    Args:
        api: the Admin API.
        paths: all of them as templates, with their resources.
    """

    def __init__(self, api: AdminAPI, paths: Callable[[], Iterator[tuple[str, JSONResource]]]) -> None:
        super().__init__(api)
        self._paths = paths

    async def get(self, call: Call) -> Reply:
        found = {path.replace("{name}/validate", "{db_entity_name}/validate") for path, _ in self._paths()}
        return Reply(200, {"data": sorted((found - OWN) | SWITCHED_OFF, key=lambda path: path.split("/"))})


class Timers(Get):
    """``/timers``."""

    async def get(self, call: Call) -> Reply:
        pending = self.api.facts.timers()
        counts = {"total": pending, "waiting": pending, "pending": pending, "running": 0, "runs": 0}
        empty = {"running": "", "pending": "", "elapsed_time": ""}
        return Reply(200, {"worker": {"id": 0, "count": len(self.api.facts.pids())}, "stats": {
            "sys": counts, "timers": {}, "flamegraph": empty,
        }})  # fmt: skip


class Robots(Get):
    """``/robots.txt``."""

    async def get(self, call: Call) -> Reply:
        return Reply(200, b"User-agent: *\nDisallow: /", content_type="text/plain")


def fixed_paths(
    api: AdminAPI, rows: Mapping[str, EntityRows], paths: Callable[[], Iterator[tuple[str, JSONResource]]]
) -> dict[str, JSONResource]:
    """First path segments that are not entities.

    Args:
        api: the Admin API.
        rows: the rows of every entity that is stored.
        paths: every path of the API, for the list of them.
    """
    return {
        "status": Status(api), "metrics": Metrics(api), "cache": Cache(api, rows), "clustering": clustering(api),
        "filter-chains": FilterChains(api, "route", "service"), "schemas": Schemas(api), "tags": Tags(api),
        "endpoints": Endpoints(api, paths), "timers": Timers(api), "robots.txt": Robots(api), "config": Config(api),
        "debug": debug(api),
    }  # fmt: skip
