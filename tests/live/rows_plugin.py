"""A plugin that does with the node's rows, tallies, cells and metrics what a request says.

The header ``X-Do`` is a JSON list: what, and its arguments. The answer is ``{"pid", "result", "served"}``, or the error as
the Admin API would answer it. ``served``: whether the row that was written is what this process reads right then.
"""

from __future__ import annotations

import json
import os
import time
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from kongtwist.api import Plugin, String
from kongtwist.core.answers import Answer
from kongtwist.core.chain.host import HostError, QueueSettings, Tally
from kongtwist.entities import EntityError

__all__ = ["LifePlugin", "RowsPlugin"]


class LifePlugin(Plugin):
    """Named in ``plugins`` as ``tests.live.rows_plugin:LifePlugin``: notes in a file what becomes of its configurations.

    Requests are sent in batches through a queue of the host; a configuration that closes stores a Consumer.
    """

    name = "life-plugin"
    priority = 7776
    config = {"file": String(required=True), "mark": String(default="")}

    def open(self, conf: Any, row: Any, host: Any) -> Any:
        """Begin a queue and a timer."""

        def note(*words: object) -> None:
            with open(conf["file"], "a", encoding="utf-8") as file:
                file.write(json.dumps([os.getpid(), conf["mark"], *words]) + "\n")

        async def send(batch: list[Any]) -> None:
            note("sent", batch)

        settings = QueueSettings(max_batch_size=1000, max_coalescing_delay=3600)
        note("opened")
        host.every(0.01, lambda: None)
        return SimpleNamespace(note=note, host=host, mark=conf["mark"], queue=host.queue(row["id"], settings, send))

    async def close(self, conf: Any) -> None:
        """Store a row, over the link where this is a worker."""
        row = await conf.host.rows.insert("consumers", {"username": f"closed-{conf.mark}-{os.getpid()}"})
        conf.note("closed", row["username"])

    def log(self, exchange: Any, conf: Any) -> None:
        """Have the request sent."""
        conf.queue.add(exchange.target.decode())


class RowsPlugin(Plugin):
    """Named in ``plugins`` as ``tests.live.rows_plugin:RowsPlugin``."""

    name = "rows-plugin"
    priority = 7777
    config = {}

    async def access(self, exchange: Any, conf: Any) -> Answer:
        """Do it."""
        host = exchange.gateway
        what, *arguments = json.loads(exchange.block.first(b"x-do"))
        told: dict[str, Any] = {"pid": os.getpid()}
        try:
            told["result"] = found = await self._done(host, what, arguments)
            if what in ("insert", "update", "upsert"):
                told["served"] = host.rows.get(arguments[0], found["id"]) == found
            elif what == "delete":
                told["served"] = host.rows.get(*arguments) is None
        except EntityError as error:
            return Answer(error.status, json.dumps(error.body()).encode())
        except HostError as error:
            return Answer(500, json.dumps({"message": str(error)}).encode())
        return Answer(200, json.dumps(told).encode())

    async def _done(self, host: Any, what: str, arguments: list[Any]) -> Any:
        if what in ("get", "by"):
            return getattr(host.rows, what)(*arguments)
        if what in ("insert", "update", "upsert", "delete"):
            return await getattr(host.rows, what)(*arguments)
        if what == "add":
            return await host.tallies.add([Tally(key, 1, amount, time.time() + 60) for key, amount in arguments])
        if what == "read":
            return await host.tallies.read([(key, 1) for key in arguments])
        if what == "many":
            entity, start, count = arguments
            inserts = [host.rows.insert(entity, {"username": f"{start}{number}"}) for number in range(count)]
            done = await DeferredList([Deferred.fromCoroutine(each) for each in inserts], consumeErrors=True)
            for stored, row in done:
                if not stored:
                    raise row.value
            return [row["id"] for _, row in done]
        if what == "count":
            return host.metrics.count("rows_plugin_total", 1, {"kind": "a"})
        cells = host.cells("rows-plugin", 1)
        cells[0] += arguments[0]
        return [cells[0], cells.total(0)]
