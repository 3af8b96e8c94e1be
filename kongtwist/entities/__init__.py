"""What can be configured: every entity and every field, declared once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .certificate_entities import CA_CERTIFICATES, CERTIFICATES, SNIS
from .cluster_entities import CLUSTERING_DATA_PLANES, PARAMETERS, WORKSPACES
from .core_entities import CONSUMERS, ROUTES, SERVICES, TAGS
from .entity import Entity
from .errors import EntityError
from .filter_entities import FILTER_CHAINS
from .key_entities import KEY_SETS, KEYS
from .plugin_entity import plugins_entity
from .upstream_entities import TARGETS, UPSTREAMS
from .vault_entity import VAULTS

__all__ = ["Entity", "EntityError", "registry"]


def registry(plugins: Mapping[str, Any]) -> dict[str, Entity]:
    """All entities of a gateway with these plugins, parents before children.

    Args:
        plugins: by name; what `kongtwist.core.plugin.Plugin` declares about itself.
    """
    core = (
        CERTIFICATES,
        SNIS,
        CA_CERTIFICATES,
        SERVICES,
        ROUTES,
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
