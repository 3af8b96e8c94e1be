"""The Admin API as a Resource and as a Site, and the Status API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any

from twisted.web.http import Request
from twisted.web.resource import Resource

from ..core.long_work import AtOnce, LongWork
from ..entities import Entity
from .access.gate import Gate
from .access.path_mask import PathMask
from .endpoints.declarative_config import Declarations
from .endpoints.node import NodeFacts, Plugins, Root, fixed_paths
from .endpoints.status import monitored
from .json_resource import JSONResource, Refused, Verdict, walk
from .openapi.path import OpenAPI
from .overrides import Special
from .row_resources import CollectionResource

__all__ = ["AdminResource", "StatusResource"]

DEFAULT_HEADERS = ("server_tokens", "latency_tokens")


class _Api:
    """What the resources of one API share."""

    def __init__(
        self,
        storage: Any,
        registry: Mapping[str, Entity],
        facts: NodeFacts,
        gate: Gate,
        added_headers: Collection[str],
        turns: LongWork | None = None,
    ) -> None:
        self.turns: LongWork = turns or AtOnce()
        self.storage, self.registry, self.facts, self.gate = storage, registry, facts, gate
        self.added_headers = frozenset(name.lower() for name in added_headers)
        if "server_tokens" in self.added_headers:
            self.added_headers |= {"server"}
        if "latency_tokens" in self.added_headers:
            self.added_headers |= {"x-kong-admin-latency"}
        self.shown_path = PathMask(registry)
        self.special = Special(self)

    def configuration_hash(self) -> str:
        """Of a node without a database."""
        found: str = self.storage.configuration_hash()
        return found

    def verdict(self, request: Request) -> Verdict:
        """What the gate says of a request; it is asked once (by the door already, if it is ours)."""
        verdict = getattr(request, "verdict", None)
        if verdict is None:
            verdict = self.gate.verdict(request, request.method.decode("latin-1"))
            request.verdict = verdict  # type: ignore[attr-defined]
        found: Verdict = verdict
        return found


class _Gated(Resource):
    """The root of an API: nothing below is reached by a request that the gate refuses."""

    _api: Any
    _root: JSONResource

    def getChildWithDefault(self, path: bytes, request: Request) -> Resource:
        if self._api.verdict(request).refusal is not None:
            return Refused(self._api)
        found: Resource = super().getChildWithDefault(path, request)
        return found

    def render(self, request: Request) -> int:
        refused = self._api.verdict(request).refusal is not None
        return (Refused(self._api) if refused else self._root).render(request)


class AdminResource(_Gated):
    """The Admin API.

    Args:
        storage: where the entities are (core/storage_contract.py).
        registry: the entities.
        facts: what is told of the node.
        gate: who may talk to it.
        added_headers: the property ``headers``: which fields answers have.
        published: waits until what was written serves.
        now: epoch seconds.
        declarations: loads and shows the declarative configuration; None with a database.
        turns: how long work is done; None: at once.
    """

    def __init__(
        self,
        storage: Any,
        registry: Mapping[str, Entity],
        facts: NodeFacts,
        *,
        gate: Gate,
        added_headers: Collection[str] = DEFAULT_HEADERS,
        published: Callable[[], Awaitable[Any]],
        now: Callable[[], float],
        declarations: Declarations | None = None,
        turns: LongWork | None = None,
    ) -> None:
        super().__init__()
        api: Any = _Api(storage, registry, facts, gate, added_headers, turns)
        api.published, api.now, api.declarations = published, now, declarations
        below = {"openapi.json": OpenAPI(api), **fixed_paths(api)}
        for entity in registry.values():
            if entity.stored and entity.name != "targets":
                made = Plugins if entity.name == "plugins" else CollectionResource
                below[entity.admin_name] = made(api, entity)
        self._api, self._root = api, Root(api, below)
        api.paths = self.paths

    def paths(self) -> Iterator[tuple[str, JSONResource]]:
        """Every path as a template, with its resource."""
        return walk("", self._root)

    def getChild(self, path: bytes, request: Request) -> Resource:
        return self._root.getChild(path, request)


class StatusResource(_Gated):
    """The Status API (``status_listen``): what monitors may see."""

    def __init__(
        self,
        storage: Any,
        registry: Mapping[str, Entity],
        facts: NodeFacts,
        *,
        gate: Gate,
        added_headers: Collection[str] = DEFAULT_HEADERS,
        now: Callable[[], float],
    ) -> None:
        super().__init__()
        api: Any = _Api(storage, registry, facts, gate, added_headers)
        api.now = now
        self._api, self._root = api, monitored(api)

    def getChild(self, path: bytes, request: Request) -> Resource:
        return self._root.getChild(path, request)
