"""What the error log is told when a relayed stream ends out of order: whose fault it was, what happened, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..core.error_lines import row_name, seconds_text

if TYPE_CHECKING:
    from ..core.exchange import Row

__all__ = ["StreamFault", "broken", "silent", "vanished"]


class StreamFault(NamedTuple):
    """An end out of order."""

    by_client: bool  #: nothing that the operator could mend: level info, as nginx's
    what: str
    remedy: str = ""


def broken(by_client: bool, why: str) -> StreamFault:
    """One side was reset, or its host is gone.

    Args:
        by_client: it was the client's.
        why: what the system says.
    """
    side = "the client" if by_client else "the upstream"
    return StreamFault(by_client, f"{side} broke the WebSocket off" + (f": {why.rstrip('.')}" if why else ""))


def silent(client_behind: bool, upstream_behind: bool, seconds: float, service: Row | None) -> StreamFault:
    """Nothing moved for too long.

    Args:
        client_behind: something is held that the client does not take.
        upstream_behind: likewise for the upstream.
        seconds: the time-out.
        service: whose time-outs hold.
    """
    if client_behind:
        return StreamFault(True, f"client timed out: it took nothing of the WebSocket for {seconds_text(seconds)}")
    if upstream_behind:
        what, name = (
            f"upstream timed out: it took nothing of the WebSocket for {seconds_text(seconds)}",
            "write_timeout",
        )
    else:
        what, name = f"upstream timed out: the WebSocket was idle for {seconds_text(seconds)}", "read_timeout"
    return StreamFault(
        False, what, f"if it may take longer, raise {name} of service {row_name(service)} (milliseconds)"
    )


def vanished(by_client: bool, seconds: float) -> StreamFault:
    """One side has not answered a ping.

    Args:
        by_client: it was the client.
        seconds: the interval of pings.
    """
    side = "the client" if by_client else "the upstream"
    remedy = "" if by_client else "see whether its host is up, or raise ping_interval of stream-lifetime"
    return StreamFault(by_client, f"{side} of the WebSocket answered no ping for {seconds_text(seconds)}", remedy)
