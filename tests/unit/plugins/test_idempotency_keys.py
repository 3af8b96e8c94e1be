"""kafka-upstream: the record of requests with one key is in the topic once, whoever asks again, wherever."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_kafka import KafkaFailed, KafkaFull, KafkaLate
from kongtwist.core.chain.host_schemas import SchemaMismatch
from kongtwist.entities import EntityError
from kongtwist.plugins.kafka_upstream import KafkaUpstream
from kongtwist.plugins.kafka_upstream.idempotency_keys import KeyRefused, key_of
from kongtwist.testing import Outcome, PluginHarness
from tests.unit.plugins.test_kafka_streams import Client, placed

REDIS = {"host": "redis.internal"}


class Server:
    """Does what the plugin's scripts do."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.times: list[str] = []

    def run(self, script: bytes, keys: list[Any], args: list[Any]) -> Any:
        (key,) = keys
        held = self.values.get(key)
        if b"return held" in script:
            if held is None:
                self.values[key] = args[0]
                self.times.append(args[1])
            return held
        if b"DEL" in script:
            if held == args[0]:
                del self.values[key]
        elif held is None or held == args[0]:
            self.values[key] = args[1]
            self.times.append(args[2])
        return 1


class Node:
    """A gateway in a process of its own."""

    def __init__(self, server: Server | None, **config: Any) -> None:
        idempotency = {"redis": None if server is None else REDIS, **config.pop("idempotency", {})}
        given = {"bootstrap_servers": "kafka:9092", "topic": "events", "producer_async": False, "timeout": 2000}
        self.harness = PluginHarness(KafkaUpstream, **{**given, "idempotency": idempotency, **config})
        (self.producer,) = self.harness.host.producers.values()
        if server is not None:
            (self.redis,) = self.harness.host.redises.values()
            self.redis.run = server.run

    def post(self, body: bytes = b"{}", key: str | None = '"k-1"', target: str = "/") -> Outcome:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.harness.send("POST", target, headers, body)

    def told(self, body: bytes = b"{}", key: str | None = '"k-1"', target: str = "/") -> tuple[int, Any]:
        return told(self.post(body, key, target))


def told(outcome: Outcome) -> tuple[int, Any]:
    assert outcome.answer is not None, "no answer yet"
    return outcome.answer.status, outcome.answer_json


LATE = (500, {"message": "Bad Gateway", "error": "could not send message to topic"})


class MemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.node = Node(None)
        self.producer = self.node.producer

    def test_once(self) -> None:
        for _ in range(3):
            self.assertEqual(self.node.told(), (200, placed(0)))
        self.assertEqual(self.node.told(key="k-2"), (200, placed(1)))
        self.assertEqual(self.node.told(key=None), (200, placed(2)))
        self.assertEqual(len(self.producer.records), 3)

    def test_attached_to_the_record_under_way(self) -> None:
        self.producer.held = True
        outcomes = [self.node.post() for _ in range(3)]
        self.assertEqual(len(self.producer.records), 1)
        self.producer.acknowledge()
        self.assertEqual([told(each) for each in outcomes], [(200, placed(0))] * 3)

    def test_client_that_leaves(self) -> None:
        """Takes nothing back: its retry finds the record."""
        self.producer.held = True
        outcome = self.node.post()
        self.node.harness.leave(outcome)
        again = self.node.post()
        self.producer.acknowledge()
        self.assertEqual(told(again), (200, placed(0)))
        self.assertEqual(len(self.producer.records), 1)

    def test_another_request(self) -> None:
        used = {"message": "Unprocessable Content", "error": "this key was used for another request"}
        self.producer.held = True
        self.node.post()
        self.assertEqual(self.node.told(b"[]"), (422, used))
        self.producer.acknowledge()
        self.assertEqual(self.node.told(b"[]"), (422, used))
        self.assertEqual(self.node.told(target="/?x=1"), (422, used))
        self.assertEqual(len(self.producer.records), 1)

    def test_other_clients(self) -> None:
        """Their keys are others."""
        for name in ("alice", "bob", "alice"):
            exchange = self.node.harness.request("POST", "/", {"Idempotency-Key": "k"}, name.encode())
            exchange.consumer = {"id": "c", "username": name}
            self.node.harness.run(exchange)
        self.assertEqual(len(self.producer.records), 2)

    def test_time_is_over(self) -> None:
        self.node = Node(None, idempotency={"ttl": 60})
        self.node.told()
        self.node.harness.advance(59)
        self.assertEqual(self.node.told(), (200, placed(0)))
        self.node.harness.advance(2)
        self.assertEqual(self.node.told(), (200, placed(1)))

    def test_bounded(self) -> None:
        keys = self.node.harness.plugin._keys
        keys.most = 10
        for number in range(100):
            self.node.told(key=f"k-{number}")
        self.assertEqual((len(keys.kept), keys.pending), (10, {}))
        self.assertEqual(self.node.told(key="k-99"), (200, placed(99)))

    def test_failure_is_forgotten(self) -> None:
        """What certainly is not in the topic is sent when it is asked for again."""
        for error, status in (
            (KafkaFailed("too large"), 500), (KafkaLate("not sent"), 500), (KafkaFull("full"), 503),
        ):  # fmt: skip
            self.node = Node(None)
            self.node.producer.fails = error
            self.assertEqual(self.node.told()[0], status)
            self.node.producer.fails = None
            self.assertEqual(self.node.told(), (200, placed(0)))

    def test_schemas(self) -> None:
        """What could not be written was not sent."""
        registry = {"confluent": {"url": "http://registry:8081", "value_schema": {"subject_name": "events"}}}
        for is_async, good in ((False, 200), (True, 202)):
            self.node = Node(None, schema_registry=registry, producer_async=is_async)
            (schemas,) = self.node.harness.host.registries.values()
            schemas.fails = SchemaMismatch("does not fit")
            self.assertEqual(self.node.told()[0], 400)
            schemas.fails = None
            self.assertEqual([self.node.told()[0] for _ in range(2)], [good] * 2)
            self.assertEqual(len(self.node.producer.records), 1)

    def test_late(self) -> None:
        """What may be in the topic is not sent again; whoever asks is told when it is known."""
        self.producer.held = True
        outcome = self.node.post()
        self.producer.late()
        self.assertEqual(told(outcome), LATE)
        again = self.node.post()
        self.node.harness.advance(2)
        self.assertEqual(told(again), LATE)
        again = self.node.post()
        self.producer.acknowledge()
        self.assertEqual(told(again), (200, placed(0)))
        self.assertEqual(self.node.told(), (200, placed(0)))
        self.assertEqual(len(self.producer.records), 1)

    def test_nobody_can_tell(self) -> None:
        self.producer.fails = KafkaFailed("the library gave up", sent=True)
        self.assertEqual(self.node.told(), LATE)
        self.producer.fails = None
        said = "nobody can tell whether the record of this key is in the topic"
        self.assertEqual(self.node.told(), (409, {"message": "Conflict", "error": said}))
        self.assertEqual(self.producer.records, [])

    def test_background(self) -> None:
        self.node = Node(None, producer_async=True)
        self.node.producer.held = True
        for _ in range(2):
            self.assertEqual(self.node.told(), (202, {"message": "message sent"}))
        self.node.producer.acknowledge()
        self.assertEqual(self.node.told(), (202, {"message": "message sent"}))
        self.assertEqual(len(self.node.producer.records), 1)

    def test_several_topics(self) -> None:
        """Each has it once, also where a part of the first request failed."""
        self.node = Node(None, topics_query_arg="to", allowed_topics=["a", "b"])
        self.node.producer.held = True
        outcome = self.node.post(target="/?to=a,b")
        self.node.producer.acknowledge()
        self.node.producer.refuse(KafkaFailed("refused"))
        self.assertEqual(told(outcome)[0], 500)
        self.node.producer.held = False
        self.assertEqual(self.node.told(target="/?to=a,b")[0], 200)
        self.assertEqual([each.topic for each in self.node.producer.records], ["a", "b", "b"])

    def test_lines(self) -> None:
        """A body that is sent again adds only what was missing."""
        self.node = Node(None, allow_ndjson=True)
        harness = self.node.harness
        case: Any = type("Case", (), {"harness": harness, "addCleanup": self.addCleanup})
        headers = {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked", "Idempotency-Key": "k"}
        for body in (b"1\n2\n", b"1\n2\n3\n"):
            client = Client(case, headers=headers)
            client.send(body)
            client.end()
            self.assertEqual(client.read(), [placed(number) for number in range(body.count(b"\n"))])
        self.assertEqual(len(self.node.producer.records), 3)

    def test_closing_waits(self) -> None:
        self.producer.held = True
        self.node.post()
        closing = self.node.harness.plugin.close(self.node.harness.conf)
        self.assertIsNotNone(closing)
        closing.close()
        self.producer.acknowledge()
        self.assertIsNone(self.node.harness.plugin.close(self.node.harness.conf))


class RedisTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.one, self.other = Node(self.server), Node(self.server)

    def test_on_any_node(self) -> None:
        self.assertEqual(self.one.told(), (200, placed(0)))
        self.assertEqual(self.other.told(), (200, placed(0)))
        self.assertEqual(self.other.told(b"[]")[0], 422)
        self.assertEqual(self.other.producer.records, [])
        self.assertEqual(self.server.times, ["86400000"] * 2)

    def test_under_way_on_another(self) -> None:
        self.one.producer.held = True
        first = self.one.post()
        second = self.other.post()
        self.other.harness.advance(1)
        self.assertIsNone(second.answer)
        self.one.producer.acknowledge()
        self.other.harness.advance(1)
        self.assertEqual([told(first), told(second)], [(200, placed(0))] * 2)
        self.assertEqual(self.other.producer.records, [])

    def test_other_node_is_gone(self) -> None:
        """Nobody can tell what became of its record."""
        self.one.producer.held = True
        self.one.post()
        again = self.other.post()
        for _ in range(30):
            self.other.harness.advance(0.1)
        said = "a request with this key is under way, and may be in the topic"
        self.assertEqual(told(again), (409, {"message": "Conflict", "error": said}))
        self.assertEqual(self.other.producer.records, [])

    def test_failed_on_another(self) -> None:
        """What failed for certain there is sent here, for who waits already."""
        self.one.producer.held = True
        self.one.post()
        again = self.other.post()
        self.one.producer.refuse(KafkaFailed("refused"))
        self.other.harness.advance(1)
        self.assertEqual(told(again), (200, placed(0)))
        self.assertEqual(len(self.other.producer.records), 1)

    def test_away(self) -> None:
        """Nothing is sent that may have been sent before; what it may have written down is taken away when it is back."""
        self.one.redis.away = True
        status, said = self.one.told()
        self.assertEqual((status, said["message"]), (503, "Service unavailable"))
        self.assertEqual(self.one.producer.records, [])
        self.assertIn("redis", self.one.harness.reports[0])
        self.one.redis.away = False
        self.one.harness.advance(1)
        self.assertEqual(self.one.told(), (200, placed(0)))

    def test_away_behind_it(self) -> None:
        """The outcome is written when it is back."""
        self.one.producer.held = True
        outcome = self.one.post()
        self.one.redis.away = True
        self.one.producer.acknowledge()
        self.assertEqual(told(outcome), (200, placed(0)))
        self.one.redis.away = False
        self.one.harness.advance(1)
        self.assertEqual(self.other.told(), (200, placed(0)))

    def test_what_waits_for_it_is_bounded(self) -> None:
        self.one.harness.conf.once._store._most = 5
        self.one.producer.held = True
        for number in range(20):
            self.one.post(key=f"k-{number}")
        self.one.redis.away = True
        self.one.producer.acknowledge(20)
        self.assertLessEqual(len(self.one.harness.conf.once._store._unwritten), 5)
        self.assertIn("given up", self.one.harness.reports[0])


class FieldTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for value, key in (
            (b'"8e03978e"', "8e03978e"), (b"8e03978e-40d5", "8e03978e-40d5"), (b' "a b" ', "a b"), (b'"a\\"b\\\\"', 'a"b\\'),
            (b'"k";p=1', "k"), (b"x" * 255, "x" * 255),
        ):  # fmt: skip
            self.assertEqual(key_of([value], "K"), key)
        self.assertIsNone(key_of([], "K"))
        for values in (
            [b""],
            [b'""'],
            [b'"a'],
            [b'a"'],
            [b"a b"],
            [b"x" * 256],
            ["ä".encode()],
            [b"a", b"a"],
            [b"a,b"],
        ):
            self.assertRaises(KeyRefused, key_of, values, "K")

    def test_required(self) -> None:
        node = Node(None, idempotency={"required": True, "header": "X-Once"})
        said = {"message": "Bad Request", "error": "X-Once is missing"}
        self.assertEqual(node.told(), (400, said))
        outcome = node.harness.send("POST", "/", {"X-Once": "k"}, b"{}")
        self.assertEqual(told(outcome), (200, placed(0)))

    def test_refused(self) -> None:
        wrong: dict[str, Any]
        for wrong in ({"header": "a b"}, {"ttl": 0}, {"redis": {"port": 1}}, {"redis": {}}):
            self.assertRaises(EntityError, Node, None, idempotency=wrong)

    def test_not_asked_for(self) -> None:
        harness = PluginHarness(KafkaUpstream, bootstrap_servers="k:1", topic="t", producer_async=False)
        for _ in range(2):
            harness.send("POST", "/", {"Idempotency-Key": "k"}, b"{}")
        (producer,) = harness.host.producers.values()
        self.assertEqual(len(producer.records), 2)
        self.assertNotIn("idempotency", harness.row["config"])

    def test_closed_meanwhile(self) -> None:
        """A record that was not sent is nobody's any more when the plugin goes."""
        server = Server()
        one, other = Node(server), Node(server)
        one.producer.held = True
        one.post()
        waiting = other.post()
        other.harness.host.tasks.popitem()[1].cancel()
        self.assertEqual(told(waiting)[0], 500)
        self.assertEqual(other.harness.plugin._keys.pending, {})
