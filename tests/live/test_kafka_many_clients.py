"""Thousands of clients on one topic of twelve partitions, who leave and come back, also to another node; and one who hardly reads.

    KAFKA_CLIENTS=5000 KAFKA_RECORDS=500 KAFKA_LEAVES=1000 python -m twisted.trial tests.live.test_kafka_many_clients

``KAFKA_CLIENTS``: event streams at a time. ``KAFKA_RECORDS``: records of each partition. ``KAFKA_LEAVES``: how often a client leaves
and comes back with its last id. ``KAFKA_PACE``: records a second. ``KAFKA_SLOW=0``: nobody reads slowly, to compare latencies with.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from kongtwist.core.chain.host_kafka import KafkaConnection
from kongtwist.kafka.connection_settings import client_options
from tests.live.kafka_kit import broker_connections, create_topic
from tests.live.kafka_server import KafkaCluster, shared_cluster
from tests.live.support import ROOT, GatewayProcess, LiveTestCase, Process, wait_until

PARTITIONS = 12
_MOST = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 500
CLIENTS = min(int(os.environ.get("KAFKA_CLIENTS") or 5000), _MOST if _MOST > 0 else 1 << 20)
RECORDS = int(os.environ.get("KAFKA_RECORDS") or 10)
LEAVES = int(os.environ.get("KAFKA_LEAVES") or 300)
PACE = int(os.environ.get("KAFKA_PACE") or 60)
WINDOW = int(os.environ.get("KAFKA_WINDOW") or 60)
SLOW = int(os.environ.get("KAFKA_SLOW") or 1)
PATIENCE = 300.0
"""Seconds that anything may take."""


class ManyClientsTests(LiveTestCase):
    def setUp(self) -> None:
        self.cluster: KafkaCluster = shared_cluster()
        self.topic = create_topic(self.cluster, PARTITIONS)
        self.producer = KafkaProducer(**client_options(KafkaConnection(tuple(self.cluster.servers.split(",")))))
        self.addCleanup(self.producer.close, 10)

    def test_they_leave_and_come_back(self) -> None:
        """Each gets every record of each partition once and in order, wherever it comes back."""
        gateways = [self.begin(window_records=WINDOW), self.begin(window_records=WINDOW)]
        readers, report = self.readers(gateways, CLIENTS, leaves=LEAVES)
        for gateway in gateways:  # of one consumer, for all the clients
            wait_until(lambda gateway=gateway: broker_connections(self.cluster, gateway) in range(1, 4), "one consumer")  # type: ignore[misc]
        found = self.played(readers, report)
        self.assertEqual(found["left"], LEAVES)
        self.assertGreater(found["elsewhere"], 0)
        for gateway in gateways:
            wait_until(lambda gateway=gateway: broker_connections(self.cluster, gateway) == 0, "no consumer")  # type: ignore[misc]

    def test_one_that_hardly_reads(self) -> None:
        """It keeps nothing from the others, and has its connection all the time."""
        gateway = self.begin(window_records=100)
        readers, report = self.readers([gateway], min(1000, CLIENTS), slow=SLOW)
        found = self.played(readers, report, filler=4000)  # more than the kernel takes for it
        self.assertGreaterEqual(found["slow_bytes"], SLOW)

    # -- what happens --------------------------------------------------------------------------------------------------

    def begin(self, **config: Any) -> GatewayProcess:
        """A gateway whose one worker serves the topic."""
        gateway = self.gateway({"nginx_worker_processes": 1})
        route = gateway.create("/routes", name="events", paths=["/events"])
        given = {
            "bootstrap_servers": self.cluster.servers,
            "topics": [{"name": self.topic}],
            "mode": "server-sent-events",
        }
        gateway.create(f"/routes/{route['id']}/plugins", name="kafka-consume", config={**given, **config})
        wait_until(lambda: gateway.get("/events", headers={"Last-Event-ID": "!"}).status == 400, "the plugin")
        return gateway

    def readers(self, gateways: list[GatewayProcess], clients: int, **others: Any) -> tuple[Process, Path]:
        """The clients, who have been told where they stand; and where they report."""
        report = Path(self.folder(), "report.json")
        wanted = {
            "ports": [each.proxy_port for each in gateways], "path": "/events", "clients": clients,
            "ends": [RECORDS] * PARTITIONS, **others,
        }  # fmt: skip
        words = [sys.executable, "-m", "tests.live.kafka_readers", str(report), json.dumps(wanted)]
        readers = self.start(words, "readers", env={"PYTHONPATH": str(ROOT)})
        self.wait_for(readers, "ready")
        return readers, report

    def played(self, readers: Process, report: Path, filler: int = 0) -> dict[str, Any]:
        """Have records come, and the clients leave; what they have found, which has to be everything."""
        self.send(filler)
        self.wait_for(readers, "done", report)
        readers.signal(15)
        self.wait_for(readers, "left")
        found: dict[str, Any] = json.loads(report.read_text())
        sys.stderr.write(f"\nclients: {found}\n")
        self.assertEqual((found["errors"], found["ended"], found["behind"]), ([], 0, []))
        self.assertEqual(list(found["statuses"]), ["200"])
        return found

    def wait_for(self, readers: Process, word: str, report: Path | None = None) -> None:
        """Wait for what the clients print."""

        def printed() -> bool:
            if not readers.running and word != "left":
                raise AssertionError(f"the clients ended: {readers.output()}")
            return word in readers.output().split()

        try:
            wait_until(printed, word, PATIENCE)
        except AssertionError as error:
            readers.signal(15)
            wait_until(lambda: not readers.running, "their end")
            raise AssertionError(f"{error}: {report.read_text() if report else ''}") from error

    def send(self, filler: int) -> None:
        """All records, some at a time; each with this many bytes beside what it says."""
        begun = time.monotonic()
        for number in range(RECORDS):
            for partition in range(PARTITIONS):
                at = (number * PARTITIONS + partition) / PACE - (time.monotonic() - begun)
                if at > 0:
                    time.sleep(at)
                value = f"{partition} {number} {int(time.monotonic() * 1e6)}{' ' * filler}".encode()
                self.producer.send(self.topic, value=value, partition=partition)
        self.producer.flush(60)
