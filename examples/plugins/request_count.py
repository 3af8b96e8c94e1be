"""An endpoint of the Admin API: how many requests each of the plugin's rows has seen, in all workers of the node.

curl http://localhost:8001/request-counts/PLUGIN-ID
"""

from __future__ import annotations

import json
from typing import Any

from kongtwist.api import AdminCall, AdminEndpoint, Answer, Exchange, Host, Plugin, Row, Scope


def counter(host: Host, plugin_id: str) -> Any:
    """One integer that the workers share: each adds to its own, and all read the sum."""
    return host.cells(f"request-count {plugin_id}", 1)


def show(call: AdminCall) -> Answer:
    """Answer ``GET /request-counts/{plugin_id}``."""
    row = call.host.rows.get("plugins", call.arguments["plugin_id"])
    if row is None or row["name"] != RequestCount.name:
        return Answer.error(404, "Not found")
    return Answer(200, json.dumps({"requests": counter(call.host, row["id"]).total(0)}).encode())


class RequestCount(Plugin):
    """Counts requests, whatever became of them."""

    name = "request-count"
    priority = 4
    endpoints = (AdminEndpoint("/request-counts/{plugin_id}", {"GET": show}, "How many requests this node has seen."),)

    def open(self, conf: Row, plugin: Row, host: Scope) -> Any:
        return counter(host, plugin["id"])

    def log(self, exchange: Exchange, conf: Any) -> None:
        conf[0] += 1
