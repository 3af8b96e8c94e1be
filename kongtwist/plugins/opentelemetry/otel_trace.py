"""The trace that a request belongs to: its ids, and whether its spans are sent."""

from __future__ import annotations

from ...core.tracing.sampling import is_sampled
from ...core.tracing.trace import new_id
from ...core.tracing.trace_context import SPAN_ID_SIZE, TRACE_ID_SIZE, TraceContext

__all__ = ["OwnTrace"]


class OwnTrace:
    """Ids of one request's trace, as bytes.

    Attributes:
        trace_id: of the trace.
        root_id: of the request's span.
        parent_id: of the span that it is within; b"" for none.
        balancer_id: of the span of the last try, which the upstream is told of; b"": it is told of ``root_id``.
        sampled: spans are sent.
        flags: of the trace, for lines of the log.
    """

    __slots__ = ("balancer_id", "flags", "parent_id", "root_id", "sampled", "trace_id")

    def __init__(self, context: TraceContext, kinds: frozenset[str], rate: float) -> None:
        random = new_id(TRACE_ID_SIZE + 2 * SPAN_ID_SIZE)  # asked for once: it is a system call
        self.trace_id = context.trace_id or random[:TRACE_ID_SIZE]
        self.root_id = random[TRACE_ID_SIZE:-SPAN_ID_SIZE]
        self.parent_id = context.span_id or context.parent_id or b""
        self.balancer_id = random[-SPAN_ID_SIZE:] if "balancer" in kinds else b""
        self.sampled = bool(kinds) and context.sampled is not False and is_sampled(self.trace_id, rate)
        flags = context.w3c_flags or (1 if context.flags == "1" else 0)
        self.flags = flags | self.sampled

    def told(self, context: TraceContext) -> TraceContext:
        """What the upstream is told."""
        return TraceContext(
            self.trace_id, self.balancer_id or self.root_id, self.root_id if self.balancer_id else self.parent_id or None,
            sampled=self.sampled, baggage=context.baggage, flags=context.flags, single=context.single, size=context.size,
        )  # fmt: skip
