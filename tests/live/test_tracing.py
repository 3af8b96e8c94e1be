"""opentelemetry and zipkin with a real collector: two gateways in a row, tries, streams, gRPC; one that is gone, slow or refuses."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from typing import Any

import grpc

from .grpc_kit import METHOD, GRPCTestCase, echo_server
from .span_sink import TraceCollector
from .support import PATIENCE, EventStream, GatewayProcess, LiveTestCase, free_port, wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
ALL = {"tracing_instrumentations": "all", "tracing_sampling_rate": 1}


def named(spans: list[dict[str, Any]], name: str, **attributes: Any) -> dict[str, Any]:
    """The one span with this name and these attributes."""
    found = [
        each for each in spans
        if each["name"] == name and attributes.items() <= {**each.get("attributes", {}), **each.get("tags", {})}.items()
    ]  # fmt: skip
    if len(found) != 1:
        raise AssertionError(f"{len(found)} spans {name} {attributes} in {spans}")
    return found[0]


def fields(answer: Any) -> dict[str, str]:
    """The request's fields that an echo told of."""
    return {name.lower(): value for name, value in answer.json["headers"]}


class TracingTests(LiveTestCase):
    maxDiff = None

    def setUp(self) -> None:
        super().setUp()
        self.collector = TraceCollector(self)

    def traced(self, gateway: GatewayProcess, path: str, url: str, name: str = "opentelemetry", **config: Any) -> Any:
        """A route with the plugin; gives the route."""
        route = gateway.route(path, url, f"s{path.strip('/')}")
        where = {
            "opentelemetry": ("traces_endpoint", self.collector.traces),
            "zipkin": ("http_endpoint", self.collector.zipkin),
        }
        key, value = where[name]
        queue = {"max_batch_size": 20, "max_coalescing_delay": 0.1, "max_retry_delay": 0.1}
        gateway.create(f"/routes/{route['id']}/plugins", name=name, config={key: value, "queue": queue, **config})
        return route

    def test_two_gateways(self) -> None:
        """A client's trace goes through two gateways: one trace, each span within the one that asked."""
        echo = self.upstream("echo")
        back, front = self.gateway(ALL), self.gateway(ALL)
        self.traced(back, "/b", f"http://127.0.0.1:{echo}", resource_attributes={"service.name": "back"})
        self.traced(front, "/a", f"http://127.0.0.1:{back.proxy_port}/b", http_response_header_for_traceid="X-Trace")
        answer = front.get("/a/x?q=1", headers={"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "v=1"})
        self.assertEqual((answer.status, answer.headers["X-Trace"]), (200, TRACE))
        wait_until(lambda: len([s for s in self.collector.taken() if s["name"] == "kong.balancer"]) == 2, "both tries")
        spans = self.collector.taken()
        self.assertEqual({each["trace"] for each in spans}, {TRACE})
        first = named(spans, "kong", **{"http.url": "http://127.0.0.1/a/x?q=1"})
        asked = named(spans, "kong.balancer", **{"net.peer.port": float(back.proxy_port)})
        second = named(spans, "kong", **{"http.url": "http://127.0.0.1/b/x?q=1"})
        last = named(spans, "kong.balancer", **{"net.peer.port": float(echo)})
        self.assertEqual((first["parent"], asked["parent"]), (SPAN, first["id"]))
        self.assertEqual((second["parent"], last["parent"]), (asked["id"], second["id"]))
        self.assertEqual(fields(answer)["traceparent"], f"00-{TRACE}-{last['id']}-01")
        self.assertEqual(fields(answer)["tracestate"], "v=1")
        self.assertEqual((first["kind"], asked["kind"], first["scope"]), (2, 3, "kong-internal"))
        self.assertEqual((first["resource"]["service.name"], second["resource"]["service.name"]), ("kong", "back"))
        told = first["attributes"]
        self.assertEqual(told["http.status_code"], 200)
        self.assertEqual((told["http.route"], told["http.flavor"], told["http.method"]), ("/a", "1.1", "GET"))
        self.assertEqual(told["kong.request.id"], answer.headers["X-Kong-Request-Id"])
        for name in ("kong.router", "kong.access.plugin.opentelemetry", "kong.header_filter.plugin.opentelemetry"):
            inner = [each for each in spans if each["name"] == name]
            self.assertEqual({each["parent"] for each in inner}, {first["id"], second["id"]}, name)
        for each in spans:
            self.assertLessEqual(each["start"], each["end"], each)
        self.assertLessEqual(first["start"], asked["start"])
        self.assertLessEqual(last["end"], second["end"])

    def test_tries(self) -> None:
        """Each try is a span; those that failed say so, with the name that was looked up."""
        echo, dead = self.upstream("echo"), free_port()
        gateway = self.gateway(ALL)
        gateway.create("/upstreams", name="both", slots=10)
        for port in (dead, echo):
            gateway.create("/upstreams/both/targets", target=f"localhost:{port}")
        self.traced(gateway, "/a", "http://both")
        for _ in range(2):  # one of them at least begins with the dead target
            self.assertEqual(gateway.get("/a").status, 200)

        def of_both() -> list[dict[str, Any]]:
            """The spans of a request that has asked both targets."""
            spans = self.collector.taken()
            failed = [each for each in spans if each["name"] == "kong.balancer" and each["status"] == 2]
            found = [each for each in spans if failed and each["trace"] == failed[0]["trace"]]
            return found if len([each for each in found if each["name"] == "kong.balancer"]) == 2 else []

        spans = wait_until(of_both, "the spans of both tries")
        failed = named(spans, "kong.balancer", **{"net.peer.port": float(dead)})
        self.assertEqual((failed["status"], failed["attributes"]["http.status_code"]), (2, 502))
        self.assertEqual((failed["attributes"]["try_count"], failed["attributes"]["net.peer.name"]), (1.0, "localhost"))
        again = named(spans, "kong.balancer", try_count=2.0)
        self.assertEqual(
            (again["status"], again["parent"], again["attributes"]["net.peer.port"]), (0, failed["parent"], float(echo))
        )

    def test_names(self) -> None:
        """A name that has to be looked up for a request is a span of it. Those of targets are known before."""
        gateway = self.gateway(ALL)
        self.traced(gateway, "/b", f"http://localhost:{self.upstream('echo')}")
        self.assertEqual(gateway.get("/b").status, 200)
        looked = wait_until(
            lambda: [each for each in self.collector.taken() if each["name"] == "kong.dns"], "the span of the name"
        )
        self.assertEqual(looked[0]["attributes"]["dns.record.domain"], "localhost")

    def test_requests_of_plugins(self) -> None:
        """What a plugin asks of others is a span within the plugin's."""
        other = self.upstream("echo")
        gateway = self.gateway(ALL)
        route = self.traced(gateway, "/a", "http://127.0.0.1:9")
        config = {
            "appname": "app",
            "functionname": "f",
            "hostdomain": f"127.0.0.1:{other}",
            "https": False,
            "apikey": "hidden-word",
        }
        gateway.create(f"/routes/{route['id']}/plugins", name="azure-functions", config=config)
        gateway.get("/a/x")
        spans = self.collector.spans("kong", "kong.internal.request")
        inner, root = named(spans, "kong.internal.request"), named(spans, "kong")
        self.assertEqual((inner["kind"], inner["trace"]), (3, root["trace"]))
        self.assertEqual(inner["attributes"]["http.method"], "GET")
        self.assertNotIn("hidden-word", json.dumps(inner))

    def test_sampling(self) -> None:
        """A trace that came decided against is passed on so, and not sent; with instrumentations off nothing is sent."""
        echo = self.upstream("echo")
        gateway, off = self.gateway(ALL), self.gateway()
        self.traced(gateway, "/a", f"http://127.0.0.1:{echo}")
        self.traced(off, "/a", f"http://127.0.0.1:{echo}", sampling_rate=1)
        answer = gateway.get("/a", headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
        self.assertRegex(fields(answer)["traceparent"], f"00-{TRACE}-(?!{SPAN})[0-9a-f]{{16}}-00")
        answer = off.get("/a", headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
        self.assertRegex(fields(answer)["traceparent"], f"00-{TRACE}-(?!{SPAN})[0-9a-f]{{16}}-00")
        gateway.get("/a/sent")
        spans = self.collector.spans("kong")
        self.assertNotIn(TRACE, {each["trace"] for each in spans})
        self.assertEqual(off.stop(), 0)
        self.assertNotIn(TRACE, {each["trace"] for each in self.collector.taken()})

    def test_streams(self) -> None:
        """An event stream and a WebSocket are spans when they are over, with what passed."""
        gateway = self.gateway(ALL)
        self.traced(gateway, "/e", f"http://127.0.0.1:{self.upstream('events')}")
        self.traced(gateway, "/w", f"http://127.0.0.1:{self.upstream('websocket')}")
        with closing(EventStream(gateway.proxy_port, "/e")) as stream:
            next(stream)
            self.assertEqual(self.collector.taken(), [])
        told = named(self.collector.spans("kong"), "kong")["attributes"]
        self.assertEqual((told["kongtwist.stream.kind"], told["http.status_code"]), ("sse", 200))
        self.assertGreater(told["kongtwist.stream.bytes_out"], 0)
        with closing(socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE)) as client:
            client.sendall(
                b"GET /w HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                b"traceparent: 00-" + f"{TRACE}-{SPAN}-01".encode() + b"\r\n\r\n"
            )
            self.assertIn(b"101", client.recv(4096))
        wait_until(lambda: [s for s in self.collector.taken() if s["trace"] == TRACE and s["name"] == "kong"], "a span")
        told = named([s for s in self.collector.taken() if s["trace"] == TRACE], "kong")
        self.assertEqual((told["parent"], told["attributes"]["http.status_code"]), (SPAN, 101))
        self.assertEqual(told["attributes"]["kongtwist.stream.kind"], "websocket")

    def test_zipkin(self) -> None:
        """Zipkin's spans: the request, what was asked of the upstream, each try; tags, and the client's span shared."""
        echo = self.upstream("echo")
        gateway = self.gateway()
        route = self.traced(
            gateway, "/a", f"http://127.0.0.1:{echo}", "zipkin", sample_ratio=1, http_span_name="method_path",
            static_tags=[{"name": "zone", "value": "z1"}], local_service_name="edge", traceid_byte_count=8,
            http_response_header_for_traceid="X-Trace",
        )  # fmt: skip
        answer = gateway.get("/a/x", headers={"Zipkin-Tags": "who = me; bad; x=1"})
        spans = self.collector.spans("GET /a/x", "GET /a/x (proxy)", "GET /a/x (balancer try 1)", path="/api/v2/spans")
        request, proxy = named(spans, "GET /a/x"), named(spans, "GET /a/x (proxy)")
        one_try = named(spans, "GET /a/x (balancer try 1)")
        self.assertEqual(answer.headers["X-Trace"], request["traceId"])
        self.assertEqual(len(request["traceId"]), 16)
        self.assertNotIn("parentId", request)
        self.assertEqual((proxy["parentId"], one_try["parentId"]), (request["id"], request["id"]))
        self.assertEqual(
            (request["kind"], proxy["kind"], request["localEndpoint"]), ("SERVER", "CLIENT", {"serviceName": "edge"})
        )
        tags = request["tags"]
        self.assertEqual((tags["zone"], tags["who"], tags["x"], tags["http.status_code"]), ("z1", "me", "1", "200"))
        self.assertEqual((tags["lc"], tags["http.protocol"], tags["http.path"]), ("kong", "HTTP/1.1", "/a/x"))
        self.assertEqual(proxy["tags"]["kong.route"], route["id"])
        self.assertEqual(proxy["remoteEndpoint"], {"serviceName": "sa", "ipv4": "127.0.0.1", "port": echo})
        self.assertEqual({each["value"] for each in request["annotations"]}, {"krs", "krf"})
        self.assertEqual({each["value"] for each in proxy["annotations"]}, {"kas", "kaf", "khs", "khf", "kbs", "kbf"})
        sent = fields(answer)
        self.assertEqual((sent["x-b3-traceid"], sent["x-b3-spanid"]), (request["traceId"].rjust(32, "0"), proxy["id"]))
        self.assertEqual((sent["x-b3-parentspanid"], sent["x-b3-sampled"]), (request["id"], "1"))
        gateway.get("/a/y", headers={"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-parentspanid": SPAN[::-1]})
        spans = self.collector.spans("GET /a/y", path="/api/v2/spans")
        shared = named(spans, "GET /a/y")
        self.assertEqual((shared["traceId"], shared["id"], shared["parentId"]), (TRACE, SPAN, SPAN[::-1]))

    def test_lines(self) -> None:
        """Lines of the log come with their request's trace, credentials masked; those about no request come too."""
        gateway = self.gateway(ALL)
        self.traced(
            gateway, "/a", f"http://127.0.0.1:{free_port()}", logs_endpoint=self.collector.logs, connect_timeout=500
        )
        answer = gateway.get("/a?apikey=hidden-word", headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
        self.assertEqual(answer.status, 502)
        wait_until(
            lambda: [each for each in self.collector.taken("/v1/logs") if each["trace"]], "a line of the request"
        )
        lines = self.collector.taken("/v1/logs")
        (line,) = [each for each in lines if each["trace"]]
        self.assertEqual((line["trace"], line["flags"], line["severity"]), (TRACE, 1, [17, "ERR"]))
        self.assertEqual(line["attributes"]["request.id"], answer.headers["X-Kong-Request-Id"])
        self.assertEqual(line["resource"]["service.name"], "kong")
        self.assertIn("/a", line["text"])
        self.assertIn("request_id", line["text"])
        self.assertNotIn("hidden-word", json.dumps(lines))
        self.assertEqual(gateway.stop(), 0)
        wait_until(
            lambda: [each for each in self.collector.taken("/v1/logs") if not each["trace"]], "a line of no request"
        )

    def test_collector_in_trouble(self) -> None:
        """A collector that refuses, hangs or cuts costs requests nothing; what waits is bounded, and the log says what went."""
        echo = self.upstream("echo")
        gateway = self.gateway(ALL)
        queue = {
            "max_batch_size": 2,
            "max_entries": 10,
            "max_retry_time": 0.2,
            "max_retry_delay": 0.1,
            "max_coalescing_delay": 0,
        }
        self.traced(
            gateway,
            "/a",
            f"http://127.0.0.1:{echo}",
            queue=queue,
            read_timeout=200,
            send_timeout=100,
            connect_timeout=100,
        )
        for mode, line in (
            ("500", "response error: 500, body: not now"),
            ("slow", "failed to send request: timeout: "),
            ("cut", "failed to send request: POST "),
        ):
            self.collector.mode(mode)
            wait_until(lambda line=line: gateway.get("/a/x").status == 200 and line in gateway.log(), f"a line {line}")  # type: ignore[misc]
        self.collector.mode("slow")
        for number in range(30):
            self.assertEqual(gateway.get(f"/a/{number}").status, 200)
        wait_until(lambda: "queue full, dropping old entries" in gateway.log(), "a line about a full queue")
        wait_until(lambda: "max_retry_time exceeded" in gateway.log(), "a line about what was lost")
        self.collector.mode("")
        gateway.get("/a/back")
        wait_until(lambda: "http://127.0.0.1/a/back" in json.dumps(self.collector.taken()), "the newest request")


class GRPCTracingTests(GRPCTestCase):
    def test_calls(self) -> None:
        """A call takes its trace from metadata, and passes it on so."""
        port = free_port()
        server = echo_server(port)
        self.addCleanup(lambda: server.stop(None).wait())
        collector = TraceCollector(self)
        gateway = self.front(port, dict(ALL))
        gateway.create("/plugins", name="opentelemetry", config={"traces_endpoint": collector.traces})
        with grpc.insecure_channel(f"127.0.0.1:{gateway.proxy_port}") as channel:
            call = channel.stream_stream(METHOD)(
                iter([b"x"]), metadata=(("traceparent", f"00-{TRACE}-{SPAN}-01"),), timeout=PATIENCE
            )
            self.assertEqual(list(call), [b"x"])
        spans = collector.spans("kong", "kong.balancer")
        root = named(spans, "kong")
        self.assertEqual((root["trace"], root["parent"]), (TRACE, SPAN))
        self.assertEqual((root["attributes"]["http.flavor"], root["attributes"]["http.status_code"]), ("2.0", 200))
