"""What clients and the log are told when Kafka does not do what is asked of it: Kong's error, the cause, and what to do about it."""

from __future__ import annotations

import json
import signal
from typing import Any

from kafka.admin import KafkaAdminClient, NewTopic  # type: ignore[attr-defined]

from tests.live.kafka_kit import JSON, create_topic, kafka_route, new_topic, topic_values
from tests.live.kafka_server import KafkaCluster, shared_cluster
from tests.live.support import Answer, LiveTestCase, free_port, request, wait_until

NOT_SENT = {"message": "Bad Gateway", "error": "could not send message to topic"}
TIMEOUT = 2000
"""Milliseconds that the plugins wait for Kafka."""


class _Refusals(LiveTestCase):
    """A gateway with the plugin on several paths, each with a cluster of another kind of trouble."""

    def setUp(self) -> None:
        self.cluster: KafkaCluster = shared_cluster()
        self.topic = create_topic(self.cluster)
        authority = self.folder() + "/ca.pem"
        with open(authority, "w", encoding="ascii") as file:
            file.write(self.cluster.ca.pem)
        self.kong = self.gateway({"lua_ssl_trusted_certificate": authority})

    def serve(self, path: str, servers: str, **config: Any) -> None:
        """Put the plugin on a path."""
        raise NotImplementedError

    def refused(self, path: str) -> None:
        """Ask, and get the error that Kong gives."""
        raise NotImplementedError

    def works(self, path: str) -> bool:
        """Whether the plugin does what it should."""
        raise NotImplementedError

    def assertTold(self, path: str, cause: str, remedy: str) -> None:
        """Clients get the error again and again, and the log says why."""

        def told() -> bool:
            self.refused(path)
            return any(cause in line and remedy in line for line in self.kong.log().splitlines())

        wait_until(told, f"{cause}; {remedy}", 90)
        self.assertEqual(self.kong.get("/other").status, 404)  # nobody else is kept from anything

    def causes(self) -> None:
        """What is wrong from the start."""
        login = {"strategy": "sasl", "mechanism": "SCRAM-SHA-256", "user": "alice", "password": "wr0ng-secret"}
        self.serve("/nobody", f"127.0.0.1:{free_port()}")
        self.serve("/login", self.cluster.listener("SASL_PLAINTEXT"), authentication=login)
        self.serve("/expired", self.cluster.listener("EXPIRED"), security={"ssl": True})
        self.assertTold("/nobody", "connection refused", "start the broker")
        self.assertTold("/login", "login refused", "check config.authentication")
        self.assertTold("/expired", "certificate has expired", "renew it")
        self.assertNotIn("wr0ng", self.kong.report())

    def hangs(self) -> None:
        """A broker that takes connections, and answers nothing."""
        self.cluster.signal(signal.SIGSTOP)
        self.addCleanup(self.cluster.signal, signal.SIGCONT)
        self.serve("/hangs", self.cluster.servers)
        self.assertTold("/hangs", "no answer in time", "look at the broker's log and load")
        self.cluster.signal(signal.SIGCONT)
        wait_until(lambda: self.works("/hangs"), "an answer", 60)


class ProduceTests(_Refusals):
    """kafka-upstream."""

    def serve(self, path: str, servers: str, **config: Any) -> None:
        kafka_route(self.kong, servers, path, **{"topic": self.topic, "timeout": TIMEOUT, **config})

    def post(self, path: str, size: int = 10) -> Answer:
        body = json.dumps({"x": "y" * size}).encode()
        return request(self.kong.proxy_port, "POST", path, headers=JSON, body=body)

    def refused(self, path: str) -> None:
        answer = self.post(path)
        self.assertEqual((answer.status, answer.json), (500, NOT_SENT))

    def works(self, path: str) -> bool:
        return self.post(path).status == 200

    def test_wrong_from_the_start(self) -> None:
        self.causes()

    def test_broker_that_hangs(self) -> None:
        self.hangs()

    def test_larger_than_the_topic_takes(self) -> None:
        """The broker refuses the record, and only that."""
        topic = new_topic()
        admin = KafkaAdminClient(bootstrap_servers=self.cluster.servers)
        self.addCleanup(admin.close)
        admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "2000"})])
        self.serve("/small", self.cluster.servers, topic=topic, timeout=20000)
        answers = [self.post("/small", size) for size in (10, 5000, 20)]
        self.assertEqual([each.status for each in answers], [200, 500, 200])
        self.assertEqual(answers[1].json, NOT_SENT)
        self.assertIn("max.message.bytes", self.kong.log())
        self.assertEqual([len(each["body_args"]["x"]) for each in topic_values(self.cluster, topic)], [10, 20])


class ConsumeTests(_Refusals):
    """kafka-consume."""

    def serve(self, path: str, servers: str, **config: Any) -> None:
        route = self.kong.create("/routes", name=path.strip("/"), paths=[path])
        given = {"bootstrap_servers": servers, "topics": [{"name": self.topic}], "timeout": TIMEOUT, **config}
        self.kong.create(f"/routes/{route['id']}/plugins", name="kafka-consume", config=given)
        wait_until(lambda: self.kong.get(path, headers={"Last-Event-ID": "!"}).status == 400, "the plugin")

    def refused(self, path: str) -> None:
        answer = self.kong.get(path)
        self.assertEqual((answer.status, answer.json["message"]), (503, "Kafka does not answer"))

    def works(self, path: str) -> bool:
        return self.kong.get(path).status == 200

    def test_wrong_from_the_start(self) -> None:
        self.causes()

    def test_broker_that_hangs(self) -> None:
        self.hangs()
