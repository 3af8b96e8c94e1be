"""Header rules in both directions, as bytes."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.exchange import Exchange
from kongtwist.core.gateway_facts import GatewayFacts
from kongtwist.core.http.head import parse_request_block, parse_response_block
from kongtwist.core.http.headers import (
    ResponseHeaders,
    apply_changes,
    forwarded_lines,
    host_name,
    path_lines,
    upstream_head,
)
from kongtwist.core.http.reasons import nginx_page
from kongtwist.observability.shared_counters import LocalCounters

ID = b"0123456789abcdef0123456789abcdef"


def exchange(fields: bytes = b"Host: A.com.:8000\r\n", **facts: Any) -> Exchange:
    made = Exchange()
    made.method, made.target, made.minor, made.scheme = b"GET", b"/st/a?b=c", 1, b"http"
    made.peer_ip = made.client_ip = "192.0.2.1"
    made.local_port, made.trusted, made.request_id, made.started = 8000, False, ID, 0.0
    made.block = parse_request_block(fields)
    made.gateway = GatewayFacts(counters=LocalCounters(), now=float, report=print)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


class TowardsUpstreamTests(SynchronousTestCase):
    def test_published_port(self) -> None:
        """Where ours is another one than clients connect to, upstreams are told theirs; a trusted peer's word is stronger."""
        made = exchange()
        made.gateway.host_ports = {8000: 80}
        self.assertIn(b"X-Forwarded-Port: 80\r\n", forwarded_lines(made))
        made = exchange(b"Host: a\r\nX-Forwarded-Port: 81\r\n", trusted=True)
        made.gateway.host_ports = {8000: 80}
        self.assertIn(b"X-Forwarded-Port: 81\r\n", forwarded_lines(made))

    def test_whole_head(self) -> None:
        head = upstream_head(
            exchange(b"Host: A.com.:8000\r\nX-A: 1\r\nContent-Length: 3\r\nTE: trailers\r\n"), b"/a", b"/st", b"up:81"
        )
        self.assertEqual(
            head,
            b"GET /a?b=c HTTP/1.1\r\nHost: up:81\r\nConnection: keep-alive\r\nVia: 1.1 kong/3.9.3\r\n"
            b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.com\r\n"
            b"X-Forwarded-Port: 8000\r\nX-Real-IP: 192.0.2.1\r\nX-Forwarded-Path: /st/a\r\nX-Forwarded-Prefix: /st\r\n"
            b"X-Kong-Request-Id: " + ID + b"\r\nTE: trailers\r\nContent-Length: 3\r\nX-A: 1\r\n\r\n",
        )

    def test_chains_of_proxies(self) -> None:
        lines = forwarded_lines(exchange(
            b"Host: a\r\nVia: 1.0 x\r\nVia: 1.1 y\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n"
            b"X-Forwarded-Host: evil\r\n"
        ))  # fmt: skip
        self.assertIn(b"Via: 1.0 x, 1.1 y, 1.1 kong/3.9.3\r\n", lines)
        self.assertIn(b"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 192.0.2.1\r\n", lines)
        self.assertIn(b"X-Forwarded-Host: a\r\n", lines)

    def test_ipv6(self) -> None:
        lines = forwarded_lines(
            exchange(b"Host: [2001:DB8::1]:8000\r\n", peer_ip="2001:db8::2", client_ip="2001:db8::2")
        )
        self.assertIn(b"X-Forwarded-For: 2001:db8::2\r\n", lines)
        self.assertIn(b"X-Forwarded-Host: [2001:db8::1]\r\n", lines)

    def test_host_names(self) -> None:
        for host, name in ((None, b"kong"), (b"A.b:1", b"a.b"), (b"a.", b"a"), (b".", b"kong"), (b"[::1]", b"[::1]")):
            self.assertEqual(host_name(host), name)

    def test_prefix(self) -> None:
        for prefix, there in ((None, False), (b"", False), (b"/", False), (b"/st", True)):
            self.assertEqual(b"Prefix: /st" in path_lines(exchange(), prefix, b"/st/a"), there)
        mounted = path_lines(exchange(mount=b"/api"), b"/st", b"/st/a")
        self.assertEqual(mounted, b"X-Forwarded-Path: /api/st/a\r\nX-Forwarded-Prefix: /api/st\r\n")
        self.assertIn(b"Prefix: /api\r\n", path_lines(exchange(mount=b"/api"), None, b"/"))

    def test_no_request_without_host(self) -> None:
        """Nobody takes it away (RFC 9112 3.2)."""
        made = exchange(b"Host: a\r\n")
        made.clear_upstream_header(b"host")
        self.assertIn(b"\r\nHost: up\r\n", upstream_head(made, b"/", None, b"up"))

    def test_changes(self) -> None:
        made = exchange(b"Host: a\r\nApikey: secret\r\nX-A: 1\r\nx-a: 2\r\n")
        made.clear_upstream_header(b"apikey")
        made.set_upstream_header(b"x-a", b"3")
        assert made.request_changes is not None
        made.request_changes[b"x-a"] = b"3\r\nX-Evil: 1"  # behind the method's back: it is no line of its own even so
        made.set_upstream_header(b"x-consumer-id", b"c")
        made.set_upstream_header(b"host", b"other")
        made.set_upstream_header(b"content-length", b"7")
        made.clear_upstream_header(b"connection")
        head = upstream_head(made, b"/", None, b"up")
        self.assertNotIn(b"secret", head)
        self.assertTrue(head.endswith(b"\r\nX-A: 3X-Evil: 1\r\nX-Consumer-Id: c\r\nHost: other\r\n\r\n"))
        self.assertEqual(head.lower().count(b"\r\nx-a:"), 1)
        self.assertEqual(head.count(b"\r\nHost:"), 1)
        self.assertIn(b"\r\nConnection: keep-alive\r\n", head)
        self.assertNotIn(b"Content-Length", head)

    def test_additions(self) -> None:
        """What a plugin adds for a consumer goes another way than changes of what is there, to the same end."""
        for fields, name in (
            (b"", b"x-consumer-id"),
            (b"X-Consumer-ID: evil\r\n", b"x-consumer-id"),
            (b"", b"x-real-ip"),
        ):
            made = exchange(b"Host: a\r\n" + fields)
            made.request_changes = {name: b"1\r\nX-Evil: 1"}
            made.clear_upstream_header(b"x-other")
            made.set_upstream_header(b"te", b"trailers")
            head = upstream_head(made, b"/", None, b"up")
            self.assertEqual(head.lower().count(b"\r\n%b: " % name), 1)
            self.assertIn(b": 1X-Evil: 1\r\n", head)
            self.assertNotIn(b": evil", head)
            self.assertNotIn(b"\r\nte:", head.lower())
            self.assertTrue(head.endswith(b"\r\n\r\n"))

    def test_query_and_body_of_plugins(self) -> None:
        made = exchange(b"Host: a\r\nContent-Length: 9\r\n")
        made.set_query_args({"x": ["1", "2"]})
        made.set_upstream_body(b"abc")
        head = upstream_head(made, b"/", None, b"up", send_id=False)
        self.assertTrue(head.startswith(b"GET /?x=1&x=2 HTTP/1.1\r\n"))
        self.assertEqual(head.count(b"Content-Length: "), 1)
        self.assertIn(b"\r\nContent-Length: 3\r\n", head)
        self.assertNotIn(b"X-Kong-Request-Id", head)
        made.set_query_args({})
        self.assertTrue(upstream_head(made, b"/", None, b"up").startswith(b"GET / HTTP/1.1\r\n"))

    def test_empty_query_is_kept(self) -> None:
        self.assertTrue(upstream_head(exchange(target=b"/st/?"), b"/", None, b"up").startswith(b"GET /? HTTP"))

    def test_websocket(self) -> None:
        made = exchange(b"Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n")
        head = upstream_head(made, b"/", None, b"up", upgrade=True)
        self.assertIn(b"\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n", head)
        self.assertIn(b"\r\nSec-WebSocket-Key: k\r\n", head)
        self.assertNotIn(b"Upgrade: websocket", upstream_head(made, b"/", None, b"up"))


class TowardsClientTests(SynchronousTestCase):
    def proxied(self, fields: bytes, *names: str, **facts: Any) -> bytes:
        made = exchange(latencies=(0.0015, 0.25), upstream_status=201, **facts)
        return ResponseHeaders(*([names] if names else [])).of_proxied(made, parse_response_block(fields))

    def test_defaults(self) -> None:
        self.assertEqual(
            self.proxied(
                b"Date: d\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: 3\r\nTrailer: T\r\n"
            ),
            b"Date: d\r\nServer: kong/3.9.3\r\nVia: 1.1 kong/3.9.3\r\nX-Kong-Upstream-Latency: 250\r\n"
            b"X-Kong-Proxy-Latency: 1\r\nX-Kong-Request-Id: " + ID + b"\r\n",
        )

    def test_upstreams_own(self) -> None:
        """Server stays, Via grows, and what another Kong wrote about itself is replaced."""
        lines = self.proxied(b"Server: up\r\nVia: 1.1 up\r\nX-Kong-Request-Id: other\r\nX-Kong-Upstream-Latency: 9\r\n")
        self.assertTrue(lines.startswith(b"Server: up\r\nVia: 1.1 up, 1.1 kong/3.9.3\r\n"))
        self.assertNotIn(b"other", lines)
        self.assertNotIn(b"Latency: 9\r\n", lines)

    def test_property(self) -> None:
        self.assertEqual(self.proxied(b"Via: 1.1 up\r\n", "off"), b"Via: 1.1 up\r\n")
        self.assertEqual(self.proxied(b"", "X-Kong-Upstream-Status"), b"X-Kong-Upstream-Status: 201\r\n")
        self.assertEqual(self.proxied(b"", "latency_tokens").count(b"Latency"), 2)
        self.assertEqual(self.proxied(b"", "Via"), b"Via: 1.1 kong/3.9.3\r\n")

    def test_trailer_is_announced_to_those_who_take_trailers(self) -> None:
        made = parse_request_block(b"Host: a\r\nTE: trailers\r\n")
        self.assertIn(b"Trailer: T\r\n", self.proxied(b"Trailer: T\r\n", block=made))

    def test_our_own(self) -> None:
        lines = ResponseHeaders().of_own(exchange(), 0.002)
        self.assertEqual(
            lines, b"X-Kong-Response-Latency: 2\r\nServer: kong/3.9.3\r\nX-Kong-Request-Id: " + ID + b"\r\n"
        )
        self.assertEqual(ResponseHeaders(["off"]).of_own(exchange(), 0.0), b"")

    def test_changes(self) -> None:
        lines = b"A: 1\r\nB: 2\r\na: 3\r\n"
        for changes, expected in (
            ([("set", b"a", b"4")], b"B: 2\r\na: 4\r\n"),
            ([("add", b"A", b"4")], lines + b"A: 4\r\n"),
            ([("clear", b"A", b"")], b"B: 2\r\n"),
            ([("add", b"C", b"1"), ("set", b"c", b"2"), ("add", b"C", b"3")], lines + b"c: 2\r\nC: 3\r\n"),
            ([("set", b"C", b"1"), ("clear", b"c", b"")], lines),
            ([("set", b"X", b"a\r\nEvil: b")], lines + b"X: aEvil: b\r\n"),
            ([("set", b"Content-Length", b"9")], lines),
        ):
            self.assertEqual(apply_changes(lines, changes), expected)
            block = parse_response_block(lines)
            self.assertEqual(apply_changes(lines, changes, block), expected)
        given = ("lines", frozenset((b"c", b"d")), b"C: 5\r\nD: 6\r\n")
        for told, expected in (
            ([given], lines + b"C: 5\r\nD: 6\r\n"),
            ([given, ("set", b"d", b"7")], lines + b"C: 5\r\nd: 7\r\n"),
            ([given, ("clear", b"C", b"")], lines + b"D: 6\r\n"),
            ([("set", b"D", b"1"), given], lines + b"C: 5\r\nD: 6\r\n"),
        ):
            for its in (None, parse_response_block(lines)):
                self.assertEqual(apply_changes(lines, told, its), expected)
        theirs = b"A: 1\r\nd: 0\r\n"
        for its in (None, parse_response_block(theirs)):
            self.assertEqual(apply_changes(theirs, [given], its), b"A: 1\r\nC: 5\r\nD: 6\r\n")
        proxied = exchange()
        proxied.latencies = (0.0, 0.001)
        block = parse_response_block(lines)
        whole = b"Date: x\r\n" + ResponseHeaders().of_proxied(
            proxied, block
        )  # as made once for the block, with more around it
        for name in (b"a", b"B", b"date", b"x-kong-upstream-latency", b"Server"):
            for changes in ([("set", name, b"4"), ("add", b"C", b"5")], [("clear", name, b""), ("set", b"b", b"6")]):
                self.assertEqual(apply_changes(whole, changes, block), apply_changes(whole, changes))
        server = b"Server: kong/3.9.3\r\n"  # written by us: no field of the upstream's block
        self.assertEqual(apply_changes(server, [("set", b"server", b"x")], parse_response_block(b"")), b"server: x\r\n")

    def test_pages(self) -> None:
        self.assertEqual(len(nginx_page(505)), 152)  # as recorded (07-raw-wire: bad-version)
        self.assertEqual(len(nginx_page(400, b"The plain HTTP request was sent to HTTPS port")), 220)
