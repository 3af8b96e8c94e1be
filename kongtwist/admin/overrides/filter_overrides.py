"""Services and routes have paths of WebAssembly filters, which are not supported (Kong 3.9)."""

from __future__ import annotations

from ..endpoints.runtime import FilterChains, route_filters
from ..entity_rows import EntityRows, Parent
from ..json_resource import Branch

__all__ = ["RouteRows", "ServiceRows"]


class ServiceRows(EntityRows):
    """Services."""

    def below(self, key: str, parent: Parent | None) -> dict[str, Branch]:
        return {} if parent is not None else {"filter-chains": lambda _: FilterChains(self.api)}


class RouteRows(ServiceRows):
    """Routes."""

    def below(self, key: str, parent: Parent | None) -> dict[str, Branch]:
        found = super().below(key, parent)
        return found | {"filters": lambda _: route_filters(self.api)} if found else found
