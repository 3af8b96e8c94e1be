"""The Admin API of proxy-cache (Kong 3.9.3, ``api.lua``): answers are looked at in all processes of the node, and purged in all
processes of all nodes.

Those of this node are asked. The others find a row, `PURGES`, before they next look for an answer (`Purges`).
"""

from __future__ import annotations

import json
from typing import Any

from ...core.answers import Answer
from ...core.chain.phases import AdminCall, AdminEndpoint
from .cache_fields import PURGE_TTL, PURGES
from .cache_store import Store

__all__ = ["ENDPOINTS", "answer_question"]

_PLUGIN = "proxy-cache"


def answer_question(store: Store | None, question: Any, now: float) -> Any:
    """What one process answers: to ``["get", key]`` the newest answer or None, to ``["purge", key]`` whether there was one, to
    ``["clear"]`` nothing."""
    if store is None:
        return None
    match question:
        case ["get", str(key)]:
            kept = store.newest(key, now)
            return None if kept is None else kept.told()
        case ["purge", str(key)]:
            return store.purge(key)
        case ["clear"]:
            store.clear()
    return None


async def _purged(call: AdminCall, question: list[str], key: str | None) -> bool:
    """Purge on all nodes; whether there was something on this one. Raises EntityError when others cannot be told."""
    told = await call.host.ask_workers(_PLUGIN, question)
    if getattr(call.host.conf, "database", "off") == "postgres":
        await call.host.rows.insert(PURGES.name, {"cache_key": key, "ttl": PURGE_TTL})
    return any(told)


def _not_found() -> Answer:
    return Answer(404, b'{"message":"Not found"}', [(b"Content-Type", b"application/json; charset=utf-8")])


def _is_plugin(call: AdminCall) -> bool:
    """Whether the path names a configuration of this plugin, if it names one."""
    named = call.arguments.get("plugin_id")
    if named is None:
        return True
    row = call.host.rows.get("plugins", named)
    return row is not None and row["name"] == _PLUGIN


async def _show(call: AdminCall) -> Answer:
    found: list[Any] = []
    if _is_plugin(call):
        told = await call.host.ask_workers(_PLUGIN, ["get", call.arguments["cache_key"]])
        found = [each for each in told if each is not None]
    if not found:
        return _not_found()
    newest = max(found, key=lambda each: each["timestamp"])
    body = json.dumps(newest, ensure_ascii=False).encode()
    return Answer(200, body, [(b"Content-Type", b"application/json; charset=utf-8")])


async def _purge(call: AdminCall) -> Answer:
    if not _is_plugin(call):
        return _not_found()
    key = call.arguments["cache_key"]
    return Answer(204) if await _purged(call, ["purge", key], key) else _not_found()


async def _clear(call: AdminCall) -> Answer:
    await _purged(call, ["clear"], None)
    return Answer(204)


ENDPOINTS = (
    AdminEndpoint("/proxy-cache", {"DELETE": _clear}, "All answers that proxy-cache keeps, on all nodes."),
    AdminEndpoint(
        "/proxy-cache/{cache_key}",
        {"GET": _show, "DELETE": _purge},
        "Answers that proxy-cache keeps under one X-Cache-Key; shown are this node's.",
    ),
    AdminEndpoint(
        "/proxy-cache/{plugin_id}/caches/{cache_key}",
        {"GET": _show, "DELETE": _purge},
        "The same, where the configuration of proxy-cache exists.",
    ),
)
