"""Ids of topics for consumers of librdkafka: how many clients ask for them, and what becomes of failures."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError as RdKafkaError
from confluent_kafka import KafkaException

from kongtwist.core.chain.host_kafka import KafkaConnection
from kongtwist.kafka import librdkafka_topic_ids
from kongtwist.kafka.libraries import LIBRDKAFKA, consumer_opener
from kongtwist.kafka.librdkafka_topic_ids import TopicIds
from kongtwist.kafka.topic_consumers import partitions_of
from tests.live.kafka_kit import create_topic
from tests.live.kafka_server import shared_cluster
from tests.live.support import LiveTestCase, free_port, wait_until


class LibrdkafkaTopicIdTests(LiveTestCase):
    """That library's consumers tell no ids: one client tells them to all consumers of a connection."""

    def clients(self) -> int:
        """Clients of the library in this process. Their threads begin with the name of the one that counts, and take their own soon."""
        return sum(_name_of(each) == "rdk:main" for each in Path("/proc/self/task").iterdir())

    def test_one_for_all(self) -> None:
        cluster = shared_cluster()
        topic, before = create_topic(cluster), self.clients()
        opened = consumer_opener(LIBRDKAFKA)
        consumers = [opened(KafkaConnection((cluster.servers,)), (), 20.0) for _ in range(5)]
        try:
            wait_until(lambda: self.clients() - before == 5, "one client each: nobody has asked for an id")
            for each in consumers:
                partitions_of(each, (topic,))
            wait_until(lambda: self.clients() - before == 6, "one more for all")
            self.assertEqual(len({each.topic_ids((topic,))[topic] for each in consumers}), 1)
            for each in consumers[:4]:
                each.close()
                each.close()
            wait_until(lambda: self.clients() - before == 2, "the last consumer's clients")
            self.assertEqual(len(consumers[4].topic_ids((topic,))), 1)
        finally:
            for each in consumers:
                each.close()
        wait_until(lambda: self.clients() == before, "the end of all clients")

    def test_not_told(self) -> None:
        """Where brokers do not tell, reading goes on all the same, and nobody waits a second time before they have told something."""
        cluster = shared_cluster()
        topic = create_topic(cluster)
        options = {"bootstrap.servers": f"127.0.0.1:{free_port()}", "log_level": 0}
        ids = TopicIds(options)
        self.addCleanup(ids.close)
        self.patch(librdkafka_topic_ids, "_ANSWER", 0.2)
        ids.ask(topic)
        self.assertEqual((ids.known((topic,)), ids._is_silent), ({}, True))
        self.patch(librdkafka_topic_ids, "_ANSWER", 1000.0)
        ids.ask(topic)  # would take as long
        options["bootstrap.servers"] = cluster.servers
        ids.close()

        def told() -> bool:
            ids.expire()
            return bool(ids.known((topic,)))

        wait_until(told, "an id")
        self.assertFalse(ids._is_silent)


class LibrdkafkaTopicIdFailureTests(LiveTestCase):
    """What is asked again."""

    def asked(self, *codes: int | None) -> tuple[TopicIds, int]:
        """Ask once, where the library fails with these codes, one after the other. Returns how often it was asked."""
        ids, left = TopicIds({}), list(codes)

        def look(topics: list[str]) -> list[Future[Any]]:
            code, told = left.pop(0), Future[Any]()
            told.set_result(None) if code is None else told.set_exception(KafkaException(RdKafkaError(code)))
            return [told]

        self.patch(ids, "_look", look)
        ids.ask("t")
        return ids, len(codes) - len(left)

    def test_a_broker_that_goes_while_it_is_asked(self) -> None:
        ids, count = self.asked(RdKafkaError._DESTROY, None)
        self.assertEqual((ids._is_silent, count), (False, 2))
        ids, count = self.asked(RdKafkaError._DESTROY, RdKafkaError._DESTROY)
        self.assertEqual((ids._is_silent, count), (True, 2))

    def test_what_is_certain_and_what_takes_long_is_not_asked_again(self) -> None:
        for code, silent in ((RdKafkaError.UNKNOWN_TOPIC_OR_PART, False), (RdKafkaError._TIMED_OUT, True)):
            ids, count = self.asked(code, None)
            self.assertEqual((ids._is_silent, count), (silent, 1))


def _name_of(task: Path) -> str:
    try:
        return (task / "comm").read_text().strip()
    except OSError:  # it has ended
        return ""
