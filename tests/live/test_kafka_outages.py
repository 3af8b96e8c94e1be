"""Three brokers of which one is killed, others give their leadership away, and all stand still for a while, below many synchronous
requests.

    KAFKA_REQUESTS=20000 KAFKA_AWAY=60 python -m twisted.trial tests.live.test_kafka_outages

``KAFKA_REQUESTS``: requests of all clients together. ``KAFKA_AWAY``: seconds that all brokers stand still.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from tests.live.kafka_kit import JSON, create_topic, kafka_route, topic_records
from tests.live.kafka_posts import CUT, HUNG
from tests.live.kafka_server import KafkaCluster, shared_cluster
from tests.live.support import ROOT, GatewayProcess, LiveTestCase, Process, request, wait_until
from tests.live.test_kafka_groups import _Groups

REQUESTS = int(os.environ.get("KAFKA_REQUESTS") or 2000)
AWAY = float(os.environ.get("KAFKA_AWAY") or 4)
CLIENTS = 64
PARTITIONS = 6
TIMEOUT = 4.0
"""Seconds in which a request is answered, with or without the brokers."""
PATIENCE = 120.0
"""Seconds after which a client counts a request as one that hangs."""
BYTES = 4 << 20
"""Bytes of records that may wait in the gateway (plugin_kafka_bytes)."""
SLACK = 64 << 20
"""Bytes of memory beside these that nobody asks about: the interpreter's, the library's for what it was given."""


def _settings(**others: Any) -> dict[str, Any]:
    return {"timeout": int(TIMEOUT * 1000), "producer_request_acks": -1, **others}


class GroupTests(_Groups):
    """A group whose only broker is killed, and comes back."""

    def brokers(self) -> KafkaCluster:
        cluster = KafkaCluster(self.folder(), 1)
        self.addCleanup(cluster.kill_all)
        return cluster.start()

    def test_broker_killed_under_a_group(self) -> None:
        """No record is missing, and what was acknowledged meanwhile is committed afterwards."""
        client = self.open(self.begin(ack_timeout=600_000))
        self.send(range(30))
        first = self.take(client, 30)
        self.acknowledge(client, first[:10])
        self.cluster.kill()
        self.acknowledge(client, first[10:])
        wait_until(lambda: not self.is_reached(), "the broker's end")
        self.cluster.restart()
        self.admin = KafkaAdminClient(
            bootstrap_servers=self.cluster.servers
        )  # the other one has no connection any more
        self.addCleanup(self.admin.close)
        self.send(range(30, 60))
        got: set[int] = set()
        while not got >= set(range(30, 60)):
            (message,) = self.take(client, 1)
            got.add(int(message["value"]))
            self.acknowledge(client, [message])
        self.assertCommitted(20, 20, 20)

    def is_reached(self) -> bool:
        """Whether the broker listens."""
        try:
            socket.create_connection(("127.0.0.1", int(self.cluster.servers.rpartition(":")[2])), 1).close()
        except OSError:
            return False
        return True


class ThreeBrokersTests(LiveTestCase):
    def setUp(self) -> None:
        self.cluster = KafkaCluster(self.folder(), 3)
        self.addCleanup(self.cluster.kill_all)
        self.cluster.start()
        self.admin = KafkaAdminClient(bootstrap_servers=self.cluster.servers.split(","))
        self.addCleanup(self.admin.close)

    def test_acknowledged_events_are_there_once(self) -> None:
        """Whatever happens to brokers: what was acknowledged is in the topic where the answer says, and nothing is there twice."""
        topic = create_topic(self.cluster, PARTITIONS, 3)
        gateway = self.gateway({"nginx_worker_processes": 1})
        kafka_route(gateway, self.cluster.servers, topic=topic, **_settings())
        report = Path(self.folder(), "report.json")
        posts = self.posts(gateway, report)
        self.reach(posts, 0.1)
        self.cluster.kill(0)
        self.reach(posts, 0.3)
        self.cluster.restart(0)
        self.reach(posts, 0.5)
        self.move_leaders(topic)
        self.reach(posts, 0.7)
        self.stand_still()
        self.assertEqual(posts.wait(600), 0)
        results = json.loads(report.read_text())
        counts = Counter(each[1] for each in results)
        slowest = max(each[4] for each in results)
        sys.stderr.write(f"\nanswers: {dict(counts)}, the slowest after {slowest:.1f} s\n")
        self.assertEqual(len(results), REQUESTS)
        self.assertEqual((counts[HUNG], counts[CUT]), (0, 0))
        self.assertLessEqual(set(counts), {200, 500})
        self.check_topic(topic, results)

    # -- what happens --------------------------------------------------------------------------------------------------

    def posts(self, gateway: GatewayProcess, report: Path) -> Process:
        words = [sys.executable, "-m", "tests.live.kafka_posts", str(gateway.proxy_port), "/events", str(CLIENTS)]
        return self.start(
            [*words, str(REQUESTS), str(PATIENCE), str(report)], "posts", env={"PYTHONPATH": str(ROOT)}
        )  # fmt: skip

    def reach(self, posts: Process, share: float) -> None:
        """Wait until this share of the requests is answered."""

        def reached() -> bool:
            lines = posts.output().split()
            return bool(lines) and int(lines[-1]) >= REQUESTS * share

        wait_until(reached, f"{share:.0%} of the requests", 300)

    def move_leaders(self, topic: str) -> None:
        """Have each partition led by another broker."""
        before = self.leaders(topic)
        wanted = {}
        for number, (leader, replicas) in before.items():
            wanted[TopicPartition(topic, number)] = [*(node for node in replicas if node != leader), leader]
        self.admin.alter_partition_reassignments(wanted)

        def moved() -> bool:
            try:
                self.admin.elect_leaders(0, {topic: [each.partition for each in wanted]})
            except KafkaError:  # a broker that has come back has not caught up yet
                pass
            now = self.leaders(topic)
            return all(now[each.partition][0] == nodes[0] for each, nodes in wanted.items())

        wait_until(moved, "other leaders", 120)

    def leaders(self, topic: str) -> dict[int, tuple[int, list[int]]]:
        """The leader and the replicas of each partition."""
        (told,) = self.admin.describe_topics([topic])
        return {
            each["partition_index"]: (each["leader_id"], list(each["replica_nodes"])) for each in told["partitions"]
        }

    def stand_still(self) -> None:
        """All brokers take connections and answer nothing."""
        for node in range(3):
            self.cluster.signal(signal.SIGSTOP, node)
        time.sleep(AWAY)
        for node in range(3):
            self.cluster.signal(signal.SIGCONT, node)

    def check_topic(self, topic: str, results: list[tuple[str, int, int, int, float]]) -> None:
        places: dict[str, list[tuple[int, int]]] = {}
        for record in topic_records(self.cluster, topic):
            name = json.loads(record.value)["body_args"]["name"]
            places.setdefault(name, []).append((record.partition, record.offset))
        self.assertEqual({name: each for name, each in places.items() if len(each) > 1}, {})
        for name, status, partition, offset, _ in results:
            if status == 200:
                self.assertEqual(places.get(name), [(partition, offset)], name)


class MemoryTests(LiveTestCase):
    def test_memory_is_bounded_while_the_brokers_are_away(self) -> None:
        cluster = shared_cluster()
        topic = create_topic(cluster, PARTITIONS)
        gateway = self.gateway({"nginx_worker_processes": 1, "plugin_kafka_bytes": BYTES})
        kafka_route(gateway, cluster.servers, topic=topic, producer_async=True,
                    producer_async_buffering_limits_messages_in_memory=1_000_000, **_settings())  # fmt: skip

        def post(number: int) -> int:
            body = json.dumps({"name": f"b-{number}", "filler": "x" * 1000}).encode()
            return request(gateway.proxy_port, "POST", "/events", headers=JSON, body=body).status

        self.assertEqual(post(0), 202)
        wait_until(lambda: len(topic_records(cluster, topic)) == 1, "the first record")
        before = self.resident(gateway)
        cluster.signal(signal.SIGSTOP)
        self.addCleanup(cluster.signal, signal.SIGCONT)
        statuses: Counter[int] = Counter()
        until = time.monotonic() + AWAY
        while time.monotonic() < until or not statuses[503]:
            statuses[post(sum(statuses.values()) + 1)] += 1
            self.assertLess(statuses[202] * 1000, 2 * BYTES)
        grown = self.resident(gateway) - before
        cluster.signal(signal.SIGCONT)
        sys.stderr.write(f"\nanswers: {dict(statuses)}, memory grew by {grown >> 20} MB\n")
        self.assertEqual(set(statuses), {202, 503})
        self.assertLess(statuses[202] * 1000, BYTES)
        self.assertLess(grown, BYTES + SLACK)
        cluster.wait()
        wait_until(lambda: self.count(cluster, topic) > statuses[202], "what has waited", 120)
        names = Counter(json.loads(each.value)["body_args"]["name"] for each in topic_records(cluster, topic))
        self.assertEqual((len(names), set(names.values())), (statuses[202] + 1, {1}))

    @staticmethod
    def count(cluster: KafkaCluster, topic: str) -> int:
        """How many records a topic has; 0 while the brokers do not say."""
        try:
            return len(topic_records(cluster, topic))
        except KafkaError:
            return 0

    @staticmethod
    def resident(gateway: GatewayProcess) -> int:
        """Bytes of memory of all processes of the gateway."""
        total = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == gateway.pid:
                total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        return total
