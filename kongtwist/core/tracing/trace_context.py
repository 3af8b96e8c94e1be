"""What a request's fields say of the trace that it belongs to.

Inside, a trace id is 16 bytes and a span id 8 (W3C Trace Context 3.2.2). A shorter one is padded with zeros on the left, a longer
one cut on the left (Kong 3.9.3, ``kong/observability/tracing/propagation``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..exchange import Exchange

__all__ = ["SPAN_ID_SIZE", "TRACE_ID_SIZE", "Headers", "RequestHeaders", "TraceContext", "sized"]

TRACE_ID_SIZE = 16
SPAN_ID_SIZE = 8
"""Bytes."""


def sized(value: bytes, size: int) -> bytes:
    """An id in so many bytes."""
    return value[-size:] if len(value) >= size else value.rjust(size, b"\0")


class TraceContext:
    """What was extracted of a trace, or is to be injected. Ids are bytes.

    Attributes:
        trace_id: 16 bytes; None: nothing is known but the decision about sampling.
        span_id: 8 bytes: the sender's span, or the one that both sides share (``shared``).
        parent_id: 8 bytes: the parent of a shared span.
        shared: ``span_id`` names a span of both sides (B3, Jaeger).
        sampled: the decision about sampling; None: there is none.
        baggage: what travels with the trace, as decoded bytes.
        flags: the value of ``X-B3-Flags``.
        w3c_flags: the flags of ``traceparent``.
        single: it came in the one header ``b3``.
        size: bytes of the trace id as it came; 0: it did not come.
    """

    __slots__ = (
        "baggage", "flags", "parent_id", "sampled", "shared", "single", "size", "span_id", "trace_id", "w3c_flags",
    )  # fmt: skip

    def __init__(
        self,
        trace_id: bytes | None = None,
        span_id: bytes | None = None,
        parent_id: bytes | None = None,
        *,
        sampled: bool | None = None,
        shared: bool = False,
        baggage: Mapping[bytes, bytes] | None = None,
        flags: str | None = None,
        w3c_flags: int = 0,
        single: bool = False,
        size: int | None = None,
    ) -> None:
        self.size = (len(trace_id) if trace_id else 0) if size is None else size
        self.trace_id = None if trace_id is None else sized(trace_id, TRACE_ID_SIZE)
        self.span_id = None if span_id is None else sized(span_id, SPAN_ID_SIZE)
        self.parent_id = None if parent_id is None else sized(parent_id, SPAN_ID_SIZE)
        self.sampled, self.shared, self.baggage = sampled, shared, baggage
        self.flags, self.w3c_flags, self.single = flags, w3c_flags, single


class Headers:
    """Fields to look at: name in lower case to values.

    Args:
        fields: the fields.
    """

    def __init__(self, fields: Mapping[bytes, Sequence[bytes]]) -> None:
        self._fields = fields

    def all(self, name: bytes) -> Sequence[bytes]:
        """All values of a field."""
        return self._fields.get(name, ())

    def names(self) -> Iterable[bytes]:
        """The names of the fields that there are."""
        return self._fields.keys()


class RequestHeaders(Headers):
    """The fields of a request as it would go up now: with what plugins have changed."""

    def __init__(self, exchange: Exchange) -> None:
        self._block = exchange.block
        self._changes = exchange.request_changes or {}

    def all(self, name: bytes) -> Sequence[bytes]:
        if name in self._changes:
            changed = self._changes[name]
            return () if changed is None else changed.split(b"\0")
        return self._block.all(name)

    def names(self) -> Iterable[bytes]:
        if not self._changes:
            return self._block.names
        kept = {name for name in self._block.names if name not in self._changes}
        return kept | {name for name, value in self._changes.items() if value is not None}
