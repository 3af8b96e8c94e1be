"""Paths that plugins add to the Admin API: their templates, and what would keep them from being found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ..core.chain.phases import AdminEndpoint
from ..core.chain.plugin import Plugin
from ..entities import Entity

__all__ = ["FIXED_SEGMENTS", "METHODS", "is_argument", "path_faults", "segments_of"]

FIXED_SEGMENTS = frozenset((
    "cache", "clustering", "config", "debug", "endpoints", "filter-chains", "metrics", "openapi.json", "robots.txt", "schemas",
    "status", "tags", "timers",
))  # fmt: skip
"""First segments of the paths that are always there and are not those of an entity."""

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""Methods that a plugin may answer. HEAD comes with GET, and OPTIONS with all."""

_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+\Z")
_ARGUMENT = re.compile(r"\{[a-z][a-z0-9_]*\}\Z")


def segments_of(endpoint: AdminEndpoint) -> tuple[str, ...]:
    """The segments of a path template: ``/a/{b}`` -> ``a``, ``{b}``."""
    return tuple(endpoint.path.removeprefix("/").split("/"))


def is_argument(segment: str) -> bool:
    """Whether a template's segment stands for any."""
    return segment.startswith("{")


def path_faults(plugins: Mapping[str, Plugin], registry: Mapping[str, Entity]) -> Iterator[str]:
    """What is wrong with the paths that plugins add, a sentence for each; it names plugin and path.

    Args:
        plugins: the loaded plugins by name.
        registry: all entities, those of the plugins too.
    """
    taken = dict.fromkeys(FIXED_SEGMENTS, "the gateway's own")
    for entity in registry.values():
        taken[entity.admin_name.partition("/")[0]] = f"the entity {entity.name}'s"
    known: dict[tuple[str, ...], str] = {}
    for plugin in plugins.values():
        for endpoint in plugin.endpoints:
            fault = _form_fault(endpoint)
            segments = segments_of(endpoint)
            shape = tuple("{}" if is_argument(each) else each for each in segments)
            if fault is None and segments[0] in taken:
                fault = f"/{segments[0]} is {taken[segments[0]]}"
            elif fault is None and shape in known:
                fault = f"it is plugin {known[shape]}'s already"
            known.setdefault(shape, plugin.name)
            if fault is not None:
                yield f"plugin {plugin.name}: the Admin API cannot have its path {endpoint.path}: {fault}"


def _form_fault(endpoint: AdminEndpoint) -> str | None:
    """What is wrong with a path as such."""
    segments = segments_of(endpoint)
    names = [each for each in segments if is_argument(each)]
    if not endpoint.path.startswith("/") or not all(_SEGMENT.match(each) or _ARGUMENT.match(each) for each in segments):
        return "it is not of the form /name/{argument}/name"
    if is_argument(segments[0]):
        return "its first segment must be a name"
    if len(names) > len(set(names)):
        return "it has two arguments of one name"
    if not endpoint.methods or not set(endpoint.methods) <= set(METHODS):
        return f"its methods must be some of {', '.join(METHODS)}"
    return None
