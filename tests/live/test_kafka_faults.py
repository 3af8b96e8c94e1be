"""Faults of kafka-python that are worked around where clients are made. Each is still there; where the first half of a test fails, the
work-around can go, and setup.cfg asks for that version. Those that are mended inside the library: tests/unit/kafka/test_repairs.py."""

from __future__ import annotations

import threading
from typing import Any

import kafka.producer.kafka as producer_module
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaTimeoutError
from kafka.net.compat import KafkaNetClient

from kongtwist.core.chain.host_kafka import KafkaConnection, KafkaFailed, KafkaPlaced, KafkaProducing, KafkaRecord
from kongtwist.kafka.kafka_producer import KafkaPythonProducer
from kongtwist.kafka.producer_client import Outcome
from kongtwist.kafka.topic_consumers import close_consumer, open_consumer
from tests.live.kafka_kit import create_topic
from tests.live.kafka_server import shared_cluster
from tests.live.support import LiveTestCase, free_port, wait_until


def _io_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name.startswith("kafka-")}


class FaultTests(LiveTestCase):
    def setUp(self) -> None:
        self.servers = shared_cluster().servers
        logger = producer_module.log
        self.addCleanup(setattr, producer_module, "log", logger)

    def test_consumer_that_cannot_be_made(self) -> None:
        """It leaves a thread, and its descriptors."""
        made: list[Any] = []

        def kept(**words: Any) -> Any:
            made.append(KafkaNetClient(**words))
            return made[-1]

        before, nobody = _io_threads(), f"127.0.0.1:{free_port()}"
        words = {"bootstrap_servers": nobody, "bootstrap_timeout_ms": 300}
        self.assertRaises(KafkaTimeoutError, KafkaConsumer, kafka_client=kept, **words)
        self.assertTrue(_io_threads() - before, "kafka-python no longer needs its clients to be closed")
        made[0].close()
        self.assertRaises(KafkaFailed, open_consumer, KafkaConnection((nobody,)), (), 0.5)
        wait_until(lambda: not _io_threads() - before, "the end of all threads")

    def test_creation(self) -> None:
        """The setting that forbids the creation of topics is passed over."""
        consumer: Any = KafkaConsumer(bootstrap_servers=self.servers, allow_auto_create_topics=False)
        self.addCleanup(consumer.close)
        setting = "allow_auto_create_topics"
        self.assertTrue(consumer._client.cluster.config[setting], "kafka-python no longer needs it set behind")
        ours = open_consumer(KafkaConnection((self.servers,)), (), 20.0)
        self.addCleanup(close_consumer, ours)
        self.assertFalse(ours._client.cluster.config[setting])

    def test_closing_with_records(self) -> None:
        """A producer that has records left is not closed at all."""
        topic = create_topic(shared_cluster())
        theirs: Any = KafkaProducer(bootstrap_servers=self.servers, linger_ms=60_000)
        theirs.send(topic, b"x")
        self.assertRaises(KafkaTimeoutError, theirs.close, 0)
        self.assertTrue(theirs._sender.is_alive(), "kafka-python no longer needs force_close")
        theirs._sender.force_close()
        theirs._sender.wakeup()
        theirs._sender.join(10)
        theirs._closed = True

        ours = KafkaPythonProducer(KafkaProducing(KafkaConnection((self.servers,)), linger=60_000))
        wait_until(lambda: ours.knows(topic), topic)
        outcomes: list[Outcome] = []
        ours.send(KafkaRecord(topic, b"x"), outcomes.append)
        ours.close(0)
        self.assertFalse(ours._sender.is_alive())
        wait_until(lambda: len(outcomes) == 1, "the record's fate")

    def test_logger(self) -> None:
        """A producer that is collected takes the logger away from all others."""
        logger = producer_module.log
        theirs: Any = KafkaProducer(bootstrap_servers=self.servers)
        theirs.__del__()
        self.assertIsNot(producer_module.log, logger, "kafka-python no longer needs a producer without __del__")
        producer_module.log = logger
        ours = KafkaPythonProducer(KafkaProducing(KafkaConnection((self.servers,))))
        ours._producer.__del__()
        self.assertIs(producer_module.log, logger)
        ours.close(5)

    def test_offsets_without_acknowledgement(self) -> None:
        """An offset is made up where nobody acknowledges."""
        topic = create_topic(shared_cluster())
        theirs = KafkaProducer(bootstrap_servers=self.servers, acks=0, enable_idempotence=False)
        self.addCleanup(theirs.close, 5)
        self.assertGreaterEqual(theirs.send(topic, b"x").get(30).offset, 0, "kafka-python makes up no offset any more")
        ours = KafkaPythonProducer(KafkaProducing(KafkaConnection((self.servers,)), acks=0))
        self.addCleanup(ours.close, 5)
        wait_until(lambda: ours.knows(topic), topic)
        outcomes: list[Outcome] = []
        ours.send(KafkaRecord(topic, b"x"), outcomes.append)
        wait_until(lambda: outcomes == [KafkaPlaced(topic, 0, -1)], "the record's fate")
