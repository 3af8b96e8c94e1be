"""Entities whose Admin API is not what their declaration gives: one subclass of `EntityRows` for each."""

from __future__ import annotations

from collections.abc import Mapping

from ..entity_rows import EntityRows
from .certificate_overrides import CertificateRows, SNIRows
from .consumer_overrides import ConsumerRows
from .filter_overrides import RouteRows, ServiceRows
from .group_overrides import GroupRows
from .plugin_overrides import PluginRows
from .target_overrides import TargetRows, UpstreamRows

__all__ = ["OVERRIDES", "rows_class"]

OVERRIDES: Mapping[str, type[EntityRows]] = {
    "acls": GroupRows,
    "certificates": CertificateRows,
    "consumers": ConsumerRows,
    "plugins": PluginRows,
    "routes": RouteRows,
    "services": ServiceRows,
    "snis": SNIRows,
    "targets": TargetRows,
    "upstreams": UpstreamRows,
}
"""Entity -> how its rows are read and written."""


def rows_class(entity: str) -> type[EntityRows]:
    """The class that reads and writes an entity's rows for the Admin API."""
    return OVERRIDES.get(entity, EntityRows)
