"""kafka-upstream: what requests become, and what clients are told. Nothing but the public kit is used."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_kafka import KafkaFailed, KafkaFull, KafkaLate
from kongtwist.entities import EntityError
from kongtwist.entities.plugin_rows import config_of
from kongtwist.plugins.confluent import Confluent
from kongtwist.plugins.confluent_consume import ConfluentConsume
from kongtwist.plugins.kafka_consume import KafkaConsume
from kongtwist.plugins.kafka_log import KafkaLog
from kongtwist.plugins.kafka_upstream import KafkaUpstream
from kongtwist.testing import Outcome, PluginHarness
from tests.places import CONTRACT

JSON = {"Content-Type": "application/json"}


class KafkaCase(SynchronousTestCase):
    def harness(self, **config: Any) -> PluginHarness:
        given = {"bootstrap_servers": "kafka:9092", "topic": "events", "producer_async": False}
        return PluginHarness(KafkaUpstream, **{**given, **config})

    def producer(self, harness: PluginHarness) -> Any:
        (producer,) = harness.host.producers.values()
        return producer

    def value(self, harness: PluginHarness) -> Any:
        return json.loads(self.producer(harness).records[-1].value)

    def told(self, outcome: Outcome) -> tuple[int, Any]:
        assert outcome.answer is not None
        return outcome.answer.status, outcome.answer_json


class MessageTests(KafkaCase):
    def test_body(self) -> None:
        harness = self.harness()
        sent = '{"event_type":"click","user_id":"u-1"}'
        harness.send("POST", "/", JSON, body=sent.encode())
        self.assertEqual(self.value(harness), {"body": sent, "body_args": {"event_type": "click", "user_id": "u-1"}})

    def test_value_is_json(self) -> None:
        """Python reads more than JSON has; what it cannot write again is no value."""
        for sent in (b"[NaN]", b"-Infinity", b'{"a":1e999}', b"[" * 900 + b"]" * 900):
            harness = self.harness()
            harness.send("POST", "/", JSON, body=sent)
            self.assertEqual(self.value(harness), {"body": sent.decode()})

    def test_all(self) -> None:
        harness = self.harness(forward_method=True, forward_uri=True, forward_headers=True)
        headers = {"Content-Type": "application/x-www-form-urlencoded", "X-One": "1"}
        harness.send("PUT", "/a%20b?x=1&x=2&y", headers, body=b"a=1&b=2&b=3")
        told = self.value(harness)
        self.assertEqual(told["method"], "PUT")
        self.assertEqual(told["uri"], "/a%20b?x=1&x=2&y")
        self.assertEqual(told["uri_args"], {"x": ["1", "2"], "y": True})
        self.assertEqual(told["headers"]["x-one"], "1")
        self.assertEqual(told["body"], "a=1&b=2&b=3")
        self.assertEqual(told["body_args"], {"a": "1", "b": ["2", "3"]})
        self.assertNotIn("body_base64", told)

    def test_other_types(self) -> None:
        """Text is told as it is, all else in base64; no fields are known of either."""
        harness = self.harness()
        harness.send("POST", "/", {"Content-Type": "text/plain; charset=utf-8"}, body=b"hello")
        self.assertEqual(self.value(harness), {"body": "hello", "body_args": {}})
        harness.send("POST", "/", {"Content-Type": "image/png"}, body=b"\x89PNG")
        encoded = {"body": b64encode(b"\x89PNG").decode(), "body_base64": True, "body_args": {}}
        self.assertEqual(self.value(harness), encoded)

    def test_not_what_it_says(self) -> None:
        harness = self.harness()
        harness.send("POST", "/", JSON, body=b"{")
        self.assertEqual(self.value(harness), {"body": "{"})
        harness.send("POST", "/", JSON, body=b'"\xff"')
        self.assertTrue(self.value(harness)["body_base64"])

    def test_what_plugins_have_made_of_it(self) -> None:
        """A body that another plugin has changed, or freed of credentials, is what goes on."""

        class Behind(KafkaUpstream):
            def access(self, exchange: Any, conf: Any) -> Any:
                exchange.set_upstream_body(b'{"a":1}')
                return super().access(exchange, conf)

        harness = PluginHarness(Behind, bootstrap_servers="kafka:9092", topic="events", producer_async=False)
        harness.send("POST", "/", JSON, body=b'{"a":1,"apikey":"secret"}')
        self.assertEqual(self.value(harness), {"body": '{"a":1}', "body_args": {"a": 1}})

    def test_nothing(self) -> None:
        harness = self.harness(forward_body=False)
        harness.send("POST", "/", JSON, body=b"{}")
        self.assertEqual(self.value(harness), {})

    def test_body_as_it_is(self) -> None:
        harness = self.harness(message_format="body")
        harness.send("POST", "/", {"Content-Type": "image/png"}, body=b"\x89PNG")
        self.assertEqual(self.producer(harness).records[0].value, b"\x89PNG")


class RecordTests(KafkaCase):
    def test_key_partition_headers(self) -> None:
        harness = self.harness(
            key_template="{body.order.id}-{query.shop}",
            partition_template="{headers.x-part}",
            header_templates={"method": "{request.method}", "who": "{consumer.id}"},
        )
        harness.send("POST", "/?shop=s", {**JSON, "X-Part": "3"}, body=b'{"order":{"id":17}}')
        record = self.producer(harness).records[0]
        self.assertEqual((record.key, record.partition, record.headers), (b"17-s", 3, (("method", b"POST"),)))

    def test_part_lacks(self) -> None:
        harness = self.harness(key_template="{body.order.id}", partition_template="{headers.x-part}")
        harness.send("POST", "/", JSON, body=b"{}")
        record = self.producer(harness).records[0]
        self.assertEqual((record.key, record.partition), (None, None))

    def test_key_of_the_query(self) -> None:
        harness = self.harness(key_query_arg="user")
        harness.send("POST", "/?user=u-1", JSON, body=b"{}")
        self.assertEqual(self.producer(harness).records[0].key, b"u-1")

    def test_wrong_partition(self) -> None:
        harness = self.harness(partition_template="{query.p}")
        for value in ("x", "-1", "99999999999"):
            status, _ = self.told(harness.send("POST", f"/?p={value}", JSON, body=b"{}"))
            self.assertEqual(status, 400)
        self.assertEqual(self.producer(harness).records, [])

    def test_headers(self) -> None:
        sent = [("X-A", "1"), ("X-A", "2"), ("X-B", "3"), ("Content-Type", "text/plain")]
        for rules, found in (
            ({"include_headers": ["X-A"]}, (("x-a", b"1"), ("x-a", b"2"))),
            ({"include_headers": ["x-a"], "repeated_headers_behavior": "take_first"}, (("x-a", b"1"),)),
            ({"include_headers": ["x-a"], "repeated_headers_behavior": "concatenate_by_comma"}, (("x-a", b"1,2"),)),
            ({"include_headers": ["x-b"], "name_mappings": {"X-B": "b"}}, (("b", b"3"),)),
            ({"forward_all_by_default": True, "exclude_headers": ["x-a", "content-type", "host"]}, (("x-b", b"3"),)),
            ({"include_headers": ["x-b"], "forward_http_headers_as_record_headers": False}, ()),
            ({}, ()),
        ):
            harness = self.harness(headers=rules)
            harness.send("POST", "/", sent, body=b"x")
            kept = tuple(each for each in self.producer(harness).records[0].headers if each[0] != "content-length")
            self.assertEqual(kept, found, rules)

    def test_topics(self) -> None:
        """A client chooses among those that are allowed, and no others."""
        harness = self.harness(topics_query_arg="to", allowed_topics=["one", "two"])
        for target, topics in (("/", ["events"]), ("/?to=one,%20two,one", ["one", "two"]), ("/?to=events", ["events"])):
            before = len(self.producer(harness).records)
            status, told = self.told(harness.send("POST", target, JSON, body=b"{}"))
            self.assertEqual(status, 200)
            self.assertEqual([each.topic for each in self.producer(harness).records[before:]], topics)
            self.assertEqual([each["topic"] for each in told.get("records", [told])], topics)
        before = len(self.producer(harness).records)
        status, told = self.told(harness.send("POST", "/?to=one,secret", JSON, body=b"{}"))
        self.assertEqual((status, told), (400, {"message": "Bad Request", "error": "a topic is not allowed"}))
        self.assertEqual(len(self.producer(harness).records), before)


class AnswerTests(KafkaCase):
    def test_acknowledged(self) -> None:
        harness = self.harness(timeout=2500)
        told = self.told(harness.send("POST", "/", JSON, body=b"{}"))
        self.assertEqual(told, (200, {"message": "message sent", "topic": "events", "partition": 0, "offset": 0}))
        self.assertEqual(self.producer(harness).timeouts, [2.5])

    def test_background(self) -> None:
        harness = self.harness(producer_async=True)
        self.assertEqual(self.told(harness.send("POST", "/", JSON, body=b"{}")), (202, {"message": "message sent"}))
        self.assertEqual(len(self.producer(harness).records), 1)

    def test_full(self) -> None:
        harness = self.harness(producer_async=True)
        self.producer(harness).fails = KafkaFull("50000 records wait", "start the broker")
        outcome = harness.send("POST", "/", JSON, body=b"{}")
        self.assertEqual(self.told(outcome)[0], 503)
        self.assertEqual({name.lower(): value for name, value in outcome.answer_headers.items()}["retry-after"], "1")

    def test_failed(self) -> None:
        """Clients are told Kong's words; the log has the cause, the record's fate and the remedy."""
        for error, fate in (
            (KafkaFailed("refused", "log in"), ""),
            (KafkaFailed("the producer ended", "look", sent=True), "it may be in the topic"),
            (KafkaLate("connection refused", "start it", sent=True), "it may be in the topic"),
            (KafkaLate("connection refused", "start it"), "it was not sent, and will not be"),
        ):
            harness = self.harness()
            self.producer(harness).fails = error
            told = self.told(harness.send("POST", "/", JSON, body=b"{}"))
            self.assertEqual(told, (500, {"message": "Bad Gateway", "error": "could not send message to topic"}))
            (line,) = harness.reports
            for part in (str(error), error.remedy, fate):
                self.assertIn(part, line)

    def test_what_utf8_cannot_say(self) -> None:
        harness = self.harness(error_handling={"return_error_message": True})
        self.producer(harness).fails = KafkaFailed("at /\ud800: it is no long")
        status, said = self.told(harness.send("POST", "/", JSON, body=b"{}"))
        self.assertEqual(status, 500)
        self.assertIn("it is no long", said["error"])

    def test_no_such_partition(self) -> None:
        """The client has chosen it: the fault is its own."""
        harness = self.harness(partition_template="{query.p}")
        self.producer(harness).fails = KafkaFailed("no such partition", "add some", kind="no_partition")
        told = self.told(harness.send("POST", "/?p=9", JSON, body=b"{}"))
        self.assertEqual(told, (400, {"message": "Bad Request", "error": "the topic has no such partition"}))
        self.assertIn("no such partition", harness.reports[0])

    def test_failed_and_told(self) -> None:
        harness = self.harness(error_handling={"return_error_message": True})
        self.producer(harness).fails = KafkaFailed("refused")
        self.assertIn("topic events: refused", self.told(harness.send("POST", "/", JSON, body=b"{}"))[1]["error"])

    def test_few_lines(self) -> None:
        """While brokers are away the log has a line a second."""
        harness = self.harness()
        self.producer(harness).fails = KafkaFailed("refused")
        for _ in range(100):
            harness.send("POST", "/", JSON, body=b"{}")
        self.assertEqual(len(harness.reports), 1)
        harness.advance(2)
        harness.send("POST", "/", JSON, body=b"{}")
        self.assertIn("and 99 requests before it", harness.reports[1])


class ConfigurationTests(KafkaCase):
    def settings(self, **config: Any) -> Any:
        (settings,) = self.harness(**config).host.producers
        return settings

    def test_servers(self) -> None:
        for given, servers in (
            ("kafka:9092", ("kafka:9092",)),
            ("one:9092, two:9093", ("one:9092", "two:9093")),
            (["one:9092", {"host": "two", "port": 9093}], ("one:9092", "two:9093")),
            ([{"host": "one", "port": 9092}], ("one:9092",)),
            ("[::1]:9092", ("[::1]:9092",)),
        ):
            self.assertEqual(self.settings(bootstrap_servers=given).connection.servers, servers)
        for wrong in ("kafka", ["kafka:x"], "kafka:9092,", "kafka:99999", [{"host": "kafka"}]):
            self.assertRaises(EntityError, self.settings, bootstrap_servers=wrong)

    def test_acknowledged_by_all(self) -> None:
        self.assertEqual(self.settings().acks, -1)
        self.assertEqual(self.settings(producer_request_acks=1).acks, 1)

    def test_linger(self) -> None:
        self.assertEqual(self.settings().linger, 5)
        self.assertEqual(self.settings(producer_async=True).linger, 1000)
        self.assertEqual(self.settings(producer_linger=0).linger, 0)

    def test_login(self) -> None:
        login = {"strategy": "sasl", "mechanism": "SCRAM-SHA-256", "user": "alice", "password": "secret"}
        connection = self.settings(authentication=login, security={"ssl": True}).connection
        self.assertEqual(
            (connection.mechanism, connection.username, connection.password), ("SCRAM-SHA-256", "alice", "secret")
        )
        self.assertTrue(connection.tls.verify)

    def test_certificate(self) -> None:
        """What brokers are shown comes with the configuration; one that is not there refuses it."""
        key = "8a1b2c3d-0000-4000-8000-000000000000"
        config: dict[str, Any] = {
            "bootstrap_servers": "kafka:9093",
            "topic": "t",
            "security": {"ssl": True, "certificate_id": key},
        }
        harness = self.harness()
        self.assertRaises(ValueError, harness.add, KafkaUpstream, **config)
        harness.store("certificates", id=key, cert="CERT", key="KEY")
        for plugin in (KafkaUpstream, KafkaLog):
            harness.add(plugin, **config)
        for kind in (KafkaUpstream, KafkaLog, KafkaConsume):
            self.assertEqual(kind().certificates({"security": {"certificate_id": key}}), (key,))
        tls = [each.connection.tls for each in harness.host.producers][1]
        assert tls is not None
        self.assertEqual((tls.certificate, tls.key), ("CERT", "KEY"))

    def test_refused(self) -> None:
        wrong: list[dict[str, Any]] = [
            {"topic": "a b"},
            {"key_template": "{nobody.x}"},
            {"key_template": "{body.x"},
            {"allowed_topics": ["a/b"]},
            {"message_by_lua_functions": ["return ("]},
            {"schema_registry": {"confluent": {}}},
            {"authentication": {"tokenauth": True}},
            {"producer_request_acks": 2},
        ]
        for config in wrong:
            self.assertRaises(EntityError, self.harness, **config)

    def test_as_kongs(self) -> None:
        """Fields, types and defaults are Kong's, but for those that are ours and what the plugin's text says."""
        recorded = json.loads((CONTRACT / "enterprise_schemas.json").read_text())
        plugins = (KafkaUpstream, KafkaLog, KafkaConsume, Confluent, ConfluentConsume)
        for plugin in plugins:
            name = plugin.__name__
            ours = {name: field for name, field in config_of(plugin).fields.items() if not field.ours}
            _compare(self, recorded[name]["properties"]["config"]["properties"], ours, "config")


_WILFUL = {"config.producer_request_acks", "config.authentication.oauthbearer", "config.oauthbearer"}


def _compare(case: SynchronousTestCase, kongs: dict[str, Any], ours: dict[str, Any], where: str) -> None:
    case.assertEqual(sorted(kongs), sorted(ours), where)
    for name, kong in kongs.items():
        field = ours[name]
        path = f"{where}.{name}"
        if path in _WILFUL:
            continue
        if kong["type"] == "object" and "properties" in kong:
            _compare(case, kong["properties"], field.fields, path)
            continue
        kinds = {"object": "map", "array": "array"}
        case.assertEqual(field.kind, kinds.get(kong["type"], kong["type"]), path)
        case.assertEqual(field.default, kong.get("default"), path)
        if "enum" in kong:
            case.assertEqual(sorted(field.attrs["one_of"]), kong["enum"], path)
