"""What many consumers cost: memory of each with its key, and a request's CPU time beside that of a gateway that knows ten."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any

from .cases import Field
from .measures import Pace, http_cost
from .report import Row
from .servers import Server, Stage, resident

__all__ = ["consumer_rows"]

FEW = 10
MOST = 1.5
"""KB of memory that a consumer with its key may take."""
PATIENCE = 120.0
"""Seconds within which a gateway must know its consumers."""


def consumer_rows(stage: Stage, wanted: Callable[[str], bool], pace: Pace, *, quick: bool) -> Iterator[Row]:
    """The rows, in place of nginx's column the gateway with ten consumers, or the aim.

    Raises:
        RuntimeError: a gateway does not let a consumer in.
    """
    many = 1000 if quick else 100_000
    request = f"key-auth, {many} consumers beside {FEW}"
    memory = f"consumer with its key ({many} known)"
    if not wanted(request) and not wanted(memory):
        return
    upstream = Field(stage).http_upstream
    few, much = (
        stage.kongtwist(f"consumers-{count}", _declarative(count, f"http://127.0.0.1:{upstream}"))
        for count in (FEW, many)
    )
    for server, count in ((few, FEW), (much, many)):
        _await_consumer(server, _key(count - 1))
    if wanted(memory):
        time.sleep(3.0)  # what loading took is given back
        each = (resident(much.pid) - resident(few.pid)) / (many - FEW) / 1024
        yield Row(memory, "KB", MOST, "", each, each / MOST, "at most 1.5 KB")
    if wanted(request):
        turns = []
        for _ in range(pace.rounds):
            costs = []
            for server, count in ((few, FEW), (much, many)):
                # The same number of keys on both: heads that differ have a price of their own.
                keys = [_key(at) for at in range(0, count, count // FEW)]
                costs.append(http_cost(stage, server, "/", pace, values=("apikey", keys)).seconds * 1e6)
            turns.append(costs)
        ten, all_ = (statistics.median(turn[place] for turn in turns) for place in (0, 1))
        yield Row(request, "us", ten, "", all_, statistics.median(b / a for a, b in turns), "the same")


def _key(number: int) -> str:
    return f"{number:06d}-3f6c1b9e5a7d4e0f8a2c"


def _declarative(count: int, url: str) -> dict[str, Any]:
    routes = [{"name": "r", "paths": ["/"], "plugins": [{"name": "key-auth"}]}]
    consumers = [
        {"username": f"user-{at}", "custom_id": f"c-{at}", "keyauth_credentials": [{"key": _key(at)}]}
        for at in range(count)
    ]
    return {
        "_format_version": "3.0", "services": [{"name": "s", "url": url, "routes": routes}], "consumers": consumers,
    }  # fmt: skip


def _await_consumer(server: Server, key: str) -> None:
    """Wait until a gateway lets a consumer in."""
    until, status = time.monotonic() + PATIENCE, 0
    while time.monotonic() < until:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/", headers={"apikey": key})
            status = connection.getresponse().status
        finally:
            connection.close()
        if status == 200:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{server.name} does not know a consumer after {PATIENCE:.0f} seconds: {status}")
