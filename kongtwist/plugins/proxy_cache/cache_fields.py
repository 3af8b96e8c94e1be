"""What proxy-cache is configured with (Kong 3.9.3, ``kong/plugins/proxy-cache/schema.lua``)."""

from __future__ import annotations

from ...core.rows import Row
from ...entities.checks import Custom
from ...entities.entity import Config as ConfigRecord
from ...entities.entity import Entity
from ...entities.schema import Array, Boolean, Integer, Record, String, Timestamp, Uuid

__all__ = ["CONFIG", "CONFIG_CHECKS", "PURGES", "PURGE_TTL"]

_DICTIONARIES = frozenset((
    "kong", "kong_cluster_events", "kong_core_db_cache", "kong_core_db_cache_miss", "kong_db_cache", "kong_db_cache_miss",
    "kong_healthchecks", "kong_locks", "kong_rate_limiting_counters", "kong_reports_workers", "kong_secrets", "prometheus_metrics",
))  # fmt: skip
"""Shared memories that Kong 3.9 has (``kong/templates/nginx_kong.lua``). Here all stand for the same memory."""


def _memory_there(row: Row) -> str | None:
    conf = row["config"]
    memory = conf.get("memory")
    name = memory.get("dictionary_name") if isinstance(memory, dict) else None
    if conf.get("strategy") == "memory" and isinstance(name, str) and name not in _DICTIONARIES:
        return f"missing shared dict '{name}'"
    return None


CONFIG = ConfigRecord(
    {
        "response_code": Array(
            Integer(between=[100, 900]), required=True, default=[200, 301, 404], len_min=1,
            text="Statuses of answers that are kept.",
        ),
        "request_method": Array(
            String(one_of=["HEAD", "GET", "POST", "PATCH", "PUT"]), required=True, default=["GET", "HEAD"],
            text="Methods of requests that are answered from memory.",
        ),
        "content_type": Array(
            String(), required=True, default=["text/plain", "application/json"],
            text="Types of answers that are kept, with their parameters; * stands for any type or subtype.",
        ),
        "cache_ttl": Integer(default=300, gt=0, text="Seconds for which an answer is used."),
        "strategy": String(one_of=["memory"], required=True, text="Where answers are kept."),
        "cache_control": Boolean(
            required=True, default=False, text="Follow Cache-Control of requests and answers, and Expires (RFC 9111)."
        ),
        "ignore_uri_case": Boolean(required=False, default=False, text="Let paths that differ in case share an answer."),
        "storage_ttl": Integer(
            text="Seconds for which an answer stays in memory, whether or not it may still be used; 0: until there is no room;"
            " null: as long as it may be used."
        ),
        "memory": Record(
            {
                "dictionary_name": String(
                    required=True, default="kong_db_cache",
                    text="A shared memory by Kong's name; whichever it is, mem_cache_size bounds what is kept.",
                )
            },
            text="Where strategy memory keeps answers.",
        ),
        "vary_query_params": Array(
            String(), text="Query arguments by which answers differ; null or empty: all of them."
        ),
        "vary_headers": Array(
            String(), text="Request headers by which answers differ, beside those that Vary of an answer names."
        ),
        "response_headers": Record(
            {
                "age": Boolean(default=True, text="Tell clients how many seconds old an answer is."),
                "X-Cache-Status": Boolean(default=True, text="Tell clients whether the answer is from memory."),
                "X-Cache-Key": Boolean(default=True, text="Tell clients the key of the answer."),
            },
            text="Which headers are set; a request with Kong-Debug gets all of them.",
        ),
    },
)  # fmt: skip

CONFIG_CHECKS = (Custom(("config",), _memory_there),)

PURGE_TTL = 600
"""Seconds for which other nodes can learn of a purge; so long one may be cut off from the database."""

PURGES = Entity(
    "proxy_cache_purges",
    {
        "id": Uuid(),
        "created_at": Timestamp(),
        "cache_key": String(required=False, text="Whose answers all nodes forget; null: those of all keys."),
    },
    ttl=True,
    plugin="proxy-cache",
    exported=False,
    in_admin=False,
    text="A purge by the Admin API, on its way to the other nodes of the database.",
)
"""What Kong tells by its cluster event ``proxy-cache:purge``."""
