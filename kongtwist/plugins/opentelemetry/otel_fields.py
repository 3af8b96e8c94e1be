"""The configuration of opentelemetry."""

from __future__ import annotations

from typing import Any

from ...core.exchange import Row
from ...entities.checks import AtLeastOneOf
from ...entities.entity import Config, Shorthand
from ...entities.queue_fields import queue_record
from ...entities.schema import Integer, Map, Number, String
from ...entities.trace_fields import HEADER_TYPES, propagation_record
from ...entities.typedefs import header_name, header_value, url

__all__ = ["CONFIG", "batch_rules"]

_MILLISECONDS = [0, 2147483646]


def _deprecated(message: str, default: Any) -> Row:
    return {"message": f"opentelemetry: config.{message}", "removal_in_version": "4.0", "old_default": default}


def batch_rules(conf: Row) -> tuple[Row, list[str]]:
    """The members of ``queue`` with what the deprecated fields say, and sentences about those that are used."""
    rules: dict[str, Any] = dict(conf["queue"])
    sentences = []
    for old, former, new in (
        ("batch_span_count", 200, "max_batch_size"),
        ("batch_flush_delay", 3, "max_coalescing_delay"),
    ):
        value = conf.get(old)
        if value is not None and value != former:
            rules[new] = value
            sentences.append(f"config.{old} is deprecated, use config.queue.{new} instead")
    return rules, sentences


def _endpoint(what: str) -> String:
    return String(
        referenceable=True, checks=(url,), text=f"URL that {what} are sent to (OTLP over HTTP); null: they are not."
    )


CONFIG = Config(
    {
        "traces_endpoint": _endpoint("spans"),
        "logs_endpoint": _endpoint("lines of the log"),
        "headers": Map(
            String(checks=(header_name,)),
            String(referenceable=True, checks=(header_value,)),
            text="Headers of what is sent, such as a token. Content-Type is application/x-protobuf unless it is among them.",
        ),
        "resource_attributes": Map(
            String(required=True),
            String(required=True),
            text="Attributes of the resource, beside service.name (kong), service.instance.id (the node's id) and service.version, which"
            " they replace.",
        ),
        "queue": queue_record(default={"max_batch_size": 200}),
        "batch_span_count": Integer(
            deprecation=_deprecated("batch_span_count is deprecated, please use config.queue.max_batch_size instead", 200),
            text="Stands for queue.max_batch_size unless it is 200; null: that one holds.",
        ),
        "batch_flush_delay": Integer(
            deprecation=_deprecated("batch_flush_delay is deprecated, please use config.queue.max_coalescing_delay instead", 3),
            text="Seconds; stands for queue.max_coalescing_delay unless it is 3; null: that one holds.",
        ),
        "connect_timeout": Integer(
            default=1000, between=_MILLISECONDS,
            text="Milliseconds to connect. This, send_timeout and read_timeout together are what a batch may take.",
        ),
        "send_timeout": Integer(default=5000, between=_MILLISECONDS, text="Milliseconds to send a batch; see connect_timeout."),
        "read_timeout": Integer(default=5000, between=_MILLISECONDS, text="Milliseconds until its answer; see connect_timeout."),
        "http_response_header_for_traceid": String(text="Header in which clients are told the id of the trace; null: none."),
        "header_type": String(
            required=False, default="preserve", one_of=HEADER_TYPES["opentelemetry"],
            deprecation=_deprecated("header_type is deprecated, please use config.propagation options instead", "preserve"),
            text="How traces are passed on: preserve, as they came; ignore, what came is not looked at; or a format, which goes up too.",
        ),
        "sampling_rate": Number(
            required=False, between=[0, 1],
            text="Share of traces that is sent; null: tracing_sampling_rate. A trace that came undecided or decided for counts to it,"
            " one that came decided against is not sent.",
        ),
        "propagation": propagation_record("w3c"),
    },
    shorthands={
        "endpoint": Shorthand(
            String(
                referenceable=True, checks=(url,),
                deprecation={
                    "message": "OpenTelemetry: config.endpoint is deprecated, please use config.traces_endpoint instead",
                    "removal_in_version": "4.0",
                },
                text="Former name of traces_endpoint.",
            ),
            lambda value: {"traces_endpoint": value},
        )
    },
    entity_checks=(AtLeastOneOf("traces_endpoint", "logs_endpoint"),),
)  # fmt: skip
