"""``message_by_lua_functions``: what becomes of records for clients, and of messages of requests."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_reading import FetchedPartition, TopicRecord
from kongtwist.entities import EntityError
from kongtwist.lua.lua_engine import DISABLED, Engine, LuaSettings
from kongtwist.plugins.kafka_consume import KafkaConsume
from kongtwist.plugins.kafka_upstream import KafkaUpstream
from kongtwist.testing import PluginHarness

SERVERS = [{"host": "kafka.example", "port": 9092}]
RECORD = TopicRecord("t", 1, 7, 1700000000000, b"k", b'{"a":1,"secret":"x"}', (("h", b"v"),))

WITHOUT_SECRET = (
    "return function(message) message.value.secret = nil message.value.n = message.offset return message end"
)


def consuming(*functions: str, **config: Any) -> Any:
    """What a configuration of kafka-consume does with records."""
    chosen = {"bootstrap_servers": SERVERS, "topics": [{"name": "t"}], "message_deserializer": "json", **config}
    return PluginHarness(KafkaConsume, message_by_lua_functions=list(functions), **chosen).conf


class ConsumeTests(SynchronousTestCase):
    def test_events(self) -> None:
        conf = consuming(WITHOUT_SECRET, mode="server-sent-events")
        event = conf.encode(RECORD)
        self.assertTrue(event.startswith(b"data: ") and event.endswith(b"\n\n"), event)
        self.assertEqual(json.loads(event[6:]), {"a": 1, "n": 7})

    def test_answers(self) -> None:
        conf = consuming(WITHOUT_SECRET)
        told = json.loads(conf.batch([FetchedPartition("t", 1, 9, (RECORD, RECORD._replace(offset=8)))]))
        records = told["t"]["partitions"]["1"]["records"]
        self.assertEqual([each["value"] for each in records], [{"a": 1, "n": 7}, {"a": 1, "n": 8}])

    def test_in_turn(self) -> None:
        """A chunk may be the function itself; key, value as text and headers change too."""
        conf = consuming(
            "local message = ... message.key = 'other' return message",
            "return function(message) message.value = message.key .. '!' message.headers[2] = {'x', '1'} return message end",
            mode="server-sent-events", event_data="record", message_deserializer="noop",
        )  # fmt: skip
        told = json.loads(conf.encode(RECORD)[6:])
        self.assertEqual((told["key"], told["value"], told["headers"]), ("other", "other!", [["h", "v"], ["x", "1"]]))
        self.assertEqual((told["topic"], told["offset"]), ("t", 7))

    def test_left_out(self) -> None:
        conf = consuming(
            "return function(message) if message.value.a ~= 1 then return message end end", mode="server-sent-events"
        )
        self.assertIsNone(conf.encode(RECORD))
        self.assertIsNotNone(conf.encode(RECORD._replace(value=b'{"a":2}')))

    def test_failures(self) -> None:
        for code in ("return function(m) error('bad') end", "return function() return 5 end", "while true do end",
                     "return function(m) m.headers = {5} return m end", "return function(m) m.value = 0/0 return m end"):  # fmt: skip
            harness = PluginHarness(
                KafkaConsume, bootstrap_servers=SERVERS, topics=[{"name": "t"}], mode="server-sent-events",
                message_by_lua_functions=[code],
            )  # fmt: skip
            event = harness.conf.encode(RECORD)
            self.assertTrue(event.startswith(b"event: unreadable\n"), event)
            self.assertIn(b"message_by_lua_functions failed", event)
            (line,) = harness.reports
            self.assertIn("kafka-consume cannot give a record of t: message_by_lua_functions failed: ", line)

    def test_dead_letters(self) -> None:
        """What a function fails on goes to the topic for that as it was."""
        conf = consuming("error('bad')", mode="server-sent-events", enable_dlq=True, dlq_topic="dead")
        self.assertIsNone(conf.encode(RECORD))
        self.assertIsNotNone(conf.fault(RECORD))
        self.assertIsNone(consuming("return function() end").fault(RECORD))

    def test_without(self) -> None:
        self.assertIsNone(consuming().functions)


class UpstreamTests(SynchronousTestCase):
    def sent(self, *functions: str, **config: Any) -> tuple[PluginHarness, Any]:
        chosen = {
            "bootstrap_servers": SERVERS,
            "topic": "t",
            "forward_uri": True,
            "forward_headers": True,
            "producer_async": False,
        }
        harness = PluginHarness(KafkaUpstream, message_by_lua_functions=list(functions), **{**chosen, **config})
        return harness, harness.send(
            "POST", "/a?x=1", {"Authorization": "secret", "Content-Type": "application/json"}, body=b'{"b":1}'
        )

    def values(self, harness: PluginHarness) -> list[Any]:
        return [json.loads(each.value) for producer in harness.host.producers.values() for each in producer.records]

    def test_changed(self) -> None:
        harness, outcome = self.sent(
            "return function(m) m.headers.authorization = nil m.path = kong.request.get_path() return m end",
            "return function(m) m.headers['content-type'] = nil m.headers.host = nil return m end",
        )
        self.assertEqual(outcome.answer.status, 200)
        (value,) = self.values(harness)
        self.assertNotIn("secret", json.dumps(value))
        self.assertEqual((value["path"], value["uri"], value["uri_args"]), ("/a", "/a?x=1", {"x": "1"}))

    def test_body_as_it_is(self) -> None:
        harness, _ = self.sent("return function(m) m.more = true return m end", message_format="body")
        self.assertEqual(self.values(harness), [{"b": 1, "more": True}])

    def test_failures(self) -> None:
        for code in (
            "return function(m) error('bad') end",
            "return function() end",
            "return function() return 1 end",
            "while true do end",
        ):
            harness, outcome = self.sent(code)
            self.assertEqual(outcome.answer.status, 500)
            self.assertEqual(self.values(harness), [])
            (line,) = harness.reports
            self.assertIn("message_by_lua_functions failed: ", line)

    def test_refused(self) -> None:
        for kind, config in ((KafkaUpstream, {"topic": "t"}), (KafkaConsume, {"topics": [{"name": "t"}]})):
            chosen = {"bootstrap_servers": SERVERS, **config}
            with self.assertRaises(EntityError) as caught:
                PluginHarness(kind, message_by_lua_functions=["return ("], **chosen)
            self.assertIn("Error parsing function: ", str(caught.exception.fields))
            harness = PluginHarness(kind, **chosen)
            harness.host.lua = Engine({}, LuaSettings(trust="off"))
            error = self.assertRaises(
                EntityError, harness.plugin.examine, {**chosen, "message_by_lua_functions": ["return 1"]}, harness.host
            )
            self.assertIn(DISABLED, str(error.fields))
            for functions in (None, [], ["return ("], "text", [5]):
                harness.plugin.examine({**chosen, "message_by_lua_functions": functions}, harness.host)
