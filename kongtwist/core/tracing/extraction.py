"""The formats in which a request tells of its trace (Kong 3.9.3, ``kong/observability/tracing/propagation/extractors``).

w3c: W3C Trace Context, ``traceparent``. b3: B3 in several headers or in one. jaeger: ``uber-trace-id``. ot: OpenTracing's
``ot-tracer-*``. datadog, aws (X-Ray) and gcp: those of these makers.

What is malformed is ignored, and said in a sentence that shows nothing of it. Beyond Kong: an id of nothing but zeros is none in
any format; a field that comes several times is malformed where one is expected; decimal numbers are bounded; B3 that says nothing
at all (a ``tracestate`` of others) leaves the request to the next format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import unquote_to_bytes

from .trace_context import Headers, TraceContext

__all__ = ["EXTRACTORS", "Say", "extract"]

Say = Callable[[str], object]
"""Takes a sentence about a field that is ignored."""

_HEX = re.compile(r"[0-9A-Fa-f]+\Z")
_W3C = re.compile(r"([0-9A-Fa-f]+)-([0-9A-Fa-f]+)-([0-9A-Fa-f]+)-([0-9A-Fa-f]+)\Z")
_B3 = re.compile(r"([0-9A-Fa-f]+)-([0-9A-Fa-f]{16})-?([01d]?)-?([0-9A-Fa-f]*)\Z")
_JAEGER = re.compile(r"([0-9A-Fa-f]+):([0-9A-Fa-f]+):([0-9A-Fa-f]+):([0-9A-Fa-f]+)\Z")
_AWS_ROOT = re.compile(r"1-([0-9A-Fa-f]{8})-([0-9A-Fa-f]{24})\Z")
_GCP = re.compile(r"([0-9a-f]{32})/([0-9]{1,20})(?:;o=([0-9]))?\Z")
_DECIMAL = re.compile(r"[ \t]*([0-9]{1,39})[ \t]*\Z")
"""39 digits hold 16 bytes."""


def _text(values: Sequence[bytes]) -> str | None:
    """The one value of a field; None where there is none, "" (which is malformed everywhere) where there are several."""
    if not values:
        return None
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _bytes(digits: str) -> bytes | None:
    """Hex digits as bytes; None where all are zeros."""
    found = bytes.fromhex(digits if len(digits) % 2 == 0 else f"0{digits}")
    return found if any(found) else None


def _number(digits: str) -> bytes | None:
    """A decimal number as bytes; None for 0."""
    value = int(digits)
    return value.to_bytes((value.bit_length() + 7) // 8, "big") or None


def _decision(value: str | None, name: str, say: Say) -> bool | None:
    """A field that says whether a trace is sampled."""
    if value in ("1", "true"):
        return True
    if value in ("0", "false"):
        return False
    if value is not None:
        say(f"{name} header invalid; ignoring.")
    return None


def _baggage(headers: Headers, prefix: bytes) -> Mapping[bytes, bytes] | None:
    """Fields whose names begin with ``prefix``: what is behind it to the decoded value."""
    found = {
        name[len(prefix) :]: unquote_to_bytes(headers.all(name)[0].replace(b"+", b" "))
        for name in headers.names()
        if name.startswith(prefix)
    }
    return found or None


def _w3c(headers: Headers, say: Say) -> TraceContext | None:
    value = _text(headers.all(b"traceparent"))
    if value is None:
        return None
    found = _W3C.match(value)
    if found is None:
        say("invalid W3C traceparent header; ignoring.")
        return None
    version, trace, parent, flags = found.groups()
    if version != "00":
        say("invalid W3C Trace Context version; ignoring.")
        return None
    trace_id = _bytes(trace) if len(trace) == 32 else None
    span_id = _bytes(parent) if len(parent) == 16 else None
    for good, what in (
        (trace_id is not None, "trace ID"),
        (span_id is not None, "parent ID"),
        (len(flags) == 2, "flags"),
    ):
        if not good:
            say(f"invalid W3C trace context {what}; ignoring.")
            return None
    number = int(flags, 16)
    return TraceContext(trace_id, span_id, sampled=number % 2 == 1, w3c_flags=number)


def _b3_single(headers: Headers) -> str | None:
    """The value of ``b3``, or of that member of ``tracestate``."""
    values = headers.all(b"b3")
    if values:
        return _text(values)
    for each in headers.all(b"tracestate"):
        if each.startswith(b"b3=") and len(each) > 3:
            return each[3:].decode("latin-1")
    return None


def _read_b3_single(value: str, say: Say) -> TraceContext:
    """What the one header says."""
    decisions = {"1": (True, None), "d": (True, "1"), "0": (False, None)}
    if value in decisions:
        sampled, flags = decisions[value]
        return TraceContext(sampled=sampled, flags=flags)
    found = _B3.match(value)
    if found is None or len(found[1]) not in (16, 32) or len(found[4]) not in (0, 16):
        say("b3 single header invalid; ignoring.")
        return TraceContext()
    told, flags = decisions.get(found[3], (None, None))
    trace_id = _bytes(found[1])
    if trace_id is None:
        say("b3 single header invalid; ignoring.")
        return TraceContext(sampled=told, flags=flags)
    parent_id = _bytes(found[4]) if found[4] else None
    return TraceContext(trace_id, _bytes(found[2]), parent_id, sampled=told, flags=flags, size=len(found[1]) // 2)


def _read_b3_many(headers: Headers, say: Say) -> TraceContext:
    """What the several headers say."""
    sampled = _decision(_text(headers.all(b"x-b3-sampled")), "x-b3-sampled", say)
    flags = _text(headers.all(b"x-b3-flags"))
    if flags == "1":
        sampled = True
    elif flags is not None:
        say("x-b3-flags header invalid; ignoring.")
        flags = None
    ids: list[bytes | None] = []
    size, valid = 0, True
    for name, lengths in (("traceid", (16, 32)), ("spanid", (16,)), ("parentspanid", (16,))):
        value = _text(headers.all(b"x-b3-%b" % name.encode()))
        if value is not None and (len(value) not in lengths or not _HEX.match(value)):
            say(f"x-b3-{name} header invalid; ignoring.")
            valid, value = False, None
        ids.append(None if value is None else _bytes(value))
        size = size or len(value or "") // 2
    if not valid or ids[0] is None:
        return TraceContext(sampled=sampled, flags=flags)
    return TraceContext(*ids, sampled=sampled, flags=flags, size=size)


_B3_NAMES = (b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags")


def _b3(headers: Headers, say: Say) -> TraceContext | None:
    value = _b3_single(headers)
    if value is None and not any(headers.all(name) for name in _B3_NAMES):
        return None
    single = TraceContext() if value is None else _read_b3_single(value, say)
    many = _read_b3_many(headers, say)
    trace_id, size = (single.trace_id, single.size) if single.trace_id else (many.trace_id, many.size)
    sampled = many.sampled if single.sampled is None else single.sampled
    flags = single.flags or many.flags
    if trace_id is None and sampled is None and flags is None:
        return None
    return TraceContext(
        trace_id,
        None if trace_id is None else single.span_id or many.span_id,
        None if trace_id is None else single.parent_id or many.parent_id,
        sampled=sampled, shared=True, flags=flags, single=value is not None, size=size,
    )  # fmt: skip


def _jaeger(headers: Headers, say: Say) -> TraceContext | None:
    value = _text(headers.all(b"uber-trace-id"))
    if value is None:
        return None
    found = _JAEGER.match(value)
    if found is None:
        say("invalid jaeger uber-trace-id header; ignoring.")
        return None
    trace, span, parent, flags = found.groups()
    trace_id = _bytes(trace) if len(trace) <= 32 else None
    if trace_id is None:
        say("invalid jaeger trace ID; ignoring.")
        return None
    parent_id = _bytes(parent)
    if len(parent) != 16 and parent_id is not None:
        say("invalid jaeger parent ID; ignoring.")
    span_id = _bytes(span) if len(span) <= 16 else None
    if span_id is None:
        say("invalid jaeger span ID; ignoring.")
        return None
    if len(flags) > 2:
        say("invalid jaeger flags; ignoring.")
        return None
    return TraceContext(
        trace_id, span_id, parent_id, sampled=int(flags, 16) % 2 == 1, shared=True,
        baggage=_baggage(headers, b"uberctx-"), size=(len(trace) + 1) // 2,
    )  # fmt: skip


def _ot(headers: Headers, say: Say) -> TraceContext | None:
    told = [_text(headers.all(b"ot-tracer-%b" % name)) for name in (b"traceid", b"spanid", b"sampled")]
    if told == [None, None, None]:
        return None
    trace, span, decided = told
    sampled = _decision(decided, "ot-tracer-sampled", say)
    valid = True
    for value, name, lengths in ((trace, "traceid", (16, 32)), (span, "spanid", (16,))):
        if value is not None and (len(value) not in lengths or not _HEX.match(value)):
            say(f"ot-tracer-{name} header invalid; ignoring.")
            valid = False
    trace_id = _bytes(trace) if valid and trace else None
    span_id = _bytes(span) if trace_id and span else None
    baggage = _baggage(headers, b"ot-baggage-")
    if trace_id is None and sampled is None and baggage is None:
        return None
    return TraceContext(
        trace_id, span_id, sampled=sampled, baggage=baggage, size=len(trace or "") // 2 if trace_id else 0
    )


def _datadog_id(headers: Headers, name: str, say: Say) -> bytes | None:
    value = _text(headers.all(name.encode()))
    found = None if value is None else _DECIMAL.match(value)
    if found is None:
        if value is not None:
            say(f"{name} header invalid; ignoring.")
        return None
    return _number(found[1])


def _datadog(headers: Headers, say: Say) -> TraceContext | None:
    priority = _text(headers.all(b"x-datadog-sampling-priority"))
    sampled = {"1": True, "2": True, "0": False, "-1": False}.get(priority or "")
    if priority is not None and sampled is None:
        say("x-datadog-sampling-priority header invalid; ignoring.")
        return None
    trace_id = _datadog_id(headers, "x-datadog-trace-id", say)
    span_id = _datadog_id(headers, "x-datadog-parent-id", say)
    if trace_id is None and sampled is None:
        return None
    return TraceContext(trace_id, span_id if trace_id else None, sampled=sampled)


def _aws(headers: Headers, say: Say) -> TraceContext | None:
    value = _text(headers.all(b"x-amzn-trace-id"))
    if value is None:
        return None
    trace_id = span_id = None
    sampled: bool | None = None
    for pair in value.split(";"):
        key, _, told = pair.partition("=")
        key, told = key.strip(), told.partition("=")[0].strip()
        if key == "Root":
            found = _AWS_ROOT.match(told)
            trace_id = None if found is None else _bytes(found[1] + found[2])
            if trace_id is None:
                say("invalid aws header trace id; ignoring.")
                return None
        elif key == "Parent":
            if len(told) != 16 or not _HEX.match(told):
                say("invalid aws header parent id; ignoring.")
                return None
            span_id = _bytes(told)
        elif key == "Sampled":
            if told not in ("0", "1"):
                say("invalid aws header sampled flag; ignoring.")
                return None
            sampled = told == "1"
    if trace_id is None and sampled is None:
        return None
    return TraceContext(trace_id, span_id if trace_id else None, sampled=sampled)


def _gcp(headers: Headers, say: Say) -> TraceContext | None:
    value = _text(headers.all(b"x-cloud-trace-context"))
    if value is None:
        return None
    found = _GCP.match(value)
    trace_id = None if found is None else _bytes(found[1])
    if found is None or trace_id is None:
        say("invalid GCP header; ignoring.")
        return None
    return TraceContext(trace_id, _number(found[2]), sampled=found[3] == "1")


EXTRACTORS: Mapping[str, Callable[[Headers, Say], TraceContext | None]] = {
    "w3c": _w3c, "b3": _b3, "jaeger": _jaeger, "ot": _ot, "datadog": _datadog, "aws": _aws, "gcp": _gcp,
}  # fmt: skip
"""Format -> what reads it: None where the request has nothing of it, or nothing that can be used."""

_NAMES = frozenset((
    b"traceparent", b"b3", b"tracestate", *_B3_NAMES, b"uber-trace-id", b"ot-tracer-traceid", b"ot-tracer-spanid",
    b"ot-tracer-sampled", b"x-datadog-trace-id", b"x-datadog-parent-id", b"x-datadog-sampling-priority", b"x-amzn-trace-id",
    b"x-cloud-trace-context",
))  # fmt: skip


def extract(formats: Iterable[str], headers: Headers, say: Say) -> tuple[str, TraceContext] | None:
    """What the first of ``formats`` that a request has anything of says; None: it has none.

    Args:
        formats: names among `EXTRACTORS`, in order.
        headers: the request's fields.
        say: told of malformed fields.

    Returns:
        the format and what it says.
    """
    if _NAMES.isdisjoint(headers.names()):
        return None
    for name in formats:
        found = EXTRACTORS[name](headers, say)
        if found is not None:
            return name, found
    return None
