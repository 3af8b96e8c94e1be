"""HTTP over HTTP/2 as over HTTP/1.1: bodies, limits, early answers, interim answers, trailers, times, counters, ends."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.counters import ACTIVE, REQUESTS, WAITING, WRITING
from kongtwist.core.exchange import Answer, BodyTooLarge, Exchange
from kongtwist.core.http2 import frames
from kongtwist.core.limits import Limits

from ..net.http2_kit import frame
from ..proxy.relay_kit import Gateway, plugin_row
from .http2_door import HTTP2Client

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def streaming(**options: Any) -> Gateway:
    """A gateway whose route does not buffer requests."""
    return Gateway(routes={"r": {"service": "s", "paths": ["/st"], "request_buffering": False}}, **options)


class Reading(Plugin):
    """Reads the body, and answers when it cannot."""

    name = "reading"
    priority = 10

    async def access(self, exchange: Exchange, conf: Any) -> Answer | None:
        try:
            body = await exchange.read_body(10)
        except BodyTooLarge:
            return exchange.error(413, "too large for me")
        return exchange.exit(200, body)


class ExchangeTests(SynchronousTestCase):
    """Requests and answers."""

    def test_get(self) -> None:
        """Head and body; what HTTP/1.1 needs for framing is not there."""
        gateway = Gateway()
        gateway.answers[b"/x"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\nX-A: B\r\n\r\nok"
        answer = HTTP2Client(gateway).ask()
        self.assertEqual((answer.status, answer.body, answer.ended, answer.code), (200, b"ok", True, None))
        head = answer.heads[0]
        self.assertEqual((head["content-length"], head["x-a"]), ("2", "B"))
        self.assertFalse({"connection", "transfer-encoding", "keep-alive"} & set(head))
        self.assertEqual(gateway.log.lines, [(200, "/st/x")])

    def test_host_and_cookies(self) -> None:
        """:authority is Host for routes and logs; cookies become one line (RFC 9113 8.2.3)."""
        gateway = Gateway()
        seen: list[Any] = []
        gateway.answers[b"/x"] = lambda request: seen.append(request) or OK  # type: ignore[func-returns-value]
        client = HTTP2Client(gateway)
        block = client._encoder.encode([
            (":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", "/st/x"),
            ("cookie", "a=1"), ("cookie", "b=2"),
        ])  # fmt: skip
        client.send(frames.headers(1, block, True))
        self.assertEqual(seen[0].header(b"cookie"), b"a=1; b=2")
        self.assertEqual(seen[0].header(b"x-forwarded-host"), b"a.example")
        self.assertEqual(seen[0].header(b"via"), b"2 kong/3.9.3")

    def test_bodies(self) -> None:
        """With a length and without; towards HTTP/1.1 one without is chunked."""
        gateway = streaming()
        seen: list[Any] = []
        gateway.answers[b"/x"] = lambda request: seen.append(request) or OK  # type: ignore[func-returns-value]
        client = HTTP2Client(gateway)
        self.assertEqual(client.ask("POST", body=b"hello", content_length="5").status, 200)
        self.assertEqual(client.ask("POST", body=b"hello").status, 200)
        self.assertEqual([each.body for each in seen], [b"hello", b"hello"])
        self.assertEqual(
            [(each.header(b"content-length"), each.header(b"transfer-encoding")) for each in seen],
            [(b"5", None), (None, b"chunked")],
        )

    def test_length_that_lies(self) -> None:
        """RFC 9113 8.1.1: the stream ends with PROTOCOL_ERROR; the connection goes on."""
        gateway = streaming()
        gateway.answers[b"/x"] = OK
        client = HTTP2Client(gateway)
        self.assertEqual(client.ask("POST", body=b"hello", content_length="7").code, frames.PROTOCOL_ERROR)
        self.assertEqual(client.ask().status, 200)
        self.assertEqual([status for status, _ in gateway.log.lines], [499, 200])

    def test_head_and_empty(self) -> None:
        """HEAD, 204 and 304 end with the head."""
        gateway = Gateway()
        gateway.answers[b"/x"] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
        gateway.answers[b"/y"] = b"HTTP/1.1 204 No Content\r\n\r\n"
        client = HTTP2Client(gateway)
        answer = client.ask("HEAD")
        self.assertEqual((answer.status, answer.ended, answer.heads[0]["content-length"]), (200, True, "9"))
        answer = client.ask(path="/st/y")
        self.assertEqual((answer.status, answer.ended, answer.body), (204, True, b""))

    def test_chunked_answer_with_trailers(self) -> None:
        """Chunks become DATA, trailers HEADERS behind it."""
        gateway = Gateway()
        gateway.answers[b"/x"] = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3\r\nabc\r\n0\r\nX-T: v\r\n\r\n"
        )
        answer = HTTP2Client(gateway).ask(te="trailers")
        self.assertEqual((answer.body, answer.ended, answer.heads[1]), (b"abc", True, {"x-t": "v"}))

    def test_interim(self) -> None:
        """103 is passed on."""
        gateway = Gateway()
        gateway.answers[b"/x"] = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK
        answer = HTTP2Client(gateway).ask()
        self.assertEqual([head[":status"] for head in answer.heads], ["103", "200"])

    def test_continue(self) -> None:
        """Who waits for 100 gets it when the body is wanted."""
        gateway = streaming()
        gateway.answers[b"/x"] = OK
        client = HTTP2Client(gateway)
        client.send(client.head("POST", end=False, expect="100-continue", content_length="2"))
        self.assertEqual(client.streams[1].heads[0][":status"], "100")
        client.send(frame(frames.DATA, 1, 1, b"ab"))
        self.assertEqual(client.streams[1].status, 200)

    def test_lost_upstream(self) -> None:
        """An answer that breaks off must not look complete."""
        gateway = Gateway()
        gateway.answers[b"/x"] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"
        client = HTTP2Client(gateway)
        client.ask()
        gateway.upstreams[0].wire.lose(clean=False)
        client.read()
        answer = client.streams[1]
        self.assertEqual((answer.body, answer.ended, answer.code), (b"ab", False, frames.INTERNAL_ERROR))

    def test_refused_heads(self) -> None:
        """They are answered as over HTTP/1.1, and logged; what RFC 9113 calls malformed resets the stream."""
        gateway = Gateway()
        client = HTTP2Client(gateway)
        self.assertEqual(client.ask("TRACE").status, 405)
        self.assertEqual(client.ask(path="/st/../../x").status, 400)
        self.assertEqual(client.ask(x="y" * 9000).status, 400)
        self.assertEqual(client.ask(connection="close").code, frames.PROTOCOL_ERROR)
        self.assertEqual(gateway.log.refused, [405, 400, 400, 400])
        self.assertEqual(client.goaways(), [])

    def test_bomb(self) -> None:
        """Thousands of references to one large field are refused, and cost nothing."""
        client = HTTP2Client(Gateway())
        first = client._encoder.encode(
            [(":method", "GET"), (":scheme", "http"), (":path", "/st/x"), (":authority", "x")]
        )
        client.send(frames.headers(1, first + b"\x40\x01a\x7f\x81\x1e" + b"v" * 3968 + b"\xbe" * 12000, True))
        self.assertEqual(client.streams[1].status, 400)

    def test_large_blocks(self) -> None:
        """A block above the limit is answered as other large heads are; trailers end their stream. Others go on."""
        client = HTTP2Client(Gateway(limits=Limits(http2_max_block_size=20000)))
        answer = client.ask(x="y" * 30_000, kept="1")
        self.assertEqual((answer.status, answer.ended), (400, True))
        answer = client.ask("POST", content_type="application/grpc", x="y" * 30_000)
        self.assertEqual(answer.heads[0]["grpc-status"], "8")
        client.send(client.head("POST", end=False))
        client.send(frames.headers(5, client._encoder.encode([("x", "y" * 30_000)]), True))
        self.assertEqual(client.streams[5].code, frames.ENHANCE_YOUR_CALM)
        self.assertEqual((client.ask(kept="1").status, client.goaways()), (200, []))
        client.send(frames.headers(9, b"x" * 90_000, True))
        self.assertEqual(client.goaways(), [(7, frames.ENHANCE_YOUR_CALM)])

    def test_read_by_a_plugin(self) -> None:
        """`read_body`, up to its limit."""
        gateway = Gateway(plugins={"reading": Reading()}, plugin_rows=[plugin_row("reading")])
        client = HTTP2Client(gateway)
        answer = client.ask("POST", body=b"hello")
        self.assertEqual((answer.status, answer.body), (200, b"hello"))
        client.send(client.head("POST", end=False), frame(frames.DATA, 0, 3, b"x" * 20))
        answer = client.streams[3]
        self.assertEqual((answer.status, answer.ended, answer.code), (413, True, None))
        client.send(frame(frames.DATA, 0, 3, b"more"))
        gateway.reactor.advance(0.3)
        client.read()
        self.assertEqual(answer.code, frames.NO_ERROR)
        client.send(frame(frames.DATA, 0, 3, b"more"))
        self.assertEqual(client.goaways(), [])

    def test_too_large(self) -> None:
        """413, announced or not; the stream is closed without an error a moment behind it, if the request has not ended by then: clients
        that read answer and reset at once (curl 7.88) would tell of the reset alone."""
        gateway = streaming(limits=Limits(client_max_body_size=4))
        client = HTTP2Client(gateway)
        client.send(client.head("POST", end=False, content_length="5"))
        client.send(client.head("POST", end=False), frame(frames.DATA, 0, 3, b"12345"))
        client.send(client.head("POST", end=False), frame(frames.DATA, 0, 5, b"12345"), frame(frames.DATA, 1, 5, b"6"))
        for moment, codes in ((0.09, (None, None, None)), (0.3, (frames.NO_ERROR, frames.NO_ERROR, None))):
            gateway.reactor.advance(moment)
            client.read()
            for number, code in zip((1, 3, 5), codes, strict=True):
                answer = client.streams[number]
                self.assertEqual((answer.status, answer.ended, answer.code), (413, True, code))
        self.assertEqual(client.channel.streams, {})

    def test_slow_body(self) -> None:
        """408 when nothing comes for ``client_body_timeout``."""
        gateway = streaming(limits=Limits(client_body_timeout=5))
        client = HTTP2Client(gateway)
        client.send(client.head("POST", end=False, content_length="5"), frame(frames.DATA, 0, 1, b"1"))
        gateway.reactor.advance(4)
        client.send(frame(frames.DATA, 0, 1, b"2"))
        gateway.reactor.advance(4)
        self.assertNotIn(1, client.streams)
        gateway.reactor.advance(3)
        client.read()
        self.assertEqual(client.streams[1].status, 408)

    def test_client_leaves(self) -> None:
        """A reset cuts the upstream and is logged as 499; so is the loss of the connection."""
        gateway = Gateway()
        gateway.automatic = False
        client = HTTP2Client(gateway)
        client.send(client.head(), client.head())
        client.send(frames.rst_stream(1, frames.CANCEL))
        self.assertEqual(gateway.log.lines, [(499, "/st/x")])
        client.wire.lose()
        self.assertEqual(gateway.log.lines, [(499, "/st/x")] * 2)
        self.assertEqual(gateway.context.cells[ACTIVE], 0)
        self.assertEqual(gateway.context.connections, set())

    def test_slow_reader(self) -> None:
        """The upstream is read no further than the client's window; a client that takes nothing is cut after ``send_timeout``."""
        gateway = Gateway(limits=Limits(send_timeout=5))
        body = b"x" * 300_000
        gateway.answers[b"/x"] = b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n" + body
        client = HTTP2Client(gateway, settings=[(4, 10)])
        answer = client.ask()
        self.assertEqual(answer.body, b"x" * 10)
        self.assertFalse(gateway.upstreams[0].wire.reading)
        client.send(frames.window_update(1, 50))
        self.assertEqual(answer.body, b"x" * 60)
        gateway.reactor.advance(4)
        client.send(frames.window_update(1, 1))
        gateway.reactor.advance(4)
        client.read()
        self.assertEqual(answer.code, None)
        for _ in range(3):
            gateway.reactor.advance(4)
        client.read()
        self.assertEqual(answer.code, frames.CANCEL)
        self.assertEqual([status for status, _ in gateway.log.lines], [200])

    def test_window_opens(self) -> None:
        """All of it comes when the client takes it, and the upstream is read on."""
        gateway = Gateway()
        gateway.answers[b"/x"] = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000
        client = HTTP2Client(gateway)
        answer = client.ask()
        self.assertEqual(len(answer.body), 65535)
        client.send(frames.window_update(0, 1 << 20), frames.window_update(1, 1 << 20))
        self.assertEqual((len(answer.body), answer.ended, answer.code), (200_000, True, None))

    def test_upstream_takes_nothing(self) -> None:
        """Then no credit is given: no more than the stream's window is held."""
        limits = Limits(
            http2_stream_window_size=70_000, http2_connection_window_size=100_000, client_body_buffer_size=10
        )
        gateway = streaming(limits=limits)
        gateway.answers[b"/x"] = b""
        client = HTTP2Client(gateway)
        client.send(client.head("POST", end=False))
        gateway.upstreams[0].wire.stuck = True
        stream = client.channel.streams[1]
        while not stream.paused:
            client.send(frame(frames.DATA, 0, 1, b"x" * 10000))
        while stream.room:
            data = frame(frames.DATA, 0, 1, b"x" * min(10000, stream.room))
            self.assertNotIn((frames.WINDOW_UPDATE, 1), [(kind, number) for kind, _, number, _ in client.send(data)])
        self.assertLessEqual(stream.held, 70_000)
        client.send(frame(frames.DATA, 0, 1, b"x"))
        self.assertEqual(client.streams[1].code, frames.FLOW_CONTROL_ERROR)


class ConnectionTests(SynchronousTestCase):
    """What holds for all streams of a connection."""

    def test_beginning(self) -> None:
        """The preface may come in pieces; what only begins like it is HTTP/1.1, and refused."""
        gateway = Gateway()
        gateway.answers[b"/x"] = OK
        client = HTTP2Client.__new__(HTTP2Client)
        HTTP2Client.__init__(client, gateway)
        other = HTTP2Client(gateway)
        self.assertEqual(other.ask().status, 200)
        from kongtwist.http2.http2_channel import HTTP2Channel

        from ..proxy.relay_kit import Client

        gateway.factory.http2 = HTTP2Channel.take_over
        pieces = Client(gateway, gateway.factory)
        for byte in frames.PREFACE[:-1]:
            pieces.send(bytes((byte,)))
        self.assertEqual(pieces.received, b"")
        pieces.wire.protocol.dataReceived(frames.PREFACE[-1:])
        self.assertEqual(pieces.received[3], frames.SETTINGS)
        wrong = Client(gateway, gateway.factory)
        self.assertEqual(wrong.send(frames.PREFACE[:20] + b"xxxx")[:13], b"HTTP/1.1 505 ")

    def test_without(self) -> None:
        """Where HTTP/2 is not spoken it is refused as before."""
        from ..proxy.relay_kit import Client

        gateway = Gateway()
        self.assertEqual(Client(gateway, gateway.factory).send(frames.PREFACE)[:13], b"HTTP/1.1 505 ")

    def test_counters(self) -> None:
        """Connections and requests are counted as over HTTP/1.1."""
        gateway = Gateway()
        gateway.automatic = False
        cells = gateway.context.cells
        client = HTTP2Client(gateway)
        client.send(client.head(), client.head())
        self.assertEqual((cells[REQUESTS], cells[ACTIVE], cells[WRITING], cells[WAITING]), (2, 1, 1, 0))
        client.send(frames.rst_stream(1, 8), frames.rst_stream(3, 8))
        self.assertEqual((cells[ACTIVE], cells[WRITING], cells[WAITING]), (1, 0, 1))
        client.wire.lose()
        self.assertEqual((cells[ACTIVE], cells[WRITING], cells[WAITING]), (0, 0, 0))

    def test_idle(self) -> None:
        """Without streams the connection ends after ``keepalive_timeout``, politely."""
        gateway = Gateway(limits=Limits(keepalive_timeout=10))
        gateway.answers[b"/x"] = OK
        client = HTTP2Client(gateway)
        client.ask()
        gateway.reactor.advance(9)
        client.read()
        self.assertEqual(client.goaways(), [])
        gateway.reactor.advance(2)
        client.read()
        self.assertEqual(client.goaways(), [(1, 0)])
        self.assertTrue(client.wire.write_closed)
        gateway.reactor.advance(10)
        self.assertEqual(gateway.context.connections, set())

    def test_stop(self) -> None:
        """GOAWAY in two steps (RFC 9113 6.8): what was on its way is served, then the connection ends."""
        gateway = Gateway()
        gateway.answers[b"/x"] = OK
        client = HTTP2Client(gateway)
        client.ask()
        gateway.context.drain()
        client.read()
        self.assertEqual(client.goaways(), [(2**31 - 1, 0)])
        self.assertEqual(client.ask().status, 200)
        asked = next(payload for kind, payload in client.others if kind == frames.PING)
        client.send(frames.ping(asked, True))
        self.assertEqual(client.goaways(), [(2**31 - 1, 0), (3, 0)])
        self.assertTrue(client.wire.write_closed)

    def test_many_requests(self) -> None:
        """Behind ``keepalive_requests`` of them the client is asked to connect anew."""
        gateway = Gateway(limits=Limits(keepalive_requests=2))
        gateway.answers[b"/x"] = OK
        client = HTTP2Client(gateway)
        self.assertEqual([client.ask().status, client.goaways()], [200, []])
        self.assertEqual([client.ask().status, client.goaways()], [200, [(2**31 - 1, 0)]])

    def test_streams_are_limited(self) -> None:
        """One more is refused so that it may be tried again."""
        gateway = Gateway(limits=Limits(http2_max_concurrent_streams=2))
        gateway.automatic = False
        client = HTTP2Client(gateway)
        client.send(client.head(), client.head(), client.head())
        self.assertEqual(client.streams[5].code, frames.REFUSED_STREAM)
        self.assertEqual(client.goaways(), [])
