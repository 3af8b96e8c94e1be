"""Lines of the error log about requests: what stands in them, and that every way a request can fail writes one."""

from __future__ import annotations

import re
from typing import Any, cast

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IResolutionReceiver
from twisted.logger import LogEvent, eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.error_lines import error_line, request_line, seconds_text, upstream_name, without_query
from kongtwist.core.exchange import Exchange
from kongtwist.core.http.headers import ResponseHeaders
from kongtwist.core.limits import Limits
from kongtwist.observability.masking import SecretMask
from kongtwist.streams.stream_errors import broken, silent

from ..http2.http2_door import HTTP2Client
from ..proxy.relay_kit import Gateway, plugin_row

GET = b"GET /st/x?apikey=s3cret HTTP/1.1\r\nHost: x\r\n\r\n"
ID = f"{1:032x}"


class LineTests(SynchronousTestCase):
    """The line itself."""

    def test_all_facts(self) -> None:
        """What, what to do, client, request with its credentials masked, route, service, upstream, request id."""
        exchange = _exchange()
        self.assertEqual(
            request_line(exchange, "it broke", "mend it", upstream="u:80 (192.0.2.1)"),
            'it broke; mend it, client: 192.0.2.7, request: "GET /a?apikey=*** HTTP/1.1", route: "r", service: "s-id", '
            'upstream: "u:80 (192.0.2.1)", request_id: "0123"',
        )

    def test_without_a_route(self) -> None:
        """What is not known is left out."""
        exchange = _exchange()
        exchange.route = cast(Any, None)
        self.assertEqual(
            request_line(exchange, "it broke"),
            'it broke, client: 192.0.2.7, request: "GET /a?apikey=*** HTTP/1.1", request_id: "0123"',
        )

    def test_never_raises(self) -> None:
        """Not even for an exchange of which nothing is known yet: then its query is hidden whole."""
        self.assertEqual(request_line(Exchange(), "it broke"), "it broke")
        exchange = Exchange()
        exchange.method, exchange.target = b"GET", b"/a?b=c"
        self.assertEqual(request_line(exchange, "it broke"), 'it broke, request: "GET /a?*** HTTP/1.1"')

    def test_no_forged_lines(self) -> None:
        """Nothing from outside ends the line or a value, or steers a terminal."""
        line = error_line("a\nb\x1b[2J", client="c\r", route='r", request_id: "forged', service="ok é 漢")
        self.assertEqual(
            line,
            r'a\x0Ab\x1B[2J, client: c\x0D, route: "r\x22, request_id: \x22forged", service: "ok é 漢"',
        )
        self.assertEqual(error_line("x\ud800"), r"x\uD800")

    def test_parts(self) -> None:
        self.assertEqual(upstream_name("example.com", 80, "192.0.2.1"), "example.com:80 (192.0.2.1)")
        self.assertEqual(upstream_name("192.0.2.1", 80, "192.0.2.1"), "192.0.2.1:80")
        self.assertEqual(upstream_name("2001:db8::1", 80), "[2001:db8::1]:80")
        self.assertEqual((seconds_text(60.0), seconds_text(0.25)), ("60 s", "0.25 s"))
        self.assertEqual((without_query(b"/a?"), without_query(b"/a")), (b"/a?***", b"/a"))

    def test_streams(self) -> None:
        """Who let a stream down decides about the level; each line has a remedy, and the word that finds it."""
        service = {"id": "1", "name": "ws"}
        self.assertEqual(
            silent(False, False, 60.0, service),
            (False, "websocket broken: upstream timed out: nothing came or went for 60 s",
             "if it may take longer, raise read_timeout of service ws (milliseconds)"),
        )  # fmt: skip
        self.assertIn("raise write_timeout of service ws", silent(False, True, 60.0, service).remedy)
        slow = silent(True, False, 60.0, service)
        self.assertTrue(slow.by_client)
        self.assertIn("nginx_http_send_timeout", slow.remedy)
        self.assertEqual(
            broken(False, "Connection was lost.").what,
            "websocket broken: the upstream broke it off: Connection was lost (1006)",
        )
        self.assertEqual(broken(True, "").what, "websocket broken: the client broke it off (1006)")
        self.assertTrue(broken(True, "").remedy and broken(False, "").remedy)


def _exchange() -> Exchange:
    exchange: Any = Exchange()
    exchange.method, exchange.target, exchange.minor = b"GET", b"/a?apikey=s3cret", 1
    exchange.client_ip, exchange.request_id = "192.0.2.7", b"0123"
    mask = SecretMask()
    exchange.gateway = type("Gateway", (), {"shown": staticmethod(mask.target)})
    exchange.route = type("Route", (), {"row": {"id": "r-id", "name": "r"}, "service": {"id": "s-id", "name": None}})
    return cast(Exchange, exchange)


class Broken(Plugin):
    """Raises in the access phase."""

    name = "broken"
    priority = 10

    def access(self, exchange: Exchange, conf: Any) -> None:
        raise RuntimeError("a fault")


class WrittenTests(SynchronousTestCase):
    """Every way a request can fail writes one line, with the request id that the client is given."""

    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        observer = cast(Any, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def gateway(self, retries: int = 0, limits: Limits | None = None, **service: Any) -> Gateway:
        fields = {"host": "127.0.0.1", "port": 18100, "retries": retries, "name": "s-name"} | service
        routes = {"r": {"service": "s", "paths": ["/st"], "name": "r-name"}}
        return Gateway(routes=routes, services={"s": fields}, limits=limits)

    def line(self, level: str = "error") -> str:
        """The only line of that level."""
        found = [eventAsText(each, includeTimestamp=False, includeSystem=False) for each in self.events
                 if each["log_level"].name == level]  # fmt: skip
        self.assertEqual(len(found), 1, found)
        return found[0]

    def check(self, line: str, what: str, upstream: str = "127.0.0.1:18100") -> None:
        """What it must say beside ``what``."""
        self.assertTrue(line.startswith(what), line)
        for part in ('request: "GET /st/x?*** HTTP/1.1"', "client: 127.0.0.1", 'route: "r-name"', 'service: "s-name"',
                     f'upstream: "{upstream}"', f'request_id: "{ID}"'):  # fmt: skip
            self.assertIn(part, line)
        self.assertNotIn("s3cret", line)

    def test_refused(self) -> None:
        """A refused connection: how many tries there were, the system's word, and what to look at."""
        made = self.gateway(retries=2)
        made.refuse = 3
        received = made.client().send(GET)
        self.assertIn(b"HTTP/1.1 502", received)
        self.assertIn(f"X-Kong-Request-Id: {ID}".encode(), received)
        line = self.line()
        self.check(line, "no answer from the upstream: Connection was refused by other side (3 tries); see whether it")
        self.assertIn("correct host and port of service s-name", line)

    def test_timed_out_while_connecting(self) -> None:
        made = self.gateway(connect_timeout=2000)
        made.automatic = False
        made.client().send(GET)
        made.fail(error.TimeoutError())
        self.check(
            self.line(),
            "upstream timed out while connecting: nothing for 2 s; if it needs longer, raise connect_",
        )

    def test_timed_out_before_the_answer(self) -> None:
        made = self.gateway(read_timeout=5000)
        made.answers[b"/x?apikey=s3cret"] = b""
        made.client().send(GET)
        made.work(6)
        self.check(
            self.line(),
            "upstream timed out while waiting for its answer: nothing for 5 s; if it needs longer, raise",
        )

    def test_timed_out_within_the_answer(self) -> None:
        """An event stream that falls silent, for one."""
        made = self.gateway(read_timeout=5000)
        made.answers[b"/x?apikey=s3cret"] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"
        made.client().send(GET)
        made.work(6)
        self.check(
            self.line(),
            "upstream timed out while waiting for its answer: nothing for 5 s; if it needs longer, raise",
        )

    def test_broken_off(self) -> None:
        made = self.gateway()
        made.answers[b"/x?apikey=s3cret"] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"
        made.client().send(GET)
        made.upstreams[0].wire.lose()
        self.check(
            self.line(),
            "the upstream broke off its answer: it closed the connection; see its own log; it may have failed",
        )

    def test_kinds_of_streams(self) -> None:
        """Who looks for event streams or for gRPC in the log finds them by these words; other lines do not have them."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\ndata: 1\n\n"
        for answer, more, kind in (
            (head, b"", 'stream: "event stream"'),
            (head.replace(b"text/event-stream", b"text/plain"), b"", ""),
            (b"HTTP/1.1 200 OK\r\n", b"Content-Type: application/grpc+proto\r\n", 'stream: "grpc"'),
        ):
            self.events.clear()
            made = self.gateway()
            made.answers[b"/x?apikey=s3cret"] = answer
            made.client().send(GET.replace(b"Host: x\r\n", b"Host: x\r\n" + more))
            made.upstreams[0].wire.lose()
            line = self.line()
            self.assertIn(kind, line)
            self.assertEqual("stream: " in line.replace("upstream: ", ""), bool(kind), line)

    def test_no_http(self) -> None:
        made = self.gateway()
        made.answers[b"/x?apikey=s3cret"] = b"SSH-2.0-OpenSSH\r\n\r\n"
        made.client().send(GET)
        self.check(
            self.line(),
            "no usable answer from the upstream: malformed status line; see whether it speaks HTTP there, or correct",
        )

    def test_http2(self) -> None:
        """The protocol is the client's, by the name it has in the access log."""
        made = self.gateway()
        made.refuse = 1
        self.assertEqual(HTTP2Client(made).ask(path="/st/x?apikey=s3cret").status, 502)
        self.assertIn('request: "GET /st/x?*** HTTP/2.0"', self.line())

    def test_names(self) -> None:
        """A name that does not resolve, and what one resolved to that does not answer."""
        made = self.gateway(host="up.test")
        receivers: list[Any] = []
        made.reactor.nameResolver = cast(Any, type("R", (), {
            "resolveHostName": staticmethod(lambda receiver, name: receivers.append(receiver)),
        }))  # fmt: skip
        made.client().send(GET)
        IResolutionReceiver(receivers[0]).resolutionComplete()
        self.check(
            self.line(),
            "name resolution failed for up.test: the system's resolver knows no address; see whether this machine resolves it",
            "up.test:18100",
        )
        self.events.clear()
        made.client().send(GET)  # remembered as not resolved
        self.assertIn("name resolution failed for up.test", self.line())

        self.events.clear()
        made.work(100)
        made.refuse = 1
        made.client().send(GET)
        IResolutionReceiver(receivers[1]).addressResolved(IPv4Address("TCP", "192.0.2.1", 80))
        IResolutionReceiver(receivers[1]).resolutionComplete()
        made.work()
        self.assertIn('upstream: "up.test:18100 (192.0.2.1)"', self.line())

    def test_slow_clients(self) -> None:
        """They are nobody's to mend: level info."""
        limits = Limits(head_timeout=5, client_body_timeout=5)
        made = self.gateway(limits=limits)
        made.client().send(b"GET /st/x?apikey=s3cret HTT")
        made.work(6)
        self.assertRegex(
            self.line("info"), r"^client timed out while its request head was read: 5 s, client: .*GET /st/x\?\*\*\*"
        )
        self.events.clear()
        made.client().send(GET.replace(b"GET", b"PUT").replace(b"Host: x", b"Host: x\r\nContent-Length: 9"))
        made.work(6)
        line = self.line("info")
        self.assertTrue(
            line.startswith("client timed out while its request body was read: nothing for 5 s, client: "), line
        )
        self.assertIn('service: "s-name"', line)

    def test_malformed(self) -> None:
        """A head that is none: the reason, and the request id in the answer."""
        made = self.gateway()
        received = made.client().send(b"GET /st/x?apikey=s3cret HTTP/1.1\r\nHost : x\r\n\r\n")
        line = self.line("info")
        found = re.search(rb"X-Kong-Request-Id: ([0-9a-f]{32})", received)
        assert found is not None
        self.assertTrue(line.startswith("client sent a malformed request: "), line)
        self.assertIn(f'request_id: "{found[1].decode()}"', line)
        self.assertNotIn("s3cret", line)

    def test_too_large(self) -> None:
        made = self.gateway(limits=Limits(client_max_body_size=2))
        made.client().send(GET.replace(b"Host: x", b"Host: x\r\nContent-Length: 3") + b"abc")
        self.assertTrue(
            self.line().startswith("client intended to send too large body: more than 2 bytes; nginx_http_c")
        )

    def test_plugin(self) -> None:
        """What a plugin raises: the line with the request's facts, the traceback behind it."""
        made = Gateway(plugins={"broken": Broken()}, plugin_rows=[plugin_row("broken")])
        self.assertIn(b"HTTP/1.1 500", made.client().send(GET))
        (report,) = made.reports
        line, _, traceback = report.partition("\n")
        self.assertTrue(
            line.startswith("plugin broken failed in phase access: RuntimeError('a fault'), client: "), line
        )
        self.assertIn(f'request_id: "{ID}"', line)
        self.assertIn("Traceback", traceback)

    def test_our_own_faults(self) -> None:
        """One while serving, one while an answer is relayed: the traceback, and which request it was."""
        made = self.gateway()
        self.patch(made.tree, "find", lambda exchange: 1 / 0)
        self.assertIn(b"HTTP/1.1 500", made.client().send(GET))
        self.assertIn(
            f'serving failed, client: 127.0.0.1, request: "GET /st/x?*** HTTP/1.1", request_id: "{ID}"',
            self.line("critical"),
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.events.clear()
        made = self.gateway()
        self.patch(ResponseHeaders, "of_proxied", lambda *_: 1 / 0)
        made.client().send(GET)
        self.check(self.line("critical") + ', upstream: "127.0.0.1:18100"', "relaying the answer failed, client: ")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
