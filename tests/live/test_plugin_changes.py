"""A thousand changes of plugins' rows while requests pass leave nothing behind: no timer, connection, thread or queue."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.places import ROOT

from .collector_process import Collector
from .soak.stage import LOOK, WATCHING
from .support import GatewayProcess, LiveTestCase, group_sockets, wait_until
from .valkey_server import ValkeyServer

CHANGES = 1000
THREADS = 20
"""So many threads more would be one for every fifty changes."""


class ChangeTests(LiveTestCase):
    """One process, and its counts before and after."""

    def look(self) -> dict[str, Any]:
        """What the gateway holds: timers by what they call, descriptors by kind, threads."""
        path = os.path.join(self.looks, f"{self.running.pid}.json")
        if os.path.exists(path):
            os.remove(path)
        os.kill(self.running.pid, signal.SIGUSR2)
        wait_until(lambda: os.path.exists(path), "what the gateway holds")
        with open(path, encoding="utf-8") as file:
            seen = json.load(file)
        self.assertNotIn("error", seen)
        threads = len(os.listdir(f"/proc/{self.running.pid}/task"))
        # One timer for all deadlines, there while any connection has one: it says nothing of plugins.
        timers = {name: count for name, count in seen["timers"].items() if name != WATCHING}
        return {"timers": timers, "sockets": self.sockets(), "threads": threads}

    def sockets(self) -> list[str]:
        """The gateway's TCP sockets: state and peer, as proc(5) has them; whom a port belongs to where that is known."""
        names = {self.valkey.port: "valkey", self.collector.port: "collector"}
        held = group_sockets(self.running.pid)
        found = []
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
            cells = line.split()
            if cells[9] in held:
                port = int(cells[2].rpartition(":")[2], 16)
                found.append(f"state {cells[3]}, {names.get(port) or ('a listener' if port == 0 else 'another')}")
        return sorted(found)

    def test_nothing_stays(self) -> None:
        """A queue, its HTTP client, a Redis client and its timer, for each configuration."""
        self.looks = self.folder()
        valkey = self.valkey = ValkeyServer(self.folder()).start()
        self.addCleanup(valkey.kill)
        collector = self.collector = Collector(self)
        env = {"PYTHONPATH": f"{LOOK}{os.pathsep}{ROOT}", "SOAK_LOOK": self.looks}
        gateway = self.running = self.gateway({"upstream_keepalive_idle_timeout": 1}, env=env)
        route = gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        rows = [
            gateway.create(f"/routes/{route['id']}/plugins", name=name, config=config)
            for name, config in (("http-log", self.log(collector, 0)), ("rate-limiting", self.limit(valkey, 0)))
        ]

        def change(number: int) -> None:
            for row, config in zip(rows, (self.log(collector, number), self.limit(valkey, number)), strict=True):
                changed = gateway.admin("PATCH", f"/plugins/{row['id']}", json={"config": config})
                self.assertEqual(changed.status, 200)

        with self.clients(gateway):
            for number in range(1, 11):
                change(number)
        self.use(gateway)
        before = self.settled(None)
        with self.clients(gateway):
            for number in range(11, CHANGES // 2 + 1):
                change(number)
        self.use(gateway)
        after = self.settled(before)
        # A pool of threads grows when two of its works meet, and never beyond its bound.
        self.assertLess(after.pop("threads"), before.pop("threads") + THREADS)
        self.assertEqual(after, before)

    def use(self, gateway: GatewayProcess) -> None:
        """Have the configurations that stand last used, for what they hold is compared too."""
        for _ in range(20):
            self.assertEqual(gateway.get("/echo").status, 200)
        time.sleep(1)  # twice the rate at which counts go to Redis
        wait_until(lambda: "state 01, valkey" in self.sockets(), "a connection to Redis")

    @contextlib.contextmanager
    def clients(self, gateway: GatewayProcess) -> Iterator[None]:
        """Four clients that ask all the while, and are all answered."""
        ended = threading.Event()
        statuses: list[int] = []

        def ask() -> None:
            while not ended.is_set():
                statuses.append(gateway.get("/echo").status)

        asking = [threading.Thread(target=ask) for _ in range(4)]
        for client in asking:
            client.start()
        try:
            yield
        finally:
            ended.set()
            for client in asking:
                client.join()
        self.assertEqual(set(statuses), {200})

    def settled(self, wanted: dict[str, Any] | None) -> dict[str, Any]:
        """What it holds when it holds what is wanted, or no longer changes: connections are kept idle for a second."""
        seen = [self.look()]
        for _ in range(10):
            if seen[-1] == wanted:
                break
            time.sleep(3)
            seen.append(self.look())
            if wanted is None and seen[-1] == seen[-2]:
                break
        return seen[-1]

    @staticmethod
    def log(collector: Collector, number: int) -> dict[str, Any]:
        """Every one has a queue of its own; the last waits longest for company."""
        queue = {"max_batch_size": 50, "max_coalescing_delay": 0.1}
        return {"http_endpoint": f"{collector.url}/{number}", "queue": queue, "keepalive": 1000}

    @staticmethod
    def limit(valkey: ValkeyServer, number: int) -> dict[str, Any]:
        """Every one has a client of its own, and a timer."""
        redis = {"host": "127.0.0.1", "port": valkey.port, "database": number % 16, "timeout": 1000 + number}
        return {"second": 1_000_000, "policy": "redis", "sync_rate": 0.5, "redis": redis, "fault_tolerant": False}
