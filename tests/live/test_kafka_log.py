"""kafka-log with Apache Kafka: a record of each request."""

from __future__ import annotations

from tests.live.kafka_kit import create_topic, topic_records
from tests.live.kafka_server import shared_cluster
from tests.live.support import LiveTestCase, wait_until


class KafkaLogTests(LiveTestCase):
    def test_records(self) -> None:
        """Each request has its record, also while the gateway stops."""
        cluster = shared_cluster()
        topic = create_topic(cluster)
        gateway = self.gateway()
        gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        config = {"bootstrap_servers": cluster.servers, "topic": topic}
        gateway.create("/plugins", name="kafka-log", config=config)
        wait_until(lambda: gateway.get("/echo?first").status == 200, "the route")
        for number in range(20):
            self.assertEqual(gateway.get(f"/echo?n={number}").status, 200)
        self.assertEqual(gateway.stop(), 0)
        values = b"".join(each.value for each in topic_records(cluster, topic))
        for number in range(20):
            self.assertEqual(values.count(b'"/echo?n=%d"' % number), 1)
