"""What the Admin API knows of the node it runs in."""

from __future__ import annotations

import os
import resource as rlimits
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from ..core.balancing.balancer import Balancer
from ..core.chain.plugin import Plugin
from ..core.long_work import Breather

__all__ = ["NodeFacts", "resident_bytes"]


async def _nothing() -> Iterable[tuple[str, str]]:
    return ()


async def _none_of(_hosts: AbstractSet[str]) -> AbstractSet[str]:
    return frozenset()


@dataclass
class NodeFacts:
    """Facts about the node that the Admin API shows, and switches that it offers.

    Attributes:
        node_id: the node's UUID.
        hostname: the machine's name.
        plugins: the loaded plugins by name.
        configuration: all properties, secrets masked.
        counters: figures of `core.counters.CELL_NAMES`, over all workers.
        pids: process ids of the workers.
        master_pid: of the parent.
        memory: resident bytes by process id.
        ready: why no traffic should come, in a few words; None when it may.
        shared_memory: memory that workers share: name -> (bytes in use, bytes at most).
        drain: makes `ready` say that no traffic should come.
        log_level: the error log's level now.
        change_log_level: changes it (level, seconds); None where the log is not the gateway's.
        balancer: the balancer of an upstream's id, or None.
        mark: whether a target may be chosen (upstream's id, target, yes or no); gives whether there is such a target.
        unresolved: which of these hosts have no address now.
        timers: timers scheduled in the reactor.
        streams: there are listeners for sessions (``stream_listen``).
        metric_errors: how often something was not counted, as there was no room for it.
        plugin_metrics: figures of the processes that serve, some lines at a time: name of a family, text; families in order of their names.
            Is given a way to breathe between parts.
    """

    node_id: str
    hostname: str
    plugins: Mapping[str, Plugin]
    configuration: Callable[[], Mapping[str, Any]]
    counters: Callable[[], Mapping[str, int]]
    pids: Callable[[], Sequence[int]]
    master_pid: int
    memory: Callable[[], Mapping[int, int]]
    ready: Callable[[], str | None]
    shared_memory: Callable[[], Mapping[str, tuple[int, int]]] = field(default=dict)
    drain: Callable[[], None] = field(default=lambda: None)
    balancer: Callable[[str], Balancer | None] = field(default=lambda upstream: None)
    mark: Callable[[str, str, bool], Awaitable[bool]] | None = None
    unresolved: Callable[[AbstractSet[str]], Awaitable[AbstractSet[str]]] = field(default=lambda hosts: _none_of(hosts))
    change_log_level: Callable[[str, float], None] | None = None
    log_level: Callable[[], str] = field(default=lambda: "notice")
    timers: Callable[[], int] = field(default=lambda: 0)
    metric_errors: Callable[[], int] = field(default=lambda: 0)
    streams: bool = False
    plugin_metrics: Callable[[Breather], Awaitable[Iterable[tuple[str, str]]]] = field(
        default=lambda breather: _nothing()
    )


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, bytes; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * rlimits.getpagesize()
    except (OSError, ValueError, IndexError):
        return rlimits.getrusage(rlimits.RUSAGE_SELF).ru_maxrss * 1024 if pid == os.getpid() else 0
