"""Plugins for Kafka with a registry of schemas, and those for Confluent Cloud. Nothing but the public kit is used."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_kafka import KafkaFull
from kongtwist.core.chain.host_reading import FetchedPartition, TopicRecord
from kongtwist.core.chain.host_schemas import RegistryOAuth, SchemaFailed, SchemaMismatch
from kongtwist.entities import EntityError
from kongtwist.plugins._kafka_fields import kafka_connection
from kongtwist.plugins.confluent import Confluent
from kongtwist.plugins.confluent_consume import ConfluentConsume
from kongtwist.plugins.kafka_consume import KafkaConsume
from kongtwist.plugins.kafka_consume.record_forms import Filter, batch, event_encoder
from kongtwist.plugins.kafka_log import KafkaLog
from kongtwist.plugins.kafka_upstream import KafkaUpstream
from kongtwist.testing import PluginHarness

JSON = {"Content-Type": "application/json"}
URL = "http://registry:8081"


def registry(**more: Any) -> dict[str, Any]:
    return {"confluent": {"url": URL, "value_schema": {"subject_name": "events-value"}, **more}}


class ProducingTests(SynchronousTestCase):
    def harness(self, plugin: Any = KafkaUpstream, schema_registry: Any = None, **config: Any) -> PluginHarness:
        given = {"bootstrap_servers": "kafka:9092", "topic": "events", "schema_registry": schema_registry or registry()}
        return PluginHarness(plugin, **{**given, **config})

    def records(self, harness: PluginHarness) -> Any:
        (producer,) = harness.host.producers.values()
        return producer.records

    def schemas(self, harness: PluginHarness) -> Any:
        (schemas,) = harness.host.registries.values()
        return schemas

    def posted(self, harness: PluginHarness, body: bytes = b'{"a":1}', path: str = "/") -> tuple[int, Any]:
        outcome = harness.send("POST", path, JSON, body=body)
        assert outcome.answer is not None
        return outcome.answer.status, outcome.answer_json

    def test_written(self) -> None:
        """Value and key, whether somebody waits for the acknowledgement or not."""
        schemas = registry(key_schema={"subject_name": "events-key", "schema_version": "3"})
        for is_async, status in ((False, 200), (True, 202)):
            harness = self.harness(
                schema_registry=schemas, message_format="body", key_query_arg="user", producer_async=is_async
            )  # fmt: skip
            self.assertEqual(self.posted(harness, path="/?user=u-1")[0], status)
            (record,) = self.records(harness)
            self.assertEqual((record.value, record.key), (b'events-value/latest:{"a":1}', b'events-key/3:"u-1"'))

    def test_misfit(self) -> None:
        """400 that says where, in both ways of sending; nothing is sent."""
        for is_async in (False, True):
            harness = self.harness(producer_async=is_async)
            self.schemas(harness).fails = SchemaMismatch(
                "the message does not fit the schema events-value: at /a: it is no string"
            )
            status, said = self.posted(harness)
            self.assertEqual((status, said["message"]), (400, "Bad Request"))
            self.assertIn("at /a: it is no string", said["error"])
            self.assertEqual(self.records(harness), [])
            self.assertIn("at /a", harness.reports[0])

    def test_away(self) -> None:
        """As when brokers are away; the log tells cause, remedy, and that nothing was sent."""
        for tells in (False, True):
            harness = self.harness(producer_async=True, error_handling={"return_error_message": tells})
            self.schemas(harness).fails = SchemaFailed("the registry of schemas does not answer", "start it")
            status, said = self.posted(harness)
            self.assertEqual((status, said["message"]), (500, "Bad Gateway"))
            self.assertEqual("does not answer" in said["error"], tells)
            self.assertIn("does not answer; it was not sent, and will not be", harness.reports[0])
            self.assertEqual(self.records(harness), [])

    def test_much_waits(self) -> None:
        harness = self.harness(producer_async=False)
        self.schemas(harness).fails = KafkaFull("too much waits for the registry of schemas")
        self.assertEqual(self.posted(harness)[0], 503)

    def test_log(self) -> None:
        """Records of requests wait, in order, until the registry has answered; what does not fit is told."""
        harness = self.harness(KafkaLog)
        schemas = self.schemas(harness)
        schemas.is_known, schemas.fails = False, SchemaFailed("it does not answer", "start it")
        for path in ("/1", "/2"):
            harness.respond(harness.send("GET", path), 200)
        self.assertEqual(self.records(harness), [])
        self.assertIn("1 records for topic events wait: it does not answer; start it", harness.reports[0])
        schemas.fails = None
        harness.advance(1.5)
        told = [json.loads(each.value.partition(b":")[2])["request"]["uri"] for each in self.records(harness)]
        self.assertEqual(told, ["/1", "/2"])
        schemas.is_known = True
        harness.respond(harness.send("GET", "/3"), 200)
        self.assertEqual(len(self.records(harness)), 3)
        schemas.fails = SchemaMismatch("at /request: no")
        harness.respond(harness.send("GET", "/4"), 200)
        self.assertIn("1 records for topic events are dropped: at /request: no", harness.reports[-1])

    def test_log_is_bounded(self) -> None:
        harness = self.harness(KafkaLog, producer_async_buffering_limits_messages_in_memory=3)
        schemas = self.schemas(harness)
        schemas.is_known, schemas.fails = False, SchemaFailed("it does not answer")
        for _ in range(4):
            harness.respond(harness.send("GET", "/"), 200)
        self.assertIn("dropped: 3 records wait for the registry", harness.reports[-1])
        schemas.fails = SchemaFailed("there is no such subject", final=True)
        harness.advance(1.5)  # what never can be written does not keep the rest
        schemas.fails = None
        harness.respond(harness.send("GET", "/5"), 200)
        self.assertEqual(len(self.records(harness)), 1)

    def test_settings(self) -> None:
        oauth = {
            "token_endpoint": "https://idp/token",
            "client_id": "c",
            "client_secret": "hidden",
            "token_headers": {"x": "1"},
        }
        shown = {"mode": "oauth2", "oauth2": oauth, "oauth2_client": {"timeout": 500, "ssl_verify": False}}
        harness = self.harness(schema_registry=registry(ttl=5, ssl_verify=False, authentication=shown))
        settings = self.schemas(harness).settings
        self.assertEqual((settings.url, settings.verify, settings.ttl), (URL, False, 5.0))
        self.assertEqual(
            settings.oauth,
            RegistryOAuth(
                "https://idp/token", client_id="c", client_secret="hidden", scopes=("openid",), headers=(("x", "1"),), timeout=0.5,
                verify=False,
            ),
        )  # fmt: skip
        self.assertNotIn("hidden", repr(settings))
        basic = {"mode": "basic", "basic": {"username": "u", "password": "hidden"}}
        settings = self.schemas(self.harness(schema_registry=registry(authentication=basic))).settings
        self.assertEqual((settings.username, settings.password, settings.ttl), ("u", "hidden", 300.0))
        self.assertNotIn("hidden", repr(settings))

    def test_refused(self) -> None:
        wrong: list[dict[str, Any]] = [
            {"url": None}, {"url": "registry:8081"}, {"value_schema": None}, {"value_schema": {"schema_version": "1"}},
            {"value_schema": {"subject_name": "a", "schema_version": "x"}}, {"ttl": 3601}, {"authentication": {"mode": "basic"}},
            {"authentication": {"mode": "oauth2"}},
            {"authentication": {"mode": "oauth2", "oauth2": {"token_endpoint": "http://t/", "grant_type": "password"}}},
            {"authentication": {"oauth2_client": {"http_proxy": "http://p:1"}}},
            {"authentication": {
                "mode": "oauth2", "oauth2": {"token_endpoint": "http://t/"}, "oauth2_client": {"auth_method": "client_secret_jwt"}
            }},
        ]  # fmt: skip
        for more in wrong:
            with self.assertRaises(EntityError, msg=repr(more)):
                self.harness(schema_registry=registry(**more))


class ConsumingTests(SynchronousTestCase):
    def test_registries(self) -> None:
        """A topic's own, or that of all."""
        own = {"confluent": {"url": "http://own"}}
        topics = [{"name": "a"}, {"name": "b", "schema_registry": own}]
        conf = {"bootstrap_servers": "kafka:9092", "topics": topics}
        harness = PluginHarness(KafkaConsume, **conf, schema_registry={"confluent": {"url": URL}})
        (feed,) = harness.host.feeds
        self.assertEqual(
            [(name, each.url) for name, each in feed.settings.registries], [("a", URL), ("b", "http://own")]
        )
        (feed,) = PluginHarness(KafkaConsume, **conf).host.feeds
        self.assertEqual([name for name, _ in feed.settings.registries], ["b"])
        (feed,) = PluginHarness(KafkaConsume, **{**conf, "topics": [{"name": "a"}]}).host.feeds
        self.assertEqual(feed.settings.registries, ())

    def test_unreadable(self) -> None:
        """An event of another name, a record with the error, and never a filter's choice."""
        record = TopicRecord("t", 1, 7, 1000, b"k", b"\0\0\0\0\1{}", (), "the value cannot be read: why")
        event = event_encoder((), False, False)(record)
        assert event is not None
        head, data = event.split(b"\n")[:2]
        self.assertEqual(head, b"event: unreadable")
        self.assertEqual(
            json.loads(data[6:]), {"topic": "t", "partition": 1, "offset": 7, "error": "the value cannot be read: why"}
        )
        event = event_encoder((), True, True)(record)
        assert event is not None
        self.assertEqual(json.loads(event[6:])["error"], "the value cannot be read: why")
        shown = json.loads(batch([FetchedPartition("t", 1, 9, (record,))], (), False))["t"]["partitions"]["1"][
            "records"
        ][0]
        self.assertEqual((shown["value"], shown["error"]), (None, "the value cannot be read: why"))
        rule = Filter({"pointer": "", "prefix": ""})
        self.assertIsNone(event_encoder([rule], False, False)(record))


class ConfluentTests(SynchronousTestCase):
    KEY = {"bootstrap_servers": "kafka:9092", "cluster_api_key": "key", "cluster_api_secret": "hidden"}

    def test_logins(self) -> None:
        """SASL over TLS, always: by key and secret, or by token."""
        harness = PluginHarness(Confluent, **self.KEY, topic="t")
        (settings,) = harness.host.producers
        connection = settings.connection
        self.assertEqual((connection.mechanism, connection.username, connection.password), ("PLAIN", "key", "hidden"))
        assert connection.tls is not None
        self.assertTrue(connection.tls.verify)
        self.assertNotIn("hidden", repr(settings))
        oauth = {"token_endpoint_url": "https://idp/token", "client_id": "c", "extensions": {"logicalCluster": "lkc-1"}}
        given = {
            "bootstrap_servers": "kafka:9092",
            "topics": [{"name": "t"}],
            "oauthbearer": oauth,
            "security": {"ssl_verify": False},
        }
        harness = PluginHarness(ConfluentConsume, **given)
        connection = kafka_connection(harness.conf.conf, harness.host)
        assert connection.tls is not None and connection.oauth is not None
        self.assertEqual(
            (connection.mechanism, connection.tls.verify, connection.keepalive), ("OAUTHBEARER", False, 60000)
        )
        self.assertEqual(connection.oauth.extensions, (("logicalCluster", "lkc-1"),))

    def test_no_login(self) -> None:
        for given in ({}, {"cluster_api_key": "key"}):
            harness = PluginHarness(ConfluentConsume, **self.KEY, topics=[{"name": "t"}])
            conf = {**harness.conf.conf, "cluster_api_key": None, "cluster_api_secret": None, **given}
            self.assertIn("cluster_api_key", str(self.assertRaises(ValueError, kafka_connection, conf, harness.host)))

    def test_as_kafkas(self) -> None:
        """What is not about the cluster is that of kafka-upstream and kafka-consume."""
        outcome = PluginHarness(Confluent, **self.KEY, topic="t", producer_async=False).send(
            "POST", "/", JSON, body=b"{}"
        )
        assert outcome.answer is not None
        self.assertEqual((outcome.answer.status, outcome.answer_json["topic"]), (200, "t"))
        (feed,) = PluginHarness(ConfluentConsume, **self.KEY, topics=[{"name": "t"}]).host.feeds
        self.assertEqual(feed.settings.topics, ("t",))
