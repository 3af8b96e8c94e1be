"""Figures of Kafka's plugins, summed over workers, as the Admin API shows them."""

from __future__ import annotations

import re

from tests.live.kafka_kit import JSON, create_topic, kafka_route
from tests.live.kafka_server import shared_cluster
from tests.live.support import EventStream, GatewayProcess, LiveTestCase, request, wait_until


def figures(gateway: GatewayProcess) -> dict[str, float]:
    """By name and labels, without the common beginning."""
    text = gateway.admin("GET", "/metrics").body.decode()
    found = re.findall(r"^kongtwist_kafka_(\S+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


class MetricsTests(LiveTestCase):
    def test_shown(self) -> None:
        cluster = shared_cluster()
        topic = create_topic(cluster, 3)
        gateway = self.gateway({"nginx_worker_processes": 2})
        kafka_route(gateway, cluster.servers, topic=topic, producer_request_limits_bytes_per_request=2048)
        route = gateway.create("/routes", name="live", paths=["/live"])
        config = {"bootstrap_servers": cluster.servers, "topics": [{"name": topic}], "mode": "server-sent-events"}
        gateway.create(f"/routes/{route['id']}/plugins", name="kafka-consume", config=config)
        wait_until(lambda: gateway.get("/live", headers={"Last-Event-ID": "!"}).status == 400, "the plugin")
        streams = [EventStream(gateway.proxy_port, "/live", {"Last-Event-ID": f"{topic}:0.0.0"}) for _ in range(4)]
        for stream in streams:
            self.addCleanup(stream.close)
        for number in range(12):
            answer = request(gateway.proxy_port, "POST", "/events", headers=JSON, body=b'{"n": %d}' % number)
            self.assertEqual(answer.status, 200)
        large = request(gateway.proxy_port, "POST", "/events", headers=JSON, body=b'"%b"' % (b"x" * 4000))
        self.assertEqual(large.status, 500)
        for stream in streams:
            for _ in range(12):
                next(stream)
        wanted = {
            f'produced_total{{topic="{topic}"}}': 13, f'acknowledged_total{{topic="{topic}"}}': 12,
            f'failed_total{{cause="too_large",topic="{topic}"}}': 1, f'in_flight{{topic="{topic}"}}': 0,
            f'produce_seconds_count{{topic="{topic}"}}': 12, f'produce_seconds_bucket{{topic="{topic}",le="+Inf"}}': 12,
            f'clients{{topics="{topic}"}}': 4, f'delivered_total{{topics="{topic}"}}': 48,
            f'client_lag_records{{topics="{topic}"}}': 0, f'clients_within_lag{{records="0",topics="{topic}"}}': 4,
        }  # fmt: skip

        def told() -> bool:
            now = figures(gateway)
            return {name: now.get(name) for name in wanted} == wanted

        wait_until(told, f"these figures: {wanted}")
        for stream in streams:
            stream.close()
        wait_until(lambda: figures(gateway)[f'clients{{topics="{topic}"}}'] == 0, "no client")
