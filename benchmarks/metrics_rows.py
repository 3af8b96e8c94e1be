"""What ``/metrics`` costs with many Routes: CPU time of the process that answers, and the longest round of a reactor meanwhile, in any
process."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Iterator

from .cases import Field
from .report import Row
from .servers import Server, Stage
from .usage import cpu_seconds

__all__ = ["metrics_rows"]

_CONNECTIONS = 8
"""Enough that each of four workers has some."""
_SCRAPES = 5
_PIPELINED = 50
_BODY = b"hello, world\n"


def metrics_rows(stage: Stage, wanted: Callable[[str], bool], *, quick: bool) -> Iterator[Row]:
    """The rows, each when it is measured."""
    routes, workers = (500, 2) if quick else (5000, 4)
    name = f"Admin /metrics, {routes} routes, {workers} workers"
    if not wanted(name):
        return
    url = f"http://127.0.0.1:{Field(stage).http_upstream}"
    config = {"status_code_metrics": True, "latency_metrics": True, "bandwidth_metrics": True}
    declarative = {
        "_format_version": "3.0",
        "services": [
            {"name": "s", "url": url, "routes": [{"name": f"r{n}", "paths": [f"/r/{n}/x"]} for n in range(routes)]}
        ],
        "plugins": [{"name": "prometheus", "config": config}],
    }
    conf = {"nginx_worker_processes": str(workers)}
    server = stage.kongtwist("metrics", declarative, rounds=True, conf=conf)
    _ask_all(server, routes)
    time.sleep(5)  # until the workers have told that
    took, stalls = [], []
    for scrape in range(1 if quick else _SCRAPES):
        _ask_all(server, routes, scrape)
        server.longest_round()
        begin = cpu_seconds(server.pid)
        lines = _scrape(server)
        took.append((cpu_seconds(server.pid) - begin) * 1e3)
        stalls.append(server.longest_round() * 1e3)
        if lines < routes * 20:
            raise RuntimeError(f"only {lines} lines for {routes} routes")
    longest = sorted(took)[len(took) // 2]
    yield Row(name, "ms", 300, "", longest, longest / 300, "under 300 ms")
    stall = sorted(stalls)[len(stalls) // 2]
    yield Row(f"{name}: longest round", "ms", 20, "", stall, stall / 20, "no round over 20 ms")


def _ask_all(server: Server, routes: int, only: int | None = None) -> None:
    """Have each Route asked by each connection; with ``only`` by one of them."""
    for number in range(_CONNECTIONS):
        if only is not None and number != only % _CONNECTIONS:
            continue
        with socket.create_connection(("127.0.0.1", server.port), 60) as client:
            for begin in range(0, routes, _PIPELINED):
                asked = range(begin, min(begin + _PIPELINED, routes))
                client.sendall(b"".join(b"GET /r/%d/x HTTP/1.1\r\nHost: a\r\n\r\n" % route for route in asked))
                got = b""
                while got.count(b"HTTP/1.1 200 ") < len(asked) or not got.endswith(_BODY):
                    data = client.recv(262_144)
                    if not data:
                        raise RuntimeError(f"the connection ended: {got[-300:]!r}")
                    got += data


def _scrape(server: Server) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.admin, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().count(b"\n")
    connection.close()
    return lines
