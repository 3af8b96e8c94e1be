"""kafka-consume as a member of consumer groups, in whole gateways, in front of Apache Kafka."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterable
from itertools import islice
from typing import Any

from kafka.admin import NewTopic  # type: ignore[attr-defined]
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.live.kafka_kit import topic_records
from tests.live.support import PATIENCE, Answer, GatewayProcess, request, wait_until
from tests.live.test_kafka_consume import PARTITIONS, _Topics


class _Groups(_Topics):
    """Gateways whose route ``/events`` reads in a group."""

    def setUp(self) -> None:
        super().setUp()
        self.group = f"group-{uuid.uuid4().hex[:8]}"
        self.letters = f"letters-{uuid.uuid4().hex[:8]}"
        self.admin.create_topics([NewTopic(self.letters, 1, 1)])

    def configure(self, gateway: GatewayProcess, **config: Any) -> None:
        given = {
            "mode": "websocket",
            "auto_offset_reset": "earliest",
            "consumer_group": {"mode": "manual", "consumer_group_id": self.group},
            "commit_strategy": "off",
        }
        route = gateway.create("/routes", name="events", paths=["/events"])
        cluster = {"bootstrap_servers": self.cluster.servers, "topics": [{"name": self.topic}]}
        gateway.create(f"/routes/{route['id']}/plugins", name="kafka-consume", config={**cluster, **given, **config})
        wait_until(lambda: self.post(gateway, "/events").status == 405, "the plugin")

    @staticmethod
    def post(gateway: GatewayProcess, path: str, **arguments: Any) -> Answer:
        """What topics are not read with: nothing is joined."""
        return request(gateway.proxy_port, "POST", path, **arguments)

    def open(self, gateway: GatewayProcess, **options: Any) -> ClientConnection:
        """A client that has joined."""
        client: ClientConnection = connect(
            f"ws://127.0.0.1:{gateway.proxy_port}/events", max_size=None, open_timeout=60, **options
        )
        self.addCleanup(client.close)
        return client

    @staticmethod
    def messages(client: ClientConnection) -> Iterable[dict[str, Any]]:
        """Records, as the messages that are no signs of life; raises TimeoutError when none comes."""
        late = time.monotonic() + PATIENCE
        while True:
            message = json.loads(client.recv(max(late - time.monotonic(), 0)))
            if message.get("event") != "alive":
                yield message

    def take(self, client: ClientConnection, count: int) -> list[dict[str, Any]]:
        """The next records."""
        return list(islice(self.messages(client), count))

    @staticmethod
    def say(client: ClientConnection, **said: Any) -> None:
        """Tell what became of records."""
        client.send(json.dumps(said))

    def acknowledge(self, client: ClientConnection, messages: Iterable[dict[str, Any]]) -> None:
        """They are done."""
        self.say(client, ack=[each["id"] for each in messages])

    def members(self) -> int:
        """How many the broker knows."""
        return len(self.admin.describe_groups([self.group])[self.group]["members"])

    def are_all_assigned(self) -> bool:
        """Whether each member the broker knows has partitions, and none is about to join or leave."""
        told = self.admin.describe_groups([self.group])[self.group]
        return told["group_state"] == "Stable" and all(each["member_assignment"] for each in told["members"])

    def committed(self) -> list[int]:
        """The group's offset of each partition; 0 where there is none."""
        told = self.admin.list_group_offsets({self.group: None})[self.group]
        offsets = {each.partition: max(at.offset, 0) for each, at in told.items() if each.topic == self.topic}
        return [offsets.get(number, 0) for number in range(PARTITIONS)]

    def assertCommitted(self, *offsets: int) -> None:
        """These are the group's offsets, soon."""
        wait_until(lambda: self.committed() == list(offsets), f"offsets {offsets}, now {self.committed()}")


def values(messages: Iterable[dict[str, Any]]) -> list[int]:
    """The numbers that records are."""
    return sorted(int(each["value"]) for each in messages)


class AcknowledgementTests(_Groups):
    """Over WebSocket, with ``commit_strategy`` off."""

    def test_committed_when_acknowledged(self) -> None:
        self.send(range(9))
        gateway = self.begin()
        client = self.open(gateway)
        found = self.take(client, 9)
        self.assertEqual({each["delivery"] for each in found}, {1})
        self.assertEqual(values(found), list(range(9)))
        by_value = {int(each["value"]): each for each in found}
        self.acknowledge(client, [by_value[n] for n in (0, 3, 6, 1, 7, 5)])  # 4 and 2 are missing
        self.assertCommitted(3, 1, 0)
        self.acknowledge(client, [by_value[4]])
        self.assertCommitted(3, 3, 0)
        gateway.stop()
        other = self.open(self.begin())
        again = self.take(other, 3)
        self.assertEqual(values(again), [2, 5, 8])  # 5 was behind 2
        self.acknowledge(other, again)
        self.assertCommitted(3, 3, 3)

    def test_what_a_client_leaves_others_get(self) -> None:
        gateway = self.begin()
        one, two = self.open(gateway), self.open(gateway)
        self.send(range(30))
        first = json.loads(one.recv(60))
        self.acknowledge(one, [first])
        one.close()
        found = self.take(two, 29)
        self.assertEqual(sorted([int(first["value"]), *values(found)]), list(range(30)))
        self.acknowledge(two, found)
        self.assertCommitted(10, 10, 10)

    def test_again_and_rejected(self) -> None:
        self.send([0], key=b"k")
        client = self.open(self.begin(enable_dlq=True, dlq_topic=self.letters))
        (message,) = self.take(client, 1)
        self.say(client, nack=message["id"])
        (again,) = self.take(client, 1)
        self.assertEqual((again["id"], again["delivery"]), (message["id"], 2))
        self.say(client, reject=message["id"])
        self.assertCommitted(1, 0, 0)
        (letter,) = topic_records(self.cluster, self.letters)
        self.assertEqual((letter.key, letter.value), (b"k", b"0"))
        told = {name: value.decode() for name, value in letter.headers}
        self.assertEqual(
            told,
            {"kong-dlq-topic": self.topic, "kong-dlq-partition": "0", "kong-dlq-offset": "0",
             "kong-dlq-reason": "rejected by a client"},
        )  # fmt: skip
        self.say(client, ack=[message["id"], f"{self.topic}:2:77"])
        self.assertEqual([json.loads(client.recv(60))["event"] for _ in range(2)], ["unknown"] * 2)

    def test_large_records(self) -> None:
        """Longer than a client's own messages may be."""
        client = self.open(self.begin())
        self.producer.send(self.topic, value=b"x" * 900_000, partition=0).get(60)
        (message,) = self.take(client, 1)
        self.assertEqual(len(message["value"]), 900_000)
        self.acknowledge(client, [message])
        self.assertCommitted(1, 0, 0)

    def test_never_acknowledged(self) -> None:
        self.send([0])
        client = self.open(self.begin(ack_timeout=1000, max_deliveries=2, enable_dlq=True, dlq_topic=self.letters))
        self.assertEqual([each["delivery"] for each in self.take(client, 2)], [1, 2])
        self.assertCommitted(1, 0, 0)
        (letter,) = topic_records(self.cluster, self.letters)
        self.assertIn(b"2 deliveries", dict(letter.headers)["kong-dlq-reason"])

    def test_no_more_than_the_window(self) -> None:
        self.send(range(0, 30, 3))
        client = self.open(self.begin(ack_window=4, ack_timeout=600_000))
        found = self.take(client, 4)
        self.assertEqual(json.loads(client.recv(60)), {"event": "alive"})  # and no record
        self.acknowledge(client, found[:1])
        self.assertEqual([*values(found), *values(self.take(client, 1))], [0, 3, 6, 9, 12])

    def test_nonsense(self) -> None:
        gateway = self.begin()
        for nonsense in ("x", "[]", "{}", '{"ack":1}', '{"ack":"t:0"}', '{"what":"t:0:0"}', b"\xff"):
            client = self.open(gateway)
            client.send(nonsense)
            with self.assertRaises(ConnectionClosed) as closed:
                self.take(client, 1)
            assert closed.exception.rcvd is not None
            self.assertEqual(closed.exception.rcvd.code, 1008)


class MemberTests(_Groups):
    def test_each_record_to_one_client_of_two_nodes(self) -> None:
        nodes = [self.begin(commit_strategy="auto") for _ in range(2)]
        clients = [self.open(nodes[0]), self.open(nodes[0]), self.open(nodes[1])]
        wait_until(lambda: self.members() == 2, "two members, not three")
        wait_until(self.are_all_assigned, "partitions for both")
        got: list[list[dict[str, Any]]] = [[] for _ in clients]

        def read(at: int) -> None:
            try:
                got[at].extend(self.messages(clients[at]))
            except ConnectionClosed:
                pass

        threads = [threading.Thread(target=read, args=(at,)) for at in range(len(clients))]
        for each in threads:
            each.start()
        self.send(range(300))
        wait_until(lambda: len({each["id"] for found in got for each in found}) == 300, "all records")
        self.assertCommitted(100, 100, 100)
        for client in clients:
            client.close()
        for each in threads:
            each.join()
        self.assertEqual(sum(map(len, got)), 300)
        # A member that has one partition gives it to one of its clients.
        self.assertTrue(any(got[:2]) and got[2], [len(found) for found in got])

    def test_nobody_is_left(self) -> None:
        gateway = self.begin()
        for leave in (lambda client: client.close(), lambda client: client.socket.close()):
            client = self.open(gateway)
            wait_until(lambda: self.members() == 1, "a member")
            leave(client)
            wait_until(lambda: self.members() == 0, "no member")
            wait_until(lambda: self.connections(gateway) == 0, "no consumer")
        self.open(gateway)
        wait_until(lambda: self.members() == 1, "a member")
        gateway.stop()
        self.assertEqual(self.members(), 0)

    def test_no_more_groups_than_may_be(self) -> None:
        gateway = self.gateway({"nginx_worker_processes": 1, "plugin_kafka_groups": 1})
        self.configure(gateway)
        route = gateway.create("/routes", name="others", paths=["/others"])
        config = {
            "bootstrap_servers": self.cluster.servers, "topics": [{"name": self.topic}], "mode": "websocket",
            "consumer_group": {"mode": "manual", "consumer_group_id": f"{self.group}-2"},
        }  # fmt: skip
        gateway.create(f"/routes/{route['id']}/plugins", name="kafka-consume", config=config)
        wait_until(lambda: self.post(gateway, "/others").status == 405, "the plugin")
        self.open(gateway)
        with self.assertRaises(InvalidStatus) as refused:
            connect(f"ws://127.0.0.1:{gateway.proxy_port}/others")
        self.assertEqual(refused.exception.response.status_code, 503)
        self.assertEqual(refused.exception.response.headers["Retry-After"], "1")

    def test_a_group_for_each_consumer(self) -> None:
        gateway = self.begin(consumer_group={"mode": "kong_consumer"}, commit_strategy="auto")
        with self.assertRaises(InvalidStatus) as refused:
            self.open(gateway)
        self.assertEqual(refused.exception.response.status_code, 403)
        gateway.create("/routes/events/plugins", name="key-auth")
        for name in ("one", "two"):
            gateway.create("/consumers", username=name)
            gateway.create(f"/consumers/{name}/key-auth", key=name)
        wait_until(lambda: self.post(gateway, "/events", headers={"apikey": "two"}).status == 405, "the consumers")
        self.send(range(6))
        for name in ("one", "two"):
            client = self.open(gateway, additional_headers={"apikey": name})
            self.assertEqual(values(self.take(client, 6)), list(range(6)))

    def test_unknown_topic(self) -> None:
        with self.assertRaises(InvalidStatus) as refused:
            self.open(self.begin(topics=[{"name": "nowhere"}]))
        self.assertEqual(refused.exception.response.status_code, 404)


class _Silence(list[str]):
    """Comments of an event stream, which has to have events between them."""

    def append(self, comment: str) -> None:
        if len(self) == 4:
            raise TimeoutError("no event for a minute")
        super().append(comment)


class OtherModeTests(_Groups):
    def test_event_streams(self) -> None:
        gateway = self.begin(mode="server-sent-events", commit_strategy="auto")
        self.send(range(30))
        stream = self.stream(gateway)
        stream.comments = _Silence()
        self.assertNumbers(stream, range(30))
        self.assertCommitted(10, 10, 10)
        stream.close()
        wait_until(
            lambda: self.members() == 0, "no member"
        )  # what is sent to it until it is seen to be gone counts as sent
        self.send(range(30, 33))
        stream = self.stream(gateway)
        stream.comments = _Silence()
        self.assertNumbers(stream, range(30, 33))

    def test_batches(self) -> None:
        gateway = self.begin(mode="http-get", commit_strategy="auto", fetch_records=20, message_deserializer="json")
        self.send(range(30))
        got: list[int] = []
        while len(got) < 30:
            got += self._values(gateway.get("/events").json)
        self.assertEqual(sorted(got), list(range(30)))
        self.assertCommitted(10, 10, 10)
        self.assertEqual(gateway.get("/events").json, {})

    def test_batches_that_are_not_committed(self) -> None:
        gateway = self.begin(mode="http-get", fetch_records=20)
        self.send(range(0, 9, 3))
        for _ in range(2):
            found: list[int] = wait_until(lambda: self._values(gateway.get("/events").json), "records")
            self.assertEqual(found[0], 0)
        self.assertEqual(self.committed(), [0, 0, 0])

    def _values(self, body: Any) -> list[int]:
        parts = body.get(self.topic, {"partitions": {}})["partitions"].values()
        return [int(each["value"]) for part in parts for each in part["records"]]

    def test_values_that_are_no_json(self) -> None:
        letters = {"message_deserializer": "json", "enable_dlq": True, "dlq_topic": self.letters}
        gateway = self.begin(commit_strategy="auto", **letters)
        for value in (b"1", b"{", b"2"):
            self.producer.send(self.topic, value=value, partition=0).get(60)
        self.assertEqual(values(self.take(self.open(gateway), 2)), [1, 2])
        self.assertCommitted(3, 0, 0)
        everyone = self.begin(mode="http-get", consumer_group={"mode": "random"}, **letters)
        self.assertEqual(self._values(everyone.get("/events").json), [1, 2])
        self.assertEqual(self._values(everyone.get("/events").json), [1, 2])
        found = wait_until(lambda: len(topic_records(self.cluster, self.letters)) == 2, "both letters")
        self.assertTrue(found)
        self.assertEqual([each.value for each in topic_records(self.cluster, self.letters)], [b"{", b"{"])
