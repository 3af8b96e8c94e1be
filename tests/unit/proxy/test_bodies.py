"""Bodies that pass through plugins, on wires that record: what is sent once more, what is held, what is cut."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.phases import BodyFilter, WholeBody
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Answer, Exchange, StreamedAnswer
from kongtwist.http1.http1_exchange import HTTP1Exchange
from kongtwist.proxy.filtered_answer import FilteredAnswer
from kongtwist.proxy.forwarding import UpstreamExchange
from kongtwist.proxy.streamed_answer import AnswerStream

from .relay_kit import Gateway, plugin_row

GET = b"GET /st/x HTTP/1.1\r\nHost: h\r\n\r\n"
PUT = b"PUT /st/x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"


KINDS = (HTTP1Exchange, UpstreamExchange, FilteredAnswer, AnswerStream)


class Given(Plugin):
    """Does in each phase what it was given for it."""

    name = "given"
    priority = 10

    def __init__(self, **phases: Callable[[Exchange], Any]) -> None:
        self.phases = phases
        self.logged = 0

    def access(self, exchange: Exchange, conf: Any) -> Any:
        return self.phases.get("access", _nothing)(exchange)

    def request_body_filter(self, exchange: Exchange, conf: Any) -> Any:
        return self.phases.get("request", _nothing)(exchange)

    def header_filter(self, exchange: Exchange, conf: Any) -> Any:
        return self.phases.get("header", _nothing)(exchange)

    def log(self, exchange: Exchange, conf: Any) -> None:
        self.logged += 1


class Body(Given):
    """Has a ``body_filter`` too."""

    def body_filter(self, exchange: Exchange, conf: Any, chunk: bytes, last: bool) -> bytes:
        return chunk.upper()


def _given(answer: Answer, exchange: Exchange) -> Answer:
    return answer


def _nothing(exchange: Exchange) -> Any:
    return None


class BodyTests(SynchronousTestCase):
    """One gateway with one plugin for each test."""

    def serve(self, plugin: Plugin, retries: int = 0, buffering: bool = True) -> Gateway:
        services = {"s": {"host": "127.0.0.1", "port": 18100, "retries": retries}}
        routes = {"r": {"service": "s", "paths": ["/st"], "request_buffering": buffering}}
        made = Gateway(routes, services, {"given": plugin}, [plugin_row("given")])
        made.automatic = False
        return made

    def test_next_try(self) -> None:
        """What the filters made goes up once more; they are not asked again."""
        fed: list[bytes] = []

        def look(chunk: bytes, last: bool) -> bytes:
            fed.append(chunk)
            return chunk * 2

        gateway = self.serve(Given(request=lambda exchange: BodyFilter(look)), retries=1, buffering=False)
        client = gateway.client()
        client.send(PUT + b"abc")
        first = gateway.accept()
        sent = first.wire.sent
        first.wire.lose()
        gateway.work()
        second = gateway.accept()
        self.assertEqual(sent, second.wire.sent)
        self.assertTrue(sent.endswith(b"6\r\nabcabc\r\n0\r\n\r\n"), sent)
        self.assertNotIn(b"Content-Length", sent)
        self.assertEqual(fed, [b"abc", b""])
        second.answer(OK)
        self.assertIn(b"200 OK", client.received)

    def test_refused_behind_the_head(self) -> None:
        """An answer that has begun is cut, on both sides."""
        refused = Answer(418)
        plugin = Given(request=lambda exchange: BodyFilter(lambda chunk, last: refused if b"c" in chunk else chunk))
        gateway = self.serve(plugin, buffering=False)
        client = gateway.client()
        client.send(PUT + b"ab")
        upstream = gateway.accept()
        upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        client.send(b"c")
        self.assertTrue(client.received.endswith(b"\r\n\r\nabc"))
        self.assertEqual((bool(client.wire.end), upstream.wire.end, plugin.logged), (True, "abort", 1))

    def test_refused_with_nothing_sent(self) -> None:
        """The upstream is not asked; the connection serves the next request."""
        plugin = Given(request=lambda exchange: BodyFilter(lambda chunk, last: Answer(418)))
        gateway = self.serve(plugin)
        client = gateway.client()
        client.send(PUT + b"abc" + GET)
        self.assertIn(b" 418 ", client.received)
        gateway.accept().answer(OK)
        self.assertTrue(client.received.endswith(b"abc"))
        self.assertEqual((gateway.connects(), plugin.logged), (0, 2))

    def test_no_final_status(self) -> None:
        """A client would take the body of a 1xx for the next answer: 500 instead, and the log says why."""
        for phase in ("access", "header"):
            for answer in (Answer(103, b"HTTP/1.1 200 OK"), StreamedAnswer(100, [b"x"])):
                gateway = self.serve(Given(**{phase: partial(_given, answer)}))
                client = gateway.client()
                client.send(GET)
                if phase == "header":
                    gateway.accept().answer(OK)
                self.assertTrue(client.received.startswith(b"HTTP/1.1 500 "), client.received)
                self.assertNotIn(b"HTTP/1.1 200", client.received)
                self.assertIn(f"status {answer.status}", gateway.reports[-1])

    def test_raw_chunks(self) -> None:
        """A filter that comes with the head gets payload, though framing was to pass."""
        seen: list[bytes] = []

        def look(chunk: bytes, last: bool) -> bytes:
            seen.append(chunk)
            return chunk

        gateway = self.serve(Given(header=lambda exchange: BodyFilter(look)))
        client = gateway.client()
        client.send(GET)
        upstream = gateway.accept()
        upstream.answer(CHUNKED)
        upstream.answer(b"2\r\nd")
        upstream.answer(b"e\r\n0\r\n\r\n")
        self.assertEqual(seen, [b"abc", b"d", b"e", b""])
        self.assertTrue(client.received.endswith(b"\r\n\r\n3\r\nabc\r\n1\r\nd\r\n1\r\ne\r\n0\r\n\r\n"), client.received)

    def test_held(self) -> None:
        """Nothing is sent before the end, the head neither; a pipelined request is answered behind it."""
        gateway = self.serve(Given(header=lambda exchange: WholeBody(100, lambda body: body[::-1])))
        client = gateway.client()
        client.send(GET)
        upstream = gateway.accept()
        upstream.answer(CHUNKED)
        self.assertEqual(client.received, b"")
        upstream.answer(b"0\r\n\r\n")
        self.assertTrue(client.received.endswith(b"Content-Length: 3\r\nConnection: keep-alive\r\n\r\ncba"))
        client.send(GET)
        upstream.answer(OK)
        self.assertEqual(client.received.count(b"\r\n\r\ncba"), 2)

    def test_own_answers(self) -> None:
        """Those of the access phase pass the same filters, streamed ones too."""
        for answer in (Answer(200, b"abc"), StreamedAnswer(200, [b"a", b"bc"], None, 3)):
            plugin = Given(
                access=partial(_given, answer),
                header=lambda exchange: WholeBody(100, lambda body: body[::-1] + b"!"),
            )
            gateway = self.serve(plugin)
            client = gateway.client()
            client.send(GET)
            self.assertTrue(
                client.received.endswith(b"Content-Length: 4\r\nConnection: keep-alive\r\n\r\ncba!"), answer
            )
            self.assertEqual(plugin.logged, 1)

    def test_replaced_while_streaming(self) -> None:
        """A filter that holds a streamed answer may replace it; its producer is closed."""
        closed: list[int] = []

        def chunks() -> Iterator[bytes]:
            try:
                while True:
                    yield b"x" * 60
            finally:
                closed.append(1)

        plugin = Given(
            access=lambda exchange: StreamedAnswer(200, chunks()),
            header=lambda exchange: WholeBody(100, lambda body: body, lambda: Answer(507, b"too large")),
        )
        gateway = self.serve(plugin)
        client = gateway.client()
        self.assertIn(b" 507 ", client.send(GET))
        self.assertEqual((closed, plugin.logged, client.received.count(b"HTTP/1.1")), ([1], 1, 1))

    def test_body_filter_of_a_stream(self) -> None:
        """Chunks pass through ``body_filter`` one by one; the length is unknown then."""
        plugin = Body(access=lambda exchange: StreamedAnswer(200, [b"a", b"bc"], None, 3))
        gateway = self.serve(plugin)
        client = gateway.client()
        client.send(GET)
        self.assertTrue(client.received.endswith(b"\r\n\r\n1\r\nA\r\n2\r\nBC\r\n0\r\n\r\n"), client.received)

    def test_turns(self) -> None:
        """A producer that always has something lets the reactor have its turn."""
        made: list[int] = []

        def chunks() -> Iterator[bytes]:
            for number in range(100):
                made.append(number)
                yield b"x"

        gateway = self.serve(Given(access=lambda exchange: StreamedAnswer(200, chunks())))
        client = gateway.client()
        client.channel.dataReceived(GET)
        self.assertEqual(len(made), 32)
        gateway.work()
        self.assertEqual(len(made), 100)

    def test_slow_client(self) -> None:
        """Nothing is made while the client takes nothing; if it takes nothing for too long, the producer is closed."""
        made: list[str] = []

        def chunks() -> Iterator[bytes]:
            try:
                while True:
                    made.append("chunk")
                    yield b"x" * 50000
            finally:
                made.append("closed")

        gateway = self.serve(Given(access=lambda exchange: StreamedAnswer(200, chunks())))
        client = gateway.client()
        client.wire.stuck = True
        client.channel.dataReceived(GET)
        count = len(made)
        gateway.work(30)
        self.assertEqual((len(made), made[-1]), (count, "chunk"))
        self.assertLess(count, 10)
        gateway.work(31)
        gateway.work(61)
        self.assertEqual((len(made), made[-1], client.wire.end), (count + 1, "closed", "abort"))

    def test_nothing_left_for_the_collector(self) -> None:
        """A request that is over is freed without it, filtered or streamed: objects may be out of its reach by then."""
        held = Given(header=lambda exchange: WholeBody(2, lambda body: body))
        streamed = Given(access=lambda exchange: StreamedAnswer(200, [b"a", b"bc"]))
        for plugin in (held, Given(header=lambda exchange: BodyFilter(lambda chunk, last: chunk)), streamed):
            gateway = self.serve(plugin)
            client = gateway.client()
            gc.collect()
            others = {id(each) for each in gc.get_objects() if type(each) in KINDS}  # what other tests still hold
            client.send(GET)
            gc.disable()
            try:
                if plugin is not streamed:
                    upstream = gateway.accept()
                    upstream.answer(CHUNKED)
                    upstream.answer(b"0\r\n\r\n")
                self.assertTrue(client.received.endswith(b"0\r\n\r\n"))
                left = [each for each in gc.get_objects() if type(each) in KINDS and id(each) not in others]
                self.assertEqual(left, [])
            finally:
                gc.enable()
