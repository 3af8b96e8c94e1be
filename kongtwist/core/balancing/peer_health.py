"""What is counted of a target, and when that makes it healthy or unhealthy (Kong 3.9.3, lua-resty-healthcheck 3.1.0).

Plain decisions over a `Peer`. Probes and proxied traffic report what they saw of a target; both count into the same counters, each
with the thresholds of its own part of ``healthchecks``:

| report | counts, and clears | at its threshold |
|---|---|---|
| success | successes; clears all failures | healthy |
| a bad status, a lost connection, a time-out | its own failures; clears the successes | unhealthy |

What has no threshold (0) is not counted and clears nothing. Nothing is counted towards the state that a target is in already.
Between the two stand ``mostly_healthy``, which serves, and ``mostly_unhealthy``, which does not: something was counted towards the
other state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..health import (
    BAD_STATUS,
    HEALTHY,
    MOSTLY_HEALTHY,
    MOSTLY_UNHEALTHY,
    SUCCESS,
    TCP_FAILURE,
    TIMEOUT,
    UNHEALTHY,
    Limits,
)

if TYPE_CHECKING:
    from ..peer import Peer

__all__ = ["TargetState", "count", "is_news", "put", "share_suffices"]


class TargetState(NamedTuple):
    """What is known of one target."""

    upstream: str  #: id of its upstream
    name: str  #: name of its upstream
    target: str  #: its key: as configured, with its port; and the address, where it is one of several
    weight: int
    checked: bool  #: whether the upstream's targets are looked after; else only an operator says who is unhealthy
    state: int  #: `HEALTHY` and so on


def is_news(peer: Peer, kind: int) -> bool:
    """Whether a report would count: successes do not in a healthy target, nor failures in an unhealthy one."""
    return peer.state != (HEALTHY if kind == SUCCESS else UNHEALTHY)


def count(peer: Peer, kind: int, limits: Limits) -> bool:
    """Count a report.

    Args:
        peer: the target.
        kind: `SUCCESS` and so on.
        limits: the thresholds that hold for it.

    Returns:
        whether that gave the target another state.
    """
    limit = limits[kind]
    if not limit or not is_news(peer, kind):
        return False
    counts = peer.counts
    if counts is None:
        counts = peer.counts = [0, 0, 0, 0]
    counts[kind] += 1
    before = peer.state
    if kind == SUCCESS:
        counts[BAD_STATUS] = counts[TCP_FAILURE] = counts[TIMEOUT] = 0
    else:
        counts[SUCCESS] = 0
    if counts[kind] >= limit:
        _set(peer, HEALTHY if kind == SUCCESS else UNHEALTHY)
    elif before == HEALTHY:
        _set(peer, MOSTLY_HEALTHY)
    elif before == UNHEALTHY:
        _set(peer, MOSTLY_UNHEALTHY)
    return peer.state != before


def put(peer: Peer, state: int) -> None:
    """Give a target a state, by hand or because another process found it; what was counted is forgotten."""
    peer.counts = None
    _set(peer, state)


def _set(peer: Peer, state: int) -> None:
    peer.state = state
    peer.available = state <= MOSTLY_HEALTHY


def share_suffices(peers: tuple[Peer, ...], threshold: float) -> bool:
    """Whether more than ``threshold`` per cent of the weight may be chosen (``healthchecks.threshold``)."""
    total = sum(peer.weight for peer in peers)
    usable = sum(peer.weight for peer in peers if peer.available)
    return bool(usable) and usable * 100 / total > threshold
