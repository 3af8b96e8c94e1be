"""What the configuration of traces has in common: ``propagation``, kinds of spans (Kong 3.9.3, ``kong/observability/tracing``)."""

from __future__ import annotations

from .schema import Array, Record, String
from .typedefs import header_name

__all__ = ["HEADER_TYPES", "INSTRUMENTATIONS", "propagation_record"]

INSTRUMENTATIONS = (
    "request", "db_query", "dns_query", "router", "http_client", "balancer", "plugin_rewrite", "plugin_access",
    "plugin_header_filter",
)  # fmt: skip
"""Members of the property ``tracing_instrumentations`` beside ``off`` and ``all`` (Kong 3.9)."""

_EXTRACTED = ["datadog", "b3", "gcp", "jaeger", "aws", "ot", "w3c"]
_INJECTED = ["datadog", "b3", "gcp", "b3-single", "jaeger", "aws", "ot", "w3c"]

HEADER_TYPES = {
    "zipkin": ["preserve", "ignore", "b3", "b3-single", "w3c", "jaeger", "ot", "aws", "datadog", "gcp"],
    "opentelemetry": ["preserve", "ignore", "b3", "b3-single", "w3c", "jaeger", "ot", "aws", "gcp", "datadog"],
}
"""Values of ``header_type``, in Kong's order."""


def propagation_record(default: str) -> Record:
    """How traces are taken over and passed on.

    Args:
        default: the format where none was found.
    """
    return Record(
        {
            "extract": Array(
                String(one_of=_EXTRACTED),
                text="Formats in which a request may tell of its trace; the first that it has anything of counts. Empty: none is"
                " looked at, and each request begins a trace.",
            ),
            "clear": Array(
                String(checks=(header_name,)),
                text="Headers that the upstream does not get; they are taken out when the trace has been read.",
            ),
            "inject": Array(
                String(one_of=["preserve", *_INJECTED]),
                text="Formats in which the upstream is told of the trace; preserve: the one in which it came, else default_format."
                " Empty: it is not told.",
            ),
            "default_format": String(
                one_of=_INJECTED, required=True, text="Format for preserve where the trace came in none."
            ),
        },
        default={"default_format": default},
        text="How traces are taken over and passed on. Without extract, clear and inject header_type says so.",
    )  # fmt: skip
