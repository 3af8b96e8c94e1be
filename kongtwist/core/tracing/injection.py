"""The formats in which an upstream is told of a trace (Kong 3.9.3, ``kong/observability/tracing/propagation/injectors``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote_from_bytes

from .trace_context import SPAN_ID_SIZE, TraceContext, sized

__all__ = ["INJECTORS", "Injected", "inject"]


class Injected(NamedTuple):
    """What goes up for one format.

    Attributes:
        fields: name in lower case, value.
        key: the member of the log record's ``trace_id``.
        told: the trace id as the format writes it.
    """

    fields: list[tuple[bytes, bytes]]
    key: str
    told: str


class _Format(NamedTuple):
    """A format.

    Attributes:
        key: the member of the log record's ``trace_id``.
        sizes: bytes a trace id may have, the usual first.
        needs_ids: nothing is written without trace and span id.
        write: gives the fields for a context and its trace id in the right size.
    """

    key: str
    sizes: tuple[int, ...]
    needs_ids: bool
    write: Callable[[TraceContext, bytes | None], list[tuple[bytes, bytes]]]


def _hex(value: bytes | None) -> bytes:
    return sized(value, SPAN_ID_SIZE).hex().encode() if value is not None else b""


def _number(value: bytes) -> bytes:
    return b"%d" % int.from_bytes(value, "big")


def _flag(context: TraceContext) -> bytes:
    return b"1" if context.sampled else b"0"


def _baggage(context: TraceContext, prefix: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (prefix + name, quote_from_bytes(value, safe="").encode()) for name, value in (context.baggage or {}).items()
    ]


def _w3c(context: TraceContext, trace_id: bytes | None) -> list[tuple[bytes, bytes]]:
    value = b"00-%b-%b-0%b" % ((trace_id or b"").hex().encode(), _hex(context.span_id), _flag(context))
    return [(b"traceparent", value)]


def _b3(context: TraceContext, trace_id: bytes | None) -> list[tuple[bytes, bytes]]:
    fields = []
    if trace_id is not None and context.span_id is not None:
        fields = [(b"x-b3-traceid", trace_id.hex().encode()), (b"x-b3-spanid", _hex(context.span_id))]
        if context.parent_id is not None:
            fields.append((b"x-b3-parentspanid", _hex(context.parent_id)))
    if context.flags:
        return [*fields, (b"x-b3-flags", context.flags.encode("latin-1"))]
    return [*fields, (b"x-b3-sampled", _flag(context))]


def _b3_single(context: TraceContext, trace_id: bytes | None) -> list[tuple[bytes, bytes]]:
    sampled = b"" if context.sampled is None else _flag(context)
    if context.flags == "1":
        sampled = b"d"
    if trace_id is None or context.span_id is None:
        return [(b"b3", sampled or b"0")]
    parts = [trace_id.hex().encode(), _hex(context.span_id), sampled, _hex(context.parent_id)]
    return [(b"b3", b"-".join(part for part in parts if part))]


def _jaeger(context: TraceContext, trace_id: bytes | None) -> list[tuple[bytes, bytes]]:
    parent = _hex(context.parent_id) or b"0"
    value = b"%b:%b:%b:0%b" % ((trace_id or b"").hex().encode(), _hex(context.span_id), parent, _flag(context))
    return [(b"uber-trace-id", value), *_baggage(context, b"uberctx-")]


def _ot(context: TraceContext, trace_id: bytes | None) -> list[tuple[bytes, bytes]]:
    fields = [(b"ot-tracer-traceid", (trace_id or b"").hex().encode()), (b"ot-tracer-spanid", _hex(context.span_id))]
    if context.sampled is not None:
        fields.append((b"ot-tracer-sampled", _flag(context)))
    return [*fields, *_baggage(context, b"ot-baggage-")]


def _datadog(context: TraceContext, trace_id: bytes | None) -> list[tuple[bytes, bytes]]:
    fields = []
    if trace_id is not None:
        fields.append((b"x-datadog-trace-id", _number(trace_id)))
    if context.span_id is not None:
        fields.append((b"x-datadog-parent-id", _number(context.span_id)))
    if context.sampled is not None:
        fields.append((b"x-datadog-sampling-priority", _flag(context)))
    return fields


def _aws(context: TraceContext, trace_id: bytes | None) -> list[tuple[bytes, bytes]]:
    digits = (trace_id or b"").hex().encode()
    value = b"Root=1-%b-%b;Parent=%b;Sampled=%b" % (digits[:8], digits[8:], _hex(context.span_id), _flag(context))
    return [(b"x-amzn-trace-id", value)]


def _gcp(context: TraceContext, trace_id: bytes | None) -> list[tuple[bytes, bytes]]:
    digits = (trace_id or b"").hex().encode()
    return [(b"x-cloud-trace-context", b"%b/%b;o=%b" % (digits, _number(context.span_id or b""), _flag(context)))]


INJECTORS: Mapping[str, _Format] = {
    "w3c": _Format("w3c", (16,), True, _w3c),
    "b3": _Format("b3", (16, 8), False, _b3),
    "b3-single": _Format("b3", (16, 8), False, _b3_single),
    "jaeger": _Format("jaeger", (16, 8), True, _jaeger),
    "ot": _Format("ot", (8, 16), True, _ot),
    "datadog": _Format("datadog", (8,), False, _datadog),
    "aws": _Format("aws", (16,), True, _aws),
    "gcp": _Format("gcp", (16,), True, _gcp),
}
"""The formats by name."""


def inject(name: str, context: TraceContext) -> Injected:
    """What the upstream is told of a trace in one format. The trace id keeps the size in which it came, where the format has that.

    Args:
        name: of the format, among `INJECTORS`.
        context: the trace.

    Raises:
        ValueError: an id lacks that the format cannot do without.
    """
    form = INJECTORS[name]
    if form.needs_ids:
        for field in ("trace_id", "span_id"):
            if getattr(context, field) is None:
                raise ValueError(f"{name} injector context is invalid: field {field} not found in context")
    trace_id = context.trace_id
    if trace_id is not None:
        trace_id = sized(trace_id, context.size if context.size in form.sizes else form.sizes[0])
    fields = form.write(context, trace_id)
    if trace_id is None:
        told = ""
    elif name == "datadog":
        told = str(int.from_bytes(trace_id, "big"))
    else:
        told = trace_id.hex()
    return Injected(fields, form.key, told)
