"""What can be changed or looked up in the running node: its log level and what it keeps in memory; and what a node that is
alone has not: a cluster, WebAssembly filters (Kong 3.9)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...entities import Entity
from ...entities.schema import Row
from ..get_only import Get, Segment
from ..json_resource import Branch, Call, JSONResource, Reply, not_found
from ..payload import BadBody, read_body

__all__ = ["Cache", "FilterChains", "clustering", "debug", "route_filters"]

LEVELS = ("debug", "info", "notice", "warn", "error", "crit", "alert", "emerg")
LOG_LEVEL_SECONDS = 60
"""Seconds for which a log level holds when the request does not say."""


class LogLevel(Get):
    """``/debug/node/log-level``, with ``/{level}`` to change it."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"{log_level}": lambda level: ChangeLogLevel(self.site, level)}

    async def get(self, call: Call) -> Reply:
        return Reply(200, {"message": f"log level: {self.site.facts.log_level()}"})


class ChangeLogLevel(JSONResource):
    """``/debug/node/log-level/{level}``: for a while, in all processes of the node."""

    def __init__(self, site: Any, level: str) -> None:
        super().__init__(site)
        self.level = level

    @property
    def methods(self) -> Mapping[str, Any]:
        return {"PUT": self._put}

    async def _put(self, call: Call) -> Reply:
        facts = self.site.facts
        if not self.site.storage.writable:
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
    """A time-out in whole seconds, rounded up; None when it is none."""
    if isinstance(given, bool):
        return None
    try:
        seconds = float(given)
    except (TypeError, ValueError, OverflowError):
        return None
    return math.ceil(seconds) if 0 <= seconds <= 10**9 else None


class ClusterLogLevel(Segment):
    """``/debug/cluster/log-level/{level}``: this node is all of its cluster."""

    def __init__(self, site: Any) -> None:
        super().__init__(site, {})

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"{log_level}": lambda level: ChangeLogLevel(self.site, level)}


def debug(site: Any) -> JSONResource:
    """Everything below ``/debug``."""
    node, cluster = LogLevel(site), ClusterLogLevel(site)
    return Segment(site, {
        "node": Segment(site, {"log-level": node}), "cluster": Segment(site, {"log-level": cluster}),
    })  # fmt: skip


# -- memory --------------------------------------------------------------------------------------------------------------


class Cache(JSONResource):
    """``/cache``: the configuration in memory, which is never older than what is stored. There is nothing to purge."""

    @property
    def methods(self) -> Mapping[str, Any]:
        return {"DELETE": self._delete}

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {"{key}": lambda key: CacheEntry(self.site, key)}

    async def _delete(self, call: Call) -> Reply:
        return Reply(204)


class CacheEntry(JSONResource):
    """``/cache/{key}``: the row that a key of Kong's cache stands for, ``entity:part:part:part:part:part:workspace``."""

    def __init__(self, site: Any, key: str) -> None:
        super().__init__(site)
        self.key = key

    @property
    def methods(self) -> Mapping[str, Any]:
        return {"GET": self._get, "DELETE": self._delete}

    async def _get(self, call: Call) -> Reply:
        name, _, rest = self.key.partition(":")
        entity = self.site.registry.get(name)
        if entity is None or not entity.stored:
            return not_found()
        row = self._find(entity, rest)
        return not_found() if row is None else Reply(200, self.site.special.shown(entity, row))

    async def _delete(self, call: Call) -> Reply:
        return Reply(204)

    def _find(self, entity: Entity, rest: str) -> Row | None:
        """A row by the values in a key; values may hold colons, where there is only one."""
        storage = self.site.storage
        parts = rest.split(":")
        if len(parts) < 6:
            return None
        fields = entity.cache_key
        if len(fields) > 1 and len(parts) == 6 and not any(parts[len(fields) : 5]):
            together: Row | None = storage.find_together(entity.name, [part or None for part in parts[: len(fields)]])
            return together
        value, padding = ":".join(parts[:-5]), parts[-5:-1]
        if any(padding) or not value:
            return None
        found: Row | None = storage.get(entity.name, value)
        for field in entity.unique:
            found = found or storage.find(entity.name, field, value)
        return found


# -- what is not here ----------------------------------------------------------------------------------------------------


class Unavailable(JSONResource):
    """Paths that answer one sentence to every method.

    Args:
        site: the Admin API.
        methods: the methods there are.
        words: the sentence.
        below: paths below.
    """

    def __init__(self, site: Any, methods: str, words: str, below: Mapping[str, Branch] | None = None) -> None:
        super().__init__(site)
        self._methods, self._words, self._below = methods.split(), words, dict(below or {})

    @property
    def methods(self) -> Mapping[str, Any]:
        return dict.fromkeys(self._methods, self._refuse)

    @property
    def branches(self) -> Mapping[str, Branch]:
        return self._below

    async def _refuse(self, call: Call) -> Reply:
        return Reply(400, {"message": self._words})


_NO_CLUSTER = "this endpoint is only available when Kong is configured to run as Control Plane for the cluster"
_NO_FILTERS = "this endpoint is only available when wasm is enabled"
_ROW = "GET PUT PATCH DELETE"


def clustering(site: Any) -> JSONResource:
    """Everything below ``/clustering``, which only a control plane has."""
    return Segment(site, {name: Unavailable(site, "GET", _NO_CLUSTER) for name in ("data-planes", "status")})


class FilterChains(Unavailable):
    """``/filter-chains``, also below routes and services: WebAssembly is not on.

    Args:
        site: the Admin API.
        parents: the segments below a chain that lead to its route and service.
    """

    def __init__(self, site: Any, *parents: str) -> None:
        above = {name: lambda _: Unavailable(site, _ROW, _NO_FILTERS) for name in parents}
        row: Branch = lambda _: Unavailable(site, _ROW, _NO_FILTERS, above)  # noqa: E731 - one of several of its kind
        super().__init__(site, "GET POST", _NO_FILTERS, {"{filter_chains}": row})


def route_filters(site: Any) -> JSONResource:
    """``/routes/{}/filters/...``."""
    return Segment(site, {name: Unavailable(site, "GET", _NO_FILTERS) for name in ("all", "disabled", "enabled")})
