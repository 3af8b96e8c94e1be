"""Properties that say what is traced; part of config/properties.py by length only."""

from __future__ import annotations

from ..entities.trace_fields import INSTRUMENTATIONS
from .kinds import NUMBER, Kind, Property, items

__all__ = ["Tracing"]


def _parse(text: str) -> list[str]:
    found = items(text) or ["off"]
    if found in (["off"], ["all"]):
        return found
    if wrong := next((each for each in found if each not in INSTRUMENTATIONS), None):
        raise ValueError(
            f"has an invalid value: '{wrong}' (off or all alone, or a list of {', '.join(INSTRUMENTATIONS)})"
        )
    return found


_KIND = Kind("off, all, or list of " + ", ".join(INSTRUMENTATIONS), _parse)


class Tracing:
    """Traces. They are sent by the plugins opentelemetry and zipkin."""

    tracing_instrumentations = Property(
        _KIND,
        "off",
        "What the plugin opentelemetry tells of a request, as spans: off, all, or a list of request (the request itself), balancer"
        " (each try to reach the upstream), router, plugin_rewrite, plugin_access and plugin_header_filter (each plugin in these"
        " phases), dns_query, http_client (requests that plugins make) and db_query (what plugins write). With off it passes traces on,"
        " but sends none. Requests on whose routes no such plugin is pay nothing for it.",
        aliases=("opentelemetry_tracing",),
    )  # fmt: skip
    tracing_sampling_rate = Property(
        NUMBER.within(0, 1),
        "0.01",
        "Share of traces that is sent, from 0 to 1, where the plugin does not say (config.sampling_rate). The id of a trace decides, so"
        " that all nodes decide alike.",
        aliases=("opentelemetry_tracing_sampling_rate",),
    )
