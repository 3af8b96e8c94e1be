"""What can be configured: every entity and every field, declared once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .ca_certificates import CA_CERTIFICATES
from .certificates import CERTIFICATES
from .cluster_rows import CLUSTERING_DATA_PLANES, PARAMETERS, WORKSPACES
from .consumers import CONSUMERS
from .entity import Entity
from .errors import EntityError
from .filter_chains import FILTER_CHAINS
from .keys import KEY_SETS, KEYS
from .plugin_rows import plugins_entity
from .routes import FLAVOR, routes_entity
from .services import SERVICES
from .snis import SNIS
from .tags import TAGS
from .targets import TARGETS
from .upstreams import UPSTREAMS
from .vaults import VAULTS

__all__ = ["Entity", "EntityError", "registry"]


def registry(plugins: Mapping[str, Any], router_flavor: str = FLAVOR) -> dict[str, Entity]:
    """All entities of a gateway with these plugins, parents before children.

    Args:
        plugins: by name; what `kongtwist.core.chain.plugin.Plugin` declares about itself.
        router_flavor: decides which fields routes have.
    """
    core = (
        CERTIFICATES,
        SNIS,
        CA_CERTIFICATES,
        SERVICES,
        routes_entity(router_flavor),
        CONSUMERS,
        UPSTREAMS,
        TARGETS,
        plugins_entity(plugins),
        VAULTS,
        KEY_SETS,
        KEYS,
        FILTER_CHAINS,
        WORKSPACES,
        PARAMETERS,
        CLUSTERING_DATA_PLANES,
        TAGS,
    )
    found = {entity.name: entity for entity in core}
    for plugin in plugins.values():
        found.update((entity.name, entity) for entity in plugin.entities)
    return found
