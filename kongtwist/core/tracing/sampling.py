"""Whether a trace is sent: its id decides, so that all who see it decide alike (Kong 3.9.3, ``kong/pdk/tracing.lua``)."""

from __future__ import annotations

__all__ = ["is_sampled"]


def is_sampled(trace_id: bytes, rate: float) -> bool:
    """Whether a trace is among the share that is sent.

    Args:
        trace_id: its id; the first 8 bytes count, as a number whose last byte counts most.
        rate: the share, from 0 to 1.
    """
    if rate >= 1:
        return True
    return rate > 0 and int.from_bytes(trace_id[:8], "little") < rate * 2.0**64
