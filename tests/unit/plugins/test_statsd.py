"""statsd and datadog: the lines that requests make. Nothing but the public kit is used."""

from __future__ import annotations

import os
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.plugins.datadog import Datadog
from kongtwist.plugins.statsd import Statsd, packets
from kongtwist.testing import PluginHarness, finished

CONSUMER = {"id": "c-1-2", "username": "ann", "custom_id": "a.7"}
SERVICE = {"id": "service-1", "name": "my.service", "host": "h.example"}


class LineCase(SynchronousTestCase):
    kind: type[Plugin]

    def harness(self, **config: Any) -> PluginHarness:
        return PluginHarness(self.kind, **config)

    def answered(self, harness: PluginHarness, status: int = 200, **facts: Any) -> None:
        """A request of a service, which took 25 ms, of these 20 the upstream's."""
        outcome = harness.send("GET", "/a")
        exchange = outcome.exchange
        cast(Any, exchange.route).service = facts.get("service", SERVICE)
        exchange.consumer = facts.get("consumer")
        exchange.latencies = facts.get("latencies", (0.004, 0.020))
        exchange.wall_started = harness.host.now() - 0.025
        harness.respond(outcome, status)

    def lines(self, harness: PluginHarness) -> list[str]:
        """What was sent, without sizes."""
        (queue,) = harness.host.queues.values()
        finished(queue.flush())
        (sock,) = harness.host.sockets.values()
        found = [line.decode() for line in sock.sent]
        sock.sent.clear()
        return found


class StatsdTests(LineCase):
    kind = Statsd

    def told(
        self, metric: dict[str, Any], status: int = 200, config: dict[str, Any] | None = None, **facts: Any
    ) -> list[str]:
        harness = self.harness(metrics=[metric], **(config or {}))
        self.answered(harness, status, **facts)
        return self.lines(harness)

    def test_all(self) -> None:
        """Kong's names, values and kinds, of a request that has a consumer."""
        harness = self.harness()
        self.answered(harness, consumer=CONSUMER)
        lines = self.lines(harness)
        route = harness.request("GET", "/").route.row["id"]
        scope = "kong.service.my_service"
        sizes = {line.split(":")[0]: line for line in lines if ".size:" in line}
        self.assertEqual(sorted(sizes), [f"{scope}.request.size", f"{scope}.response.size"])
        self.assertRegex(sizes[f"{scope}.request.size"], r":\d+\|c\Z")
        self.assertEqual(
            [line for line in lines if ".size:" not in line],
            [
                f"{scope}.request.count:1|c", f"{scope}.latency:25|ms", f"{scope}.status.200:1|c",
                f"{scope}.user.uniques:a.7|s", f"{scope}.user.a.7.request.count:1|c", f"{scope}.upstream_latency:20|ms",
                f"{scope}.kong_latency:4|ms", f"{scope}.user.a.7.status.200:1|c",
                f"kong.route.{route}.user.a.7.status.200:1|c",
            ],
        )  # fmt: skip

    def test_who(self) -> None:
        """Identifiers of each metric, else of the configuration."""
        per_user = {"name": "request_per_user", "stat_type": "counter", "sample_rate": 1}
        for identifier, text in (("consumer_id", "c-1-2"), ("username", "ann"), ("custom_id", "a.7")):
            lines = self.told(per_user | {"consumer_identifier": identifier}, consumer=CONSUMER)
            self.assertEqual(lines, [f"kong.service.my_service.user.{text}.request.count:1|c"])
        lines = self.told(per_user, config={"consumer_identifier_default": "username"}, consumer=CONSUMER)
        self.assertEqual(lines, ["kong.service.my_service.user.ann.request.count:1|c"])
        self.assertEqual(self.told(per_user), [])
        count = {"name": "request_count", "stat_type": "counter", "sample_rate": 1}
        for identifier, text in (
            ("service_id", "service-1"),
            ("service_host", "h_example"),
            ("service_name", "my_service"),
        ):
            lines = self.told(count | {"service_identifier": identifier})
            self.assertEqual(lines, [f"kong.service.{text}.request.count:1|c"])
        nameless = {"id": "s", "name": None, "host": "h.example"}
        self.assertEqual(self.told(count, service=nameless), ["kong.service.h_example.request.count:1|c"])
        lines = self.told(count | {"service_identifier": "service_name"}, service=nameless)
        self.assertEqual(lines, ["kong.service.unnamed.request.count:1|c"])
        self.assertEqual(self.told(count, service=None), ["kong.global.unmatched.request.count:1|c"])

    def test_prefix_and_rate(self) -> None:
        count = {"name": "request_count", "stat_type": "counter", "sample_rate": 0.25}
        lines = self.told(count, config={"prefix": "edge", "hostname_in_prefix": True})
        self.assertEqual(lines, ["edge.node.host.service.my_service.request.count:1|c|@0.25"])

    def test_an_answer_of_our_own(self) -> None:
        """There is no time of an upstream to tell."""
        metric = {"name": "upstream_latency", "stat_type": "timer"}
        self.assertEqual(self.told(metric, 401, latencies=None), [])

    def test_statuses(self) -> None:
        metric = {"name": "status_count", "stat_type": "counter", "sample_rate": 1}
        config = {"allow_status_codes": ["200-204", "500-599"]}
        self.assertEqual(self.told(metric, 404, config), [])
        self.assertEqual(self.told(metric, 503, config), ["kong.service.my_service.status.503:1|c"])

    def test_tags(self) -> None:
        """Each style's form, of plain numbers only."""
        harness = self.harness()
        row = harness.request("GET", "/").route.row
        pairs = [("service", "my.service"), ("route", row.get("name") or row["id"]), ("consumer", "a.7"), ("node", "host"),
                 ("status", "200")]  # fmt: skip
        equal = ",".join(f"{key}={value}" for key, value in pairs)
        colon = ",".join(f"{key}:{value}" for key, value in pairs)
        for style, wanted in (
            ("dogstatsd", f"kong.latency:25|ms|#{colon}"), ("influxdb", f"kong.latency,{equal}:25|ms"),
            ("librato", f"kong.latency#{equal}:25|ms"), ("signalfx", f"kong.latency[{equal}]:25|ms"),
        ):  # fmt: skip
            metric = {"name": "latency", "stat_type": "timer"}
            self.assertEqual(self.told(metric, config={"tag_style": style}, consumer=CONSUMER), [wanted])
            lines = self.told(
                {"name": "unique_users", "stat_type": "set"}, config={"tag_style": style}, consumer=CONSUMER
            )
            self.assertEqual(lines, [])
        self.assertEqual(
            self.told({"name": "latency", "stat_type": "timer"}, config={"tag_style": "librato"}, service=None),
            ["kong.latency:25|ms"],
        )

    def test_packets(self) -> None:
        """Lines are joined as far as they fit; one that does not fit is sent alone."""
        self.assertEqual(list(packets(["aa", "bb", "cc"], 0)), [b"aa", b"bb", b"cc"])
        self.assertEqual(list(packets(["aa", "bb", "cc"], 5)), [b"aa\nbb", b"cc"])
        self.assertEqual(list(packets(["a" * 9, "b", "c"], 5)), [b"a" * 9, b"b\nc"])
        self.assertEqual(list(packets([], 5)), [])

    def test_tcp(self) -> None:
        """Lines over a connection, which is given back when the plugin closes."""
        harness = self.harness(use_tcp=True, metrics=[{"name": "latency", "stat_type": "timer"}])
        self.answered(harness)
        (queue,) = harness.host.queues.values()
        finished(queue.flush())
        (connection,) = harness.host.connections
        self.assertEqual(connection.written, b"kong.service.my_service.latency:25|ms\n")
        finished(harness.plugin.close(harness.conf))
        self.answered(harness)
        finished(queue.flush())
        self.assertTrue(connection.closed)


class DatadogTests(LineCase):
    kind = Datadog

    def test_all(self) -> None:
        harness = self.harness()
        self.answered(harness, 404, consumer=CONSUMER)
        tags = "|#name:my_service,status:404,consumer:a.7,app:kong"
        lines = self.lines(harness)
        self.assertEqual(
            [line for line in lines if ".size:" not in line],
            [
                f"kong.request.count:1|c{tags}", f"kong.latency:25|ms{tags}", f"kong.upstream_latency:20|ms{tags}",
                f"kong.kong_latency:4|ms{tags}",
            ],
        )  # fmt: skip
        self.assertEqual(len(lines), 6)

    def test_own(self) -> None:
        """Names of tags, kinds, rates, and ids whose dashes a tag would not keep."""
        harness = self.harness(
            prefix="edge", service_name_tag="svc", status_tag="code", consumer_tag="who",
            metrics=[{"name": "latency", "stat_type": "distribution", "sample_rate": 0.5, "consumer_identifier": "consumer_id"}],
        )  # fmt: skip
        self.answered(harness, consumer=CONSUMER)
        self.assertEqual(self.lines(harness), ["edge.latency:25|d|@0.5|#svc:my_service,code:200,who:c_1_2"])

    def test_an_answer_of_our_own(self) -> None:
        """-1 is told, as Kong does; without a service nothing is."""
        harness = self.harness(metrics=[{"name": "upstream_latency", "stat_type": "gauge", "sample_rate": 1}])
        self.answered(harness, 401, latencies=None)
        self.assertEqual(self.lines(harness), ["kong.upstream_latency:-1|g|#name:my_service,status:401"])
        self.answered(harness, 404, service=None)
        self.assertEqual(self.lines(harness), [])

    def test_agent_of_the_environment(self) -> None:
        self.patch(os, "environ", {"KONG_DATADOG_AGENT_HOST": "agent.example", "KONG_DATADOG_AGENT_PORT": "8200"})
        self.assertEqual(list(self.harness(host=None, port=None).host.sockets), [("agent.example", 8200)])
        self.assertEqual(list(self.harness().host.sockets), [("localhost", 8125)])
