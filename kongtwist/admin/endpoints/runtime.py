"""The running node's log level and what it keeps in memory; and paths that a single node without WebAssembly refuses (Kong 3.9)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...entities.schema import Row
from ..admin_api import AdminAPI
from ..entity_rows import EntityRows
from ..get_only import Get, Segment
from ..json_resource import Branch, Call, JSONResource, Methods
from ..payload import BadBody, read_body
from ..replies import Reply, not_found

__all__ = ["Cache", "FilterChains", "clustering", "debug", "route_filters"]

LEVELS = ("debug", "info", "notice", "warn", "error", "crit", "alert", "emerg")
LOG_LEVEL_SECONDS = 60
"""Seconds for which a log level holds when the request does not say."""


class LogLevel(Get):
    """``/debug/node/log-level``, with ``/{level}`` to change it."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"{log_level}": lambda level: ChangeLogLevel(self.api, level)}

    async def get(self, call: Call) -> Reply:
        return Reply(200, {"message": f"log level: {self.api.facts.log_level()}"})


class ChangeLogLevel(JSONResource):
    """``/debug/node/log-level/{level}``: for a while, in all processes of the node."""

    def __init__(self, api: AdminAPI, level: str) -> None:
        super().__init__(api)
        self.level = level

    @property
    def methods(self) -> Methods:
        return {"PUT": self._put}

    async def _put(self, call: Call) -> Reply:
        facts = self.api.facts
        if not self.api.storage.writable:
            return Reply(405, {"message": "cannot change log level when not using a database"})
        try:
            body = await read_body(call)
        except BadBody as bad:
            return bad.reply
        if self.level not in LEVELS:
            return Reply(400, {"message": f"unknown log level: {self.level}"})
        seconds = _seconds(body.get("timeout", call.query.get("timeout", LOG_LEVEL_SECONDS)))
        if seconds is None:
            return Reply(400, {"message": "timeout must be greater than or equal to 0"})
        if facts.change_log_level is None:
            return Reply(
                400, {"message": "the program that the gateway is part of keeps the log; change its level there"}
            )
        if facts.log_level() == self.level:
            return Reply(200, {"message": f"log level is already {self.level}"})
        facts.change_log_level(self.level, seconds)
        return Reply(200, {"message": "log level changed"})


def _seconds(given: Any) -> int | None:
    """A time-out in whole seconds, rounded up; None for anything else."""
    if isinstance(given, bool):
        return None
    try:
        seconds = float(given)
    except (TypeError, ValueError, OverflowError):
        return None
    return math.ceil(seconds) if 0 <= seconds <= 10**9 else None


class ClusterLogLevel(Segment):
    """``/debug/cluster/log-level/{level}``: this node is all of its cluster."""

    def __init__(self, api: AdminAPI) -> None:
        super().__init__(api, {})

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"{log_level}": lambda level: ChangeLogLevel(self.api, level)}


def debug(api: AdminAPI) -> JSONResource:
    """Everything below ``/debug``."""
    node, cluster = LogLevel(api), ClusterLogLevel(api)
    return Segment(api, {
        "node": Segment(api, {"log-level": node}), "cluster": Segment(api, {"log-level": cluster}),
    })  # fmt: skip


# -- memory --------------------------------------------------------------------------------------------------------------


class Cache(JSONResource):
    """``/cache``: the configuration in memory, which is never older than what is stored. There is nothing to purge.

    Args:
        api: the Admin API.
        rows: the rows of every entity that is stored.
    """

    def __init__(self, api: AdminAPI, rows: Mapping[str, EntityRows]) -> None:
        super().__init__(api)
        self._rows = rows

    @property
    def methods(self) -> Methods:
        return {"DELETE": self._delete}

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"{key}": lambda key: CacheEntry(self.api, self._rows, key)}

    async def _delete(self, call: Call) -> Reply:
        return Reply(204)


class CacheEntry(JSONResource):
    """``/cache/{key}``: the row that a key of Kong's cache stands for, ``entity:part:part:part:part:part:workspace``."""

    def __init__(self, api: AdminAPI, rows: Mapping[str, EntityRows], key: str) -> None:
        super().__init__(api)
        self._rows, self.key = rows, key

    @property
    def methods(self) -> Methods:
        return {"GET": self._get, "DELETE": self._delete}

    async def _get(self, call: Call) -> Reply:
        name, _, rest = self.key.partition(":")
        rows = self._rows.get(name)
        row = None if rows is None else self._find(rows, rest)
        return not_found() if rows is None or row is None else Reply(200, rows.shown(row))

    async def _delete(self, call: Call) -> Reply:
        return Reply(204)

    def _find(self, rows: EntityRows, rest: str) -> Row | None:
        """A row by the values in a key. A value may hold colons where it is the only one."""
        storage, entity = self.api.storage, rows.entity
        parts = rest.split(":")
        if len(parts) < 6:
            return None
        fields = entity.cache_key
        if len(fields) > 1 and len(parts) == 6 and not any(parts[len(fields) : 5]):
            return storage.find_together(entity.name, [part or None for part in parts[: len(fields)]])
        value, padding = ":".join(parts[:-5]), parts[-5:-1]
        if any(padding) or not value:
            return None
        found = storage.get(entity.name, value)
        for field in entity.unique:
            found = found or storage.find(entity.name, field, value)
        return found


# -- what is not here ----------------------------------------------------------------------------------------------------


class Unavailable(JSONResource):
    """Paths that answer one sentence to every method.

    Args:
        api: the Admin API.
        methods: the methods there are.
        words: the sentence.
        below: paths below.
    """

    def __init__(self, api: AdminAPI, methods: str, words: str, below: Mapping[str, Branch] | None = None) -> None:
        super().__init__(api)
        self._methods, self._words, self._below = methods.split(), words, dict(below or {})

    @property
    def methods(self) -> Methods:
        return dict.fromkeys(self._methods, self._refuse)

    @property
    def branches(self) -> Mapping[str, Branch]:
        return self._below

    async def _refuse(self, call: Call) -> Reply:
        return Reply(400, {"message": self._words})


_NO_CLUSTER = "this endpoint is only available when Kong is configured to run as Control Plane for the cluster"
_NO_FILTERS = "this endpoint is only available when wasm is enabled"
_ROW = "GET PUT PATCH DELETE"


def clustering(api: AdminAPI) -> JSONResource:
    """Everything below ``/clustering``, which only a control plane has."""
    return Segment(api, {name: Unavailable(api, "GET", _NO_CLUSTER) for name in ("data-planes", "status")})


class FilterChains(Unavailable):
    """``/filter-chains``, also below routes and services: WebAssembly is not on.

    Args:
        api: the Admin API.
        parents: the segments below a chain that lead to its route and service.
    """

    def __init__(self, api: AdminAPI, *parents: str) -> None:
        above = {name: lambda _: Unavailable(api, _ROW, _NO_FILTERS) for name in parents}
        row: Branch = lambda _: Unavailable(api, _ROW, _NO_FILTERS, above)  # noqa: E731 - one of several of its kind
        super().__init__(api, "GET POST", _NO_FILTERS, {"{filter_chains}": row})


def route_filters(api: AdminAPI) -> JSONResource:
    """``/routes/{}/filters/...``."""
    return Segment(api, {name: Unavailable(api, "GET", _NO_FILTERS) for name in ("all", "disabled", "enabled")})
