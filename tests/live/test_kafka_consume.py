"""The kafka-consume plugin in whole gateways, in front of Apache Kafka."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import NewTopic  # type: ignore[attr-defined]

from kongtwist.core.chain.host_kafka import KafkaConnection
from kongtwist.kafka.connection_settings import client_options
from tests.live.kafka_server import KafkaCluster, shared_cluster
from tests.live.support import EventStream, GatewayProcess, LiveTestCase, free_port, group_sockets, wait_until

PARTITIONS = 3


class _Topics(LiveTestCase):
    """Gateways with a route ``/events`` that tells a topic of its own."""

    def setUp(self) -> None:
        self.cluster = self.brokers()
        self.options = client_options(KafkaConnection(tuple(self.cluster.servers.split(","))))
        self.topic = f"events-{uuid.uuid4().hex[:8]}"
        self.admin = KafkaAdminClient(bootstrap_servers=self.options["bootstrap_servers"])
        self.addCleanup(self.admin.close)
        self.admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])
        self.producer = KafkaProducer(**self.options)
        self.addCleanup(self.producer.close, 10)

    def brokers(self) -> KafkaCluster:
        """Where the topic is."""
        return shared_cluster()

    def begin(self, **config: Any) -> GatewayProcess:
        """A gateway whose one worker serves the topic."""
        gateway = self.gateway({"nginx_worker_processes": 1})
        self.configure(gateway, **config)
        return gateway

    def configure(self, gateway: GatewayProcess, **config: Any) -> None:
        """The route and the plugin."""
        route = gateway.create("/routes", name="events", paths=["/events"])
        given = {
            "bootstrap_servers": self.cluster.servers,
            "topics": [{"name": self.topic}],
            "mode": "server-sent-events",
        }
        gateway.create(f"/routes/{route['id']}/plugins", name="kafka-consume", config={**given, **config})
        wait_until(lambda: gateway.get("/events", headers={"Last-Event-ID": "!"}).status in (400, 426), "the plugin")

    def send(self, numbers: Iterable[int], size: int = 0, key: bytes | None = None) -> None:
        """Records whose values are these numbers, one partition after the other."""
        sent = [
            self.producer.send(self.topic, value=b"%d%b" % (n, b" " * size), key=key, partition=n % PARTITIONS)
            for n in numbers
        ]
        for each in sent:
            each.get(60)

    def stream(self, gateway: GatewayProcess, last: str | None = None) -> EventStream:
        """A client of the route, which has been told where it stands."""
        stream = EventStream(gateway.proxy_port, "/events", {"Last-Event-ID": last} if last else None)
        self.addCleanup(stream.close)
        self.assertEqual(stream.status, 200)
        return stream

    def assertNumbers(self, events: Iterable[dict[str, str]], numbers: Iterable[int]) -> None:
        """The events are these numbers, each once, in order in each partition."""
        wanted = list(numbers)
        got = [int(each["data"]) for each in islice(events, len(wanted))]
        for partition in range(PARTITIONS):
            self.assertEqual(
                [n for n in got if n % PARTITIONS == partition], [n for n in wanted if n % PARTITIONS == partition]
            )

    def connections(self, gateway: GatewayProcess) -> int:
        """How many connections the gateway has to the broker."""
        ports = {int(each.rpartition(":")[2]) for each in self.cluster.servers.split(",")}
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        inodes = {each[9] for each in lines if int(each[2].rpartition(":")[2], 16) in ports}
        return len(inodes & group_sockets(gateway.pid))


def first_line(stream: EventStream) -> str:
    """The position that a client is told before anything else."""
    line = stream._line()
    assert line is not None and line.startswith("id: "), line
    stream._line()
    return line[4:]


class EventStreamTests(_Topics):
    def test_order_two_clients(self) -> None:
        gateway = self.begin()
        self.send(range(5))
        one, two = self.stream(gateway), self.stream(gateway)
        self.assertEqual(one.headers["Content-Type"], "text/event-stream")
        first_line(one), first_line(two)
        self.send(range(5, 305))
        self.assertNumbers(one, range(5, 305))
        self.assertNumbers(two, range(5, 305))

    def test_resume_in_the_window(self) -> None:
        gateway = self.begin()
        stream = self.stream(gateway)
        first_line(stream)
        self.send(range(50))
        early = [next(stream) for _ in range(20)]
        stream.close()
        other = self.stream(gateway, early[-1]["id"])
        self.assertNumbers([*early, *islice(other, 30)], range(50))
        self.send(range(50, 60))
        self.assertNumbers(other, range(50, 60))

    def test_resume_past_the_window_and_on_another_node(self) -> None:
        gateway = self.begin(window_records=5)
        stream = self.stream(gateway)
        start = first_line(stream)
        self.send(range(100))
        early = [next(stream) for _ in range(20)]
        self.assertNumbers([*early, *islice(stream, 80)], range(100))
        again = self.stream(gateway, early[-1]["id"])
        self.assertNumbers([*early, *islice(again, 80)], range(100))
        other = self.begin()
        there = self.stream(other, early[-1]["id"])
        self.assertNumbers([*early, *islice(there, 80)], range(100))
        self.send(range(100, 130))
        for each in (again, there, self.stream(other, start)):
            self.assertNumbers(each, range(130) if each not in (again, there) else range(100, 130))

    def test_earliest_timestamp_and_record_form(self) -> None:
        self.send(range(10))
        gateway = self.begin(auto_offset_reset="earliest", event_data="record", message_deserializer="json")
        stream = self.stream(gateway)
        records = [json.loads(each["data"]) for each in islice(stream, 10)]
        self.assertEqual({each["value"] for each in records}, set(range(10)))
        self.assertEqual({each["topic"] for each in records}, {self.topic})
        later = max(each["timestamp"] for each in records) + 1
        wait_until(lambda: self._after(later), "the clock")
        other = self.begin(start_timestamp=later)
        self.send(range(10, 20))
        self.assertNumbers(self.stream(other), range(10, 20))

    @staticmethod
    def _after(moment: int) -> bool:
        return time.time() * 1000 > moment + 10

    def test_filters(self) -> None:
        gateway = self.begin(filters=[{"pointer": "/type", "equals": "order"}, {"pointer": "/id", "prefix": "a"}])
        stream = self.stream(gateway)
        first_line(stream)
        for value in (b"x", b'{"type":"order","id":"b1"}', b'{"type":"user","id":"a1"}', b'{"type":"order","id":"a1"}'):
            self.producer.send(self.topic, value=value, partition=0).get(60)
        self.assertEqual(json.loads(next(stream)["data"]), {"type": "order", "id": "a1"})

    def test_retention_has_taken_it(self) -> None:
        gateway = self.begin()
        stream = self.stream(gateway)
        start = first_line(stream)
        self.send(range(30))
        self.assertNumbers(stream, range(30))
        self.admin.delete_records({TopicPartition(self.topic, 0): 4})
        other = self.begin()
        again = self.stream(other, start)
        notice = next(again)
        self.assertEqual(notice["event"], "resync")
        self.assertEqual(json.loads(notice["data"])["reason"], "retention")
        self.assertNumbers(again, [n for n in range(30) if n % 3 or n >= 12])

    def beside(self, gateway: GatewayProcess) -> tuple[EventStream, int]:
        """A client that reads nothing while another one has read all: the slow one, and how many events there were."""
        slow, fast = self.stream(gateway), self.stream(gateway)
        first_line(slow), first_line(fast)
        count = 400
        for at in range(0, count, 10):  # 16 MB, more than all buffers on the way
            self.send(range(at, at + 10), 40_000)
            self.assertNumbers(fast, range(at, at + 10))
        return slow, count

    def test_slow_client_beside_a_fast_one(self) -> None:
        slow, count = self.beside(self.begin(window_bytes=1 << 20))
        self.assertNumbers(slow, range(count))

    def test_slow_client_is_disconnected(self) -> None:
        gateway = self.begin(window_bytes=1 << 20, slow_client="disconnect")
        slow, count = self.beside(gateway)
        got = list(slow)  # it has an end
        self.assertLess(len(got), count)
        rest = self.stream(gateway, got[-1]["id"])
        self.assertNumbers([*got, *islice(rest, count - len(got))], range(count))

    def test_no_consumer_is_left(self) -> None:
        gateway = self.begin()
        streams = [self.stream(gateway) for _ in range(20)]
        for each in streams:
            first_line(each)
        self.send(range(3))
        for each in streams:
            self.assertNumbers(each, range(3))
        self.assertIn(self.connections(gateway), range(1, 4))  # of one consumer, not of twenty
        for each in streams:
            each.close()
        wait_until(lambda: self.connections(gateway) == 0, "no consumer")

    def test_the_gateway_stops(self) -> None:
        gateway = self.begin()
        stream = self.stream(gateway)
        first_line(stream)
        self.send(range(3))
        self.assertNumbers(stream, range(3))
        gateway.stop()
        self.assertEqual(list(stream), [])  # it has ended, and was not cut

    def test_broker_is_killed_and_comes_back(self) -> None:
        cluster = KafkaCluster(self.folder())
        self.addCleanup(cluster.kill_all)
        cluster.start()
        options = client_options(KafkaConnection(tuple(cluster.servers.split(","))))
        producer = KafkaProducer(**options, delivery_timeout_ms=120_000)
        self.addCleanup(producer.close, 10)
        producer.send(self.topic, b"0").get(60)
        gateway = self.begin(bootstrap_servers=cluster.servers)
        stream = self.stream(gateway)
        first_line(stream)
        producer.send(self.topic, b"1").get(60)
        self.assertEqual(next(stream)["data"], "1")
        cluster.kill()
        cluster.restart()
        producer.send(self.topic, b"2").get(90)
        self.assertEqual(next(stream)["data"], "2")


class FailureTests(_Topics):
    def test_unknown_topic_and_no_broker(self) -> None:
        gateway = self.begin(topics=[{"name": "nowhere"}])
        answer = gateway.get("/events")
        self.assertEqual((answer.status, answer.json["message"]), (404, "No such topic"))
        self.assertIn("the cluster has no topic 'nowhere'", gateway.log())
        self.assertNotIn("nowhere", self.admin.list_topics())
        other = self.begin(bootstrap_servers=f"127.0.0.1:{free_port()}", timeout=2000)
        self.assertEqual(other.get("/events").status, 503)
        wait_until(lambda: "connection refused" in other.log(), "the cause")

    def test_bad_positions(self) -> None:
        gateway = self.begin()
        for bad in ("x", f"{self.topic}:01", f"{self.topic}:1,{self.topic}:2", f"{self.topic}:-1", "a" * 20000):
            self.assertIn(gateway.get("/events", headers={"Last-Event-ID": bad}).status, (400, 494))
        stream = self.stream(gateway, "another:1.2.3")
        self.assertEqual(json.loads(next(stream)["data"])["reason"], "topics")
        stream = self.stream(gateway, f"{self.topic}:99.0.0")
        self.assertEqual(json.loads(next(stream)["data"])["reason"], "recreated")


class FetchTests(_Topics):
    def test_batches(self) -> None:
        self.send(range(30))
        gateway = self.begin(mode="http-get", auto_offset_reset="earliest", fetch_records=20)
        values: list[int] = []
        first = gateway.get("/events")
        self.assertEqual(first.status, 200)
        position = first.headers["X-Kong-Kafka-Position"]
        values += self._values(first.json)
        while len(values) < 30:
            values += self._values(gateway.get("/events").json)
        self.assertEqual(sorted(values), list(range(30)))
        again: list[int] = self._values(first.json)
        while len(again) < 30:
            answer = gateway.get("/events", headers={"Last-Event-ID": position})
            position = answer.headers["X-Kong-Kafka-Position"]
            again += self._values(answer.json)
        self.assertEqual(sorted(again), list(range(30)))
        self.assertEqual(gateway.get("/events").json, {})

    def test_several_at_once_and_no_more(self) -> None:
        self.send(range(3))
        gateway = self.gateway({"nginx_worker_processes": 1, "plugin_kafka_fetches": 3})
        self.configure(gateway, mode="http-get", fetch_wait=60_000)
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(self._fetch_unrefused, gateway, f"{self.topic}:1.1.1") for _ in range(2)]
            logged = "fetch records at once"
            self.assertEqual(self._values(self._fetch_unrefused(gateway, f"{self.topic}:0.1.1").json), [0])
            refused = wait_until(lambda: self._refused(gateway), "a refusal")
            self.assertEqual(refused.json["message"], "Too many requests read topics at once")
            self.assertEqual(refused.headers["Retry-After"], "1")
            wait_until(lambda: logged in gateway.log(), "a line of the log")
            self.assertFalse(any(each.done() for each in waiting))
            self.send([3])
            for each in waiting:
                self.assertEqual(self._values(each.result().json), [3])

    def _fetch(self, gateway: GatewayProcess, position: str) -> Any:
        return gateway.get("/events", headers={"Last-Event-ID": position})

    def _fetch_unrefused(self, gateway: GatewayProcess, position: str) -> Any:
        """The same, again until it is not refused."""

        def answer() -> Any:
            got = self._fetch(gateway, position)
            return None if got.status == 503 else got

        return wait_until(answer, "a place")

    def _refused(self, gateway: GatewayProcess) -> Any:
        """The answer to one of some requests at once that was refused."""
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: self._fetch(gateway, f"{self.topic}:0.1.1"), range(8)))
        return next((each for each in answers if each.status == 503), None)

    def _values(self, body: Any) -> list[int]:
        parts = body.get(self.topic, {"partitions": {}})["partitions"].values()
        return [int(each["value"]) for part in parts for each in part["records"]]
