"""``/metrics``: what Prometheus asks (text format 0.0.4). Names, labels and types as Kong 3.9.3's prometheus plugin has them.

The node's own figures are always there; those of Services and Routes, and the health of targets, while a prometheus plugin is
configured. The text is made in slices: traffic goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from heapq import merge

from ... import KONG_VERSION, VERSION
from ...core.health import is_checked
from ...core.long_work import Breather
from ...core.metric_text import head_of, labels_text, number_text
from ...entities.schema import Row
from ..admin_api import AdminAPI
from ..facts import NodeFacts
from ..get_only import Get
from ..json_resource import Call
from ..replies import Reply
from .target_health import health_of, newest_first, peers_by_target, without_address

__all__ = ["STATES", "STREAMS", "Metrics", "node_families"]

STATES = ("accepted", "active", "handled", "reading", "waiting", "writing")
STREAMS = ("sse", "tcp", "udp", "websocket")

_OF_PLUGIN = frozenset((
    "kong_bandwidth_bytes", "kong_http_requests_total", "kong_kong_latency_ms", "kong_request_latency_ms", "kong_session_duration_ms",
    "kong_stream_sessions_total", "kong_upstream_latency_ms",
))  # fmt: skip
"""Families that are shown while the plugin is configured."""

_HEALTH = "kong_upstream_target_health"
_HEALTH_STATES = ("dns_error", "healthchecks_off", "healthy", "unhealthy")


class Metrics(Get):
    """``/metrics``."""

    async def get(self, call: Call) -> Reply:
        facts, breather = self.api.facts, call.long_work.slices()
        plugins = [
            row
            for row in self.api.storage.load()["plugins"].values()
            if row["name"] == "prometheus" and row.get("enabled") is not False
        ]
        families = list(node_families(facts, self.api.storage.reachable() if self.api.storage.writable else True))
        if any(row["config"].get("upstream_health_metrics") for row in plugins):
            families += [(_HEALTH, text) async for text in _target_health(self.api, breather)]
        families.sort(key=_name)
        told = await facts.plugin_metrics(breather)
        parts: list[bytes] = []
        for name, text in merge(families, told, key=_name):
            if plugins or name not in _OF_PLUGIN:
                parts.append(text.encode())
            await breather.breathe()
        return Reply(200, b"".join(parts), content_type="text/plain; charset=UTF-8")


def _name(family: tuple[str, str]) -> str:
    return family[0]


Samples = Iterable[tuple[Mapping[str, str], float]]


def node_families(facts: NodeFacts, reachable: bool) -> Iterator[tuple[str, str]]:
    """The node's own figures: names of families, and their text.

    Args:
        facts: the figures.
        reachable: whether the database answers; true without one, as Kong has it.
    """
    node, counts = {"node_id": facts.node_id}, facts.counters()
    shared = facts.shared_memory()
    http = {"kong_subsystem": "http"}
    states = {name: counts[name] for name in STATES} | {"total": counts["requests"]}
    yield _gauges("kong_datastore_reachable", [({}, int(reachable))])
    for at, name in enumerate(("kong_memory_lua_shared_dict_bytes", "kong_memory_lua_shared_dict_total_bytes")):
        sizes = ((node | {"shared_dict": each} | http, amounts[at]) for each, amounts in sorted(shared.items()))
        yield _gauges(name, sizes)
    memory = facts.memory().items()
    yield _gauges(
        "kong_memory_workers_lua_vms_bytes", [(node | {"pid": str(pid)} | http, size) for pid, size in memory]
    )
    by_state = [(node | {"subsystem": "http", "state": state}, count) for state, count in sorted(states.items())]
    open_sessions = counts["tcp"] + counts["udp"]
    sessions = {
        "accepted": counts["sessions"],
        "active": open_sessions,
        "handled": counts["sessions"],
        "total": counts["sessions"],
    }
    of_stream = node | {"subsystem": "stream"}
    by_state += [(of_stream | {"state": state}, count) for state, count in sorted(sessions.items()) if facts.streams]
    yield _gauges("kong_nginx_connections_total", by_state)
    yield _family("kong_nginx_metric_errors_total", "counter", [({}, facts.metric_errors())])
    requests = [(node | {"subsystem": "http"}, counts["requests"])]
    yield _gauges("kong_nginx_requests_total", requests + ([(of_stream, counts["sessions"])] if facts.streams else []))
    yield _gauges("kong_nginx_timers", [({"state": "pending"}, facts.timers()), ({"state": "running"}, 0)])
    yield _gauges("kong_node_info", [(node | {"version": KONG_VERSION}, 1)])
    yield _gauges("kongtwist_info", [(node | {"version": VERSION}, 1)])
    yield _gauges("kongtwist_open_streams", [(node | {"kind": kind}, counts[kind]) for kind in STREAMS])


def _gauges(name: str, samples: Samples) -> tuple[str, str]:
    """Kong shows nearly all of these as gauges, although some only grow."""
    return _family(name, "gauge", samples)


def _family(name: str, kind: str, samples: Samples) -> tuple[str, str]:
    lines = [f"{name}{labels_text(labels)} {number_text(value)}\n" for labels, value in samples]
    return name, "".join((head_of(name, kind), *lines))


async def _target_health(api: AdminAPI, breather: Breather) -> AsyncIterator[str]:
    """Whether targets may be chosen, four figures each: one of them is 1 (Kong 3.9.3)."""
    storage, facts = api.storage, api.facts
    yield head_of(_HEALTH, "gauge")
    upstreams = sorted(storage.load()["upstreams"].values(), key=lambda row: str(row["name"]))
    for upstream in upstreams:
        targets = newest_first(api, upstream)
        balancer = facts.balancer(upstream["id"])
        peers, checked = peers_by_target(balancer), is_checked(upstream)
        lost = await without_address(facts, balancer, [row["target"] for row in targets if row["weight"]])
        for target in targets:
            name = target["target"]
            yield _health_lines(upstream, target, health_of(target, peers.get(name, ()), checked, name in lost))
        await breather.breathe()


def _health_lines(upstream: Row, target: Row, health: Row) -> str:
    addresses = [(f"{each['ip']}:{each['port']}", each["health"]) for each in health["data"]["addresses"]]
    common = {"upstream": upstream["name"], "target": target["target"]}
    return "".join(
        f"{_HEALTH}{labels_text(common | {'address': address, 'state': state, 'subsystem': 'http'})} {int(state == now.lower())}\n"
        for address, now in addresses or [("", health["health"])]
        for state in _HEALTH_STATES
    )
