"""Records as events and batches, filters, and the configuration of kafka-consume."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.answers import FedAnswer
from kongtwist.core.chain.host_kafka import KafkaFailed
from kongtwist.core.chain.host_reading import BadStart, FetchedPartition, StartAt, TopicRecord, UnknownTopic
from kongtwist.entities import EntityError
from kongtwist.plugins._kafka_fields import kafka_connection
from kongtwist.plugins.kafka_consume import KafkaConsume
from kongtwist.plugins.kafka_consume.record_forms import Filter, batch, event_encoder, pointer_fault
from kongtwist.testing import PluginHarness

CONF = {"bootstrap_servers": "one:1, two:2", "topics": [{"name": "t"}]}


def record(value: bytes | None, key: bytes | None = None) -> TopicRecord:
    return TopicRecord("t", 1, 7, 1000, key, value, (("h", b"v"),))


def passes(value: bytes, pointer: str, **rule: str) -> bool:
    encode = event_encoder([Filter({"pointer": pointer, **rule})], False, False)
    return encode(record(value)) is not None


class EventTests(SynchronousTestCase):
    def test_values(self) -> None:
        encode = event_encoder((), False, False)
        for value, event in (
            (b"x", b"data: x\n\n"), (b"", b"data: \n\n"), (None, b"data: null\n\n"),
            (b"a\nb\r\nc\rd", b"data: a\ndata: b\ndata: c\ndata: d\n\n"), (b"\xff", b"data: \xef\xbf\xbd\n\n"),
            (b"x\nevent: resync\n\n", b"data: x\ndata: event: resync\ndata: \ndata: \n\n"),
        ):  # fmt: skip
            self.assertEqual(encode(record(value)), event)

    def test_whole_records(self) -> None:
        event = event_encoder((), True, True)(record(b'{"a":1}', b"k"))
        assert event is not None
        self.assertEqual(
            json.loads(event[6:]),
            {"topic": "t", "partition": 1, "offset": 7, "timestamp": 1000, "key": "k", "value": {"a": 1},
             "headers": [["h", "v"]]},
        )  # fmt: skip
        event = event_encoder((), True, True)(record(b"{"))
        assert event is not None
        self.assertEqual(json.loads(event[6:])["error"], "the value is no JSON")

    def test_filters(self) -> None:
        value = b'{"a":{"b/c":[1,"two",null]},"":true,"n":1.5}'
        self.assertTrue(passes(value, "/a/b~1c/1", equals="two"))
        self.assertTrue(passes(value, "/a/b~1c/1", prefix="tw"))
        self.assertTrue(passes(value, "/a/b~1c/0", equals="1"))
        self.assertTrue(passes(value, "/a/b~1c/2", equals="null"))
        self.assertTrue(passes(value, "/", equals="true"))
        self.assertTrue(passes(value, "/n", equals="1.5", prefix="1"))
        for pointer in ("/a", "/a/b~1c/3", "/a/b~1c/01", "/a/b~1c/-", "/x", ""):
            self.assertFalse(passes(value, pointer, prefix=""), pointer)
        self.assertFalse(passes(b"no json", "", prefix=""))
        self.assertFalse(passes(b"[" * 100_000, "/0", prefix=""))
        self.assertEqual([pointer_fault(each) for each in ("", "/a~1", "/~0")], [None] * 3)
        self.assertNotIn(None, [pointer_fault(each) for each in ("a", "/~", "/~2")])

    def test_batches(self) -> None:
        found = [FetchedPartition("t", 1, 9, (record(b"1"), record(b"2")))]
        shown = json.loads(batch(found, (), True))["t"]["partitions"]["1"]
        self.assertEqual((shown["errcode"], shown["high_watermark"]), (0, 9))
        self.assertEqual([each["value"] for each in shown["records"]], [1, 2])
        self.assertEqual(batch((), (), False), b"{}")


class ConfigurationTests(SynchronousTestCase):
    def test_servers_as_text(self) -> None:
        conf = PluginHarness(KafkaConsume, **CONF).conf.conf
        self.assertEqual(conf["bootstrap_servers"], [{"host": "one", "port": 1}, {"host": "two", "port": 2}])
        login: dict[str, Any] = {"strategy": "sasl", "mechanism": "PLAIN", "user": "u", "password": "p"}
        harness = PluginHarness(KafkaConsume, **CONF, authentication=login, security={"ssl": True})
        connection = kafka_connection(harness.conf.conf, harness.host)
        self.assertEqual((connection.servers, connection.mechanism), (("one:1", "two:2"), "PLAIN"))
        assert connection.tls is not None
        self.assertTrue(connection.tls.verify)
        self.assertNotIn("'p'", repr(connection))

    def test_what_is_not_built_is_refused(self) -> None:
        wrong: tuple[dict[str, Any], ...] = (
            {"consumer_group": {"mode": "manual"}}, {"enable_dlq": True}, {"max_deliveries": 2},
            {"consumer_group": {"mode": "kong_consumer"}, "mode": "server-sent-events", "commit_strategy": "off"},
            {"message_by_lua_functions": ["return ("]}, {"schema_registry": {"confluent": {}}},
            {"topics": [{"name": "a b"}]}, {"bootstrap_servers": "kafka"}, {"bootstrap_servers": None},
        )  # fmt: skip
        for more in wrong:
            with self.assertRaises(EntityError, msg=repr(more)):
                PluginHarness(KafkaConsume, **{**CONF, **more})

    def test_only_reading(self) -> None:
        outcome = PluginHarness(KafkaConsume, **CONF).send("POST", "/")
        assert outcome.answer is not None
        self.assertEqual(outcome.answer.status, 405)

    def test_where_clients_begin(self) -> None:
        for more, headers, start in (
            ({}, {}, StartAt()),
            ({"auto_offset_reset": "earliest"}, {}, StartAt(earliest=True)),
            ({"start_timestamp": 5}, {"Last-Event-ID": "t:1"}, StartAt(b"t:1", 5)),
        ):
            harness = PluginHarness(KafkaConsume, **CONF, mode="server-sent-events", **more)
            answer = harness.send("GET", "/", headers=headers).answer
            self.assertIsInstance(answer, FedAnswer)
            self.assertEqual(harness.host.feeds[0].starts, [start])

    def test_batches_and_failures(self) -> None:
        harness = PluginHarness(KafkaConsume, **CONF)
        feed = harness.host.feeds[0]
        feed.found = ([FetchedPartition("t", 0, 3, (record(b"1"),))], b"t:3")
        answer = harness.send("GET", "/").answer
        assert answer is not None and answer.body is not None
        self.assertEqual(json.loads(answer.body)["t"]["partitions"]["0"]["high_watermark"], 3)
        self.assertIn((b"X-Kong-Kafka-Position", b"t:3"), answer.headers)
        for error, status in ((BadStart("x"), 400), (UnknownTopic("x"), 404), (KafkaFailed("x"), 503)):
            feed.found = error
            answer = harness.send("GET", "/").answer
            assert answer is not None
            self.assertEqual(answer.status, status)
