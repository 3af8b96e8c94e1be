"""What both libraries that speak with Kafka have to do, with Apache Kafka: one contract, run for each of them."""

from __future__ import annotations

import base64
import json
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from kongtwist.core.chain.host_basics import TLSSettings
from kongtwist.core.chain.host_kafka import (
    KafkaConnection,
    KafkaFailed,
    KafkaOAuth,
    KafkaPlaced,
    KafkaProducing,
    KafkaRecord,
)
from kongtwist.core.chain.host_reading import StartAt, TopicRecord, UnknownTopic
from kongtwist.kafka.libraries import KAFKA_PYTHON, LIBRDKAFKA, consumer_opener, made_producer
from kongtwist.kafka.positions import Position
from kongtwist.kafka.producer_client import Outcome, ProducerClient
from kongtwist.kafka.repairs import topic_ids
from kongtwist.kafka.topic_consumers import begin_at, ends_of, partitions_of, records_of, seek_all
from tests.live.kafka_kit import (
    JSON,
    create_topic,
    delete_records,
    kafka_route,
    new_topic,
    recreate_topic,
    topic_records,
)
from tests.live.kafka_server import USER, KafkaCluster, shared_cluster
from tests.live.support import EventStream, LiveTestCase, free_port, request, wait_until
from tests.live.token_endpoint import TokenEndpoint

_mortal: list[KafkaCluster] = []


def mortal_cluster() -> KafkaCluster:
    """A broker that tests of this module kill, and start again. It creates no topics by itself."""
    if not _mortal:
        folder = tempfile.mkdtemp(prefix="kongtwist-kafka-")
        _mortal.append(KafkaCluster(folder, settings={"auto.create.topics.enable": "false"}))
        _mortal[0].start()
    return _mortal[0]


def tearDownModule() -> None:
    for each in _mortal:
        each.kill_all()
    _mortal.clear()


class Sent:
    """Records given to a producer, and what became of each."""

    def __init__(self, producer: ProducerClient) -> None:
        self.producer = producer
        self.outcomes: dict[int, Outcome] = {}
        self._came = threading.Condition()

    def send(self, number: int, record: KafkaRecord) -> None:
        self.producer.send(record, partial(self._done, number))

    def _done(self, number: int, outcome: Outcome) -> None:
        with self._came:
            assert number not in self.outcomes, "an outcome came twice"
            self.outcomes[number] = outcome
            self._came.notify_all()

    def wait(self, count: int, seconds: float = 60.0) -> list[Outcome]:
        """Outcomes of the first ``count`` records, in their order."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.outcomes) >= count, seconds), self.outcomes
        return [self.outcomes[number] for number in range(count)]


class _Case(LiveTestCase):
    """What all parts of the contract need.

    Attributes:
        library: which one has to do it.
    """

    library: str

    def setUp(self) -> None:
        self.cluster: KafkaCluster = shared_cluster()

    def plain(self) -> KafkaConnection:
        return KafkaConnection((self.cluster.servers,))

    def producer(
        self, connection: KafkaConnection | None = None, authorities: tuple[str, ...] = (), **settings: Any
    ) -> ProducerClient:
        """A producer; it is closed when the test has ended."""
        made = made_producer(self.library, KafkaProducing(connection or self.plain(), **settings), authorities)
        self.addCleanup(made.close, 5)
        return made

    def sent(self, producer: ProducerClient, *records: KafkaRecord) -> list[Outcome]:
        """What becomes of records for topics that exist, or are created."""
        for topic in {each.topic for each in records}:
            wait_until(partial(producer.knows, topic), f"the topic {topic}", 60)
        sent = Sent(producer)
        for number, record in enumerate(records):
            sent.send(number, record)
        return sent.wait(len(records))

    def consumer(self, connection: KafkaConnection | None = None, authorities: tuple[str, ...] = ()) -> Any:
        made = consumer_opener(self.library)(connection or self.plain(), authorities, 20.0)
        self.addCleanup(made.close, 2000)
        return made

    def refused(self, connection: KafkaConnection, authorities: tuple[str, ...], part: str) -> None:
        """Producers and consumers say why they cannot be made. They try again and again, as the gateway does."""
        make: Callable[[], Any]
        for make in (
            lambda: made_producer(self.library, KafkaProducing(connection), authorities).close(0),
            lambda: consumer_opener(self.library)(connection, authorities, 2.0).close(),
        ):

            def told(make: Callable[[], Any] = make) -> bool:
                error = self.assertRaises(KafkaFailed, make)
                return part in f"{error}; {getattr(error, 'remedy', '')}"

            wait_until(told, part)


class ProducerContract(_Case):
    def test_placed(self) -> None:
        """Outcomes say where records are; all parts of a record are there, a key always in one partition."""
        topic = create_topic(self.cluster, 3)
        records = [
            KafkaRecord(topic, b"%d" % number, b"k%d" % (number % 7), (("a", b"1"), ("a", b"2")))
            for number in range(100)
        ]
        records.append(KafkaRecord(topic, b"chosen", None, (), 2))
        placed = self.sent(self.producer(linger=5), *records)
        found = {(each.partition, each.offset): each for each in topic_records(self.cluster, topic)}
        for record, place in zip(records, placed, strict=True):
            assert isinstance(place, KafkaPlaced), place
            there = found.pop((place.partition, place.offset))
            self.assertEqual((place.topic, there.value, there.key), (topic, record.value, record.key))
            self.assertEqual(list(there.headers), list(record.headers))
        self.assertEqual(found, {})
        self.assertEqual(placed[-1].partition, 2)  # type: ignore[union-attr]

    def test_keys_go_where_others_put_them(self) -> None:
        """Both libraries, and Java's, put a key into the same partition."""
        topic = create_topic(self.cluster, 7)
        keys = [b"key-%d" % number for number in range(20)]
        placed = self.sent(self.producer(), *(KafkaRecord(topic, b"v", key) for key in keys))
        other = KafkaProducer(bootstrap_servers=self.cluster.servers)
        self.addCleanup(other.close, 5)
        wanted = [other.send(topic, b"v", key).get(60).partition for key in keys]
        self.assertEqual([each.partition for each in placed], wanted)  # type: ignore[union-attr]

    def test_acks_and_compression(self) -> None:
        topic = create_topic(self.cluster)
        for acks in (-1, 1, 0):
            (placed,) = self.sent(self.producer(acks=acks), KafkaRecord(topic, b"acks"))
            assert isinstance(placed, KafkaPlaced), placed
            self.assertEqual(placed.offset >= 0, acks != 0)
        (placed,) = self.sent(self.producer(compression="gzip"), KafkaRecord(topic, b"z" * 1000))
        self.assertIsInstance(placed, KafkaPlaced)
        wait_until(lambda: len(topic_records(self.cluster, topic)) == 4, "all records")
        self.assertIn(b"z" * 1000, [each.value for each in topic_records(self.cluster, topic)])

    def test_too_large(self) -> None:
        """It is refused with its remedy, and others pass."""
        topic = create_topic(self.cluster)
        producer = self.producer(largest=2048)
        wait_until(partial(producer.knows, topic), topic)
        large, small = self.sent(producer, KafkaRecord(topic, b"x" * 4000), KafkaRecord(topic, b"x"))
        assert isinstance(large, KafkaFailed)
        self.assertIn("producer_request_limits_bytes_per_request", large.remedy)
        self.assertIsInstance(small, KafkaPlaced)

    def test_no_such_partition(self) -> None:
        topic = create_topic(self.cluster)
        wrong, right = self.sent(
            self.producer(), KafkaRecord(topic, b"x", partition=9), KafkaRecord(topic, b"x", partition=0)
        )
        assert isinstance(wrong, KafkaFailed)
        self.assertEqual((wrong.kind, wrong.sent), ("no_partition", False))
        self.assertIsInstance(right, KafkaPlaced)

    def test_topics(self) -> None:
        """A topic is created where brokers do that, else it is not known, until there is one."""
        wait_until(partial(self.producer().knows, new_topic()), "a topic that is created")
        cluster = mortal_cluster()
        producer = self.producer(KafkaConnection((cluster.servers,)))
        topic = new_topic()
        self.assertIsNone(producer.knows(topic))
        wait_until(lambda: producer.knows(topic) is False, "an answer")
        producer.forget(topic)
        create_topic(cluster, name=topic)
        wait_until(partial(producer.knows, topic), "a topic that was created meanwhile")

    def test_closing_sends_what_waits(self) -> None:
        topic = create_topic(self.cluster)
        producer = self.producer(linger=5000)
        wait_until(partial(producer.knows, topic), topic)
        sent = Sent(producer)
        for number in range(20):
            sent.send(number, KafkaRecord(topic, b"%d" % number))
        producer.close(30)
        self.assertEqual([each.offset for each in sent.wait(20, 0)], list(range(20)))  # type: ignore[union-attr]

    def test_closing_without_a_broker(self) -> None:
        """What waits fails, soon, and no thread is left."""
        cluster = mortal_cluster()
        topic = create_topic(cluster)
        before = threading.active_count()
        producer = self.producer(KafkaConnection((cluster.servers,)))
        wait_until(partial(producer.knows, topic), topic)
        cluster.kill()
        try:
            sent = Sent(producer)
            sent.send(0, KafkaRecord(topic, b"lost"))
            producer.close(0.5)
            (outcome,) = sent.wait(1, 10)
            self.assertIsInstance(outcome, KafkaFailed)
            wait_until(lambda: threading.active_count() <= before, "the end of its threads")
        finally:
            cluster.restart()


class OutageContract(_Case):
    def setUp(self) -> None:
        self.cluster = mortal_cluster()

    def test_killed_and_back(self) -> None:
        """Every record is there exactly once, in order; meanwhile the cause is told."""
        topic = create_topic(self.cluster)
        producer = self.producer(acks=-1)
        wait_until(partial(producer.knows, topic), topic)
        sent = Sent(producer)
        for number in range(100):
            sent.send(number, KafkaRecord(topic, b"%d" % number))
        self.cluster.kill()
        for number in range(100, 200):
            sent.send(number, KafkaRecord(topic, b"%d" % number))
        causes: list[str] = []

        def told() -> bool:
            cause = producer.cause()
            causes.append("" if cause is None else cause.text)
            return any("connection refused" in each for each in causes)

        wait_until(told, "the cause")
        self.cluster.restart()
        outcomes = sent.wait(200, 120)
        self.assertEqual({type(each) for each in outcomes}, {KafkaPlaced})
        self.assertFalse(producer.broken)
        there = topic_records(self.cluster, topic)
        self.assertEqual([each.value for each in there], [b"%d" % number for number in range(200)])
        self.assertEqual([each.offset for each in outcomes], list(range(200)))  # type: ignore[union-attr]

    def test_standing_still(self) -> None:
        """A broker that does not answer is asked again, and has each record once."""
        topic = create_topic(self.cluster)
        producer = self.producer(acks=-1, request_timeout=1500)
        (first,) = self.sent(producer, KafkaRecord(topic, b"0"))
        self.assertIsInstance(first, KafkaPlaced)
        self.cluster.signal(signal.SIGSTOP)
        try:
            sent = Sent(producer)
            for number in range(10):
                sent.send(number, KafkaRecord(topic, b"%d" % (number + 1)))
            wait_until(lambda: producer.cause() is not None, "a cause")
        finally:
            self.cluster.signal(signal.SIGCONT)
        sent.wait(10)
        values = [each.value for each in topic_records(self.cluster, topic)]
        self.assertEqual(values, [b"%d" % number for number in range(11)])

    def test_consumer(self) -> None:
        """It goes on where it was when the broker is back."""
        topic = create_topic(self.cluster)
        consumer = self.consumer()
        seek_all(consumer, Position({topic: [0]}))
        self.sent(self.producer(), KafkaRecord(topic, b"before"))
        self.assertEqual(_values(consumer, 1), [b"before"])
        self.cluster.kill()
        try:
            self.assertEqual(records_of(consumer.poll(timeout_ms=500)), [])
        finally:
            self.cluster.restart()
        self.sent(self.producer(), KafkaRecord(topic, b"behind"))
        self.assertEqual(_values(consumer, 1), [b"behind"])


class ConnectionContract(_Case):
    def _sasl(self, **options: Any) -> KafkaConnection:
        user, password = USER
        given = {"username": user, "password": password, **options}
        return KafkaConnection((self.cluster.listener("SASL_PLAINTEXT"),), **given)

    def works(self, connection: KafkaConnection, authorities: tuple[str, ...] = ()) -> None:
        """Records are sent and read over it."""
        topic = create_topic(self.cluster)
        (placed,) = self.sent(self.producer(connection, authorities), KafkaRecord(topic, b"x"))
        self.assertIsInstance(placed, KafkaPlaced)
        consumer = self.consumer(connection, authorities)
        seek_all(consumer, Position({topic: [0]}))
        self.assertEqual(_values(consumer, 1), [b"x"])

    def test_logins(self) -> None:
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
            self.works(self._sasl(mechanism=mechanism))

    def test_token(self) -> None:
        endpoint = TokenEndpoint()
        self.addCleanup(endpoint.stop)
        oauth = KafkaOAuth(endpoint.url, "kong", "s e", scopes=("a", "b"))
        self.works(self._sasl(mechanism="OAUTHBEARER", oauth=oauth))
        user = base64.b64encode(b"kong:s%20e").decode()
        wanted = f"Basic {user} grant_type=client_credentials&scope=a+b"
        self.assertEqual(endpoint.asked, [wanted] * 2)  # one token serves all connections of a client

    def test_tls(self) -> None:
        servers = (self.cluster.listener("SSL"),)
        self.works(KafkaConnection(servers, tls=TLSSettings(verify=True)), (self.cluster.ca.pem,))
        self.works(KafkaConnection(servers, tls=TLSSettings(verify=False)))

    def test_nobody_there(self) -> None:
        self.refused(KafkaConnection((f"127.0.0.1:{free_port()}",)), (), "connection refused")

    def test_no_such_name(self) -> None:
        self.refused(KafkaConnection(("kafka.invalid:9092",)), (), "cannot be resolved")

    def test_login_refused(self) -> None:
        for mechanism in ("PLAIN", "SCRAM-SHA-256"):
            self.refused(self._sasl(mechanism=mechanism, password="wrong"), (), "login refused")

    def test_not_trusted(self) -> None:
        self.refused(KafkaConnection((self.cluster.listener("SSL"),), tls=TLSSettings(verify=True)), (), "not trusted")

    def test_no_tls_there(self) -> None:
        self.refused(KafkaConnection((self.cluster.servers,), tls=TLSSettings()), (), "config.security")

    def test_tls_there(self) -> None:
        self.refused(KafkaConnection((self.cluster.listener("SSL"),)), (), "config.security")


class ConsumerContract(_Case):
    def filled(self, count: int = 30, partitions: int = 3) -> str:
        """A topic with records whose values are numbers, one partition after the other."""
        topic = create_topic(self.cluster, partitions)
        records = [KafkaRecord(topic, b"%d" % n, b"k", (("h", b"1"),), n % partitions) for n in range(count)]
        self.sent(self.producer(), *records)
        return topic

    def test_from_offsets(self) -> None:
        """All parts of records, in order of each partition; seeking goes anywhere, and back."""
        topic = self.filled()
        consumer = self.consumer()
        for first in (4, 0, 9):
            seek_all(consumer, Position({topic: [first] * 3}))
            found = _read(consumer, (10 - first) * 3)
            for number in range(3):
                mine = [each for each in found if each.partition == number]
                self.assertEqual([each.offset for each in mine], list(range(first, 10)))
                self.assertEqual([int(each.value or b"") for each in mine], list(range(first * 3 + number, 30, 3)))
        record = found[0]
        self.assertEqual((record.topic, record.key, record.headers), (topic, b"k", (("h", b"1"),)))
        self.assertLess(abs(record.timestamp / 1000 - time.time()), 600)
        self.assertEqual({consumer.highwater(TopicPartition(topic, number)) for number in range(3)}, {10})

    def test_beginnings(self) -> None:
        """From the beginning, from the end, from a time, from a position."""
        topic = self.filled()
        consumer = self.consumer()
        for start, wanted in (
            (StartAt(earliest=True), [0, 0, 0]),
            (StartAt(), [10, 10, 10]),
            (StartAt(timestamp=0), [0, 0, 0]),
            (StartAt(timestamp=int(time.time() * 1000) + 3_600_000), [10, 10, 10]),
            (StartAt(f"{topic}:3.4.5".encode()), [3, 4, 5]),
        ):
            position, gaps = begin_at(consumer, (topic,), start, 20.0)
            self.assertEqual((position.offsets[topic], gaps), (wanted, []))
        partitions = partitions_of(consumer, (topic,))
        self.assertEqual(set(ends_of(consumer, partitions, 20.0).values()), {10})

    def test_latest(self) -> None:
        """What comes behind the end is read, and nothing before it."""
        topic = self.filled(3, 1)
        consumer = self.consumer()
        seek_all(consumer, Position({topic: [None]}))
        consumer.poll(timeout_ms=2000)
        partition = TopicPartition(topic, 0)
        wait_until(
            lambda: consumer.poll(timeout_ms=200) is not None and consumer.position(partition, 0) == 3, "the end"
        )
        self.sent(self.producer(), KafkaRecord(topic, b"new"))
        self.assertEqual(_values(consumer, 1), [b"new"])

    def test_unknown_topic(self) -> None:
        """It is not created either."""
        consumer, name = self.consumer(), new_topic()
        for _ in range(2):
            self.assertRaises(UnknownTopic, partitions_of, consumer, (name,))

    def test_retention(self) -> None:
        """Offsets that are gone are told, and reading goes on elsewhere."""
        topic = self.filled(10, 1)
        delete_records(self.cluster, topic, 0, 4)
        consumer = self.consumer()
        seek_all(consumer, Position({topic: [1]}))

        def told() -> bool:
            try:
                consumer.poll(timeout_ms=500)
            except OffsetOutOfRangeError:
                return True
            return False

        wait_until(told, "the gap")
        position, gaps = begin_at(consumer, (topic,), StartAt(f"{topic}:1".encode()), 20.0)
        self.assertEqual(([reason for reason, _ in gaps], position.offsets[topic]), (["retention"], [4]))
        seek_all(consumer, position)
        self.assertEqual(_values(consumer, 6), [b"%d" % number for number in range(4, 10)])

    def test_made_anew(self) -> None:
        """A topic with more records than before is another all the same: where it is begun, and while it is read."""
        topic = self.filled(10, 1)
        consumer = self.consumer()
        at, _ = begin_at(consumer, (topic,), StartAt(f"{topic}:8".encode()), 20.0)
        seek_all(consumer, at)
        self.assertEqual(_values(consumer, 2), [b"8", b"9"])
        self.assertEqual(at.topics_of_others(topic_ids(consumer, (topic,))), [])
        recreate_topic(self.cluster, topic)
        self.sent(self.producer(), *(KafkaRecord(topic, b"new %d" % number) for number in range(20)))

        def is_known() -> bool:
            try:
                consumer.poll(timeout_ms=200)
            except KafkaError:
                return True  # it is made anew, and asks
            return at.topics_of_others(topic_ids(consumer, (topic,))) == [topic]

        wait_until(is_known, "another topic", 60)
        again = self.consumer()
        position, gaps = begin_at(again, (topic,), StartAt(bytes(at)), 20.0)
        self.assertEqual(([reason for reason, _ in gaps], position.offsets), (["recreated"], {topic: [0]}))
        other = consumer_opener(KAFKA_PYTHON)(self.plain(), (), 20.0)
        self.addCleanup(other.close, 2000)
        partitions_of(other, (topic,))
        self.assertEqual(topic_ids(other, (topic,)), position.marks)  # whatever library a node has

    def test_aborted_transactions(self) -> None:
        """Their records are not shown, and the position passes them."""
        topic = create_topic(self.cluster)
        writer = KafkaProducer(bootstrap_servers=self.cluster.servers, transactional_id=f"t-{uuid.uuid4().hex}")
        self.addCleanup(writer.close, 5)
        writer.init_transactions()
        for value in (b"kept", b"aborted"):
            writer.begin_transaction()
            writer.send(topic, value)
            writer.flush(30)
            writer.commit_transaction() if value == b"kept" else writer.abort_transaction()
        consumer = self.consumer()
        seek_all(consumer, Position({topic: [0]}))
        self.assertEqual(_values(consumer, 1), [b"kept"])
        partition = TopicPartition(topic, 0)

        def passed() -> bool:
            assert not consumer.poll(timeout_ms=200)
            return bool(consumer.position(partition, timeout_ms=0) == 4)

        wait_until(passed, "the end behind the aborted record")
        self.assertEqual(consumer.end_offsets([partition], timeout_ms=20_000), {partition: 4})

    def test_without_a_broker(self) -> None:
        """Questions fail in their time."""
        consumer = self.consumer()
        topic = create_topic(self.cluster)
        self.assertRaises(KafkaError, consumer.end_offsets, [TopicPartition(topic, 7)], 1500)


class LibraryChoiceTests(LiveTestCase):
    """``plugin_kafka_client`` in a whole gateway."""

    def test_librdkafka(self) -> None:
        """Both plugins go through the library that was chosen."""
        cluster = shared_cluster()
        topic = create_topic(cluster)
        gateway = self.gateway({"plugin_kafka_client": LIBRDKAFKA, "nginx_worker_processes": 1})
        kafka_route(gateway, cluster.servers, topic=topic)
        route = gateway.create("/routes", name="live", paths=["/live"])
        config = {"bootstrap_servers": cluster.servers, "topics": [{"name": topic}], "mode": "server-sent-events"}
        gateway.create(f"/routes/{route['id']}/plugins", name="kafka-consume", config=config)
        wait_until(lambda: gateway.get("/live", headers={"Last-Event-ID": "!"}).status == 400, "the plugin")
        stream = EventStream(gateway.proxy_port, "/live", {"Last-Event-ID": f"{topic}:0"})
        self.addCleanup(stream.close)
        for number in range(5):
            answer = request(gateway.proxy_port, "POST", "/events", headers=JSON, body=b'{"n": %d}' % number)
            self.assertEqual((answer.status, answer.json["offset"]), (200, number))
        told = [json.loads(next(stream)["data"])["body_args"] for _ in range(5)]
        self.assertEqual(told, [{"n": number} for number in range(5)])
        threads = {each.read_text().strip() for each in Path("/proc").glob(f"{gateway.pid}/task/*/comm")}
        self.assertTrue(any(name.startswith("rdk:") for name in threads), threads)


def _read(consumer: Any, count: int) -> list[TopicRecord]:
    """As many records."""
    found: list[TopicRecord] = []

    def come() -> bool:
        found.extend(records_of(consumer.poll(timeout_ms=500, max_records=7)))
        return len(found) >= count

    wait_until(come, f"{count} records", 60)
    return found


def _values(consumer: Any, count: int) -> list[bytes | None]:
    return [each.value for each in _read(consumer, count)]


for _library, _word in ((KAFKA_PYTHON, "KafkaPython"), (LIBRDKAFKA, "Librdkafka")):
    for _contract in (ProducerContract, OutageContract, ConnectionContract, ConsumerContract):
        _name = f"{_word}{_contract.__name__.removesuffix('Contract')}Tests"
        globals()[_name] = type(_name, (_contract,), {"library": _library, "__module__": __name__})
del ProducerContract, OutageContract, ConnectionContract, ConsumerContract, _contract  # nothing runs them by themselves
