"""How streams that must end are ended; part of config/properties.py by length only."""

from __future__ import annotations

from .kinds import DURATION, NUMBER, Property

__all__ = ["Goodbyes"]


class Goodbyes:
    """Goodbyes. These properties are ours; they say how open streams end when the node stops, drains or restarts, and when a
    target turns unhealthy."""

    goodbye_rate = Property(
        NUMBER.within(0, 1_000_000),
        "500",
        "Streams that are told to end in each second, so that their clients do not all come back at once. Where that takes too long the"
        " rate is raised until all are told within four fifths of the time. With 0 they are spread evenly over these four fifths.",
        live=True,
    )
    goodbye_deadline = Property(
        DURATION,
        "30s",
        "Time that a restart gives to the streams, requests and calls of the process that leaves; what is still open then is cut. A"
        " stop has nginx_main_worker_shutdown_timeout instead.",
        live=True,
    )
    goodbye_jitter = Property(
        NUMBER.within(0, 1),
        "0.5",
        "How much chance there is in goodbyes: the share of the time between two of them, and of goodbye_retry, that is drawn at random.",
        live=True,
    )
    goodbye_retry = Property(
        DURATION,
        "2s",
        "Time after which clients of event streams are told to come again (retry:), more or less by goodbye_jitter.",
        live=True,
    )
