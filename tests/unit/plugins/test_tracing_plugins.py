"""opentelemetry and zipkin: what they tell upstream, client and log, and what they send. Nothing is sent anywhere."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host import HTTPAnswer, LogLine
from kongtwist.core.exchange import Exchange
from kongtwist.core.log_values import Try
from kongtwist.core.tracing.trace import begin_trace, instrumented
from kongtwist.entities.errors import EntityError
from kongtwist.plugins.kafka_upstream import KafkaUpstream
from kongtwist.plugins.opentelemetry import OpenTelemetry
from kongtwist.plugins.opentelemetry.otlp_encoding import Envelope, encoded_line, encoded_span
from kongtwist.plugins.zipkin import Zipkin
from kongtwist.plugins.zipkin.zipkin_spans import tags_of
from kongtwist.testing import NOW, PluginHarness, finished

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
TRACES, LOGS, ZIPKIN = "http://c.example/v1/traces", "http://c.example/v1/logs", "http://z.example/api/v2/spans"


class TracingCase(SynchronousTestCase):
    """A plugin with one configuration."""

    maxDiff = None
    kind: Any

    def configured(self, **config: Any) -> PluginHarness:
        harness = self.harness = PluginHarness(self.kind, **config)
        harness.gateway.instrumentations = instrumented(["all"])
        return harness

    def asked(self, headers: Any = (), target: str = "/a", status: int = 200) -> Exchange:
        """A request that has had its answer, all phases."""
        harness = self.harness
        exchange = harness.request("GET", target, headers)
        exchange.route.service = {"id": "service-1", "name": "s"}  # type: ignore[misc]
        trace = begin_trace(exchange)
        trace.access_start, trace.access_end = NOW + 1, NOW + 2
        harness.plugin.access(exchange, harness.conf)
        trace.header_start, trace.header_end = NOW + 3, NOW + 3.5
        exchange.status = status
        harness.plugin.header_filter(exchange, harness.conf)
        harness.now = NOW + 4
        return exchange

    def up(self, exchange: Exchange) -> dict[str, str]:
        """The fields that go up."""
        return {name.decode(): values[-1].decode() for name, values in exchange.request_fields().items()}


class OpenTelemetryTests(TracingCase):
    kind = OpenTelemetry

    def sent(self, exchange: Exchange) -> list[Any]:
        """The spans of a request, decoded."""
        self.harness.plugin.log(exchange, self.harness.conf)
        (queue,) = (each for key, each in self.harness.host.queues.items() if key.endswith(":traces"))
        finished(queue.flush())
        if not self.harness.host.http.requests:
            return []
        request = ExportTraceServiceRequest.FromString(self.harness.host.http.requests[-1].body)
        (group,) = request.resource_spans
        (scope,) = group.scope_spans
        self.resource = {each.key: each.value.string_value for each in group.resource.attributes}
        return list(scope.spans)

    def test_spans(self) -> None:
        """A request and its tries, with Kong's names and attributes."""
        self.configured(
            traces_endpoint=TRACES, sampling_rate=1, resource_attributes={"a": "b"}, headers={"Authorization": "t"}
        )
        exchange = self.asked({"traceparent": f"00-{TRACE}-{SPAN}-01"})
        first, second = Try(NOW + 1, 0, "10.0.0.2", 80), Try(NOW + 2, 0, "10.0.0.3", 81)
        first.ended, first.code, first.host, second.host = NOW + 1.5, 504, "one", "two"
        exchange.tries = [first, second]
        root, failed, last = self.sent(exchange)
        self.assertEqual(
            (root.name, root.kind, root.trace_id.hex(), root.parent_span_id.hex()), ("kong", 2, TRACE, SPAN)
        )
        told = {each.key: each.value for each in root.attributes}
        self.assertEqual(told["http.status_code"].int_value, 200)
        self.assertEqual(told["http.url"].string_value, "http://example.com/a")
        self.assertEqual(told["net.peer.ip"].string_value, "10.0.0.1")
        self.assertEqual((failed.name, failed.status.code, last.status.code), ("kong.balancer", 2, 0))
        numbers = {each.key: each.value for each in failed.attributes}
        self.assertEqual((numbers["try_count"].double_value, numbers["net.peer.port"].double_value), (1, 80))
        self.assertEqual(numbers["http.status_code"].int_value, 504)
        self.assertEqual((failed.end_time_unix_nano - failed.start_time_unix_nano) // 10**8, 5)
        self.assertEqual({failed.parent_span_id, last.parent_span_id}, {root.span_id})
        self.assertEqual(self.up(exchange)["traceparent"], f"00-{TRACE}-{last.span_id.hex()}-01")
        self.assertEqual((self.resource["service.name"], self.resource["a"]), ("kong", "b"))
        (asked,) = self.harness.host.http.requests
        self.assertEqual((asked.method, asked.url), ("POST", TRACES))
        self.assertEqual(dict(asked.headers), {b"Authorization": b"t", b"Content-Type": b"application/x-protobuf"})

    def test_not_sampled(self) -> None:
        """A trace that was decided against is passed on so and makes no spans; nor does a share of none."""
        self.configured(traces_endpoint=TRACES, sampling_rate=1)
        exchange = self.asked({"traceparent": f"00-{TRACE}-{SPAN}-00"})
        self.assertEqual(self.sent(exchange), [])
        self.assertTrue(self.up(exchange)["traceparent"].endswith("-00"))
        self.configured(traces_endpoint=TRACES, sampling_rate=0)
        self.assertEqual(self.sent(self.asked({"traceparent": f"00-{TRACE}-{SPAN}-01"})), [])

    def test_nothing_instrumented(self) -> None:
        """Traces are passed on, not sampled; nothing is sent (Kong's default)."""
        self.configured(traces_endpoint=TRACES, sampling_rate=1)
        self.harness.gateway.instrumentations = instrumented(["off"])
        exchange = self.asked({"traceparent": f"00-{TRACE}-{SPAN}-01"})
        self.assertEqual(self.sent(exchange), [])
        self.assertRegex(self.up(exchange)["traceparent"], f"00-{TRACE}-[0-9a-f]{{16}}-00")
        self.assertNotIn(SPAN, self.up(exchange)["traceparent"])

    def test_client_is_told(self) -> None:
        """The id of the trace in a header of the answer."""
        self.configured(traces_endpoint=TRACES, http_response_header_for_traceid="X-Trace")
        exchange = self.asked({"traceparent": f"00-{TRACE}-{SPAN}-01"})
        self.assertEqual(exchange.response_changes, [("add", b"X-Trace", TRACE.encode())])

    def test_access_never_ran(self) -> None:
        """A plugin before it has answered: the request is a span all the same."""
        self.configured(traces_endpoint=TRACES, sampling_rate=1)
        exchange = self.harness.request("GET", "/x")
        exchange.status = 401
        self.harness.plugin.header_filter(exchange, self.harness.conf)
        (root,) = self.sent(exchange)
        self.assertEqual((root.name, root.parent_span_id), ("kong", b""))

    def test_produced(self) -> None:
        """A request that goes into a topic is a span, without tries."""
        harness = self.configured(traces_endpoint=TRACES, sampling_rate=1)
        harness.add(KafkaUpstream, bootstrap_servers=[{"host": "kafka", "port": 9092}], topic="events")
        outcome = harness.send(
            "POST", "/in", {"content-type": "application/json", "b3": f"{TRACE}-{SPAN}-1"}, body=b"{}"
        )
        harness.respond(outcome)
        (queue,) = harness.host.queues.values()
        finished(queue.flush())
        request = ExportTraceServiceRequest.FromString(harness.host.http.requests[-1].body)
        (root,) = request.resource_spans[0].scope_spans[0].spans
        self.assertEqual((root.name, root.trace_id.hex(), root.parent_span_id.hex()), ("kong", TRACE, SPAN))

    def test_refused(self) -> None:
        """Anything but 200 is a failure, and says what the collector said."""
        self.configured(traces_endpoint=TRACES, sampling_rate=1)
        for status in (500, 202, 301):
            answer = HTTPAnswer(status, [], b"not so")
            self.harness.host.http.reply = lambda asked, answer=answer: answer  # type: ignore[misc]
            error = self.assertRaises(ValueError, self.sent, self.asked())
            self.assertEqual(str(error), f"response error: {status}, body: not so")

    def test_rejected_in_part(self) -> None:
        """A collector that takes a batch, and not all of it, or with a warning: the log is told, once a minute; nothing is sent again."""
        self.configured(traces_endpoint=TRACES, sampling_rate=1)
        answers = (
            (0, ExportTracePartialSuccess(rejected_spans=1, error_message="too old")),
            (10, ExportTracePartialSuccess(rejected_spans=1, error_message="too old")),
            (60, ExportTracePartialSuccess(error_message="deprecated\nfield")),
            (120, ExportTracePartialSuccess(rejected_spans=1)),
            (180, ExportTracePartialSuccess()),
        )
        bodies = [(at, ExportTraceServiceResponse(partial_success=each).SerializeToString()) for at, each in answers]
        spans = 0
        for at, body in (*bodies, (240, b"{}"), (300, b"OK"), (360, b"\xff" * 600)):
            self.harness.host.http.reply = lambda asked, body=body: HTTPAnswer(200, [], body)  # type: ignore[misc]
            exchange = self.asked()
            self.harness.now += at
            spans = len(self.sent(exchange))
        prefix = f"plugin opentelemetry ({self.harness.row['id']}): "
        self.assertEqual(
            self.harness.reports,
            [
                f"{prefix}the collector rejected 1 of {spans} spans: too old; see its own log and its limits",
                f"{prefix}the collector took {spans} spans with a warning: deprecated\\nfield; see its own log and its limits"
                " (1 more since the last line)",
                f"{prefix}the collector rejected 1 of {spans} spans: it does not say why; see its own log and its limits",
            ],
        )

    def test_settings(self) -> None:
        """Former names; time limits; a Content-Type of one's own."""
        harness = self.configured(
            endpoint=TRACES, batch_span_count=7, batch_flush_delay=9, headers={"content-type": "a/b"}, sampling_rate=1,
            connect_timeout=100, send_timeout=200, read_timeout=300,
        )  # fmt: skip
        self.sent(self.asked())
        (queue,) = harness.host.queues.values()
        self.assertEqual((queue.key, queue.settings.max_batch_size), (f"{harness.row['id']}:traces", 7))
        self.assertEqual(queue.settings.max_coalescing_delay, 9)
        (asked,) = harness.host.http.requests
        self.assertEqual((dict(asked.headers), asked.options["timeout"]), ({b"content-type": b"a/b"}, 0.6))
        self.assertEqual(len(harness.reports), 2)

    def test_configurations(self) -> None:
        """One endpoint at least; no empty attribute."""
        error = self.assertRaises(EntityError, PluginHarness, OpenTelemetry)
        self.assertIn(
            "at least one of these fields must be non-empty: 'traces_endpoint', 'logs_endpoint'",
            str(error),
        )
        error = self.assertRaises(
            EntityError, PluginHarness, OpenTelemetry, traces_endpoint=TRACES, resource_attributes={"a": ""}
        )
        self.assertIn("config.resource_attributes: length must be at least 1", str(error))

    def test_lines(self) -> None:
        """Lines about the request have its trace; those about none have none. What does not fit stays out, the old ones stay."""
        harness = self.configured(
            traces_endpoint=TRACES, logs_endpoint=LOGS, sampling_rate=1, queue={"max_entries": 3, "max_batch_size": 10}
        )
        exchange = self.asked({"traceparent": f"00-{TRACE}-{SPAN}-01"})
        (take,) = harness.host.log.takers
        take(LogLine(NOW, "warn", "of none", "kongtwist.node", b""))
        harness.host.log.requests[exchange.request_id] = [
            LogLine(NOW + n, "error", f"line {n}", "kongtwist.proxy", exchange.request_id) for n in range(3)
        ]
        harness.plugin.log(exchange, harness.conf)
        queue = harness.host.queues[f"{harness.row['id']}:logs"]
        finished(queue.flush())
        (asked,) = harness.host.http.requests
        self.assertEqual(asked.url, LOGS)
        (group,) = ExportLogsServiceRequest.FromString(asked.body).resource_logs
        none, first, second = group.scope_logs[0].log_records
        self.assertEqual((none.severity_number, none.severity_text, none.trace_id), (13, "WARN", b""))
        self.assertEqual((first.severity_number, first.severity_text, first.body.string_value), (17, "ERR", "line 0"))
        self.assertEqual((first.trace_id.hex(), first.flags, second.body.string_value), (TRACE, 1, "line 1"))
        self.assertEqual({each.key: each.value.string_value for each in first.attributes}["request.id"], "0" * 32)
        harness.close()
        self.assertEqual(harness.host.log.takers, [])

    def test_encoding(self) -> None:
        """Long and odd values, and batches larger than one byte of length tells."""
        entries = [
            encoded_span(
                "x" * 300, 1, (b"\1" * 16, b"\2" * 8, b""), 5.0, 4.0, {"a": True, "b": None, "c": "é\x00"}, True, "why"
            )
            for _ in range(300)
        ]
        (group,) = ExportTraceServiceRequest.FromString(Envelope("n", {}).request(entries)).resource_spans
        spans = group.scope_spans[0].spans
        self.assertEqual((len(spans), spans[-1].name), (300, "x" * 300))
        self.assertEqual(spans[0].end_time_unix_nano, spans[0].start_time_unix_nano)
        self.assertEqual([each.key for each in spans[0].attributes], ["a", "c"])
        self.assertEqual((spans[0].status.code, spans[0].events[0].name), (2, "exception"))
        self.assertIn(b"text", encoded_line(1.0, (9, "INFO"), "text", {}))


class ZipkinTests(TracingCase):
    kind = Zipkin

    def sent(self, exchange: Exchange) -> list[dict[str, Any]]:
        """The spans of a request."""
        self.harness.plugin.log(exchange, self.harness.conf)
        for queue in self.harness.host.queues.values():
            finished(queue.flush())
        return [span for each in self.harness.host.http.requests for span in json.loads(each.body)]

    def test_spans(self) -> None:
        """Request, proxy and tries; tags; who was asked."""
        self.configured(http_endpoint=ZIPKIN, sample_ratio=1, default_service_name="other")
        exchange = self.asked()
        exchange.consumer, exchange.credential = {"id": "consumer-1"}, {"id": "credential-1"}
        first, second = Try(NOW + 1, 0, "10.0.0.2", 80), Try(NOW + 2, 0, "::1", 81)
        first.ended, first.code, second.host, second.ended = NOW + 1.5, 502, "two", NOW + 2.25
        exchange.tries = [first, second]
        failed, last, proxy, request = self.sent(exchange)
        self.assertEqual(failed["name"], "GET (balancer try 1)")
        self.assertEqual((failed["duration"], last["duration"]), (500_000, 250_000))
        self.assertEqual(
            failed["tags"],
            {
                "kong.balancer.try": "1", "error": "true", "kong.balancer.state": "failed", "http.status_code": "502",
                "kong.service": "service-1", "kong.service_name": "s", "kong.route": "route-1", "kong.route_name": "r",
            },
        )  # fmt: skip
        self.assertEqual(last["remoteEndpoint"], {"serviceName": "s", "ipv6": "::1", "port": 81})
        self.assertEqual((proxy["name"], proxy["tags"]["peer.hostname"]), ("GET (proxy)", "two"))
        self.assertEqual(request["remoteEndpoint"], {"serviceName": "other", "ipv4": "10.0.0.1", "port": 40000})
        self.assertEqual(
            (request["tags"]["kong.consumer"], request["tags"]["kong.credential"]), ("consumer-1", "credential-1")
        )
        self.assertEqual((request["timestamp"], request["duration"]), (int(NOW * 1_000_000), 4_000_000))
        told = {each["value"]: each["timestamp"] / 1_000_000 - NOW for each in proxy["annotations"]}
        self.assertEqual(told, {"kas": 1, "kaf": 2, "khs": 3, "khf": 3.5, "kbs": 3.5, "kbf": 4})

    def test_tags_for_phases(self) -> None:
        """Durations as tags."""
        self.configured(http_endpoint=ZIPKIN, sample_ratio=1, phase_duration_flavor="tags", include_credential=False)
        exchange = self.asked()
        exchange.credential = {"id": "credential-1"}
        proxy, request = self.sent(exchange)
        self.assertNotIn("annotations", proxy)
        self.assertNotIn("kong.credential", request["tags"])
        names = ("access", "header_filter", "body_filter")
        self.assertEqual([proxy["tags"][f"kong.{name}.duration_ms"] for name in names], ["1000", "500", "500"])
        self.assertEqual(request["tags"]["kong.rewrite.duration_ms"], "1000")

    def test_sampling(self) -> None:
        """What came decides; else the share. The upstream is told the decision."""
        self.configured(http_endpoint=ZIPKIN, sample_ratio=0)
        exchange = self.asked()
        self.assertEqual((self.sent(exchange), self.up(exchange)["x-b3-sampled"]), ([], "0"))
        exchange = self.asked({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "1"})
        self.assertEqual(len(self.sent(exchange)), 2)
        self.configured(http_endpoint=ZIPKIN, sample_ratio=1)
        exchange = self.asked({"x-b3-sampled": "0"})
        self.assertEqual((self.sent(exchange), self.up(exchange)["x-b3-sampled"]), ([], "0"))

    def test_shared_span(self) -> None:
        """In B3 and Jaeger both sides share a span; in W3C the client's is the parent."""
        self.configured(http_endpoint=ZIPKIN, sample_ratio=1)
        request = self.sent(self.asked({"uber-trace-id": f"{TRACE}:{SPAN}:0:01", "uberctx-a": "b"}))[-1]
        self.assertEqual((request["id"], request.get("parentId")), (SPAN, None))
        exchange = self.asked({"traceparent": f"00-{TRACE}-{SPAN}-01"})
        request = self.sent(exchange)[-1]
        self.assertEqual((request["traceId"], request["parentId"]), (TRACE, SPAN))
        self.assertNotEqual(request["id"], SPAN)

    def test_baggage_and_log(self) -> None:
        """Baggage goes up; the record has the id."""
        self.configured(http_endpoint=ZIPKIN)
        exchange = self.asked({"uber-trace-id": f"{TRACE}:{SPAN}:0:01", "uberctx-a": "b%20c"})
        self.assertEqual(self.up(exchange)["uberctx-a"], "b%20c")
        (value,) = exchange.log_values or []
        self.assertEqual((value.path, value.value), (("trace_id",), {"jaeger": TRACE}))

    def test_nowhere(self) -> None:
        """Without an address nothing is sent, and traces are passed on."""
        self.configured(sample_ratio=1)
        exchange = self.asked()
        self.assertEqual((self.sent(exchange), self.harness.host.queues), ([], {}))
        self.assertIn("x-b3-traceid", self.up(exchange))

    def test_malformed(self) -> None:
        """What is malformed is said once a minute, and nothing of it."""
        self.configured(http_endpoint=ZIPKIN, sample_ratio=1)
        for _ in range(5):
            self.asked({"traceparent": "00-evil\x01-x-y", "Zipkin-Tags": "evil;evil"})
        self.assertEqual(len(self.harness.reports), 1)
        self.assertNotIn("evil", "".join(self.harness.reports))

    def test_tags(self) -> None:
        """Tags that clients ask for, as Lua's pattern has them."""
        for text, expected, bad in (
            ("a=b; c = d e ;", {"a": "b", "c": "d e"}, 0),
            ("a=b=c", {"a=b": "c"}, 0),
            ("a==", {"a": "="}, 0),
            ("a b=c", {}, 1),
            ("=b;a=;  ;x", {}, 4),
            ("", {}, 0),
        ):
            self.assertEqual(tags_of([text.encode()]), (expected, bad), text)
        self.assertEqual(tags_of([b"a=b", b"a=c"]), ({"a": "c"}, 0))
        self.assertEqual(tags_of([b"a" + b"=" * 100_000])[1], 0)

    def test_configurations(self) -> None:
        """No tag twice, none of the plugin's own."""
        twice = [{"name": "a", "value": "b"}, {"name": "a", "value": "c"}]
        error = self.assertRaises(EntityError, PluginHarness, Zipkin, static_tags=twice)
        self.assertIn("repeated tags are not allowed: a", str(error))
        self.assertRaises(EntityError, PluginHarness, Zipkin, static_tags=[{"name": "lc", "value": "b"}])

    def test_no_route(self) -> None:
        """A request that no route matches has its spans."""
        self.configured(http_endpoint=ZIPKIN, sample_ratio=1)
        exchange = self.harness.request("GET", "/none")
        exchange.route = cast(Any, None)
        exchange.status = 404
        self.harness.plugin.header_filter(exchange, self.harness.conf)
        proxy, request = self.sent(exchange)
        self.assertEqual((request["tags"]["http.status_code"], proxy.get("tags")), ("404", None))
        self.assertEqual(SimpleNamespace(**proxy).parentId, request["id"])
