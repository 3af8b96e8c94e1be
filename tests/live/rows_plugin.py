"""A plugin that does with the node's rows, tallies, cells and metrics what a request says.

The header ``X-Do`` is a JSON list: what, and its arguments. The answer is ``{"pid", "result", "served"}``, or the error as
the Admin API would answer it. ``served``: whether the row that was written is what this process reads right then.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from kongtwist.api import Plugin
from kongtwist.core.answers import Answer
from kongtwist.core.chain.host import HostError, Tally
from kongtwist.entities import EntityError

__all__ = ["RowsPlugin"]


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
