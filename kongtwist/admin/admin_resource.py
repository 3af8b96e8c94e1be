"""The Admin API and the Status API as resources."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any

from twisted.web.http import Request
from twisted.web.resource import Resource

from ..core.chain.host import Host
from ..core.long_work import AtOnce, LongWork
from ..core.storage_contract import Storage
from ..entities import Entity
from .access.gate import Gate
from .admin_api import DEFAULT_HEADERS, AdminAPI
from .declarations import Declarations
from .endpoints.node_information import Root, fixed_paths
from .endpoints.plugin_endpoints import plugin_endpoints
from .endpoints.status import monitored
from .entity_rows import EntityRows
from .facts import NodeFacts
from .json_resource import Branch, JSONResource, RefusedResource, walk
from .openapi.path import OpenAPI
from .overrides import rows_class
from .row_resources import CollectionResource

__all__ = ["AdminResource", "StatusResource"]


class _Gated(JSONResource):
    """The root of an API: no request that the gate refuses gets below it.

    Args:
        api: the API.
        below: the resources of the first path segments.
    """

    def __init__(self, api: AdminAPI, below: Mapping[str, JSONResource]) -> None:
        super().__init__(api)
        self._below = dict(below)

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {name: lambda segment: self._below[segment] for name in self._below}

    def getChildWithDefault(self, path: bytes, request: Request) -> Resource:
        if self.api.verdict(request).refusal is not None:
            return RefusedResource(self.api)
        found: Resource = super().getChildWithDefault(path, request)
        return found

    def render(self, request: Request) -> int:
        refused = self.api.verdict(request).refusal is not None
        return RefusedResource(self.api).render(request) if refused else super().render(request)


class AdminResource(_Gated, Root):
    """The Admin API.

    Args:
        storage: keeps the rows.
        registry: the entities.
        facts: what is known of the node.
        gate: decides who may use the API.
        added_headers: the property ``headers``: which fields answers have.
        published: waits until what was written serves traffic.
        now: epoch seconds.
        declarations: loads and shows the declarative configuration; None with a database.
        long_work: does long work beside the traffic; None: at once.
        host: what endpoints of plugins are given of the gateway; None: there are none.
    """

    def __init__(
        self,
        storage: Storage,
        registry: Mapping[str, Entity],
        facts: NodeFacts,
        *,
        gate: Gate,
        added_headers: Collection[str] = DEFAULT_HEADERS,
        published: Callable[[], Awaitable[object]],
        now: Callable[[], float],
        declarations: Declarations | None = None,
        long_work: LongWork | None = None,
        host: Host | None = None,
    ) -> None:
        api = AdminAPI(
            storage, registry, facts, gate, now=now, added_headers=added_headers, published=published,
            declarations=declarations, long_work=long_work, host=host,
        )  # fmt: skip
        rows = _rows_of(api)
        below = {"openapi.json": OpenAPI(api, self._document), **fixed_paths(api, rows, self.paths)}
        for each in rows.values():
            if each.top_level:
                below[each.entity.admin_name] = CollectionResource(each)
        below.update(plugin_endpoints(api, facts.plugins))
        super().__init__(api, below)

    def paths(self) -> Iterator[tuple[str, JSONResource]]:
        """Every path as a template, with its resource."""
        return walk("", self)

    def _document(self) -> Mapping[str, Any]:
        """What ``/openapi.json`` shows. Few ask for it, so what makes it is loaded then."""
        from .openapi.document import document

        return document(self.paths(), self.api.registry)


class StatusResource(_Gated):
    """The Status API (``status_listen``): what monitors may see. Arguments as of `AdminResource`."""

    def __init__(
        self,
        storage: Storage,
        registry: Mapping[str, Entity],
        facts: NodeFacts,
        *,
        gate: Gate,
        added_headers: Collection[str] = DEFAULT_HEADERS,
        now: Callable[[], float],
        long_work: LongWork | None = None,
    ) -> None:
        work = long_work or AtOnce()
        api = AdminAPI(storage, registry, facts, gate, now=now, added_headers=added_headers, long_work=work)
        super().__init__(api, monitored(api, _rows_of(api)))


def _rows_of(api: AdminAPI) -> Mapping[str, EntityRows]:
    """The rows of every entity that is stored and has paths."""
    rows: dict[str, EntityRows] = {}
    for name, entity in api.registry.items():
        if entity.stored and entity.in_admin:
            rows[name] = rows_class(name)(api, entity, rows)
    return rows
