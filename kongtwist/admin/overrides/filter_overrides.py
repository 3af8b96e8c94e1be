"""Services and routes have paths of WebAssembly filters, which are not supported (Kong 3.9). Services of gRPC have methods."""

from __future__ import annotations

from ..endpoints.runtime import FilterChains, route_filters
from ..endpoints.service_methods import ServiceMethods
from ..entity_rows import EntityRows, Parent
from ..json_resource import Branch

__all__ = ["RouteRows", "ServiceRows"]


class ServiceRows(EntityRows):
    """Services."""

    def below(self, key: str, parent: Parent | None) -> dict[str, Branch]:
        if parent is not None:
            return {}
        return {"filter-chains": lambda _: FilterChains(self.api), "grpc": lambda _: ServiceMethods(self, key)}


class RouteRows(EntityRows):
    """Routes."""

    def below(self, key: str, parent: Parent | None) -> dict[str, Branch]:
        if parent is not None:
            return {}
        return {"filter-chains": lambda _: FilterChains(self.api), "filters": lambda _: route_filters(self.api)}
