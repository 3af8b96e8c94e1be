"""kafka-upstream with Apache Kafka: records that arrive once, and what clients are told while brokers are away."""

from __future__ import annotations

import json
import signal
import tempfile
import threading
from typing import Any

from kafka.admin import KafkaAdminClient

from tests.live.kafka_kit import JSON, create_topic, kafka_route, new_topic, topic_records, topic_values
from tests.live.kafka_server import USER, KafkaCluster, shared_cluster
from tests.live.pki import authority
from tests.live.support import Answer, GatewayProcess, LiveTestCase, free_port, request, wait_until

SENT = {"message": "Bad Gateway", "error": "could not send message to topic"}


def post(gateway: GatewayProcess, body: Any, path: str = "/events") -> Answer:
    return request(gateway.proxy_port, "POST", path, headers=JSON, body=json.dumps(body).encode())


class ProduceTests(LiveTestCase):
    def setUp(self) -> None:
        self.cluster: KafkaCluster = shared_cluster()

    def test_acknowledged(self) -> None:
        """The answer says where the record is, and it is there."""
        topic = create_topic(self.cluster, 3)
        gateway = self.gateway()
        kafka_route(gateway, self.cluster.servers, topic=topic, key_template="{body.user_id}")
        events = [{"event_type": "click", "user_id": f"u-{number}"} for number in range(20)]
        answers = [post(gateway, event) for event in events]
        self.assertEqual({answer.status for answer in answers}, {200})
        records = {(each.partition, each.offset): each for each in topic_records(self.cluster, topic)}
        for event, answer in zip(events, answers, strict=True):
            told = answer.json
            self.assertEqual((told["message"], told["topic"]), ("message sent", topic))
            record = records.pop((told["partition"], told["offset"]))
            self.assertEqual(json.loads(record.value)["body_args"], event)
            self.assertEqual(record.key, event["user_id"].encode())
        self.assertEqual(records, {})

    def test_chosen_partition(self) -> None:
        """The client's choice; one that is not there is its fault, until it is added."""
        topic = create_topic(self.cluster, 2)
        gateway = self.gateway()
        kafka_route(gateway, self.cluster.servers, topic=topic, partition_template="{query.p}")
        self.assertEqual(post(gateway, {}, "/events?p=1").json["partition"], 1)
        refused = post(gateway, {}, "/events?p=2")
        self.assertEqual(
            (refused.status, refused.json),
            (400, {"message": "Bad Request", "error": "the topic has no such partition"}),
        )
        admin = KafkaAdminClient(bootstrap_servers=self.cluster.servers)
        self.addCleanup(admin.close)
        admin.create_partitions({topic: 3})
        wait_until(lambda: post(gateway, {}, "/events?p=2").status == 200, "the new partition")

    def test_background(self) -> None:
        topic = new_topic()  # brokers create it
        gateway = self.gateway()
        kafka_route(gateway, self.cluster.servers, topic=topic, producer_async=True, producer_async_flush_timeout=20)
        answers = [post(gateway, {"n": number}) for number in range(50)]
        self.assertEqual({(each.status, each.body) for each in answers}, {(202, b'{"message":"message sent"}')})
        wait_until(lambda: len(topic_values(self.cluster, topic)) == 50, "all records")
        told = [each["body_args"]["n"] for each in topic_values(self.cluster, topic)]
        self.assertEqual(told, list(range(50)))

    def test_what_waits_is_sent_before_the_end(self) -> None:
        """A plugin that goes, and a gateway that stops, leave nothing behind."""
        topic = create_topic(self.cluster)
        gateway = self.gateway()
        kafka_route(gateway, self.cluster.servers, topic=topic, producer_async=True, producer_async_flush_timeout=5000)
        for number in range(30):
            self.assertEqual(post(gateway, {"n": number}).status, 202)
        self.assertEqual(gateway.stop(), 0)
        self.assertEqual(len(topic_values(self.cluster, topic)), 30)

    def test_login_and_tls(self) -> None:
        path = self.folder() + "/ca.pem"
        with open(path, "w", encoding="ascii") as file:
            file.write(self.cluster.ca.pem)
        gateway = self.gateway({"lua_ssl_trusted_certificate": path})
        topic = create_topic(self.cluster)
        kafka_route(gateway, self.cluster.listener("SSL"), "/tls", topic=topic, security={"ssl": True})
        user, password = USER
        login = {"strategy": "sasl", "mechanism": "SCRAM-SHA-256", "user": user, "password": password}
        kafka_route(gateway, self.cluster.listener("SASL_PLAINTEXT"), "/login", topic=topic, authentication=login)
        for path in ("/tls", "/login"):
            self.assertEqual(post(gateway, {"path": path}, path).status, 200)
        self.assertEqual([each["body_args"]["path"] for each in topic_values(self.cluster, topic)], ["/tls", "/login"])

    def test_certificate(self) -> None:
        """What brokers are shown is another as soon as its row changes; and it is there at a start."""
        path = self.folder() + "/ca.pem"
        with open(path, "w", encoding="ascii") as file:
            file.write(self.cluster.ca.pem)
        gateway = self.gateway({"lua_ssl_trusted_certificate": path})
        topic = create_topic(self.cluster)
        nobody, good = authority("nobody").sign("gateway", client=True), self.cluster.ca.sign("gateway", client=True)
        row = gateway.create("/certificates", cert=nobody.pem, key=nobody.key_pem)
        security = {"ssl": True, "certificate_id": row["id"]}
        kafka_route(gateway, self.cluster.listener("MUTUAL"), topic=topic, security=security, timeout=2000)
        self.assertEqual(post(gateway, {}).status, 500)
        changed = {"cert": good.pem, "key": good.key_pem}
        self.assertEqual(gateway.admin("PATCH", f"/certificates/{row['id']}", json=changed).status, 200)
        wait_until(lambda: post(gateway, {}).status == 200, "an acknowledgement", 60)
        self.assertEqual(gateway.stop(), 0)
        gateway.start()
        wait_until(lambda: gateway.get("/events").status == 204, "the route")
        wait_until(lambda: post(gateway, {}).status == 200, "an acknowledgement", 60)


class FailureTests(LiveTestCase):
    """Clients get Kong's error within the time-out; the log has cause and remedy."""

    def setUp(self) -> None:
        self.cluster = shared_cluster()

    def fails(self, servers: str, cause: str, **config: Any) -> GatewayProcess:
        gateway = self.gateway()
        kafka_route(gateway, servers, **{"topic": "events", "timeout": 2000, **config})

        def told() -> bool:
            answer = post(gateway, {})
            self.assertEqual((answer.status, answer.json), (500, SENT))
            return cause in gateway.log()

        wait_until(told, cause, 60)
        return gateway

    def test_no_broker(self) -> None:
        self.fails(f"127.0.0.1:{free_port()}", "connection refused")

    def test_unknown_topic(self) -> None:
        """And records of other topics pass meanwhile."""
        folder = tempfile.mkdtemp(prefix="kongtwist-kafka-")
        strict = KafkaCluster(folder, settings={"auto.create.topics.enable": "false"})
        self.addCleanup(strict.kill_all)
        strict.start()
        topic = create_topic(strict)
        gateway = self.fails(strict.servers, "have no topic nowhere", topic="nowhere", timeout=20000)
        kafka_route(gateway, strict.servers, "/known", topic=topic, timeout=20000)
        self.assertEqual(post(gateway, {}, "/known").status, 200)

    def test_login(self) -> None:
        login = {"strategy": "sasl", "mechanism": "PLAIN", "user": "alice", "password": "wrong"}
        gateway = self.fails(self.cluster.listener("SASL_PLAINTEXT"), "login refused", authentication=login)
        self.assertNotIn("wrong", gateway.log())

    def test_not_trusted(self) -> None:
        self.fails(self.cluster.listener("SSL"), "is not trusted", security={"ssl": True})

    def test_too_large(self) -> None:
        gateway = self.gateway()
        topic = create_topic(self.cluster)
        kafka_route(gateway, self.cluster.servers, topic=topic, producer_request_limits_bytes_per_request=2048)
        self.assertEqual(post(gateway, {"x": "y" * 4000}).status, 500)
        self.assertIn("producer_request_limits_bytes_per_request", gateway.log())
        self.assertEqual(post(gateway, {}).status, 200)

    def test_background_is_bounded(self) -> None:
        gateway = self.gateway()
        kafka_route(
            gateway, f"127.0.0.1:{free_port()}", topic="events", producer_async=True,
            producer_async_buffering_limits_messages_in_memory=20,
        )  # fmt: skip
        answers = [post(gateway, {}) for _ in range(25)]
        self.assertEqual([each.status for each in answers], [202] * 20 + [503] * 5)
        self.assertEqual(answers[-1].headers["Retry-After"], "1")


class OutageTests(LiveTestCase):
    """A broker of its own, which is killed, or stands still."""

    def setUp(self) -> None:
        folder = self.folder()
        self.cluster = KafkaCluster(folder)
        self.addCleanup(self.cluster.kill_all)
        self.cluster.start()

    def test_hanging(self) -> None:
        """A broker that takes connections and does not answer."""
        gateway = self.gateway()
        topic = create_topic(self.cluster)
        kafka_route(gateway, self.cluster.servers, topic=topic, timeout=2000)
        self.assertEqual(post(gateway, {"n": 0}).status, 200)
        self.cluster.signal(signal.SIGSTOP)
        self.addCleanup(self.cluster.kill_all)
        for number in (1, 2):
            answer = post(gateway, {"n": number})
            self.assertEqual((answer.status, answer.json), (500, SENT))
        self.cluster.signal(signal.SIGCONT)
        wait_until(lambda: post(gateway, {"n": 3}).status == 200, "an acknowledgement", 60)
        numbers = [each["body_args"]["n"] for each in topic_values(self.cluster, topic)]
        self.assertEqual([each for each in numbers if each != 3], sorted({each for each in numbers if each != 3}))

    def test_killed(self) -> None:
        """Every acknowledged record is there exactly once, where the answer says; no request hangs."""
        gateway = self.gateway()
        topic = create_topic(self.cluster, 3)
        kafka_route(gateway, self.cluster.servers, topic=topic, timeout=5000)
        acknowledged: dict[str, tuple[int, int]] = {}
        failed: list[int] = []
        count, clients = 50, 8

        def client(number: int) -> None:
            for each in range(count):
                name = f"{number}-{each}"
                answer = post(gateway, {"name": name})
                if answer.status == 200:
                    told = answer.json
                    acknowledged[name] = (told["partition"], told["offset"])
                else:
                    failed.append(answer.status)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for goal in (count * clients // 5, count * clients // 2):
            wait_until(lambda goal=goal: len(acknowledged) + len(failed) >= goal, "requests", 120)  # type: ignore[misc]
            self.cluster.kill()
            self.cluster.restart()
        for thread in threads:
            thread.join(240)
            self.assertFalse(thread.is_alive())
        self.assertEqual(len(acknowledged) + len(failed), count * clients)
        self.assertLessEqual(set(failed), {500})
        self.assertGreater(len(acknowledged), 0)
        places: dict[str, list[tuple[int, int]]] = {}
        for record in topic_records(self.cluster, topic):
            places.setdefault(json.loads(record.value)["body_args"]["name"], []).append(
                (record.partition, record.offset)
            )
        for name, place in acknowledged.items():
            self.assertEqual(places.get(name), [place], name)
