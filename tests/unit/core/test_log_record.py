"""The record that log plugins send, field for field as Kong's."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Exchange
from kongtwist.core.http.head import HeaderBlock
from kongtwist.core.log_headers import LoggedHeaders, response_headers
from kongtwist.core.log_record import MEMBERS, LogRecords
from kongtwist.core.log_values import Try
from kongtwist.testing import NOW, PluginHarness


class Nothing(Plugin):
    name = "nothing"
    priority = 5


HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 5\r\n"
    b"Connection: keep-alive\r\n\r\n"
)


class RecordTests(SynchronousTestCase):
    maxDiff = None

    def exchange(self, target: str = "/get?a=1&b&a=2", **headers: str) -> Exchange:
        harness = PluginHarness(Nothing)
        exchange = harness.request("GET", target, {"Host": "Example.com:8000", **headers})
        exchange.gateway.workspace_id = "w-1"
        exchange.wall_started = NOW - 0.25
        exchange.status = exchange.upstream_status = 200
        exchange.latencies = (0.002, 0.1)
        exchange.sent_head = HEAD
        exchange.bytes_out = 5
        return exchange

    def record(self, exchange: Exchange) -> dict[str, Any]:
        records = LogRecords(exchange.gateway.workspace_id)
        record = records.record(exchange)
        self.assertEqual(json.loads(records.text(exchange)), record)
        return record

    def test_proxied(self) -> None:
        """All of it."""
        exchange = self.exchange(Authorization="Basic x", **{"X-A": "1"})
        exchange.tries = [Try(NOW, 0.0, "127.0.0.1", 9000)]
        service: dict[str, Any] = {"id": "s-1", "name": "s", "path": None, "host": "h"}
        exchange.route.service = service  # type: ignore[misc]
        exchange.consumer = {"id": "c-1", "username": "bob", "custom_id": None}
        exchange.credential = {"id": "k-1", "key": "secret", "consumer": {"id": "c-1"}}
        self.assertEqual(
            self.record(exchange),
            {
                "request": {
                    "id": "0" * 32,
                    "uri": "/get?a=1&b&a=2",
                    "url": "http://example.com:8000/get?a=1&b&a=2",
                    "querystring": {"a": ["1", "2"], "b": True},
                    "method": "GET",
                    "headers": {"host": "Example.com:8000", "authorization": "REDACTED", "x-a": "1"},
                    "size": len(
                        "GET /get?a=1&b&a=2 HTTP/1.1\r\nHost: Example.com:8000\r\nAuthorization: Basic x\r\nX-A: 1\r\n\r\n"
                    ),
                },
                "upstream_uri": "/get?a=1&b&a=2",
                "upstream_status": "200",
                "response": {
                    "status": 200,
                    "headers": {
                        "content-type": "text/plain",
                        "set-cookie": ["a=1", "b=2"],
                        "content-length": "5",
                        "connection": "keep-alive",
                    },
                    "size": len(HEAD) + 5,
                },
                "latencies": {"kong": 2, "proxy": 100, "request": 250, "receive": 148},
                "tries": [
                    {
                        "balancer_start": int(NOW * 1000),
                        "balancer_start_ns": int(NOW * 1e9),
                        "balancer_latency": 0,
                        "balancer_latency_ns": 0,
                        "ip": "127.0.0.1",
                        "port": 9000,
                    }
                ],
                "authenticated_entity": {"id": "k-1", "consumer_id": "c-1"},
                "route": {"ws_id": "w-1", "id": "route-1", "name": "r"},
                "service": {"ws_id": "w-1", "id": "s-1", "name": "s", "host": "h"},
                "consumer": {"ws_id": "w-1", "id": "c-1", "username": "bob"},
                "client_ip": "10.0.0.1",
                "started_at": int((NOW - 0.25) * 1000),
                "source": "upstream",
                "workspace": "w-1",
                "workspace_name": "default",
            },
        )

    def test_heads_that_differ_in_the_id(self) -> None:
        """A head that was told before is told with the request's own id, wherever that stands."""
        records = LogRecords(None)
        for letter in "ab":
            for echo in ("", f"X-Echo: {letter * 32}\r\n"):
                exchange = self.exchange()
                exchange.request_id = letter.encode() * 32
                line = f"\r\n{echo}X-Kong-Request-Id: {letter * 32}\r\n"
                exchange.sent_head = HEAD.replace(b"\r\n", line.encode(), 1)
                headers = json.loads(records.text(exchange))["response"]["headers"]
                self.assertEqual(headers, response_headers(exchange))
                self.assertEqual(headers["x-kong-request-id"], letter * 32)

    def test_heads_are_remembered_within_bounds(self) -> None:
        """Many heads, and long ones, keep no more than so much."""
        headers = LoggedHeaders()
        exchange = self.exchange()
        line = b"\r\nX-Kong-Request-Id: %b\r\n" % exchange.request_id
        for number in range(3000):
            exchange.sent_head = HEAD.replace(b"\r\n", b"\r\nX-N: %d%b" % (number, line), 1)
            headers.response(exchange)
        self.assertTrue(0 < len(headers._heads) <= 2048)
        count = len(headers._heads)
        exchange.sent_head = HEAD.replace(b"\r\n", b"\r\nX-N: %b%b" % (b"n" * 2000, line), 1)
        headers.response(exchange)
        self.assertEqual(len(headers._heads), count)

    def test_answered_here(self) -> None:
        """An answer of a plugin's: nothing of an upstream."""
        exchange = self.exchange()
        exchange.upstream_status, exchange.latencies, exchange.answer_source = 0, None, "exit"
        record = self.record(exchange)
        self.assertEqual(record["latencies"], {"kong": 250, "proxy": -1, "request": 250, "receive": 0})
        self.assertEqual((record["upstream_status"], record["source"], record["tries"]), ("", "kong", {}))

    def test_without_a_route(self) -> None:
        """No route, no service, no tries."""
        exchange = self.exchange()
        exchange.route = exchange.match = None  # type: ignore[assignment]
        record = self.record(exchange)
        self.assertEqual({"route", "service", "tries"} & set(record), set())
        self.assertEqual(record["upstream_uri"], "")

    def test_changed_on_its_way(self) -> None:
        """Method, path, query and headers as they went up; uri as it came."""
        exchange = self.exchange()
        exchange.set_upstream_method(b"POST")
        exchange.set_upstream_path(b"/new")
        exchange.set_upstream_query(b"q=1")
        exchange.set_upstream_header(b"x-b", b"1", b"2")
        record = self.record(exchange)
        request = record["request"]
        self.assertEqual((request["method"], request["uri"]), ("POST", "/get?a=1&b&a=2"))
        self.assertEqual(record["upstream_uri"], "/new?q=1")
        self.assertEqual((request["querystring"], request["headers"]["x-b"]), ({"q": "1"}, ["1", "2"]))

    def test_failed_tries(self) -> None:
        """They tell their state, and upstream_status what became of each."""
        exchange = self.exchange()
        first, second = Try(NOW, 0.0, "127.0.0.1", 1), Try(NOW, 0.0, "127.0.0.1", 2)
        first.code = 502
        exchange.tries = [first, second]
        record = self.record(exchange)
        self.assertEqual([each.get("state") for each in record["tries"]], ["failed", None])
        self.assertEqual((record["tries"][0]["code"], record["upstream_status"]), (502, "502, 200"))

    def test_bytes_that_are_no_text(self) -> None:
        """They are replaced; the record is JSON whatever a client sends."""
        exchange = self.exchange()
        exchange.target = b"/\xff?\xfe=\xfd"
        exchange.block = HeaderBlock.from_pairs([(b"host", b"h"), (b"x", b"\xff")])
        self.assertEqual(self.record(exchange)["request"]["headers"]["x"], "\ufffd")

    def test_values_of_plugins(self) -> None:
        """Dots lead inwards; modes as Kong's; rows themselves are never changed."""
        exchange = self.exchange()
        exchange.set_log_value("correlation_id", "c")
        exchange.set_log_value("my.new.value", 4)
        exchange.set_log_value("my.new.other", 5, "add")
        exchange.set_log_value("my.new.value", 9, "add")
        exchange.set_log_value("nope.value", 1, "replace")
        exchange.set_log_value("client_ip", "x", "replace")
        exchange.set_log_value("route.name", "other")
        exchange.set_log_value("service", None)
        record = self.record(exchange)
        self.assertEqual(record["correlation_id"], "c")
        self.assertEqual(record["my"], {"new": {"value": 4, "other": 5}})
        self.assertEqual((record["client_ip"], record["route"]["name"]), ("x", "other"))
        self.assertEqual({"nope", "service"} & set(record), set())
        self.assertEqual(exchange.route.row["name"], "r")
        self.assertRaises(ValueError, exchange.set_log_value, "a", 1, "put")

    def test_through_a_text(self) -> None:
        """A value cannot be put inside one that has no members."""
        exchange = self.exchange()
        exchange.set_log_value("client_ip.x", 1)
        self.assertRaises(ValueError, LogRecords(None).record, exchange)

    def test_rows_are_made_once(self) -> None:
        """Until they are other rows; what is remembered is bounded."""
        exchange = self.exchange()
        records = LogRecords(None)
        first = records.text(exchange)
        self.assertIs(records._row(exchange.route.row), records._row(exchange.route.row))
        exchange.route.row = {**exchange.route.row, "name": "renamed"}  # type: ignore[misc]
        self.assertIn(b'"name":"renamed"', records.text(exchange))
        self.assertNotEqual(first, records.text(exchange))
        for number in range(5000):
            records._row({"id": str(number)})
        self.assertLessEqual(len(records._rows), 4096)

    def test_what_is_remembered(self) -> None:
        """The same maker of records tells of each head what is in it: equal ones, others, changed ones, twice the same name, none."""
        records = LogRecords("w-1")
        heads = (
            HEAD,
            b"HTTP/1.1 404 Not Found\r\nX-A: 1\r\nx-a:  2 \r\nDate: now\r\n\r\n",
            b"HTTP/2 200\r\nx-a: \xff\"\\\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX-A: 1\r\n",
            b"",
        )  # fmt: skip
        for _ in range(2):
            for number, head in enumerate(heads):
                for fields in ({}, {"Authorization": "Basic x"}, {"X-A": str(number)}):
                    exchange = self.exchange(**fields)
                    exchange.sent_head = head
                    self.assertEqual(json.loads(records.text(exchange)), records.record(exchange))
                    exchange.set_upstream_header(b"x-a", b"changed")
                    told = json.loads(records.text(exchange))
                    self.assertEqual(told, records.record(exchange))
                    self.assertEqual(told["request"]["headers"]["x-a"], "changed")

    def test_members_of_their_own(self) -> None:
        """What plugins add stands behind all that a record has of its own, of which there is a list."""
        exchange = self.exchange()
        exchange.route.service = {"id": "s-1"}  # type: ignore[misc]
        exchange.consumer, exchange.credential = {"id": "c-1"}, {"id": "k-1"}
        self.assertEqual(set(self.record(exchange)), MEMBERS - {"session", "upstream"})  # those are of sessions
        for name in MEMBERS:
            exchange.log_values = None
            exchange.set_log_value("further", {"a": [1, None]})
            exchange.set_log_value("further", 2, "add")
            exchange.set_log_value("none", None)
            exchange.set_log_value("not", 1, "replace")
            self.assertEqual(list(self.record(exchange))[-1], "further")
            exchange.set_log_value(name, "mine")
            self.assertEqual(self.record(exchange)[name], "mine")
        exchange.log_values = None
        exchange.set_log_value("none", None)
        self.assertEqual(set(self.record(exchange)), MEMBERS - {"session", "upstream"})  # those are of sessions

    def test_targets_are_told_as_they_are(self) -> None:
        """What is remembered of one request is not told of another, in whatever they differ; odd characters are escaped; few are kept."""
        records = LogRecords(None)
        told = set()
        for target in ("/a?b=1", '/a"\\?b=%00', "/a?b=1&c"):
            for change in (
                lambda exchange: None,
                lambda exchange: setattr(exchange, "scheme", b"https"),
                lambda exchange: setattr(exchange, "local_port", 1),
                lambda exchange: exchange.set_upstream_method(b"PUT"),
                lambda exchange: exchange.set_upstream_path(b"/new"),
                lambda exchange: exchange.set_upstream_query(b""),
                lambda exchange: exchange.set_upstream_query(b"z=%22"),
                lambda exchange: setattr(exchange, "client_ip", 'odd"\\\u00e9'),
            ):
                for _ in range(2):
                    exchange = self.exchange(target)
                    change(exchange)
                    text = records.text(exchange)
                    self.assertEqual(json.loads(text), LogRecords(None).record(exchange))
                told.add(text)
        self.assertEqual(len(told), 24)
        for number in range(3000):
            records.text(self.exchange(f"/{number}"))
        self.assertLessEqual(len(records._targets), 1024)

    def test_values_that_are_odd(self) -> None:
        """A number that is no JSON is refused; long ones, and half a surrogate pair, are written."""
        for value in (float("nan"), {"a": [float("inf")]}):
            exchange = self.exchange()
            exchange.set_log_value("x", value)
            self.assertRaises(ValueError, LogRecords(None).text, exchange)
        exchange = self.exchange()
        exchange.set_log_value("x", 2**70)
        exchange.set_log_value("y", "\ud800")
        exchange.set_log_value("request.headers.z", "deep")
        told = json.loads(LogRecords(None).text(exchange))
        self.assertEqual((told["x"], told["y"], told["request"]["headers"]["z"]), (2**70, "?", "deep"))
