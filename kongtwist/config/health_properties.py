"""Health checks of targets; part of config/properties.py by length only."""

from __future__ import annotations

from .kinds import BOOLEAN, INTEGER, Property

__all__ = ["HealthChecks"]


class HealthChecks:
    """Health checks. These properties are ours; what is checked, and how, says each Upstream (`healthchecks`)."""

    upstream_probes = Property(
        INTEGER.within(1, 65535),
        "256",
        "Probes of targets under way at once, over all Upstreams of this node; further ones wait for their turn.",
    )
    upstream_probe_threads = Property(
        INTEGER.within(1, 1000),
        "10",
        "Threads for probes of the types grpc and grpcs, each of which takes one until it is answered.",
    )
    upstream_close_unhealthy_streams = Property(
        BOOLEAN,
        "off",
        "Whether WebSockets and event streams of a target that turned unhealthy are ended: WebSockets by a Close frame (1012), event"
        " streams behind a whole event. With off they go on for as long as they can, and only new requests go elsewhere.",
    )
