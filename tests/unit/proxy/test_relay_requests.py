"""What clients send: bodies, early answers, pipelines, limits, and clients that are slow or gone."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.counters import ACCEPTED, ACTIVE, READING, REQUESTS, WAITING, WRITING
from kongtwist.core.exchange import Answer, BodyTooLarge, Exchange
from kongtwist.core.http.real_ip import RealIP
from kongtwist.core.limits import Limits

from .relay_kit import Client, Gateway, plugin_row

GET = b"GET /st/x HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def streaming(**options: Any) -> Gateway:
    """A gateway whose route has ``request_buffering: false``."""
    return Gateway(routes={"r": {"service": "s", "paths": ["/st"], "request_buffering": False}}, **options)


def post(length: int, fields: bytes = b"") -> bytes:
    return b"POST /st/x HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (fields, length)


CHUNKED = b"POST /st/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Refusing(Plugin):
    """401 to everything."""

    name = "refusing"
    priority = 10

    def access(self, exchange: Exchange, conf: Any) -> Answer:
        return exchange.error(401, "Unauthorized")


class Reading(Plugin):
    """Reads the body, and answers when it cannot."""

    name = "reading"
    priority = 10

    async def access(self, exchange: Exchange, conf: Any) -> Answer | None:
        try:
            body = await exchange.read_body(10)
        except BodyTooLarge:
            return exchange.error(413, "too large for me")
        if body == b"replace":
            exchange.set_upstream_body(b"replaced!")
        return None


class Raising(Plugin):
    """Has a fault."""

    name = "raising"
    priority = 10

    def access(self, exchange: Exchange, conf: Any) -> None:
        raise RuntimeError("a fault")


class Filtering(Plugin):
    """Changes the head and the body of answers, and remembers what it saw."""

    name = "filtering"
    priority = 5

    def __init__(self) -> None:
        self.logged: list[int] = []

    def header_filter(self, exchange: Exchange, conf: Any) -> None:
        exchange.set_response_header(b"X-Filtered", b"yes")
        exchange.clear_response_header(b"server")

    def body_filter(self, exchange: Exchange, conf: Any, chunk: bytes, last: bool) -> bytes:
        return chunk.upper() + (b"." if last else b"")

    def log(self, exchange: Exchange, conf: Any) -> None:
        self.logged.append(exchange.status)


def with_plugin(plugin: Plugin, **options: Any) -> Gateway:
    return Gateway(plugins={plugin.name: plugin}, plugin_rows=[plugin_row(plugin.name)], **options)


class BodyTests(SynchronousTestCase):
    def test_streamed_before_it_is_whole(self) -> None:
        """The upstream sees the head and every piece as it comes."""
        gateway = Gateway()
        client = gateway.client()
        client.send(post(6) + b"ab")
        upstream = gateway.upstreams[0]
        self.assertTrue(upstream.wire.sent.endswith(b"\r\n\r\nab"))
        client.send(b"cd")
        self.assertTrue(upstream.wire.sent.endswith(b"\r\n\r\nabcd"))
        client.send(b"ef")
        self.assertEqual(upstream.requests[0].body, b"abcdef")
        self.assertIn(b"200 OK", client.received)

    def test_chunks_are_framed_anew(self) -> None:
        """Extensions, which are the client's and our affair only, go no further, nor do trailers."""
        trailers = b"X-T: 1\r\nHost: evil\r\nX-Consumer-Username: admin\r\nX-Real-IP: 6.6.6.6\r\napikey: k\r\n"
        gateway = streaming()
        gateway.client().send(CHUNKED + b"3;x=y\r\nabc\r\n02\r\nde\r\n0\r\n" + trailers + b"\r\n")
        self.assertTrue(gateway.upstreams[0].wire.sent.endswith(b"\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"))

    def test_trailers_of_a_body_that_is_kept(self) -> None:
        """Nor are they sent with the next try, nor where the client says that it takes trailers itself."""
        gateway = Gateway()
        data = CHUNKED.replace(b"\r\n\r\n", b"\r\nTE: trailers\r\n\r\n") + b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"
        for cut in (len(data), data.index(b"abc"), data.index(b"X-T")):
            client = gateway.client()
            client.send(data[:cut])
            client.send(data[cut:])
            self.assertIn(b"200 OK", client.received)
        for upstream in gateway.upstreams:
            self.assertNotIn(b"X-T", upstream.wire.sent)

    def test_every_split_of_a_chunked_body(self) -> None:
        data = CHUNKED + b"3;x=y\r\nabc\r\n02\r\nde\r\n0\r\nX-T: 1\r\n\r\n" + GET
        for cut in range(1, len(data)):
            gateway = Gateway()
            client = gateway.client()
            client.send(data[:cut])
            client.send(data[cut:])
            seen = [request.body for upstream in gateway.upstreams for request in upstream.requests]
            self.assertEqual(seen, [b"abcde", b""], cut)
            self.assertEqual(client.received.count(b"HTTP/1.1 200 OK"), 2, cut)

    def test_backpressure(self) -> None:
        """An upstream that does not read stops the client; when it reads again, so does the client."""
        gateway = Gateway()
        client = gateway.client()
        client.send(post(300000) + b"a" * 10)
        upstream = gateway.upstreams[0]
        upstream.wire.stuck = True
        client.send(b"a" * 100000)
        self.assertFalse(client.wire.reading)
        upstream.wire.unstick()
        self.assertTrue(client.wire.reading)

    def test_upstream_that_never_reads(self) -> None:
        gateway = Gateway()
        client = gateway.client()
        client.send(post(300000))
        gateway.upstreams[0].wire.stuck = True
        client.send(b"a" * 100000)
        gateway.work(61)
        self.assertIn(b"504 Gateway Time-out", client.received)

    def test_slow_body(self) -> None:
        """A client that stops in the middle of its body gets 408, and the upstream is let go."""
        gateway = Gateway()
        client = gateway.client()
        client.send(post(6) + b"ab")
        gateway.work(59)
        client.send(b"c")
        gateway.work(59)
        self.assertEqual(client.received, b"")
        gateway.work(3)
        self.assertIn(b"HTTP/1.1 408 Request Time-out\r\n", client.received)
        self.assertEqual(gateway.upstreams[0].wire.end, "abort")
        self.assertEqual(gateway.log.lines, [(408, "/st/x")])

    def test_malformed_later(self) -> None:
        gateway = streaming()
        client = gateway.client()
        client.send(CHUNKED + b"3\r\nabc\r\n")
        client.send(b"zz\r\n" + GET)
        self.assertIn(b"HTTP/1.1 400 Bad Request\r\n", client.received)
        self.assertEqual(client.received.count(b"HTTP/1.1 "), 1)
        self.assertTrue(client.closed)
        self.assertEqual(gateway.upstreams[0].wire.end, "abort")

    def test_faults_behind_the_beginning_of_the_answer(self) -> None:
        """The upstream has begun to answer when the body breaks a rule: both connections are cut."""
        for data, limits in (
            (b"zz\r\n", Limits()),
            (b"3\r\ndef\r\n", Limits(client_max_body_size=5)),
        ):
            gateway = streaming(limits=limits)
            client = gateway.client()
            client.send(CHUNKED + b"3\r\nabc\r\n")
            upstream = gateway.upstreams[0]
            upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
            client.send(data)
            self.assertEqual((client.wire.end, upstream.wire.end), ("close", "abort"))
        gateway = streaming()
        client = gateway.client()
        client.send(CHUNKED + b"3\r\nabc\r\n")
        gateway.upstreams[0].answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
        gateway.work(30)
        gateway.upstreams[0].answer(b"c")
        gateway.work(31)  # the client has sent nothing for a minute
        self.assertEqual((client.wire.end, gateway.upstreams[0].wire.end), ("close", "abort"))

    def test_too_large(self) -> None:
        limits = Limits(client_max_body_size=5)
        for data in (post(6) + b"abcdef", CHUNKED + b"3\r\nabc\r\n3\r\ndef\r\n", CHUNKED + b"6\r\nabcdef\r\n0\r\n\r\n"):
            gateway = Gateway(limits=limits)
            client = gateway.client()
            client.send(data)
            self.assertIn(b"HTTP/1.1 413 Request Entity Too Large\r\n", client.received)
            self.assertEqual(gateway.log.lines, [(413, "/st/x")])
        gateway = Gateway(limits=limits)
        self.assertIn(b"200 OK", gateway.client().send(post(5) + b"abcde"))

    def test_plugin_reads_the_body(self) -> None:
        """read_body gives the whole body, and the upstream still gets it, or what the plugin puts in its place."""
        for body, seen in ((b"abc", b"abc"), (b"replace", b"replaced!")):
            gateway = with_plugin(Reading())
            client = gateway.client()
            client.send(post(len(body)) + body[:2])
            self.assertEqual(gateway.upstreams, [])
            client.send(body[2:])
            self.assertEqual(gateway.upstreams[0].requests[0].body, seen)
            self.assertIn(b"200 OK", client.received)

    def test_plugin_reads_too_much(self) -> None:
        for data in (post(11), CHUNKED + b"b\r\nabcdefghijk\r\n"):
            client = with_plugin(Reading()).client()
            self.assertIn(b"HTTP/1.1 413 Request Entity Too Large\r\n", client.send(data))

    def test_answered_for_the_last_piece(self) -> None:
        """The piece that is too much holds the body's end: the connection is ready for the next request."""
        for pieces in ((CHUNKED, b"b\r\nabcdefghijk\r\n0\r\n\r\n"), (CHUNKED, b"b\r\nabcdefghijk\r\n0\r\n\r\n" + GET)):
            client = with_plugin(Reading()).client()
            for piece in pieces:
                client.send(piece)
            if GET not in pieces[-1]:
                self.assertIn(b"\r\nConnection: keep-alive\r\n", client.received)
                client.send(GET)
            self.assertEqual((client.received.count(b"HTTP/1.1 413 "), client.received.count(b"HTTP/1.1 200 ")), (1, 1))
            self.assertIsNone(client.wire.end)


class ContinueTests(SynchronousTestCase):
    EXPECT = b"Expect: 100-continue\r\n"

    def test_asked_for_behind_the_plugins(self) -> None:
        gateway = Gateway()
        client = gateway.client()
        self.assertEqual(client.send(post(2, self.EXPECT)), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertNotIn(b"Expect", gateway.upstreams[0].wire.sent)
        self.assertIn(b"200 OK", client.send(b"ab"))

    def test_refused_without_asking(self) -> None:
        """The body that was not asked for may come or not: so the connection ends."""
        client = with_plugin(Refusing()).client()
        received = client.send(post(2, self.EXPECT))
        self.assertTrue(received.startswith(b"HTTP/1.1 401 Unauthorized\r\n"))
        self.assertIn(b"Connection: close\r\n", received)
        self.assertTrue(client.closed)

    def test_asked_for_by_a_plugin_that_reads(self) -> None:
        client = with_plugin(Reading()).client()
        self.assertEqual(client.send(post(2, self.EXPECT)), b"HTTP/1.1 100 Continue\r\n\r\n")
        received = client.send(b"ab")
        self.assertEqual(received.count(b"100 Continue"), 1)


class EarlyAnswerTests(SynchronousTestCase):
    """The answer goes out while the body is still coming: the client must be able to read it."""

    def test_small_rest_is_thrown_away(self) -> None:
        gateway = with_plugin(Refusing())
        client = gateway.client()
        received = client.send(post(1000) + b"a" * 10)
        self.assertIn(b"401 Unauthorized", received)
        self.assertIn(b"Connection: keep-alive", received)
        client.send(b"a" * 980)
        client.send(b"a" * 10 + GET)
        self.assertEqual(client.received.count(b"HTTP/1.1 401"), 2)
        self.assertFalse(client.closed)

    def test_large_rest_lingers(self) -> None:
        """FIN behind the answer, and reading goes on, so that no reset overtakes the answer."""
        gateway = with_plugin(Refusing())
        client = gateway.client()
        received = client.send(post(1 << 30) + b"a" * 10)
        self.assertIn(b"Connection: close", received)
        self.assertTrue(client.wire.write_closed)
        self.assertIsNone(client.wire.end)
        for _ in range(9):
            gateway.work(4)
            client.send(b"a" * 65536)
        self.assertEqual(client.wire.end, "close")  # lingering_time is over

    def test_lingering_ends_in_silence(self) -> None:
        gateway = with_plugin(Refusing())
        client = gateway.client()
        client.send(post(1 << 30))
        gateway.work(4)
        self.assertIsNone(client.wire.end)
        gateway.work(3)
        self.assertEqual(client.wire.end, "close")

    def test_chunks_without_end(self) -> None:
        gateway = with_plugin(Refusing(), limits=Limits(drain_size=1000))
        client = gateway.client()
        client.send(CHUNKED)
        self.assertIn(b"401 Unauthorized", client.received)
        for _ in range(11):
            client.send(b"64\r\n" + b"a" * 100 + b"\r\n")
        self.assertTrue(client.wire.write_closed)

    def test_upstream_answers_early(self) -> None:
        gateway = Gateway()
        client = gateway.client()
        client.send(post(1000) + b"a" * 10)
        upstream = gateway.upstreams[0]
        upstream.answer(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno")
        self.assertTrue(client.received.endswith(b"\r\n\r\nno"))
        gateway.work()
        self.assertEqual(upstream.wire.end, "close")  # never used again: the rest of the body is missing
        client.send(b"a" * 990 + GET)
        self.assertEqual(client.received.count(b"HTTP/1.1 "), 2)
        self.assertEqual(len(gateway.upstreams), 2)


class ConnectionTests(SynchronousTestCase):
    def test_pipeline_in_order(self) -> None:
        """Requests sent at once are answered one after the other, however long the first one takes."""
        gateway = Gateway()
        gateway.automatic = False
        client = gateway.client()
        client.send(GET + GET.replace(b"/x", b"/y") + GET.replace(b"/x", b"/z"))
        self.assertEqual(gateway.connects(), 1)
        gateway.automatic = True
        gateway.work()
        paths = [client.received.find(b'"path": "/%b"' % each) for each in (b"x", b"y", b"z")]
        self.assertEqual(paths, sorted(paths))
        self.assertGreater(paths[0], 0)
        self.assertEqual(len(gateway.upstreams), 1)

    def test_pipeline_is_bounded(self) -> None:
        gateway = Gateway()
        gateway.automatic = False
        client = gateway.client()
        client.send(GET)
        client.send(GET * 3000)
        self.assertFalse(client.wire.reading)
        gateway.automatic = True
        gateway.work()
        self.assertTrue(client.wire.reading)
        self.assertEqual(client.received.count(b"HTTP/1.1 200 OK"), 3001)

    def test_keepalive_timeout(self) -> None:
        gateway = Gateway()
        client = gateway.client()
        client.send(GET)
        gateway.work(74)
        client.send(GET)
        gateway.work(74)
        self.assertIsNone(client.wire.end)
        gateway.work(3)
        self.assertEqual(client.wire.end, "close")

    def test_slow_head(self) -> None:
        """A head must be whole within its time, however often a byte of it comes."""
        gateway = Gateway()
        client = gateway.client()
        for byte in (b"G", b"E", b"T", b" ", b"/", b"s"):
            client.send(byte)
            gateway.work(10)
        gateway.work(3)
        self.assertEqual(client.wire.end, "close")
        self.assertEqual(client.received, b"")
        self.assertEqual(gateway.log.refused, [408])

    def test_silent_connection(self) -> None:
        gateway = Gateway()
        client = gateway.client()
        gateway.work(63)
        self.assertEqual(client.wire.end, "close")
        self.assertEqual(gateway.log.refused, [])

    def test_keepalive_requests(self) -> None:
        gateway = Gateway(limits=Limits(keepalive_requests=2))
        client = gateway.client()
        self.assertIn(b"Connection: keep-alive", client.send(GET))
        self.assertIn(b"Connection: close", client.send(GET))
        self.assertEqual(client.wire.end, "close")

    def test_graceful_stop(self) -> None:
        """Idle connections are closed; a request being served is finished, and says that it is the last."""
        gateway = Gateway()
        gateway.automatic = False
        idle, busy = gateway.client(), gateway.client()
        busy.send(GET)
        gateway.context.drain()
        self.assertEqual((idle.wire.end, busy.wire.end), ("close", None))
        gateway.automatic = True
        gateway.work()
        self.assertIn(b"Connection: close", busy.received)
        self.assertEqual(busy.wire.end, "close")

    def test_nagle_is_off(self) -> None:
        gateway = Gateway()
        client = gateway.client()
        client.send(GET)
        self.assertTrue(client.wire.no_delay)
        self.assertTrue(gateway.upstreams[0].wire.no_delay)

    def test_counters(self) -> None:
        gateway = Gateway()
        cells = gateway.counters.cells

        def gauges() -> tuple[int, ...]:
            return tuple(cells[each] for each in (ACTIVE, READING, WRITING, WAITING))

        client = gateway.client()
        self.assertEqual(gauges(), (1, 0, 0, 1))
        client.send(GET[:10])
        self.assertEqual(gauges(), (1, 1, 0, 0))
        gateway.automatic = False
        client.send(GET[10:])
        self.assertEqual(gauges(), (1, 0, 1, 0))
        gateway.automatic = True
        gateway.work()
        self.assertEqual(gauges(), (1, 0, 0, 1))
        client.wire.lose()
        self.assertEqual(gauges(), (0, 0, 0, 0))
        other = gateway.client()
        other.send(b"GARBAGE\r\n\r\n")
        other.wire.lose()
        self.assertEqual(gauges(), (0, 0, 0, 0))
        self.assertEqual((cells[ACCEPTED], cells[REQUESTS]), (2, 2))


class GoneTests(SynchronousTestCase):
    """A client that goes: the upstream is told in the same turn, and the log says 499."""

    def setUp(self) -> None:
        self.gateway = Gateway()
        self.gateway.automatic = False
        self.client = self.gateway.client()

    def test_while_connecting(self) -> None:
        self.client.send(GET)
        self.client.wire.lose()
        self.assertEqual(self.gateway.log.lines, [(499, "/st/x")])
        self.gateway.accept()
        self.assertEqual(self.gateway.upstreams[0].wire.sent, b"")

    def test_while_waiting(self) -> None:
        self.client.send(GET)
        upstream = self.gateway.accept()
        self.client.wire.lose()
        self.assertEqual(upstream.wire.end, "abort")
        self.assertEqual(self.gateway.log.lines, [(499, "/st/x")])

    def test_while_answered(self) -> None:
        self.client.send(GET)
        upstream = self.gateway.accept()
        upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        self.client.wire.lose(clean=False)
        self.assertEqual(upstream.wire.end, "abort")
        self.assertEqual(self.gateway.log.lines, [(200, "/st/x")])

    def test_while_sending(self) -> None:
        self.client.send(post(6) + b"ab")
        upstream = self.gateway.accept()
        self.client.wire.lose()
        self.assertEqual(upstream.wire.end, "abort")

    def test_while_plugins_wait(self) -> None:
        gateway = with_plugin(Reading())
        client = gateway.client()
        client.send(post(6) + b"ab")
        client.wire.lose()
        self.assertEqual(gateway.log.lines, [(499, "/st/x")])
        self.assertEqual(gateway.reports, [])
        self.assertEqual(gateway.connects(), 0)

    def test_slow_reader(self) -> None:
        """The upstream is paused while the client does not read; a client that never reads again is cut."""
        client, gateway = self.client, self.gateway
        client.send(GET)
        upstream = gateway.accept()
        client.wire.stuck = True
        upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"a" * 100000)
        self.assertFalse(upstream.wire.reading)
        gateway.work(40)
        client.wire.unstick()
        self.assertTrue(upstream.wire.reading)
        client.wire.stuck = True
        upstream.answer(b"a" * 100000)
        gateway.work(63)
        self.assertIsNone(client.wire.end)  # the first look only notes how much is held
        gateway.work(63)
        self.assertEqual(client.wire.end, "abort")
        self.assertEqual(upstream.wire.end, "abort")


class PluginTests(SynchronousTestCase):
    def test_fault_in_access(self) -> None:
        gateway = with_plugin(Raising())
        received = gateway.client().send(GET)
        self.assertTrue(received.startswith(b"HTTP/1.1 500 Internal Server Error\r\n"))
        self.assertIn(b"An unexpected error occurred", received)
        self.assertIn(b"a fault", gateway.reports[0].encode())
        self.assertEqual(gateway.connects(), 0)

    def test_filters_of_a_relayed_answer(self) -> None:
        plugin = Filtering()
        gateway = with_plugin(plugin)
        gateway.answers[b"/x"] = OK
        received = gateway.client().send(GET)
        self.assertTrue(received.endswith(b"\r\n\r\nOK."))
        self.assertIn(b"\r\nX-Filtered: yes\r\n", received)
        self.assertIn(b"\r\nContent-Length: 3\r\n", received)
        self.assertNotIn(b"\r\nServer:", received)
        self.assertEqual(plugin.logged, [200])

    def test_filters_of_a_long_answer(self) -> None:
        """Its length is not known before its end, so it goes out in chunks."""
        gateway = with_plugin(Filtering())
        client = gateway.client()
        gateway.answers[b"/x"] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"
        client.send(GET)
        gateway.upstreams[0].answer(b"cd")
        self.assertTrue(client.received.endswith(b"\r\n\r\n2\r\nAB\r\n2\r\nCD\r\n1\r\n.\r\n0\r\n\r\n"))

    def test_filters_of_our_own_answers(self) -> None:
        plugin = Filtering()
        gateway = with_plugin(plugin)
        received = gateway.client().send(GET.replace(b"/st", b"/nowhere"))
        self.assertTrue(received.startswith(b"HTTP/1.1 404 Not Found\r\n"))
        self.assertIn(b"\r\nX-Filtered: yes\r\n", received)
        self.assertIn(b"NO ROUTE MATCHED", received)
        self.assertEqual(plugin.logged, [404])


class FactsTests(SynchronousTestCase):
    def upstream_saw(self, request: bytes, ip: str = "10.0.0.1", **options: Any) -> Any:
        gateway = Gateway(**options)
        client = Client(gateway, gateway.factory, ip)
        client.send(request)
        return gateway.upstreams[0].requests[0]

    def test_trusted_peer(self) -> None:
        fields = b"X-Real-IP: 192.0.2.9\r\nX-Forwarded-Proto: https\r\n"
        fields += b"X-Forwarded-Path: /p\r\nX-Forwarded-Prefix: /q\r\n"
        request = GET.replace(b"Host: x\r\n", b"Host: x\r\n" + fields)
        seen = self.upstream_saw(request, real_ip=RealIP(["10.0.0.0/8"]))
        self.assertEqual(seen.header(b"x-real-ip"), b"192.0.2.9")
        self.assertEqual(seen.header(b"x-forwarded-for"), b"192.0.2.9")
        self.assertEqual(seen.header(b"x-forwarded-proto"), b"https")
        self.assertEqual(seen.header(b"x-forwarded-path"), b"/p")
        self.assertEqual(seen.header(b"x-forwarded-prefix"), b"/q")
        seen = self.upstream_saw(request)
        self.assertEqual(seen.header(b"x-real-ip"), b"10.0.0.1")
        self.assertEqual(seen.header(b"x-forwarded-proto"), b"http")
        self.assertEqual(seen.header(b"x-forwarded-path"), b"/st/x")
        self.assertEqual(seen.header(b"x-forwarded-prefix"), b"/st")

    def test_each_request_of_a_connection_has_its_own(self) -> None:
        """What is remembered of one request's head is not used for another one."""
        gateway = Gateway(real_ip=RealIP(["10.0.0.0/8"]))
        client = Client(gateway, gateway.factory, "10.0.0.1")
        for address in (b"192.0.2.1", b"192.0.2.2", b"192.0.2.1"):
            client.send(GET.replace(b"Host: x\r\n", b"Host: x\r\nX-Real-IP: %b\r\n" % address))
        seen = [request.header(b"x-real-ip") for request in gateway.upstreams[0].requests]
        self.assertEqual(seen, [b"192.0.2.1", b"192.0.2.2", b"192.0.2.1"])

    def test_only_websocket_is_an_upgrade(self) -> None:
        """h2c, which a backend might accept behind our back, goes no further than here."""
        fields = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        seen = self.upstream_saw(GET.replace(b"Host: x\r\n", b"Host: x\r\n" + fields))
        self.assertIsNone(seen.header(b"upgrade"))
        self.assertIsNone(seen.header(b"http2-settings"))
        self.assertEqual(seen.header(b"connection"), b"keep-alive")
