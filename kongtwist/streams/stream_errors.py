"""What the error log is told when a relayed stream ends out of order: whose fault it was, what happened, what to do.

Each such line begins with ``websocket broken``, in lower case, so that one word finds all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..core.error_lines import row_name, seconds_text

if TYPE_CHECKING:
    from ..core.exchange import Row

__all__ = [
    "BROKEN",
    "CLIENT_REMEDY",
    "SESSION_BROKEN",
    "Ended",
    "StreamFault",
    "broken",
    "fault_of",
    "refused_by_plugin",
    "silent",
    "vanished",
]

BROKEN = "websocket broken"

SESSION_BROKEN = "session broken"
"""The same of sessions of stream routes, which know no Close frames."""

CLIENT_REMEDY = "have clients come back by themselves; if many end so, look at what is between them and the gateway"

_CODES = {
    1002: ("protocol error", "sent what breaks RFC 6455", "correct the program that sends it"),
    1003: ("unsupported data", "sent a kind of message that is not taken", "send the kind (text or binary) that is"),
    1007: ("invalid payload", "sent text that is no UTF-8", "correct the program that sends it"),
    1008: ("policy violation", "sent what is not allowed", "see the reason in the other side's own log"),
    1009: (
        "message too big",
        "sent a message that is too large",
        "send smaller messages, or raise the receiver's limit",
    ),
    1010: ("missing extension", "did not agree to an extension", "have the server offer it, or do without"),
    1011: ("internal error", "", "see its own log"),
    1012: ("service restart", "", "have clients come back by themselves"),
    1013: ("try again later", "", "have clients come back later, or give it more room"),
    1014: ("bad gateway", "", "see its own log"),
}
"""Close codes that say that something failed (RFC 6455 7.4.1, and IANA's registry): name, what the other side did, what to do."""


class StreamFault(NamedTuple):
    """An end out of order."""

    by_client: bool  #: nothing that the operator could mend: level notice
    what: str
    remedy: str = ""


class Tracked(Protocol):
    """One direction (`websocket_frames.FrameTracker`)."""

    @property
    def closed(self) -> bool: ...
    @property
    def code(self) -> int: ...
    @property
    def turn(self) -> int: ...


class End(Protocol):
    """One end (`stream_end.StreamEnd`)."""

    @property
    def tracker(self) -> Tracked: ...


class Ended(Protocol):
    """A stream that is over (`splice.RelayedStream`)."""

    fault: StreamFault | None
    left_first: bool | None

    @property
    def client(self) -> End: ...

    @property
    def upstream(self) -> End: ...

    @property
    def ended_here(self) -> bool: ...


def broken(by_client: bool, why: str, name: str = BROKEN) -> StreamFault:
    """One side was reset, or its host is gone.

    Args:
        by_client: it was the client's.
        why: what the system says.
        name: what the line begins with.
    """
    reason = (f": {why.rstrip('.')}" if why else "") + (" (1006)" if name == BROKEN else "")
    if by_client:
        return StreamFault(True, f"{name}: the client broke it off{reason}", CLIENT_REMEDY)
    return StreamFault(False, f"{name}: the upstream broke it off{reason}", "see the upstream's own log")


def silent(
    client_behind: bool, upstream_behind: bool, seconds: float, service: Row | None, name: str = BROKEN
) -> StreamFault:
    """Nothing moved for too long.

    Args:
        client_behind: something is held that the client does not take.
        upstream_behind: likewise for the upstream.
        seconds: the time-out.
        service: whose time-outs hold.
        name: what the line begins with.
    """
    if client_behind:
        what = f"{name}: client timed out: it took nothing for {seconds_text(seconds)}"
        return StreamFault(True, what, "if clients may take longer, raise nginx_http_send_timeout")
    if upstream_behind:
        what, limit = f"{name}: upstream timed out: it took nothing for {seconds_text(seconds)}", "write_timeout"
    else:
        what, limit = f"{name}: upstream timed out: nothing came or went for {seconds_text(seconds)}", "read_timeout"
    return StreamFault(
        False, what, f"if it may take longer, raise {limit} of service {row_name(service)} (milliseconds)"
    )


def vanished(by_client: bool, seconds: float) -> StreamFault:
    """One side has not answered a ping.

    Args:
        by_client: it was the client.
        seconds: the interval of pings.
    """
    side = "the client" if by_client else "the upstream"
    remedy = CLIENT_REMEDY if by_client else "see whether its host is up, or raise ping_interval of stream-lifetime"
    return StreamFault(by_client, f"{BROKEN}: {side} answered no ping for {seconds_text(seconds)}", remedy)


def refused_by_plugin() -> StreamFault:
    """A plugin failed when the stream opened."""
    return StreamFault(
        False, f"{BROKEN}: a plugin failed when it opened, closed with 1011", "see the plugin's own line"
    )


def fault_of(stream: Ended) -> StreamFault | None:
    """What was out of order about an end: a reset or silence, a Close frame that tells of a failure, or none at all."""
    if stream.fault is not None:
        return stream.fault
    closes = [
        (tracker.turn, by_client, tracker.code)
        for by_client, tracker in ((True, stream.client.tracker), (False, stream.upstream.tracker))
        if tracker.closed
    ]
    if stream.ended_here:
        return None
    if closes:
        _, by_client, code = min(closes)
        return _told_by_close(by_client, code)
    return None if stream.left_first is None else _without_close(stream.left_first)


def _told_by_close(by_client: bool, code: int) -> StreamFault | None:
    known = _CODES.get(code)
    if known is None:
        return None
    name, did, remedy = known
    side, other = ("the client", "the upstream") if by_client else ("the upstream", "the client")
    what = f"{BROKEN}: {side} closed it with {code} ({name})" + (f": {other} {did}" if did else "")
    # Who reports it is not at fault, where the code speaks of what was sent.
    return StreamFault(by_client != bool(did), what, remedy)


def _without_close(by_client: bool) -> StreamFault:
    if by_client:
        return StreamFault(True, f"{BROKEN}: the client ended it without a Close frame (1006)", CLIENT_REMEDY)
    what = f"{BROKEN}: the upstream ended it without a Close frame (1006)"
    return StreamFault(False, what, "see the upstream's own log; it may have died, or been restarted")
