"""What choosing a target and matching a route cost in memory, however many there are: CPU time of one decision among many, beside that
of one among ten."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

from kongtwist.core.balancing.balancer import Balancer
from kongtwist.core.exchange import Exchange
from kongtwist.core.http.head import HeaderBlock
from kongtwist.core.peer import Peer
from kongtwist.core.snapshot.snapshot import Snapshot
from kongtwist.entities.routes import routes_entity
from kongtwist.entities.services import SERVICES
from kongtwist.entities.targets import TARGETS
from kongtwist.entities.upstreams import UPSTREAMS

from .report import Row

__all__ = ["choosing_rows"]

_ALGORITHMS: dict[str, dict[str, Any]] = {
    "round-robin": {"algorithm": "round-robin"},
    "least-connections": {"algorithm": "least-connections"},
    "latency": {"algorithm": "latency"},
    "consistent-hashing": {"hash_on": "header", "hash_on_header": "x-user"},
}
_HELD = 64
"""Requests under way."""
_FEW = 10
_ROUNDS = 5


def choosing_rows(wanted: Callable[[str], bool], *, quick: bool) -> Iterator[Row]:
    """The rows, each when it is measured."""
    times = 500 if quick else 20_000
    for algorithm, fields in _ALGORITHMS.items():
        name = f"Choosing among 1,000 targets, {algorithm}"
        if wanted(name):
            few, hundred, many = (_choosing(count, fields, times) for count in (_FEW, 100, 1000))
            yield Row(name, "us", few, f"100: {hundred:.1f} us", many, many / few, "at most 1.5x")
    routes = 1000 if quick else 10_000
    for flavor in ("traditional", "traditional_compatible", "expressions"):
        name = f"Matching among {routes:,} routes, {flavor}"
        if wanted(name):
            few, many = (_matching(count, flavor, times) for count in (_FEW, routes))
            yield Row(name, "us", few, "", many, many / few, "at most 3x")


def _choosing(count: int, fields: dict[str, Any], times: int) -> float:
    """Microseconds of choosing a target, and of letting one go."""
    upstream = UPSTREAMS.insert({"name": "u", **fields}, now=1, new_id=_new_id)
    targets = [
        TARGETS.insert({"target": f"10.0.{at // 250}.{at % 250}:80", "upstream": {"id": upstream["id"]}}, now=1, new_id=_new_id)
        for at in range(count)
    ]  # fmt: skip
    balancer = Balancer(upstream, targets)
    for at, peer in enumerate(balancer.peers):
        peer.observe(0.01 + at % 7 / 1000, 1.0)
    requests = [_request(b"/", b"%d" % at) for at in range(256)]
    held: deque[Peer] = deque()
    now = 1.0

    def work() -> None:
        nonlocal now
        for at in range(times):
            peer = balancer.pick(requests[at & 255])
            assert peer is not None
            peer.active += 1
            held.append(peer)
            if len(held) > _HELD:
                now += 0.001
                done = held.popleft()
                done.observe(0.01 + at % 11 / 1000, now)
                done.let_go()

    return _least(work, times)


def _matching(count: int, flavor: str, times: int) -> float:
    """Microseconds of finding the route of a request, each time another one."""
    service = SERVICES.insert({"host": "127.0.0.1"}, now=1, new_id=_new_id)
    rows, entity = {}, routes_entity(flavor)
    for at in range(count):
        path = f"/r/{at}/x"
        by: Any = {"expression": f'http.path ^= "{path}"'} if flavor == "expressions" else {"paths": [path]}
        row = entity.insert({**by, "service": {"id": service["id"]}}, now=1, new_id=_new_id)
        rows[row["id"]] = row
    snapshot = Snapshot.build({"services": {service["id"]: service}, "routes": rows}, {}, router_flavor=flavor)
    paths = [b"/r/%d/x/%d" % (at * 7919 % count, at) for at in range(min(times, 5000))]
    requests = [_request(path, b"u") for path in paths]
    if any(snapshot.router.find(each) is None for each in requests[:100]):
        raise RuntimeError(f"a request matches no route ({flavor})")

    def work() -> None:
        find = snapshot.router.find
        for each in requests:
            find(each)

    return _least(work, len(requests))


def _least(work: Callable[[], None], times: int) -> float:
    """Microseconds of CPU time that one of ``times`` takes; the least of some rounds, for others are disturbed."""
    work()
    found = []
    for _ in range(_ROUNDS):
        begin = time.process_time()
        work()
        found.append(time.process_time() - begin)
    return min(found) / times * 1e6


def _new_id() -> str:
    return str(uuid4())


class _Request(Exchange):
    """A request that carries facts only."""


def _request(target: bytes, user: bytes) -> Exchange:
    made = _Request()
    made.target, made.method, made.minor, made.scheme, made.sni = target, b"GET", 1, b"http", None
    made.trusted = False
    made.peer_port, made.local_port = 40000, 8000
    made.client_ip = made.peer_ip = "192.0.2.1"
    made.block = HeaderBlock.from_pairs([(b"Host", b"a.test"), (b"X-User", user)])
    return made
