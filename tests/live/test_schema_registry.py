"""Plugins for Kafka with a registry of schemas (Apicurio), and those for Confluent Cloud, in whole gateways in front of Apache Kafka."""

from __future__ import annotations

import json
import signal
import uuid
from itertools import islice
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from tests.live.kafka_kit import create_topic, kafka_route, topic_records
from tests.live.kafka_server import USER, KafkaCluster, shared_cluster
from tests.live.schema_registry_server import SchemaRegistryServer, shared_registry
from tests.live.support import EventStream, GatewayProcess, LiveTestCase, free_port, request, wait_until

JSON = {"Content-Type": "application/json"}
AVRO = {
    "type": "record", "name": "Event", "fields": [{"name": "user", "type": "string"}, {"name": "count", "type": ["null", "int"]}]
}  # fmt: skip
RULES = {
    "type": "object", "properties": {"user": {"type": "string"}, "count": {"type": ["null", "integer"]}}, "required": ["user"]
}  # fmt: skip


def fetched(gateway: GatewayProcess, path: str, topic: str, count: int) -> list[Any]:
    """The first records of a topic, which may take a busy machine longer than one request waits."""
    found: list[Any] = []

    def fetch() -> bool:
        answer = gateway.get(path)
        if answer.status == 200:
            found[:] = answer.json.get(topic, {"partitions": {"0": {"records": []}}})["partitions"]["0"]["records"]
        return len(found) >= count

    wait_until(fetch, f"{count} records of {topic}", 60)
    return found


class _RegistryCase(LiveTestCase):
    def setUp(self) -> None:
        self.cluster: KafkaCluster = shared_cluster()
        self.registry: SchemaRegistryServer = shared_registry()
        self.topic = create_topic(self.cluster)

    def producing(
        self, gateway: GatewayProcess, path: str, subject: str, url: str | None = None, **config: Any
    ) -> None:
        """A route whose requests are written with the newest schema of a subject."""
        schemas = {"url": url or self.registry.url, "value_schema": {"subject_name": subject}}
        given = {"topic": self.topic, "message_format": "body", "schema_registry": {"confluent": schemas}, **config}
        kafka_route(gateway, self.cluster.servers, path, **given)

    def consuming(self, gateway: GatewayProcess, path: str, **config: Any) -> None:
        """A route that answers with the records of the topic."""
        route = gateway.create("/routes", name=path.strip("/"), paths=[path])
        given = {
            "bootstrap_servers": self.cluster.servers,
            "topics": [{"name": self.topic}],
            "schema_registry": {"confluent": {"url": self.registry.url}},
            "message_deserializer": "json",
        }
        gateway.create(f"/routes/{route['id']}/plugins", name="kafka-consume", config={**given, **config})
        wait_until(lambda: gateway.get(path, headers={"Last-Event-ID": "!"}).status == 400, "the plugin")

    def post(self, gateway: GatewayProcess, path: str, value: Any) -> Any:
        return request(gateway.proxy_port, "POST", path, headers=JSON, body=json.dumps(value).encode())

    def subject(self) -> str:
        return f"s-{uuid.uuid4().hex[:8]}"


class SchemaTests(_RegistryCase):
    def test_kinds(self) -> None:
        """JSON goes in, the topic has Confluent's wire format, JSON comes out, for all three kinds; what does not fit is refused."""
        gateway = self.gateway({"nginx_worker_processes": 1})
        shared = self.subject()
        self.registry.register(shared, 'syntax = "proto3"; package ex; message Count { int32 n = 1; }', "PROTOBUF")
        proto = 'syntax = "proto3"; import "count.proto"; message Event { string user = 1; ex.Count count = 2; }'
        wanted: list[tuple[int, Any]] = []
        for kind, schema, value, wrong in (
            ("AVRO", AVRO, {"user": "ö", "count": 5}, {"user": "a", "count": "secret"}),
            ("JSON", RULES, {"user": "b", "count": None}, {"user": 5, "count": "secret"}),
            ("PROTOBUF", proto, {"user": "c", "count": {"n": 7}}, {"user": "c", "count": "secret"}),
        ):
            subject, path = self.subject(), f"/{kind.lower()}"
            references = [{"name": "count.proto", "subject": shared, "version": 1}] if kind == "PROTOBUF" else None
            number = self.registry.register(subject, schema, kind, references)
            self.producing(gateway, path, subject)
            answer = self.post(gateway, path, value)
            self.assertEqual((answer.status, answer.json["offset"]), (200, len(wanted)), answer)
            answer = self.post(gateway, path, wrong)
            self.assertEqual(answer.status, 400, answer)
            self.assertIn(f"the message does not fit the schema {subject}: at /", answer.json["error"])
            wanted.append((number, value))
        records = topic_records(self.cluster, self.topic)
        self.assertEqual(
            [each.value[:5] for each in records], [b"\0" + number.to_bytes(4, "big") for number, _ in wanted]
        )
        self.assertNotIn("secret", gateway.log())
        self.consuming(gateway, "/read", auto_offset_reset="earliest", commit_strategy="off")
        shown = fetched(gateway, "/read", self.topic, len(wanted))
        self.assertEqual([each["value"] for each in shown], [value for _, value in wanted])

    def test_events(self) -> None:
        """An event stream of records of several schemas; what no schema can read is an event of its own."""
        gateway = self.gateway({"nginx_worker_processes": 1})
        subject = self.subject()
        self.registry.register(subject, AVRO)
        self.producing(gateway, "/in", subject)
        self.consuming(gateway, "/out", mode="server-sent-events", filters=[{"pointer": "/user", "prefix": "a"}])
        self.consuming(gateway, "/all", mode="server-sent-events")
        streams = []
        for path in ("/out", "/all"):
            streams.append(EventStream(gateway.proxy_port, path))
            self.addCleanup(streams[-1].close)
        for user in ("a1", "b", "a2"):
            self.assertEqual(self.post(gateway, "/in", {"user": user, "count": None}).status, 200)
        producer = KafkaProducer(bootstrap_servers=self.cluster.servers)
        self.addCleanup(producer.close, 10)
        producer.send(self.topic, b"plain text").get(60)
        filtered = [json.loads(each["data"])["user"] for each in islice(streams[0], 2)]
        self.assertEqual(filtered, ["a1", "a2"])
        events = list(islice(streams[1], 4))
        self.assertEqual([json.loads(each["data"]).get("user") for each in events[:3]], ["a1", "b", "a2"])
        self.assertEqual(events[3]["event"], "unreadable")
        self.assertIn("does not begin with a zero", json.loads(events[3]["data"])["error"])


class OutageTests(_RegistryCase):
    def test_frozen(self) -> None:
        """Requests get their error in time, others go on, readers wait; when it answers again nothing was lost."""
        gateway = self.gateway({"nginx_worker_processes": 1})
        subject = self.subject()
        self.registry.register(subject, AVRO)
        self.producing(gateway, "/in", subject, timeout=30000)
        self.assertEqual(self.post(gateway, "/in", {"user": "a", "count": 1}).status, 200)
        self.producing(gateway, "/late", "other", timeout=700)
        reader = self.gateway({"nginx_worker_processes": 1})
        self.consuming(reader, "/out", mode="server-sent-events")
        stream = EventStream(reader.proxy_port, "/out")
        self.addCleanup(stream.close)
        self.addCleanup(self.registry.signal, signal.SIGCONT)
        self.registry.signal(signal.SIGSTOP)
        self.assertEqual(self.post(gateway, "/in", {"user": "b", "count": 2}).status, 200)  # what is known is used on
        answer = self.post(gateway, "/late", {"user": "c", "count": 2})
        self.assertEqual((answer.status, answer.json["message"]), (500, "Bad Gateway"))
        self.assertIn("did not answer in 0.7 s", gateway.log())
        self.assertIn("config.schema_registry.confluent.url", gateway.log())
        wait_until(lambda: "records wait to be read" in reader.log(), "the reader's line", 60)
        self.assertEqual(reader.get("/nothing").status, 404)
        self.registry.signal(signal.SIGCONT)
        self.assertEqual(json.loads(next(stream)["data"]), {"user": "b", "count": 2})

    def test_away(self) -> None:
        """Nobody listens: an error for requests and fetches, records of requests wait in memory."""
        url = f"http://127.0.0.1:{free_port()}"
        gateway = self.gateway({"nginx_worker_processes": 1})
        self.producing(
            gateway, "/in", "any", url=url, producer_async=True, error_handling={"return_error_message": True}
        )
        answer = self.post(gateway, "/in", {})
        self.assertEqual(answer.status, 500)
        self.assertIn("connection refused", answer.json["error"].lower())
        subject = self.subject()
        self.registry.register(subject, AVRO)
        self.producing(gateway, "/good", subject)
        self.assertEqual(self.post(gateway, "/good", {"user": "a", "count": 1}).status, 200)
        schemas = {"confluent": {"url": url}}
        told = {"return_error_message": True}
        self.consuming(gateway, "/read", schema_registry=schemas, auto_offset_reset="earliest", error_handling=told)
        for _ in range(2):  # what could not be read is not passed over
            answer = gateway.get("/read")
            self.assertEqual(answer.status, 503)
            self.assertIn("the registry of schemas does not answer", answer.json["message"])


class GuardedTests(_RegistryCase):
    """A registry behind TLS and a login, both kept by nginx."""

    def setUp(self) -> None:
        super().setUp()
        self.subject_name = self.subject()
        self.registry.register(self.subject_name, AVRO)
        folder, signed = Path(self.folder()), self.cluster.ca.sign("localhost")
        pem, self.trusted = folder / "server.pem", folder / "ca.pem"
        pem.write_text(signed.key_pem + signed.pem)
        self.trusted.write_text(self.cluster.ca.pem)
        port = free_port()
        self.nginx(
            "return 204;",
            f"server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {pem}; ssl_certificate_key {pem};"
            f' if ($http_authorization != "Basic a29uZzpzZXNhbWU=") {{ return 401 "no"; }}'
            f" location / {{ proxy_pass {self.registry.url}/; }} }}",
        )
        self.url = f"https://127.0.0.1:{port}"

    def answer(self, gateway: GatewayProcess, path: str, password: str = "sesame", **more: Any) -> Any:
        shown = {"mode": "basic", "basic": {"username": "kong", "password": password}}
        schemas = {
            "url": self.url,
            "value_schema": {"subject_name": self.subject_name},
            "authentication": shown,
            **more,
        }
        told: dict[str, Any] = {
            "schema_registry": {"confluent": schemas},
            "error_handling": {"return_error_message": True},
        }
        self.producing(gateway, path, self.subject_name, **told)
        return self.post(gateway, path, {"user": "a", "count": 1})

    def test_doors(self) -> None:
        """Certificates are verified, and passwords are not told."""
        gateway = self.gateway({"nginx_worker_processes": 1, "lua_ssl_trusted_certificate": str(self.trusted)})
        self.assertEqual(self.answer(gateway, "/good").status, 200)
        answer = self.answer(gateway, "/login", "not-sesame")
        self.assertEqual(answer.status, 500)
        self.assertIn("refuses us (401)", answer.json["error"])
        stranger = self.gateway({"nginx_worker_processes": 1})
        answer = self.answer(stranger, "/strange")
        self.assertEqual(answer.status, 500)
        self.assertIn("certificate", answer.json["error"])
        self.assertEqual(self.answer(stranger, "/trusting", ssl_verify=False).status, 200)
        for each in (gateway, stranger):
            self.assertNotIn("sesame", each.log())


class ConfluentTests(LiveTestCase):
    def setUp(self) -> None:
        self.cluster = shared_cluster()
        self.topic = create_topic(self.cluster)
        trusted = Path(self.folder(), "ca.pem")
        trusted.write_text(self.cluster.ca.pem)
        self.entry = self.gateway({"nginx_worker_processes": 1, "lua_ssl_trusted_certificate": str(trusted)})
        self.given = {
            "bootstrap_servers": self.cluster.listener("SASL_SSL"), "cluster_api_key": USER[0], "cluster_api_secret": USER[1],
            "timeout": 20000,
        }  # fmt: skip

    def plugin(self, path: str, name: str, **config: Any) -> None:
        route = self.entry.create("/routes", name=path.strip("/"), paths=[path])
        self.entry.create(f"/routes/{route['id']}/plugins", name=name, config={**self.given, **config})

    def post(self, body: str) -> int:
        return request(self.entry.proxy_port, "POST", "/in", headers=JSON, body=body.encode()).status

    def test_there_and_back(self) -> None:
        """SASL PLAIN over TLS, whose certificate is verified."""
        self.plugin("/in", "confluent", topic=self.topic, producer_async=False)
        self.plugin("/out", "confluent-consume", topics=[{"name": self.topic}], commit_strategy="off")

        def sent() -> bool:
            return self.post('{"n":1}') == 200

        wait_until(sent, "an acknowledgement")
        (record,) = fetched(self.entry, "/out", self.topic, 1)
        self.assertEqual(json.loads(record["value"])["body_args"], {"n": 1})

    def test_refused(self) -> None:
        """The log tells that the key is wrong, and not the secret."""
        self.given |= {"cluster_api_secret": "not-the-secret", "timeout": 5000}
        self.plugin("/in", "confluent", topic=self.topic, producer_async=False)
        wait_until(lambda: self.post("{}") == 500, "the error")
        wait_until(lambda: "login refused" in self.entry.log(), "the cause")
        self.assertNotIn("not-the-secret", self.entry.log())
