"""OTLP's messages (opentelemetry-proto, ``opentelemetry/proto/trace/v1`` and ``logs/v1``), in binary protobuf.

Loaded when a configuration asks for it. A span or a line is encoded when the request is over; a batch only frames what is encoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ... import VERSION

__all__ = ["CLIENT", "INTERNAL", "SERVER", "Envelope", "encoded_line", "encoded_span", "partial_success"]

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans."""

_INTEGERS = frozenset(("http.status_code",))
"""Attributes whose numbers are integers; those of others are doubles, as Kong sends them."""

_SCOPE = InstrumentationScope(name="kong-internal", version="0.1.0")


def _value(name: str, value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int | float):
        return AnyValue(int_value=int(value)) if name in _INTEGERS else AnyValue(double_value=float(value))
    return AnyValue(string_value=str(value))


def _attributes(told: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(name, value)) for name, value in told.items() if value is not None]


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000) * 1000


def encoded_span(
    name: str,
    kind: int,
    ids: tuple[bytes, bytes, bytes],
    start: float,
    end: float,
    attributes: Mapping[str, Any],
    failed: bool = False,
    error: str | None = None,
) -> bytes:
    """A span.

    Args:
        name: its name.
        kind: `INTERNAL`, `SERVER` or `CLIENT`.
        ids: of the trace, of the span, and of its parent (b"" for none).
        start, end: epoch seconds.
        attributes: text, numbers and truth values; None is left out.
        failed: its status is an error.
        error: what is told of an exception.
    """
    span = Span(
        trace_id=ids[0], span_id=ids[1], parent_span_id=ids[2], name=name, kind=kind,  # type: ignore[arg-type]
        start_time_unix_nano=_nanoseconds(start), end_time_unix_nano=_nanoseconds(max(start, end)),
        attributes=_attributes(attributes),
    )  # fmt: skip
    if failed:
        span.status.code = Status.STATUS_CODE_ERROR
    if error is not None:
        span.events.add(
            name="exception", time_unix_nano=_nanoseconds(end), attributes=_attributes({"exception.message": error})
        )
    data: bytes = span.SerializeToString()
    return data


def encoded_line(
    seconds: float,
    severity: tuple[int, str],
    text: str,
    attributes: Mapping[str, Any],
    trace: tuple[bytes, bytes, int] = (b"", b"", 0),
) -> bytes:
    """A line of the log.

    Args:
        seconds: when, epoch seconds.
        severity: its number and its name.
        text: what it says.
        attributes: of it.
        trace: ids of the trace and the span, and its flags, where it is of a request that is traced.
    """
    when = _nanoseconds(seconds)
    data: bytes = LogRecord(
        time_unix_nano=when, observed_time_unix_nano=when, severity_number=severity[0],  # type: ignore[arg-type]
        severity_text=severity[1], body=AnyValue(string_value=text), attributes=_attributes(attributes), trace_id=trace[0],
        span_id=trace[1], flags=trace[2],
    ).SerializeToString()  # fmt: skip
    return data


def partial_success(body: bytes) -> tuple[int, str]:
    """How much of a request a collector has rejected though it answered 200, and what it says about it (``partial_success``). The answers
    for spans and for lines have the same form. What cannot be read says nothing."""
    try:
        told = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:
        return 0, ""
    return told.rejected_spans, told.error_message


def _framed(number: int, data: bytes) -> bytes:
    """A field of protobuf that holds bytes: its tag, its length, and they."""
    length = len(data)
    head = bytearray((number << 3 | 2,))
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head) + data


class Envelope:
    """What is around the spans, or the lines, of a batch: the resource and the scope.

    Both requests have the same form: ``resource_spans`` (1) of ``resource`` (1) and ``scope_spans`` (2), which is ``scope`` (1) and
    ``spans`` (2); for lines likewise.

    Args:
        node_id: the node's id.
        attributes: of the resource, in place of those or beside those that are always there.
    """

    def __init__(self, node_id: str, attributes: Mapping[str, str]) -> None:
        told = {"service.name": "kong", "service.instance.id": node_id, "service.version": VERSION} | dict(attributes)
        self._resource = _framed(1, Resource(attributes=_attributes(told)).SerializeToString())
        self._scope = _framed(1, _SCOPE.SerializeToString())

    def request(self, entries: Iterable[bytes]) -> bytes:
        """The request that carries these spans, or these lines."""
        inner = b"".join([self._scope, *(_framed(2, entry) for entry in entries)])
        return _framed(1, self._resource + _framed(2, inner))
