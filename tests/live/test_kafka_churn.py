"""Clients of topics come and go, and plugins are changed and deleted below them: nothing is left of any of that, and nothing is missed.

    KAFKA_CHURN=600 python -m twisted.trial tests.live.test_kafka_churn

``KAFKA_CHURN``: seconds of it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from kongtwist.core.chain.host_kafka import KafkaConnection
from kongtwist.kafka.connection_settings import client_options
from tests.live.kafka_kit import broker_connections, create_topic, topic_records
from tests.live.kafka_posts import CUT, HUNG
from tests.live.kafka_server import KafkaCluster, shared_cluster
from tests.live.support import ROOT, GatewayProcess, LiveTestCase, Process, wait_until

SECONDS = float(os.environ.get("KAFKA_CHURN") or 6)
WARM_UP = 4.0
"""Seconds of it before anything is counted."""
PARTITIONS = 4
CLIENTS = 50
EDIT = 0.5
"""Seconds between two changes."""
GROWTH = 40 << 20
"""Bytes by which memory may have grown: what fragments, and caches that fill."""
THREADS = 4
"""Threads of pools, and files, that may have come meanwhile: far fewer than there are changes."""
PATIENCE = 120.0


class ChurnTests(LiveTestCase):
    def setUp(self) -> None:
        self.cluster: KafkaCluster = shared_cluster()
        self.read, self.written = create_topic(self.cluster, PARTITIONS), create_topic(self.cluster, PARTITIONS)
        self.producer = KafkaProducer(**client_options(KafkaConnection(tuple(self.cluster.servers.split(",")))))
        self.addCleanup(self.producer.close, 10)
        self.sent = 0
        self.sending: list[tuple[int, Any]] = []
        self.kong = self.gateway({"nginx_worker_processes": 1})

    def test_nothing_is_left(self) -> None:
        for name, method in (("events", "GET"), ("posts", "POST")):
            self.kong.create("/routes", name=name, paths=[f"/{name}"], methods=[method])
        self.put("events", 0)
        self.put("posts", 0)
        self.churn(WARM_UP)
        before = self.settled(None)
        edits = self.churn(SECONDS)
        after = self.settled(before)
        sys.stderr.write(f"\n{edits} changes; before {before}, after {after}\n")
        self.assertLess(after["memory"], before["memory"] + GROWTH)

    def churn(self, seconds: float) -> int:
        """Have clients come and go while plugins change; check what they got. Returns how many changes there were."""
        readers, found_path = self.readers()
        posts, posted_path = self.posts()
        until = time.monotonic() + seconds
        edits = 0
        while time.monotonic() < until:
            for name in ("events", "posts"):
                self.put(name, edits)
                edits += 1
            self.send_for(EDIT)
        wait_until(lambda: self.progress(readers, posts), "events and answers", PATIENCE)
        for number, place in self.sending:  # a number is an offset, by which the clients' program judges
            self.assertEqual(place.get(PATIENCE).offset, number)
        self.sending.clear()
        self.finish(posts)
        self.finish(readers)
        found = json.loads(found_path.read_text())
        self.assertEqual(found["errors"], [])
        self.assertGreater(found["events"], 0)
        self.assertGreater(found["left"], 0)
        self.check_posts(json.loads(posted_path.read_text()))
        sys.stderr.write(
            f"\nclients: {found['statuses']}, {found['events']} events, {found['left']} left, {found['ended']} sent away\n"
        )
        return edits

    def send_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.send()
            time.sleep(0.02)

    def progress(self, readers: Process, posts: Process) -> bool:
        """Whether all clients have been there, some have left, and some posts were answered; records go on coming."""
        self.send_for(0.2)
        return {"ready", "event", "leaves"} <= set(readers.output().split()) and bool(posts.output().split())

    def put(self, name: str, number: int) -> None:
        """Change the plugin of a route; every fifth time it is another one in its place."""
        mine: dict[str, Any] = {"bootstrap_servers": self.cluster.servers}
        if name == "events":
            plugin = "kafka-consume"
            mine |= {"topics": [{"name": self.read}], "mode": "server-sent-events", "window_records": 50 + number % 7}
        else:
            plugin = "kafka-upstream"
            mine |= {"topic": self.written, "producer_async": False, "producer_linger": number % 7}
        path = f"/routes/{name}/plugins"
        plugins = self.kong.admin("GET", path).json["data"]
        if plugins and number % 10 < 8:
            answer = self.kong.admin("PATCH", f"{path}/{plugins[0]['id']}", json={"config": mine})
            self.assertEqual(answer.status, 200)
            return
        for each in plugins:
            self.assertEqual(self.kong.admin("DELETE", f"{path}/{each['id']}").status, 204)
        self.kong.create(path, name=plugin, config=mine)

    def send(self) -> None:
        """A record for the clients."""
        partition, number = self.sent % PARTITIONS, self.sent // PARTITIONS
        value = f"{partition} {number} {int(time.monotonic() * 1e6)}".encode()
        self.sending.append((number, self.producer.send(self.read, value=value, partition=partition)))
        self.sent += 1

    def readers(self) -> tuple[Process, Path]:
        report = Path(self.folder(), "report.json")
        wanted = {
            "ports": [self.kong.proxy_port],
            "path": "/events",
            "clients": CLIENTS,
            "ends": [-1] * PARTITIONS,
            "stays": 2.0,
        }
        return self.begin("readers", "tests.live.kafka_readers", str(report), json.dumps(wanted)), report

    def posts(self) -> tuple[Process, Path]:
        report = Path(self.folder(), "report.json")
        words = (str(self.kong.proxy_port), "/posts", "4", "1000000000", str(PATIENCE), str(report))
        return self.begin("posts", "tests.live.kafka_posts", *words), report

    def begin(self, name: str, *words: str) -> Process:
        return self.start([sys.executable, "-m", *words], name, env={"PYTHONPATH": str(ROOT)})

    def finish(self, process: Process) -> None:
        process.signal(15)
        self.assertEqual(process.wait(PATIENCE), 0, process.output())

    def check_posts(self, results: list[tuple[str, int, int, int, float]]) -> None:
        """What was acknowledged is where the answer says."""
        counts = Counter(each[1] for each in results)
        self.assertEqual((counts[HUNG], counts[CUT]), (0, 0))
        self.assertGreater(counts[200], 0)
        there = {
            (each.partition, each.offset): json.loads(each.value)["body_args"]["name"]
            for each in topic_records(self.cluster, self.written)
        }
        for name, status, partition, offset, _ in results:
            if status == 200:
                self.assertEqual(there.get((partition, offset)), name)
        sys.stderr.write(f"\nposts: {dict(counts)}\n")

    def settled(self, before: dict[str, int] | None) -> dict[str, int]:
        """What the gateway holds once nothing is under way, and that this is what it held before."""

        def quiet() -> bool:
            now = held(self.kong)
            return broker_connections(self.cluster, self.kong) <= 1 and (
                before is None
                or (now["files"] <= before["files"] + THREADS and now["threads"] <= before["threads"] + THREADS)
            )

        try:
            wait_until(quiet, "nothing left", PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"before {before}, now {held(self.kong)}") from error
        if before is None:
            time.sleep(2)  # what ends by itself
        return held(self.kong)


def held(gateway: GatewayProcess) -> dict[str, int]:
    """Open files, threads and bytes of memory of all processes of a gateway."""
    found: Counter[str] = Counter()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == gateway.pid:
                found["files"] += len(os.listdir(stat.parent / "fd"))
                found["threads"] += int(fields[17])
                found["memory"] += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return dict(found)
