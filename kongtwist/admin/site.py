"""The Admin API as a Resource and as a Site, and the Status API."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

from ..entities import Entity
from .guard import Guard
from .node import NodeFacts, Plugins, Ready, Root, Status, fixed_paths
from .openapi import OpenAPI
from .rows import CollectionResource
from .special import Special
from .web import AdminRequest, Call, JSONResource, Missing, walk

__all__ = ["AdminResource", "StatusResource", "admin_site"]


class _Api:
    """What the resources of one API share."""

    def __init__(self, storage: Any, registry: Mapping[str, Entity], facts: NodeFacts, guard: Guard) -> None:
        self.storage, self.registry, self.facts = storage, registry, facts
        self._guard = guard
        self.special = Special(self)

    def guard(self, call: Call) -> str | None:
        """Why the request may not pass, or None."""
        return self._guard.refusal(
            call.method, call.header("host"), call.header("origin"), call.header("sec-fetch-site")
        )

    def allowed_origin(self, call: Call) -> str:
        """Access-Control-Allow-Origin: the request's own origin if it may write, else the first that may, else all."""
        origin, known = call.header("origin"), self._guard.origins
        if not known:
            return origin or "*"
        return origin if origin is not None and origin.lower() in known else min(known)


class AdminResource(Resource):
    """The Admin API.

    Args:
        storage: where the entities are (core/storage.py).
        registry: the entities.
        facts: what is told of the node.
        guard: who may talk to it.
        published: waits until what was written serves.
        now: epoch seconds.
        declarative_text: the declarative configuration as YAML, without a database.
    """

    def __init__(
        self,
        storage: Any,
        registry: Mapping[str, Entity],
        facts: NodeFacts,
        *,
        guard: Guard,
        published: Callable[[], Awaitable[Any]],
        now: Callable[[], float],
        declarative_text: Callable[[], str | None] = lambda: None,
    ) -> None:
        super().__init__()
        api: Any = _Api(storage, registry, facts, guard)
        api.published, api.now, api.declarative_text = published, now, declarative_text
        api.configuration_hash = lambda: _hash(storage.load())
        below = {"openapi.json": OpenAPI(api), **fixed_paths(api)}
        for entity in registry.values():
            if entity.stored and entity.name != "targets":
                made = Plugins if entity.name == "plugins" else CollectionResource
                below[entity.admin_name] = made(api, entity)
        self._root = Root(api, below)
        api.paths = self.paths

    def paths(self) -> Iterator[tuple[str, JSONResource]]:
        """Every path as a template, with its resource."""
        return walk("", self._root)

    def getChild(self, path: bytes, request: Request) -> Resource:
        return self._root.getChild(path, request)

    def render(self, request: Request) -> int:
        return self._root.render(request)


class StatusResource(Resource):
    """The Status API (``status_listen``): what monitors may see."""

    def __init__(self, storage: Any, registry: Mapping[str, Entity], facts: NodeFacts) -> None:
        super().__init__()
        api: Any = _Api(storage, registry, facts, Guard(False))
        api.configuration_hash = lambda: _hash(storage.load())
        self._api = api

    def getChild(self, path: bytes, request: Request) -> Resource:
        if path == b"status":
            found = Status(self._api)
            found.putChild(b"ready", Ready(self._api))
            return found
        return Missing(self._api)

    def render(self, request: Request) -> int:
        return Missing(self._api).render(request)


def _hash(dataset: Mapping[str, Mapping[str, Any]]) -> str:
    """32 hex digits that are equal for equal configurations; noughts for an empty one."""
    rows = {name: dict(rows) for name, rows in dataset.items() if rows}
    if not rows:
        return "0" * 32
    return hashlib.md5(json.dumps(rows, sort_keys=True).encode(), usedforsecurity=False).hexdigest()


def admin_site(resource: Resource, reactor: Any, max_body: int, log: Callable[[Request], None] | None = None) -> Site:
    """A Site for the Admin or Status API.

    Args:
        resource: its root.
        reactor: for time-outs.
        max_body: bytes of the largest request body; 0: no limit.
        log: told of each finished request.
    """

    class Request_(AdminRequest):
        pass

    Request_.max_body = max_body
    site = Site(resource, requestFactory=Request_, timeout=60, reactor=reactor)
    site.displayTracebacks = False
    site.noisy = False
    site.log = (lambda request: None) if log is None else log  # type: ignore[method-assign,assignment]
    return site
