"""A plugin that answers with what its process holds, loaded by a gateway as ``tests.live.plane_counter:PlaneCounter``."""

from __future__ import annotations

import json
import os
from typing import Any, ClassVar
from weakref import WeakSet

from twisted.internet import reactor as installed

from kongtwist.core.answers import Answer
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Exchange
from kongtwist.node.data_plane import DataPlane
from kongtwist.proxy.context import ProxyContext

__all__ = ["PlaneCounter"]

reactor: Any = installed
made: dict[type, WeakSet[Any]] = {}


def note(kind: type) -> None:
    """Have objects of a class counted from now on."""
    alive: WeakSet[Any] = WeakSet()
    made[kind] = alive
    init = kind.__init__  # type: ignore[misc]

    def noting(self: Any, *args: Any, **more: Any) -> None:
        alive.add(self)
        init(self, *args, **more)

    kind.__init__ = noting  # type: ignore[misc]


for each in (DataPlane, ProxyContext):
    note(each)


class PlaneCounter(Plugin):
    """Counts data paths, their contexts, opened configurations, descriptors and timers."""

    name = "plane-counter"
    priority = 5000
    config: ClassVar[dict[str, Any]] = {}
    opened = 0

    def open(self, conf: Any, row: Any, host: Any) -> Any:
        PlaneCounter.opened += 1
        return conf

    def close(self, conf: Any) -> None:
        PlaneCounter.opened -= 1

    def access(self, exchange: Exchange, conf: Any) -> Answer:
        told = {
            "planes": len(made[DataPlane]),
            "contexts": len(made[ProxyContext]),
            "opened": PlaneCounter.opened,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "timers": len(reactor.getDelayedCalls()),
        }
        return Answer(200, json.dumps(told).encode(), [(b"Content-Type", b"application/json")])
