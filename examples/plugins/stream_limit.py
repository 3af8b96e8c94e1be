"""Watching streams: so many WebSockets and event streams at a time, in all workers of the node, and no more."""

from __future__ import annotations

from typing import Any, NamedTuple

from kongtwist.api import Answer, Exchange, Integer, Plugin, Row, Scope, StreamInfo, StreamWatch


class Limit(NamedTuple):
    """What the phases get."""

    streams: int
    open: Any  #: one integer that the workers share


class Counted(StreamWatch):
    """One open stream."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        limit.open[0] += 1

    def on_close(self, why: str) -> None:
        self._limit.open[0] -= 1


class StreamLimit(Plugin):
    """Refuses requests while too many streams are open. Which request becomes a stream is only known from its answer."""

    name = "stream-limit"
    priority = 900
    config = {"streams": Integer(default=100, between=(1, 1_000_000), text="Streams that may be open at a time.")}

    def open(self, conf: Row, plugin: Row, host: Scope) -> Limit:
        return Limit(conf["streams"], host.cells(f"stream-limit {plugin['id']}", 1))

    def access(self, exchange: Exchange, conf: Limit) -> Answer | None:
        if conf.open.total(0) >= conf.streams:
            return Answer.error(503, "Too many streams are open")
        return None

    def on_open(self, stream: StreamInfo, conf: Limit) -> StreamWatch:
        return Counted(conf)
