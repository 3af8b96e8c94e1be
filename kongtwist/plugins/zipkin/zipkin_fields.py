"""The configuration of zipkin."""

from __future__ import annotations

from typing import Any

from ...core.exchange import Row
from ...entities.entity import Config
from ...entities.errors import ErrorTree
from ...entities.queue_fields import queue_record
from ...entities.schema import Array, Boolean, Integer, Number, Record, String
from ...entities.trace_fields import HEADER_TYPES, propagation_record
from ...entities.typedefs import url

__all__ = ["CONFIG"]

PROTECTED = [
    "error", "http.method", "http.path", "http.status_code", "kong.balancer.state", "kong.balancer.try", "kong.consumer",
    "kong.credential", "kong.node.id", "kong.route", "kong.service", "lc", "peer.hostname",
]  # fmt: skip
"""Tags that are the plugin's own."""

_MILLISECONDS = [0, 2147483646]


def _no_tag_twice(tags: Any) -> ErrorTree:
    names = [tag.get("name") for tag in tags if isinstance(tag, dict)]
    for at, name in enumerate(names):
        if name in names[:at]:
            return f"repeated tags are not allowed: {name}"
    return None


def _deprecated(message: str, default: Any) -> Row:
    return {"message": f"zipkin: config.{message}", "removal_in_version": "4.0", "old_default": default}


CONFIG = Config(
    {
        "local_service_name": String(required=True, default="kong", text="What Zipkin calls the gateway."),
        "http_endpoint": String(
            checks=(url,), text="URL that spans are sent to, such as http://zipkin:9411/api/v2/spans; null: they are not."
        ),
        "sample_ratio": Number(
            default=0.001, between=[0, 1], text="Share of the traces that begin here that is sent; a trace that came is decided."
        ),
        "default_service_name": String(text="What a span's other side is called that has no service; null: nothing."),
        "include_credential": Boolean(required=True, default=True, text="Tell the id of the credential."),
        "traceid_byte_count": Integer(
            required=True, default=16, one_of=[8, 16], text="Bytes of the ids of traces that begin here."
        ),
        "header_type": String(
            required=True, default="preserve", one_of=HEADER_TYPES["zipkin"],
            deprecation=_deprecated("header_type is deprecated, please use config.propagation options instead", "preserve"),
            text="How traces are passed on: preserve, as they came; ignore, what came is not looked at; or a format, which goes up too.",
        ),
        "default_header_type": String(
            required=True, default="b3", one_of=["b3", "b3-single", "w3c", "jaeger", "ot", "aws", "datadog", "gcp"],
            deprecation=_deprecated(
                "default_header_type is deprecated, please use config.propagation.default_format instead", "b3"
            ),
            text="Format for preserve and ignore; stands for propagation.default_format unless propagation has other members.",
        ),
        "tags_header": String(
            required=True, default="Zipkin-Tags", text="Header of requests with tags for their span: name=value; name=value."
        ),
        "static_tags": Array(
            Record(
                {
                    "name": String(required=True, not_one_of=PROTECTED, text="Its name; none of the plugin's own."),
                    "value": String(required=True, text="Its value."),
                },
                required=None,
            ),
            checks=(_no_tag_twice,),
            text="Tags of each request's span.",
        ),
        "http_span_name": String(
            required=True, default="method", one_of=["method", "method_path"], text="What a span is called: method, or method and path."
        ),
        "connect_timeout": Integer(
            default=2000, between=_MILLISECONDS,
            text="Milliseconds to connect to Zipkin. This, send_timeout and read_timeout together are what a batch may take.",
        ),
        "send_timeout": Integer(default=5000, between=_MILLISECONDS, text="Milliseconds to send a batch; see connect_timeout."),
        "read_timeout": Integer(default=5000, between=_MILLISECONDS, text="Milliseconds until its answer; see connect_timeout."),
        "http_response_header_for_traceid": String(text="Header in which clients are told the id of the trace; null: none."),
        "phase_duration_flavor": String(
            required=True, default="annotations", one_of=["annotations", "tags"],
            text="How the duration of phases is told: annotations when they begin and end, or tags with milliseconds.",
        ),
        "queue": queue_record(),
        "propagation": propagation_record("b3"),
    },
)  # fmt: skip
