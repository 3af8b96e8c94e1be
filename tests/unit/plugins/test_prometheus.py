"""prometheus: what a request counts. Nothing but the public kit is used."""

from __future__ import annotations

import re
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.observability.node_metrics import NodeMetrics
from kongtwist.plugins.prometheus import KONG_BOUNDS, UPSTREAM_BOUNDS, Prometheus
from kongtwist.testing import PluginHarness

SERVICE = {"id": "service-1", "name": "s", "host": "h.example"}
ALL = {"status_code_metrics": True, "latency_metrics": True, "bandwidth_metrics": True}
ROUTE = 'service="s",route="r",workspace="default"'


class PrometheusTests(SynchronousTestCase):
    def harness(self, **config: Any) -> PluginHarness:
        harness = PluginHarness(Prometheus, **config)
        self.node = NodeMetrics()
        self.process = self.node.reporter()
        return harness

    def answered(self, harness: PluginHarness, status: int = 200, **facts: Any) -> None:
        """A request that took 25 ms, of these 20 the upstream's."""
        outcome = harness.send("GET", "/a", headers=facts.get("headers", ()))
        exchange = outcome.exchange
        route = cast(Any, exchange.route)
        route.service = facts.get("service", SERVICE)
        route.row = facts.get("row", {"id": "r-1", "name": "r"})
        exchange.consumer = facts.get("consumer")
        exchange.latencies = facts.get("latencies", (0.004, 0.020))
        exchange.answer_source = facts.get("source", "service")
        exchange.wall_started = harness.host.now() - 0.025
        if facts.get("streamed"):
            exchange.mark_streamed()
        harness.respond(outcome, status)

    def shown(self, harness: PluginHarness) -> list[str]:
        """The figures, without the bytes themselves."""
        self.process.absorb(harness.host.metrics.kept.take())
        lines = [line for line in self.node.text().splitlines() if not line.startswith("#")]
        return [re.sub(r" \d+$", " N", line) if "bandwidth" in line else line for line in lines]

    def test_nothing(self) -> None:
        """By default nothing is counted."""
        harness = self.harness()
        self.answered(harness)
        self.assertEqual(self.shown(harness), [])

    def test_all(self) -> None:
        """Kong's names and labels, in their order."""
        harness = self.harness(**ALL)
        for _ in range(2):
            self.answered(harness)
        lines = self.shown(harness)
        kong = [f'kong_kong_latency_ms_bucket{{{ROUTE},le="{le}"}} 2' for le in (*KONG_BOUNDS[2:], "+Inf")]
        request = [f'kong_request_latency_ms_bucket{{{ROUTE},le="{le}"}} 2' for le in (*UPSTREAM_BOUNDS, "+Inf")]
        self.assertEqual(
            [line for line in lines if "upstream" not in line],
            [
                'kong_bandwidth_bytes{service="s",route="r",direction="egress",workspace="default",consumer=""} N',
                'kong_bandwidth_bytes{service="s",route="r",direction="ingress",workspace="default",consumer=""} N',
                'kong_http_requests_total{service="s",route="r",code="200",source="service",workspace="default",consumer=""} 2',
                *kong, f"kong_kong_latency_ms_sum{{{ROUTE}}} 8", f"kong_kong_latency_ms_count{{{ROUTE}}} 2",
                *request, f"kong_request_latency_ms_sum{{{ROUTE}}} 50", f"kong_request_latency_ms_count{{{ROUTE}}} 2",
            ],
        )  # fmt: skip
        self.assertIn(f"kong_upstream_latency_ms_sum{{{ROUTE}}} 40", lines)

    def test_who_answered(self) -> None:
        """By the upstream, or by the gateway: then there is no latency of the upstream."""
        harness = self.harness(**ALL)
        self.answered(harness, 503, source="error", latencies=None)
        self.answered(harness, 503)
        lines = self.shown(harness)
        for source in ("kong", "service"):
            self.assertIn(
                f'kong_http_requests_total{{service="s",route="r",code="503",source="{source}",workspace="default",consumer=""}} 1',
                lines,
            )
        self.assertIn(f"kong_upstream_latency_ms_count{{{ROUTE}}} 1", lines)
        self.assertIn(f"kong_kong_latency_ms_count{{{ROUTE}}} 2", lines)

    def test_consumers(self) -> None:
        """By username, where it is asked for; who has none is nobody."""
        for per_consumer, names in ((False, [""]), (True, ["", "ann"])):
            harness = self.harness(status_code_metrics=True, per_consumer=per_consumer)
            self.answered(harness, consumer={"id": "c", "username": "ann"})
            self.answered(harness, consumer={"id": "d", "username": None, "custom_id": "x"})
            found = [re.search('consumer="(.*?)"', line) for line in self.shown(harness)]
            self.assertEqual([match and match[1] for match in found], names)

    def test_names(self) -> None:
        """A Service without a name is told by its host, a Route by its id; both follow a change; nothing of both is nothing."""
        harness = self.harness(status_code_metrics=True)
        self.answered(harness, service=SERVICE | {"name": None}, row={"id": "r-1", "name": None})
        self.answered(harness, row={"id": "r-1", "name": "new"})
        self.answered(harness, service=None, row={"id": "r-2", "name": "alone"})
        found = [line.partition(",code")[0].partition("{")[2] for line in self.shown(harness)]
        expected = ['service="",route="alone"', 'service="h.example",route="r-1"', 'service="s",route="new"']
        self.assertEqual(found, expected)

    def test_streams(self) -> None:
        """How long they lasted is no latency; how long their head took is one."""
        harness = self.harness(**ALL)
        self.answered(harness, 101)
        self.answered(harness, 200, streamed=True)
        self.answered(harness, 200, streamed=True, latencies=None)  # answered here
        lines = self.shown(harness)
        self.assertIn(f"kong_upstream_latency_ms_count{{{ROUTE}}} 2", lines)
        self.assertIn(f"kong_kong_latency_ms_count{{{ROUTE}}} 2", lines)
        self.assertIn(f"kong_request_latency_ms_count{{{ROUTE}}} 0", lines)

    def test_refused_handshakes(self) -> None:
        """A request for a WebSocket that became none, whatever else is counted."""
        harness = self.harness()
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
        self.answered(harness, 101, headers=upgrade)
        self.answered(harness, 401, headers=upgrade, source="exit")
        counted = {key: value for key, value in harness.host.metrics.values.items() if "refused" in key[0]}
        labels = (("code", "401"), ("route", "r"), ("service", "s"), ("source", "kong"))
        self.assertEqual(counted, {("kongtwist_stream_handshakes_refused_total", labels): 1})

    def test_times_of_messages(self) -> None:
        """Until the first one, and between those of one direction."""
        harness = self.harness()
        outcome = harness.send("GET", "/a")
        cast(Any, outcome.exchange.route).service = SERVICE
        stream = harness.open_stream(outcome, "websocket")
        times = stream.times
        assert times is not None
        now = [100.0]
        times.begin(lambda: now[0])
        for passed, direction, count in ((2.0, 0, 1), (0.5, 1, 1), (1.5, 0, 3)):
            now[0] += passed
            times.passed(direction, count)
        lines = "\n".join([*self.shown(harness), ""])
        self.assertRegex(lines, r"first_message_seconds_sum\{.*\} 2\n")
        self.assertRegex(lines, r"first_message_seconds_count\{.*\} 1\n")
        self.assertRegex(lines, r'message_gap_seconds_sum\{.*direction="ingress"\} 2\n')
        self.assertRegex(lines, r'message_gap_seconds_count\{.*direction="ingress"\} 3\n')
        self.assertRegex(lines, r'message_gap_seconds_count\{.*direction="egress"\} 0\n')
