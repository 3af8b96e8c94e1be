"""What befalls the Kafka plugins beside traffic: odd requests, topics that are deleted and made anew, plugins that come and go."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import takewhile
from typing import Any

from kafka.errors import KafkaError

from kongtwist.kafka.libraries import KAFKA_PYTHON, LIBRDKAFKA
from tests.live.kafka_kit import recreate_topic
from tests.live.support import EventStream, GatewayProcess, request, wait_until
from tests.live.test_kafka_consume import PARTITIONS, _Topics, first_line
from tests.live.test_kafka_groups import _Groups


class _Remaking(_Topics):
    """Topics that are deleted and made anew.

    Attributes:
        library: which one reads them.
    """

    library = KAFKA_PYTHON

    def begin(self, **config: Any) -> GatewayProcess:
        """See `_Topics`."""
        gateway = self.gateway({"nginx_worker_processes": 1, "plugin_kafka_client": self.library})
        self.configure(gateway, **config)
        return gateway

    def remake(self, partitions: int) -> None:
        recreate_topic(self.cluster, self.topic, partitions)

    def send_to_new(self, numbers: Iterable[int]) -> None:
        """To partitions of the new topic, whatever this producer knows of it."""
        for number in numbers:

            def sent(number: int = number) -> bool:
                try:
                    self.producer.send(self.topic, b"%d" % number, partition=number % PARTITIONS).get(20)
                except KafkaError:
                    return False
                return True

            wait_until(sent, "a record in the new topic", 60)


class MadeAnewTests(_Remaking):
    """While clients follow it."""

    def test_fewer_partitions(self) -> None:
        """The stream ends; who comes back with its id is told, and follows what comes."""
        gateway = self.begin()
        stream = self.stream(gateway)
        first_line(stream)
        self.send(range(30))
        events = [next(stream) for _ in range(30)]
        self.remake(1)
        wait_until(lambda: _ended(stream), "the end of the stream", 60)
        again = self.stream(gateway, events[-1]["id"])
        wait_until(lambda: self.producer.partitions_for(self.topic) is not None, "the topic")
        self.producer.send(self.topic, b"new", partition=0).get(60)
        told = list(takewhile(lambda event: event["data"] != "new", again))
        self.assertEqual(
            {(each["event"], json.loads(each["data"])["reason"]) for each in told}, {("resync", "recreated")}
        )

    def test_more_records_than_before(self) -> None:
        """Offsets begin again, and are soon higher than before: no record is passed over, and who follows it is told."""
        gateway = self.begin()
        stream = self.stream(gateway)
        first_line(stream)
        self.send(range(9))
        for _ in range(9):
            next(stream)
        self.remake(PARTITIONS)
        self.send_to_new(range(100, 130))
        self.assertTold(stream, range(100, 130))

    def assertTold(self, stream: Iterable[dict[str, str]], numbers: Iterable[int]) -> list[int]:
        """The client is told that the topic is another, and gets these. Returns all it got."""
        reasons: set[str] = set()
        values: list[int] = []
        wanted = set(numbers)
        for event in stream:
            if event.get("event") == "resync":
                reasons.add(json.loads(event["data"])["reason"])
            else:
                values.append(int(event["data"]))
            if set(values) == wanted and reasons == {"recreated"}:
                return values
        raise AssertionError(f"the stream has ended: {reasons}, {values}")

    def test_back_with_an_id_of_before(self) -> None:
        """Who was away meanwhile is told, and gets all there is: once, as nothing was taken for what follows."""
        gateway = self.begin()
        stream = self.stream(gateway)
        first_line(stream)
        self.send(range(9))
        last = [next(stream) for _ in range(9)][-1]["id"]
        stream.close()
        self.remake(PARTITIONS)
        self.send_to_new(range(100, 130))
        wait_until(lambda: self.connections(gateway) == 0, "the end of reading", 60)
        values = self.assertTold(self.stream(gateway, last), range(100, 130))
        self.assertEqual(len(values), 30)
        without = re.sub("@[^:]*", "", last)
        self.assertNotEqual(without, last)
        old = self.stream(gateway, without)  # an id as former gateways wrote it goes on at its offsets
        self.assertEqual({int(next(old)["data"]) for _ in range(21)}, set(range(109, 130)))

    def test_fetched(self) -> None:
        """Mode http-get goes on with what there is, whether the topic is gone for a while or has fewer partitions afterwards."""
        gateway = self.begin(mode="http-get", auto_offset_reset="earliest", fetch_wait=100)
        found: list[int] = []
        self.send(range(9))
        self.fetch(gateway, found, 9)
        self.remake(1)
        gateway.get("/events")
        wait_until(lambda: self.producer.partitions_for(self.topic) is not None, "the topic")
        for number in (9, 10):
            self.producer.send(self.topic, b"%d" % number, partition=0).get(60)
        self.fetch(gateway, found, 11)
        self.assertEqual(sorted(found), list(range(11)))

    def test_fetched_with_more_records_than_before(self) -> None:
        """No record of the new topic is passed over. Some come twice where they were read before it was known that it is another."""
        gateway = self.begin(mode="http-get", auto_offset_reset="earliest", fetch_wait=100)
        found: list[int] = []
        self.send(range(9))
        self.fetch(gateway, found, 9)
        self.remake(PARTITIONS)
        self.send_to_new(range(100, 130))
        self.fetch(gateway, found, 39)
        self.assertEqual(set(found), {*range(9), *range(100, 130)})

    def fetch(self, gateway: GatewayProcess, found: list[int], count: int) -> None:
        """Have requests get records until there are so many."""

        def enough() -> bool:
            answer = gateway.get("/events")
            self.assertIn(answer.status, (200, 404, 503), answer)
            parts = (
                answer.json.get(self.topic, {"partitions": {}})["partitions"].values() if answer.status == 200 else ()
            )
            found.extend(int(record["value"]) for part in parts for record in part["records"])
            return len(set(found)) >= count

        wait_until(enough, "records", 60)


class LibrdkafkaMadeAnewTests(MadeAnewTests):
    library = LIBRDKAFKA


class GroupMadeAnewTests(_Groups, _Remaking):
    """While a group reads it."""

    def test_read_from_its_beginning(self) -> None:
        """Offsets begin again: its records are others, and all are given."""
        client = self.open(self.begin())
        self.send(range(30))
        self.acknowledge(client, self.take(client, 30))
        self.assertCommitted(10, 10, 10)
        self.remake(PARTITIONS)
        self.send_to_new(range(100, 106))
        got: set[int] = set()
        while got != set(range(100, 106)):
            (message,) = self.take(client, 1)
            got.add(int(message["value"]))
            self.acknowledge(client, [message])


class OddRequestTests(_Topics):
    def test_head_takes_nothing(self) -> None:
        """Records of a topic go to GET, however often HEAD asks before."""
        gateway = self.begin(mode="http-get", fetch_wait=100)
        self.assertEqual(gateway.get("/events").json, {})
        self.send(range(3))
        for _ in range(2):
            self.assertEqual(request(gateway.proxy_port, "HEAD", "/events").status, 200)

        found: list[int] = []

        def read() -> bool:
            for part in gateway.get("/events").json.get(self.topic, {"partitions": {}})["partitions"].values():
                found.extend(int(each["value"]) for each in part["records"])
            return len(found) >= 3

        wait_until(read, "the records")
        self.assertEqual(sorted(found), [0, 1, 2])


def _ended(stream: EventStream) -> bool:
    """Whether a stream that has nothing more to say has ended."""
    try:
        return stream._line() is None
    except (OSError, StopIteration):
        return True
