"""Every log plugin on every path: one record, or one count, for each request and each stream, with the right fields.

A plugin more is a line in `LogPathTests.sinks`, a path more a method ``on_...`` and a line in `PATHS`.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import grpc
from websockets.sync.client import connect

from tests.live.collector_process import Collector
from tests.live.grpc_kit import GRPCTestCase
from tests.live.kafka_kit import JSON, create_topic
from tests.live.kafka_server import shared_cluster
from tests.live.log_sinks import (
    Datagrams,
    Lines,
    Logged,
    Sink,
    counted,
    of_collector,
    of_file,
    of_spans,
    of_topic,
    recorded,
)
from tests.live.span_sink import TraceCollector
from tests.live.support import PATIENCE, EventStream, GatewayProcess, request, wait_until


class Path(NamedTuple):
    """What a record has to tell. ``upstream``: its status, "" where none was asked."""

    method: str
    uri: str
    status: int
    upstream: str


PATHS = {
    "http": Path("POST", "/http/a?b=1", 200, "200"),
    "sse": Path("GET", "/sse", 200, "200"),
    "websocket": Path("GET", "/websocket", 101, "101"),
    "grpc": Path("POST", "/echo.Echo/Both", 200, "200"),
    "produce": Path("POST", "/produce", 200, ""),
    "lines": Path("POST", "/lines", 200, ""),
    "messages": Path("GET", "/messages", 101, ""),
    "secure": Path("GET", "/secure", 101, ""),
    "consume": Path("GET", "/consume", 200, ""),
}
"""By the name of the service, which is that of the route."""


class LogPathTests(GRPCTestCase):
    """One gateway with all of them."""

    def sinks(self) -> list[Sink]:
        """The plugins, where they send to, and what has come there."""
        folder = self.folder()
        path, socket = os.path.join(folder, "log"), os.path.join(folder, "socket")
        collector, tcp, syslog = Collector(self), Lines(self), Datagrams(self, socket)
        traces, zipkin = TraceCollector(self), TraceCollector(self)
        udp, loggly, statsd, datadog = (Datagrams(self) for _ in range(4))
        topic = create_topic(self.cluster)
        status = [{"name": "status_count", "stat_type": "counter", "sample_rate": 1}]
        to = {"host": "127.0.0.1"}
        return [
            Sink("http-log", {"http_endpoint": collector.url}, lambda: of_collector(collector)),
            Sink("file-log", {"path": path}, lambda: of_file(path)),
            Sink("tcp-log", {**to, "port": tcp.port}, lambda: recorded(tcp.read())),
            Sink("udp-log", {**to, "port": udp.port}, lambda: recorded(udp.read())),
            Sink("loggly", {**to, "port": loggly.port, "key": "token", "log_level": "debug"}, lambda: recorded(loggly.read())),
            Sink("syslog-aside", {"path": socket}, lambda: recorded(syslog.read())),
            Sink("kafka-log", {"bootstrap_servers": self.cluster.servers, "topic": topic}, lambda: of_topic(self.cluster, topic)),
            Sink("statsd", {**to, "port": statsd.port, "metrics": status}, lambda: counted(statsd.read())),
            Sink("datadog", {**to, "port": datadog.port}, lambda: counted(datadog.read())),
            Sink("opentelemetry", {"traces_endpoint": traces.traces}, lambda: of_spans(traces.taken())),
            Sink("zipkin", {"http_endpoint": zipkin.zipkin, "sample_ratio": 1}, lambda: of_spans(zipkin.taken("/api/v2/spans"))),
        ]  # fmt: skip

    # -- paths -----------------------------------------------------------------------------------------------------------------

    def on_http(self, gateway: GatewayProcess) -> None:
        """A request with its answer."""
        answer = request(gateway.proxy_port, "POST", "/http/a?b=1", body=b"hello")
        self.assertEqual(answer.status, 200)

    def on_sse(self, gateway: GatewayProcess) -> None:
        """An event stream that the client leaves."""
        events = EventStream(gateway.proxy_port, "/sse")
        for _ in range(3):
            next(events)
        events.close()

    def on_websocket(self, gateway: GatewayProcess) -> None:
        """Messages both ways."""
        self._echoed(gateway, "/websocket", lambda text: text)

    def _echoed(self, gateway: GatewayProcess, path: str, told: Callable[[str], str]) -> None:
        context = None
        if path == "/secure":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # this client reads and writes in two threads
        start = f"wss://127.0.0.1:{gateway.tls_port}" if context else f"ws://127.0.0.1:{gateway.proxy_port}"
        with connect(start + path, open_timeout=PATIENCE, ssl=context) as client:
            for number in range(3):
                client.send(f'{{"n":{number}}}')
                self.assertIn(told(f'{{"n":{number}}}'), str(client.recv(PATIENCE)))

    def on_grpc(self, gateway: GatewayProcess) -> None:
        """A stream both ways."""
        with grpc.insecure_channel(f"127.0.0.1:{gateway.proxy_port}") as channel:
            call = channel.stream_stream("/echo.Echo/Both")(iter([b"1", b"2", b"3"]), timeout=PATIENCE)
            self.assertEqual(list(call), [b"1", b"2", b"3"])

    def on_produce(self, gateway: GatewayProcess) -> None:
        """A request that is put into a topic."""
        answer = request(gateway.proxy_port, "POST", "/produce", body=b"{}", headers=JSON)
        self.assertEqual((answer.status, answer.json["message"]), (200, "message sent"))

    def on_lines(self, gateway: GatewayProcess) -> None:
        """Many records of one body."""
        headers = {"Content-Type": "application/x-ndjson"}
        answer = request(gateway.proxy_port, "POST", "/lines", body=b"1\n2\n3\n", headers=headers)
        self.assertEqual([json.loads(each)["message"] for each in answer.body.splitlines()], ["message sent"] * 3)

    def on_messages(self, gateway: GatewayProcess) -> None:
        """Many records over a WebSocket, which ends here."""
        self._echoed(gateway, "/messages", lambda _: "message sent")

    def on_secure(self, gateway: GatewayProcess) -> None:
        """The same under TLS."""
        self._echoed(gateway, "/secure", lambda _: "message sent")

    def on_consume(self, gateway: GatewayProcess) -> None:
        """Records as events."""
        events = EventStream(gateway.proxy_port, "/consume")
        self.assertTrue(next(events))
        events.close()

    # -- the gateway -----------------------------------------------------------------------------------------------------------

    def configured(self) -> GatewayProcess:
        """A gateway with all paths, and no log plugin yet."""
        conf = {
            "plugins": "bundled,tests.live.syslog_aside:SyslogAside", "nginx_worker_processes": 1,
            "tracing_instrumentations": "all", "tracing_sampling_rate": 1,
        }  # fmt: skip
        gateway = self.gateway(conf, tls=True)
        echo = self.upstream("echo")
        upstreams = {
            "http": f"http://127.0.0.1:{echo}",
            "sse": f"http://127.0.0.1:{self.upstream('events')}",
            "websocket": f"http://127.0.0.1:{self.upstream('websocket')}",
            "grpc": f"grpc://127.0.0.1:{self.echo()}",
        }
        for name in PATHS:
            url = {"url": upstreams[name]} if name in upstreams else {"host": "kafka.internal"}
            gateway.create("/services", name=name, **url)
            kind: dict[str, Any] = {"paths": [f"/{name}"]}
            if name == "grpc":
                kind = {"paths": ["/echo.Echo"], "protocols": ["grpc", "grpcs"]}
            gateway.create(f"/services/{name}/routes", name=name, **kind)
        topic = create_topic(self.cluster)
        brokers = {"bootstrap_servers": self.cluster.servers}
        sockets = {"allow_websocket": True}
        kinds = {"produce": {}, "lines": {"allow_ndjson": True}, "messages": sockets, "secure": sockets}
        for name, more in kinds.items():
            config = {**brokers, "topic": topic, "producer_async": False, **more}
            gateway.create(f"/services/{name}/plugins", name="kafka-upstream", config=config)
        config = {
            **brokers, "topics": [{"name": topic}], "mode": "server-sent-events", "auto_offset_reset": "earliest",
        }  # fmt: skip
        gateway.create("/routes/consume/plugins", name="kafka-consume", config=config)
        gateway.route("/warm", f"http://127.0.0.1:{echo}", "warm")
        return gateway

    def setUp(self) -> None:
        super().setUp()
        self.cluster = shared_cluster()

    def test_one_record_each(self) -> None:
        gateway, sinks = self.configured(), self.sinks()
        for sink in sinks:
            gateway.create("/plugins", name=sink.name, config=sink.config)
        gateway.create("/plugins", name="prometheus", config={"status_code_metrics": True})

        def warm(sink: Sink) -> bool:
            request(gateway.proxy_port, "GET", "/warm")
            return bool(sink.read())

        for sink in sinks:
            wait_until(partial(warm, sink), f"something of {sink.name}")
        begun = time.time()
        for name in PATHS:
            getattr(self, f"on_{name}")(gateway)

        def missing() -> list[str]:
            """Before the gateway stops: what it ends by itself says another cause."""
            seen = Counter(each.service for each in sinks[0].read())
            return [name for name in PATHS if name not in seen]

        wait_until(lambda: not missing(), "a record of each stream, though the gateway goes on")
        self.assertCounted(gateway)
        self.assertEqual(gateway.stop(), 0)  # which sends what waits in queues
        for sink in sinks:
            wait_until(partial(self.has_all, sink), f"records of {sink.name}")
            found = self.of_paths(sink)
            self.assertEqual(
                Counter((each.service, each.status) for each in found),
                Counter((name, path.status) for name, path in PATHS.items()),
                sink.name,
            )
            for each in found:
                if each.record:
                    self.assertRecord(sink.name, each, begun)
        self.assertSame([sink for sink in sinks if self.of_paths(sink)[0].record])

    def assertCounted(self, gateway: GatewayProcess) -> None:
        """prometheus counts each once, as it ended."""
        page = request(gateway.admin_port, "GET", "/metrics").body.decode()
        found = re.findall(r'^kong_http_requests_total\{service="(\w+)",.*?code="(\d+)".*\} (\d+)$', page, re.MULTILINE)
        seen = {(service, int(code)): int(count) for service, code, count in found if service in PATHS}
        self.assertEqual(seen, {(name, path.status): 1 for name, path in PATHS.items()}, page)

    @staticmethod
    def of_paths(sink: Sink) -> list[Logged]:
        return [each for each in sink.read() if each.service in PATHS]

    def has_all(self, sink: Sink) -> bool:
        """Whether there is something of each path."""
        return len(self.of_paths(sink)) >= len(PATHS)

    def assertRecord(self, plugin: str, logged: Logged, begun: float) -> None:
        """The record tells the request."""
        record, path, where = logged.record, PATHS[logged.service], f"{plugin} on {logged.service}"
        told = record["request"]
        self.assertEqual((told["method"], told["uri"]), (path.method, path.uri), where)
        self.assertEqual(record["upstream_status"], path.upstream, where)
        self.assertEqual(record["route"]["name"], logged.service, where)
        self.assertEqual(record["client_ip"], "127.0.0.1", where)
        self.assertGreater(told["size"], 20, where)
        self.assertGreater(record["response"]["size"], 20, where)
        self.assertEqual(len(record["tries"]), 1 if path.upstream else 0, where)
        latencies = record["latencies"]
        self.assertGreaterEqual(latencies["request"], max(latencies["proxy"], latencies["kong"], 0), where)
        self.assertEqual("tls" in told, logged.service == "secure", where)
        self.assertLess(abs(record["started_at"] / 1000 - begun), 600, where)

    def assertSame(self, sinks: list[Sink]) -> None:
        """All plugins tell one request in the same words, but for the time at which they looked."""
        first, *others = [{each.service: _without_times(each.record) for each in self.of_paths(sink)} for sink in sinks]
        for sink, other in zip(sinks[1:], others, strict=True):
            self.assertEqual(other, first, sink.name)


def _without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "latencies"}
