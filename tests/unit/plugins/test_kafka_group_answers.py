"""kafka-consume: clients of consumer groups, dead letters, and the feed over a WebSocket, as transcripts."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.answers import FedAnswer, StreamedAnswer
from kongtwist.core.chain.host_kafka import KafkaFailed, KafkaRecord
from kongtwist.core.chain.host_reading import KafkaBusy, TopicRecord, UnknownTopic
from kongtwist.plugins.kafka_consume import KafkaConsume
from kongtwist.plugins.kafka_consume.dead_letters import DeadLetters
from kongtwist.testing import PluginHarness
from kongtwist.testing.kafka_stand_ins import StandInKafka, StandInMember
from tests.unit.plugins.test_kafka_streams import HANDSHAKE, Peer, StreamCase

GROUP = {"mode": "manual", "consumer_group_id": "g"}
LETTERS = {"enable_dlq": True, "dlq_topic": "dead"}


def record(offset: int, value: bytes | None = b"1", timestamp: int = 1000) -> TopicRecord:
    return TopicRecord("t", 0, offset, timestamp, b"k", value, (("h", b"v"),))


def headers_of(letter: KafkaRecord) -> dict[str, bytes]:
    return dict(letter.headers)


class _Groups(StreamCase):
    """A configuration of kafka-consume."""

    def begin(self, **config: Any) -> None:
        given = {"bootstrap_servers": "kafka:9092", "topics": [{"name": "t"}], "consumer_group": GROUP}
        self.harness = PluginHarness(KafkaConsume, **{**given, **self.config, **config})
        self.host = self.harness.host

    @property
    def client(self) -> StandInMember:
        """The latest that has joined."""
        return self.host.groups[0].clients[-1]

    @property
    def letters(self) -> StandInKafka:
        """Where dead letters go."""
        (producer,) = self.host.producers.values()
        return producer


class SocketTests(_Groups):
    """Records as messages, which the client acknowledges."""

    config = {"mode": "websocket", "commit_strategy": "off", **LETTERS}

    def ids(self, peer: Peer) -> list[Any]:
        return [each.get("id") or each.get("event") for each in peer.told]

    def test_acknowledged_given_back_and_rejected(self) -> None:
        peer = Peer(self)
        self.client.give(record(0), record(1), record(2))
        self.assertEqual(peer.told[0], {"id": "t:0:0", "delivery": 1, "value": "1"})
        peer.say('{"ack":"t:0:0","nack":["t:0:1"]}')
        self.assertEqual((self.client.finished, self.client.given_back), ([("t", 0, 0)], [("t", 0, 1)]))
        self.assertEqual(peer.told[3], {"id": "t:0:1", "delivery": 2, "value": "1"})
        peer.say('{"reject":["t:0:2"]}')
        self.assertEqual(self.client.finished, [("t", 0, 0), ("t", 0, 2)])
        (letter,) = self.letters.records
        self.assertEqual((letter.topic, letter.value, letter.key), ("dead", b"1", b"k"))
        self.assertEqual(
            headers_of(letter),
            {"h": b"v", "kong-dlq-topic": b"t", "kong-dlq-partition": b"0", "kong-dlq-offset": b"2",
             "kong-dlq-reason": b"rejected by a client"},
        )  # fmt: skip
        peer.say('{"ack":["t:0:0","t:0:9","other:7:1"]}')
        self.assertEqual(peer.told[4:], [{"id": each, "event": "unknown"} for each in ("t:0:0", "t:0:9", "other:7:1")])
        self.assertIsNone(peer.closed)

    def test_nonsense(self) -> None:
        for said in (
            "x", b"\xff", "[" * 100_000, "[]", "1", "null", "{}", '{"done":"t:0:0"}', '{"ack":1}', '{"ack":"t"}', '{"ack":null}',
            '{"ack":"t:0:-1"}', '{"ack":"t:0:1.5"}', '{"ack":"t:\\u0660:1"}', '{"ack":{"t":0}}', '{"ack":"t:0:' + "9" * 400 + '"}',
        ):  # fmt: skip
            peer = Peer(self)
            self.client.give(record(0))
            peer.say(said)
            self.assertEqual(peer.closed and peer.closed[0], 1008, said[:20])
            self.assertTrue(self.client.is_gone, said[:20])
            self.assertEqual(self.client.finished, [])

    def test_signs_of_life(self) -> None:
        peer = Peer(self)
        self.harness.advance(15)
        self.harness.advance(15)
        self.assertEqual(self.ids(peer), ["alive", "alive"])

    def test_slow_client(self) -> None:
        """What others have got meanwhile it does not get."""
        peer = Peer(self)
        slow: Deferred[None] = Deferred()
        peer.slow = slow
        self.client.give(record(0), record(1), record(2))
        self.assertEqual(self.ids(peer), ["t:0:0"])
        self.client.expire()
        peer.slow = None
        slow.callback(None)
        self.assertEqual(self.ids(peer), ["t:0:0"])
        self.client.give(record(1), delivery=2)
        self.assertEqual(self.ids(peer), ["t:0:0", "t:0:1"])

    def test_leaves(self) -> None:
        peer = Peer(self)
        self.client.give(record(0))
        peer.say(None)
        self.assertTrue(self.client.is_gone)
        self.successResultOf(peer.served)

    def test_configuration_closes(self) -> None:
        peer = Peer(self)
        self.client.fail(KafkaFailed("the configuration has closed"))
        self.assertEqual(peer.closed and peer.closed[0], 1001)
        self.assertTrue(self.client.is_gone)

    def test_not_joined(self) -> None:
        for error, status in ((KafkaBusy("x"), 503), (KafkaFailed("x"), 503), (UnknownTopic("x"), 404)):
            self.host.groups[0].fails = error
            answer = Peer(self).outcome.answer
            assert answer is not None
            self.assertEqual(answer.status, status)

    def test_joins_no_more(self) -> None:
        """What fails behind the handshake closes the WebSocket."""
        request = self.harness.request("GET", "/", HANDSHAKE)
        answer: Any = self.harness.run(request).answer
        self.host.groups[0].fails = KafkaFailed("away")
        peer = Peer(self)
        self.successResultOf(Deferred.fromCoroutine(answer.serve(peer)))
        self.assertEqual(peer.closed, (1013, "Kafka does not answer"))

    def test_delivered_too_often(self) -> None:
        self.begin(max_deliveries=2)
        peer = Peer(self)
        self.client.give(record(0), delivery=2)
        self.client.give(record(1), delivery=3)
        self.assertEqual(self.ids(peer), ["t:0:0"])
        self.assertEqual(headers_of(self.letters.records[0])["kong-dlq-reason"], b"not acknowledged after 2 deliveries")
        self.assertEqual(self.client.finished, [("t", 0, 1)])

    def test_letters_that_cannot_be_sent(self) -> None:
        """The record stays what it is: not finished."""
        self.begin(max_deliveries=1)
        peer = Peer(self)
        self.letters.fails = KafkaFailed("away")
        self.client.give(record(0), delivery=2)
        self.assertEqual((self.ids(peer), self.client.finished), ([], []))
        self.assertIn("dead-letter topic dead: away", self.harness.reports[0])
        self.letters.fails = None
        self.client.give(record(0), delivery=3)
        self.assertEqual(self.client.finished, [("t", 0, 0)])

    def test_nothing_is_told_where_sending_is_enough(self) -> None:
        self.begin(commit_strategy="auto")
        peer = Peer(self)
        self.client.give(record(0), record(1))
        peer.say("nonsense")
        self.assertEqual(self.client.finished, [("t", 0, 0), ("t", 0, 1)])
        self.assertIsNone(peer.closed)

    def test_filtered(self) -> None:
        """A record that is for nobody is finished."""
        self.begin(filters=[{"pointer": "/a", "equals": "1"}])
        peer = Peer(self)
        self.client.give(record(0, b'{"a":2}'), record(1, b'{"a":1}'), record(2, b"[" * 5000), record(3, None))
        self.assertEqual(self.ids(peer), ["t:0:1"])
        self.assertEqual(self.client.finished, [("t", 0, 0), ("t", 0, 2), ("t", 0, 3)])


class EventTests(_Groups):
    """Records as events: finished when the next is asked for."""

    config = {"mode": "server-sent-events"}

    def setUp(self) -> None:
        super().setUp()
        answer = self.harness.send("GET", "/").answer
        assert isinstance(answer, StreamedAnswer)
        self.events: Any = answer.chunks
        self.assertEqual(self.next(), b":\n\n")  # the head goes with it

    def next(self) -> Any:
        return self.successResultOf(self.asked())

    def asked(self) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.events.__anext__())

    def test_finished_when_sent(self) -> None:
        self.client.give(record(0), record(1))
        self.assertEqual(self.next(), b"data: 1\n\n")
        self.assertEqual(self.client.finished, [])
        self.assertEqual(self.next(), b"data: 1\n\n")
        self.assertEqual(self.client.finished, [("t", 0, 0)])
        waiting = self.asked()
        self.assertEqual(self.client.finished, [("t", 0, 0), ("t", 0, 1)])
        self.harness.advance(15)
        self.assertEqual(self.successResultOf(waiting), b":\n\n")

    def test_slow_client(self) -> None:
        """What others have got meanwhile it does not get."""
        self.client.give(record(0), record(1), record(2))
        self.assertEqual(self.next(), b"data: 1\n\n")
        self.client.expire()
        waiting = self.asked()
        self.assertNoResult(waiting)
        self.client.give(record(2, b"2"), delivery=2)
        self.assertEqual(self.successResultOf(waiting), b"data: 2\n\n")

    def test_ends(self) -> None:
        waiting = self.asked()
        self.client.fail(KafkaFailed("the configuration has closed"))
        self.failureResultOf(waiting, StopAsyncIteration)
        self.successResultOf(Deferred.fromCoroutine(self.events.aclose()))
        self.assertTrue(self.client.is_gone)


class BatchTests(_Groups):
    """Records of one answer."""

    def ask(self, method: str = "GET") -> StreamedAnswer:
        outcome = self.harness.send(method, "/")
        if outcome.answer is None:
            self.harness.advance(1)
        answer = outcome.answer
        assert isinstance(answer, StreamedAnswer)
        return answer

    def test_finished_when_sent(self) -> None:
        asked = self.harness.send("GET", "/")
        self.client.give(record(3), record(4))
        answer = asked.answer
        assert isinstance(answer, StreamedAnswer)
        chunks: Any = answer.chunks
        body = self.successResultOf(Deferred.fromCoroutine(chunks.__anext__()))
        self.assertEqual(answer.length, len(body))
        records = json.loads(body)["t"]["partitions"]["0"]["records"]
        self.assertEqual([each["offset"] for each in records], [3, 4])
        self.assertEqual(self.client.finished, [])
        self.failureResultOf(Deferred.fromCoroutine(chunks.__anext__()), StopAsyncIteration)
        self.assertEqual(self.client.finished, [("t", 0, 3), ("t", 0, 4)])
        self.successResultOf(Deferred.fromCoroutine(chunks.aclose()))
        self.assertTrue(self.client.is_gone)

    def test_no_records_in_time(self) -> None:
        chunks: Any = self.ask().chunks
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(chunks.__anext__())), b"{}")

    def test_head_takes_nothing(self) -> None:
        asked = self.harness.send("HEAD", "/")
        assert isinstance(asked.answer, StreamedAnswer)
        self.client.give(record(0))
        self.assertEqual(self.client.held, {})

    def test_nobody_to_read_for(self) -> None:
        self.begin(consumer_group={"mode": "kong_consumer"})
        answer = self.harness.send("GET", "/").answer
        assert answer is not None
        self.assertEqual(answer.status, 403)


class PoisonTests(_Groups):
    """Records that break what reads them stop nothing."""

    config = {"message_deserializer": "json"}
    WRONG = (b"[" * 900 + b"]" * 900, b"NaN", b"[1e999]", b'{"a":-Infinity}', b"1" * 5000, b"\xff", b"")

    def test_batch(self) -> None:
        asked = self.harness.send("GET", "/")
        self.client.give(*(record(number, each) for number, each in enumerate(self.WRONG)), record(99))
        chunks: Any = getattr(asked.answer, "chunks")  # noqa: B009 - of a StreamedAnswer
        body = self.successResultOf(Deferred.fromCoroutine(chunks.__anext__()))

        def no_number(text: str) -> None:
            self.fail(f"{text} is no JSON")

        records = json.loads(body, parse_constant=no_number)["t"]["partitions"]["0"]["records"]
        self.assertEqual({each.get("error") for each in records[:-1]}, {"the value is no JSON"})
        self.assertEqual(records[-1]["value"], 1)

    def test_letters(self) -> None:
        self.begin(mode="websocket", **LETTERS)
        peer = Peer(self)
        self.client.give(*(record(number, each) for number, each in enumerate(self.WRONG)), record(99))
        self.assertEqual([each["id"] for each in peer.told], ["t:0:99"])
        self.assertEqual(len(self.letters.records), len(self.WRONG))


class LetterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.producer = StandInKafka()
        self.said: list[str] = []
        self.letters = DeadLetters(self.producer, "dead", 3.0, self.said.append)

    def offer(self, offset: int, timestamp: int = 1000) -> None:
        self.letters.offer(record(offset, timestamp=timestamp), "why")

    def offsets(self) -> list[int]:
        return [int(headers_of(each)["kong-dlq-offset"]) for each in self.producer.records]

    def test_once_though_others_read_it_again(self) -> None:
        for offset in (3, 4, 3, 4, 6, 3):
            self.offer(offset)
        self.assertEqual(self.offsets(), [3, 4, 6])

    def test_topic_made_anew(self) -> None:
        """Its offsets begin again: such records are others."""
        self.offer(7)
        self.offer(0, 2000)
        self.offer(1, 2000)
        self.offer(1, 2000)
        self.assertEqual(self.offsets(), [7, 0, 1])

    def test_without_key_and_value(self) -> None:
        self.letters.offer(TopicRecord("t", 0, 0, -1, None, None, (("h", None),)), "\ud800")
        (letter,) = self.producer.records
        self.assertEqual((letter.value, letter.key, headers_of(letter)["h"]), (b"", None, b""))

    def test_failures(self) -> None:
        self.producer.fails = KafkaFailed("away")
        self.assertFalse(self.successResultOf(Deferred.fromCoroutine(self.letters.put(record(0), "why"))))
        self.assertEqual(self.said, ["kafka-consume cannot send to the dead-letter topic dead: away"])


class FeedTests(_Groups):
    """The feed that all clients share, over a WebSocket."""

    config = {"mode": "websocket", "consumer_group": {"mode": "random"}}

    def test_fed(self) -> None:
        peer = Peer(self, "/?last_event_id=t%3A4")
        (feed,) = self.host.feeds
        self.assertEqual(
            [each.position for each in feed.starts], [b"t:4", b"t:4"]
        )  # once to find out whether it can be read
        self.assertEqual(len(peer.fed), 1)
        peer.say("not", "listened to")
        self.assertNoResult(peer.served)
        peer.say(None)
        self.successResultOf(peer.served)

    def test_gone_before_it_begins(self) -> None:
        answer: Any = self.harness.run(self.harness.request("GET", "/", HANDSHAKE)).answer
        (feed,) = self.host.feeds
        feed.fails = KafkaFailed("away")
        peer = Peer(self)
        self.assertEqual(peer.outcome.answer and peer.outcome.answer.status, 503)
        self.successResultOf(Deferred.fromCoroutine(answer.serve(peer)))
        self.assertEqual(peer.closed, (1013, "Kafka does not answer"))

    def test_no_upgrade(self) -> None:
        answer = self.harness.send("GET", "/").answer
        assert answer is not None and not isinstance(answer, FedAnswer)
        self.assertEqual(answer.status, 426)
