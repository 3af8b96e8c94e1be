"""``/metrics`` as Prometheus reads it: the text, what is in it, and what becomes of counters when a worker is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from .prometheus_server import PrometheusServer, promtool_complaints
from .support import PATIENCE, EventStream, GatewayProcess, LiveTestCase, free_port, request, wait_until

CONTRACT = Path(__file__).parent.parent / "contract"

ALL = {
    "status_code_metrics": True,
    "latency_metrics": True,
    "bandwidth_metrics": True,
    "upstream_health_metrics": True,
    "per_consumer": True,
}

HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
HELLO = b"\x81\x85\0\0\0\0hello"
"""A message of a client, masked with nought."""


class _Nodes(LiveTestCase):
    def node(self, **conf: Any) -> GatewayProcess:
        """A node with two workers, two upstreams, and the plugin on everything."""
        port = free_port()
        gateway = self.gateway({"nginx_worker_processes": 2, "status_listen": f"127.0.0.1:{port}", **conf})
        gateway.status_port = port
        gateway.create("/upstreams", name="pool")
        gateway.create("/upstreams/pool/targets", target=f"127.0.0.1:{self.echo}")
        gateway.route("/echo", "http://pool/", name="echo-service")
        gateway.create("/services", name="chat-service", url=f"http://127.0.0.1:{self.chat}")
        gateway.create("/services/chat-service/routes", name="chat", paths=["/chat"])
        gateway.create("/plugins", name="prometheus", config=ALL)
        wait_until(lambda: gateway.get("/echo").status == 200, "the route")
        return gateway

    def setUp(self) -> None:
        super().setUp()
        self.echo, self.chat = self.upstream("echo"), self.upstream("websocket")

    def page(self, gateway: GatewayProcess) -> str:
        answer = request(gateway.status_port, "GET", "/metrics")
        self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, "text/plain; charset=UTF-8"))
        return answer.body.decode()

    def figure(self, gateway: GatewayProcess, name: str, **labels: str) -> float:
        """The sum of the figures with these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.page(gateway))
            for sample in family.samples
            if sample.name.removesuffix("_total") == name.removesuffix("_total")
            and labels.items() <= sample.labels.items()
        )

    def websocket(self, gateway: GatewayProcess) -> ClientConnection:
        client = connect(gateway.url("/chat", "ws"), proxy=None, compression=None)
        self.addCleanup(client.close)
        return client


class PageTests(_Nodes):
    """One node."""

    def test_as_kong(self) -> None:
        """Every family that a Kong has shown: its text, its type, its labels in order, its bounds; families in order of their names.
        promtool has nothing to say of any other."""
        gateway = self.node()
        gateway.create("/routes", name="nobody", paths=["/nobody"])  # without a Service: answered by the gateway
        for target in ("/echo", "/echo?status=404", "/echo?bytes=10", "/nobody"):
            gateway.get(target)
        wait_until(lambda: self.figure(gateway, "kong_http_requests_total", source="kong") >= 1, "an answer of our own")
        text = self.page(gateway)
        recorded = json.loads((CONTRACT / "observed_metrics.json").read_text())["families"]
        lines = text.splitlines()
        for name, family in recorded.items():
            at = lines.index(f"# HELP {name} {family['help']}")
            self.assertEqual(lines[at + 1], f"# TYPE {name} {family['type']}")
            for sample, facts in family["samples"].items():
                found = [line for line in lines if line.startswith((f"{sample}{{", f"{sample} "))]
                self.assertTrue(found, sample)
                for line in found:
                    self.assertEqual(re.findall(r'[{,]([a-z_]+)="', line.partition(" ")[0]), facts["labels"], line)
                for label in set(facts) - {"labels"}:
                    seen = {value for line in found for value in re.findall(rf'[{{,]{label}="([^"]*)"', line)}
                    self.assertLessEqual(seen, set(facts[label]), f"{sample} {label}")
                    if label != "le":
                        self.assertEqual(seen, set(facts[label]), f"{sample} {label}")
        names = [line.split(" ")[2] for line in lines if line.startswith("# TYPE")]
        self.assertEqual(names, sorted(set(names)))
        self.assertEqual(set(recorded) - set(names), set())
        shown = {family.name for family in text_string_to_metric_families(text)}
        self.assertLessEqual({name.removesuffix("_total") for name in recorded if "nginx" not in name}, shown)
        complaints = promtool_complaints(text.encode())
        self.assertTrue(complaints, "Kong's own names have some")
        self.assertEqual([each for each in complaints if not each.startswith("kong_")], [])

    def test_what_is_counted(self) -> None:
        """Requests by status and source, bytes and latencies, of both workers together; nothing of what no Route has."""
        gateway = self.node()
        before = self.figure(gateway, "kong_http_requests_total", service="echo-service")
        for _ in range(20):
            gateway.get("/echo?bytes=1000")
            gateway.get("/nothing")

        def new() -> float:
            return self.figure(gateway, "kong_http_requests_total", service="echo-service", code="200") - before

        wait_until(lambda: new() == 20, "twenty requests")
        self.assertEqual(self.figure(gateway, "kong_http_requests_total"), before + 20)
        self.assertGreater(self.figure(gateway, "kong_bandwidth_bytes", direction="egress"), 20_000)
        for name in ("kong_kong_latency_ms", "kong_upstream_latency_ms", "kong_request_latency_ms"):
            self.assertEqual(self.figure(gateway, f"{name}_count"), before + 20)
            self.assertEqual(self.figure(gateway, f"{name}_bucket", le="+Inf"), before + 20)
        admin = gateway.admin("GET", "/metrics").body.decode()
        self.assertIn("kong_http_requests_total{", admin)
        (plugin,) = gateway.admin("GET", "/plugins").json["data"]
        gateway.admin("PATCH", f"/plugins/{plugin['id']}", json={"enabled": False})
        wait_until(lambda: "kong_http_requests_total" not in self.page(gateway), "hidden without the plugin")
        self.assertNotIn("kong_upstream_target_health", self.page(gateway))
        self.assertIn("kong_nginx_requests_total", self.page(gateway))

    def test_streams(self) -> None:
        """Open ones, what passes while they are open, how they end; and no lifetime among the latencies."""
        gateway = self.node()
        refused = free_port()  # nobody listens
        gateway.route("/dead", f"http://127.0.0.1:{refused}", name="dead-service", protocols=["http", "https"])
        events = self.upstream("events")
        gateway.create("/services", name="events-service", url=f"http://127.0.0.1:{events}")
        gateway.create("/services/events-service/routes", name="events", paths=["/events"])
        wait_until(lambda: gateway.get("/dead").status == 502, "the last route")
        base = self.figure(gateway, "kong_request_latency_ms_count")
        clients = [self.websocket(gateway) for _ in range(4)]
        for client in clients:
            for _ in range(3):
                client.send("hello")
                self.assertEqual(client.recv(PATIENCE), "hello")
        stream = EventStream(gateway.proxy_port, "/events", {"Last-Event-ID": "7"})
        self.addCleanup(stream.close)
        for _ in range(3):
            next(stream)
        chat = {"protocol": "websocket", "service": "chat-service", "route": "chat"}
        sse = {"protocol": "sse", "service": "events-service", "route": "events"}

        def shown(name: str, **labels: str) -> float:
            return self.figure(gateway, f"kongtwist_{name}", **labels)

        wait_until(lambda: shown("stream_open", **chat) == 4, "four open")
        wait_until(lambda: shown("stream_messages_total", **chat, direction="ingress") == 12, "their messages")
        self.assertEqual(shown("stream_messages_total", **chat, direction="egress"), 12)
        self.assertEqual(shown("stream_bytes_total", **chat, direction="ingress"), 12 * 11)
        self.assertEqual(shown("stream_first_message_seconds_count", **chat), 4)
        self.assertEqual(shown("stream_message_gap_seconds_count", **chat), 2 * 4 * 2)
        self.assertEqual(shown("stream_open", **sse), 1)
        self.assertEqual(shown("stream_resumed_total", **sse), 1)
        wait_until(lambda: shown("stream_messages_total", **sse, direction="egress") >= 3, "events")
        clients[0].close()
        clients[1].close(4321)
        clients[2].send("close")
        self.assertRaises(ConnectionClosed, clients[2].recv, PATIENCE)
        clients[3].socket.shutdown(socket.SHUT_RDWR)
        stream.close()
        wait_until(lambda: shown("streams_closed_total", **chat) == 4, "all closed")
        wait_until(lambda: shown("streams_closed_total", **sse) == 1, "the events, too")
        self.assertEqual(shown("streams_closed_total", **chat, cause="closed", code="1000"), 1)
        self.assertEqual(shown("streams_closed_total", **chat, cause="closed", code="4xxx"), 2)
        self.assertEqual(shown("stream_open", **chat), 0)
        self.assertRaises(InvalidStatus, connect, gateway.url("/dead", "ws"), proxy=None)
        wait_until(
            lambda: shown("stream_handshakes_refused_total", service="dead-service", code="502") == 1, "a refusal"
        )
        self.assertEqual(shown("stream_handshakes_refused_total"), 1)
        self.assertEqual(self.figure(gateway, "kong_http_requests_total", route="chat", code="101"), 4)
        self.assertEqual(self.figure(gateway, "kong_upstream_latency_ms_count", route="chat"), 4)
        self.assertEqual(self.figure(gateway, "kong_request_latency_ms_count", route="chat"), 0)
        self.assertEqual(self.figure(gateway, "kong_request_latency_ms_count", route="events"), 0)
        self.assertEqual(self.figure(gateway, "kong_request_latency_ms_count"), base + 1, "the refused handshake only")

    def test_processes(self) -> None:
        """Memory, CPU, descriptors and the reactor's delay, by worker."""
        gateway = self.node()
        looks = "kongtwist_reactor_delay_seconds_count"
        wait_until(lambda: all(self.figure(gateway, looks, worker=each) for each in "01"), "a look at each reactor")
        for worker in ("0", "1"):
            self.assertGreater(self.figure(gateway, "kongtwist_process_resident_bytes", worker=worker), 1e7)
            self.assertGreater(self.figure(gateway, "kongtwist_process_cpu_seconds_total", worker=worker), 0)
            opened = self.figure(gateway, "kongtwist_process_open_descriptors", worker=worker)
            self.assertGreater(opened, 5)
            self.assertLess(opened, self.figure(gateway, "kongtwist_process_max_descriptors", worker=worker))


class ScrapedTests(_Nodes):
    """Two nodes with two workers each, and a Prometheus."""

    def open(self, gateway: GatewayProcess, count: int) -> list[socket.socket]:
        """Open WebSockets, and send a message on each."""
        opened = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE)
            self.addCleanup(client.close)
            client.sendall(HANDSHAKE)
            opened.append(client)
        for client in opened:
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += client.recv(4096)
            self.assertTrue(answer.startswith(b"HTTP/1.1 101 "), answer)
            client.sendall(HELLO)
        return opened

    def talk(self, clients: list[socket.socket]) -> list[socket.socket]:
        """Send on each; those that are open still."""
        alive = []
        for client in clients:
            try:
                client.sendall(HELLO)
                client.recv(65536)
            except OSError:
                continue
            alive.append(client)
        return alive

    def workers(self, gateway: GatewayProcess) -> list[int]:
        return [each["pid"] for each in gateway.admin("GET", "/status").json["memory"]["workers_lua_vms"]]

    def test_worker_killed(self) -> None:
        """While 1,000 streams run a worker is killed: no counter ever goes back, and all go on."""
        nodes = [self.node(), self.node()]
        prometheus = PrometheusServer(self, [node.status_port for node in nodes])
        clients = [self.open(node, 500) for node in nodes]
        wait_until(lambda: prometheus.one("sum(kongtwist_stream_open)") == 1000, "all streams to be seen")

        def traffic() -> Iterator[None]:
            while True:
                for number, node in enumerate(nodes):
                    clients[number] = self.talk(clients[number])
                    self.assertEqual(node.get("/echo").status, 200)
                yield

        def until(condition: Any, what: str) -> None:
            flow = traffic()
            wait_until(lambda: next(flow) or condition(), what, 3 * PATIENCE)

        enough = prometheus.scrapes() + 4
        until(lambda: prometheus.scrapes() >= enough, "some scrapes before")
        requests = prometheus.one("sum(kong_http_requests_total)")
        messages = prometheus.one("sum(kongtwist_stream_messages_total)")
        before = self.workers(nodes[0])
        os.kill(before[0], signal.SIGKILL)
        wait_until(
            lambda: before[0] not in self.workers(nodes[0]) and len(self.workers(nodes[0])) == 2, "another worker"
        )
        clients[0] = self.talk(self.talk(clients[0]))
        clients[0] += self.open(nodes[0], 500 - len(clients[0]))
        enough = prometheus.scrapes() + 10
        until(lambda: prometheus.scrapes() >= enough, "some scrapes behind it")
        until(lambda: prometheus.one("sum(kong_http_requests_total)") > requests + 10, "requests to be counted on")
        until(lambda: prometheus.one("sum(kongtwist_stream_messages_total)") > messages + 2000, "messages, too")
        names = '__name__=~"(kong|kongtwist)_.*(_total|_bucket|_sum|_count)|kong_bandwidth_bytes"'
        counters = f'{{{names},__name__!="kong_nginx_connections_total"}}'
        seen = {labels["__name__"] for labels, _ in prometheus.query(f"last_over_time({counters}[1h])")}
        for name in (
            "kong_http_requests_total", "kong_bandwidth_bytes", "kong_kong_latency_ms_bucket", "kong_nginx_requests_total",
            "kongtwist_stream_messages_total", "kongtwist_process_cpu_seconds_total",
        ):  # fmt: skip
            self.assertIn(name, seen)
        back = {name: prometheus.query(f"resets({name}[1h]) > 0") for name in seen}
        self.assertEqual({name: found for name, found in back.items() if found}, {})
        grown = 'kong_nginx_connections_total{state=~"accepted|handled|total"}'
        self.assertEqual(prometheus.query(f"resets({grown}[1h]) > 0"), [])
        self.assertEqual(len(prometheus.query(f"last_over_time({grown}[1h])")), 6)
        self.assertGreater(prometheus.one('sum(kongtwist_streams_opened_total{protocol="websocket"})'), 1000)
        self.assertEqual(prometheus.faults(), [])

    def test_dashboard(self) -> None:
        """Each query of Kong's public dashboard finds something, and its variables have values."""
        node = self.node()
        prometheus = PrometheusServer(self, [node.status_port])
        asked = json.loads((CONTRACT / "dashboard_queries.json").read_text())
        self.assertGreater(len(asked["queries"]), 40)

        def empty() -> list[str]:
            for target in ("/echo", "/echo?status=500", "/chat"):
                node.get(target)
            queries = [re.sub(r"\$\w+", ".*", query) for query in asked["queries"]]
            return [query for query in queries if not prometheus.query(query)]

        wait_until(lambda: prometheus.scrapes() >= 3 and not empty(), "every query to find something", 2 * PATIENCE)
        for series, label in asked["variables"]:
            self.assertTrue(prometheus.values_of(series, label), (series, label))
        self.assertIn("echo-service", prometheus.values_of("kong_http_requests_total", "service"))
