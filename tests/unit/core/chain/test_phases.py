"""Phases beside access: certificates, bodies, streams, own paths; and those of a request whose client left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.answers import Answer, StreamedAnswer
from kongtwist.core.chain.builder import ChainBuilder
from kongtwist.core.chain.chain import Chain, PluginFailed
from kongtwist.core.chain.phases import BodyFilter, CertificateChoice, ClientHello, ProxyEndpoint, WholeBody
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.chain.stream_watch import StreamInfo, StreamWatch
from kongtwist.core.exchange import Exchange

from .test_chain import row


class Doing(Plugin):
    """Does in each phase what its configuration says: phase -> call."""

    name = "doing"
    priority = 10

    def certificate(self, hello: ClientHello, conf: Any) -> CertificateChoice | None:
        return cast("CertificateChoice | None", self.do("certificate", conf, hello))

    def access(self, exchange: Exchange, conf: Any) -> Any:
        return self.do("access", conf, exchange)

    def request_body_filter(self, exchange: Exchange, conf: Any) -> BodyFilter | None:
        return cast("BodyFilter | None", self.do("request_body_filter", conf, exchange))

    def header_filter(self, exchange: Exchange, conf: Any) -> Any:
        return self.do("header_filter", conf, exchange)

    def on_open(self, stream: StreamInfo, conf: Any) -> StreamWatch | None:
        return cast("StreamWatch | None", self.do("on_open", conf, stream))

    def log(self, exchange: Exchange, conf: Any) -> None:
        self.do("log", conf, exchange)

    def do(self, phase: str, conf: Any, *given: Any) -> Any:
        call = conf["tag"].get(phase)
        return None if call is None else call(*given)


class DoingLater(Doing):
    name = "doing-later"
    priority = 5

    def body_filter(self, exchange: Exchange, conf: Any, chunk: bytes, last: bool) -> bytes:
        return chunk + b";"


class Serving(Plugin):
    """Has paths of its own."""

    name = "serving"
    priority = 7
    proxy_endpoints = (
        ProxyEndpoint("/oauth2/token", lambda exchange, conf: Answer(201), ("POST",)),
        ProxyEndpoint("/.well-known/", lambda exchange, conf: Answer(202), anywhere=True),
        ProxyEndpoint("/not-mine", lambda exchange, conf: None),
    )

    def access(self, exchange: Exchange, conf: Any) -> Answer | None:
        return Answer(403)


class Watch(StreamWatch):
    def __init__(self, told: list[str], fails: bool = False) -> None:
        self.told = told
        self.fails = fails

    def on_close(self, why: str) -> None:
        self.told.append(why)
        if self.fails:
            raise RuntimeError("watch")


PLUGINS: dict[str, Plugin] = {kind.name: kind() for kind in (Doing, DoingLater, Serving)}


class PhaseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reports: list[str] = []
        self.exchange = self.request("/")

    def request(self, target: str, method: str = "GET") -> Exchange:
        exchange = Exchange()
        exchange.gateway = cast(Any, SimpleNamespace(report=self.reports.append))
        exchange.method, exchange.target = method.encode(), target.encode()
        return exchange

    def chain(self, *rows: Any) -> Chain:
        return ChainBuilder(rows, PLUGINS).chain("r", "s")


class EndpointTests(PhaseTests):
    def test_own_paths_come_before_the_phase(self) -> None:
        chain = self.chain(row("serving", route="r"))
        for method, target, status in (
            ("POST", "/api/oauth2/token?a=1", 201), ("GET", "/api/oauth2/token", 403), ("POST", "/api/%6Fauth2/token", 201),
            ("POST", "/oauth2/token/more", 403), ("GET", "/not-mine", 403),
        ):  # fmt: skip
            answer = chain.run_access(self.request(target, method))
            assert isinstance(answer, Answer)
            self.assertEqual(answer.status, status, target)

    def test_paths_anywhere_are_looked_at_before_routes(self) -> None:
        builder = ChainBuilder([row("serving")], PLUGINS)
        answer = builder.global_chain.run_rewrite(self.request("/.well-known/x"))
        assert isinstance(answer, Answer)
        self.assertEqual(answer.status, 202)
        self.assertIsNone(builder.global_chain.run_rewrite(self.request("/a/.well-known/x")))


class CertificateTests(PhaseTests):
    def test_the_first_that_chooses_decides(self) -> None:
        choice = CertificateChoice("cert", "key")
        asked: list[ClientHello] = []
        chain = ChainBuilder(
            [
                row("doing", cast(Any, {"certificate": asked.append})),
                row("doing-later", cast(Any, {"certificate": lambda _: choice})),
            ],
            PLUGINS,
        ).global_chain
        self.assertTrue(chain.certifies)
        self.assertIs(chain.certificate(ClientHello("a.b")), choice)
        self.assertEqual(asked, [ClientHello("a.b")])
        self.assertNotIn("key", repr(choice).replace("key=", "").replace("key_alt", ""))

    def test_only_global_configurations_choose(self) -> None:
        builder = ChainBuilder([row("doing", cast(Any, {"certificate": self.fail}), route="r")], PLUGINS)
        self.assertFalse(builder.global_chain.certifies)
        self.assertIsNone(builder.chain("r", "s").certificate(ClientHello(None)))


class BodyTests(PhaseTests):
    def test_streamed_answers_end_the_access_phase(self) -> None:
        streamed = StreamedAnswer(200, [b"a"])
        self.assertIs(
            self.chain(row("doing", cast(Any, {"access": lambda _: streamed}))).run_access(self.exchange), streamed
        )

    def test_request_filters(self) -> None:
        same = BodyFilter(lambda chunk, last: chunk.upper())
        chain = self.chain(
            row("doing", cast(Any, {"request_body_filter": lambda _: same})), row("doing-later", cast(Any, {}))
        )
        filters = chain.request_filters(self.exchange)
        assert filters is not None and not isinstance(filters, Answer)
        self.assertEqual(filters.feed(b"a", True), b"A")
        self.assertIsNone(self.chain(row("doing", cast(Any, {}))).request_filters(self.exchange))
        for wrong in (lambda _: b"", self.fail):
            refused = self.chain(row("doing", cast(Any, {"request_body_filter": wrong}))).request_filters(self.exchange)
            assert isinstance(refused, Answer)
            self.assertEqual(refused.status, 500)

    def test_what_header_filters_give_stands_in_the_plugins_order(self) -> None:
        chain = self.chain(
            row("doing", cast(Any, {"header_filter": lambda _: WholeBody(9, lambda body: body + b"1")})),
            row("doing-later", cast(Any, {"header_filter": lambda _: BodyFilter(lambda chunk, last: chunk + b"2")})),
        )
        self.assertIsNone(chain.run_header_filter(self.exchange))
        filters = chain.answer_filters(self.exchange)
        assert filters is not None
        self.assertTrue(filters.holding)
        self.assertEqual(filters.feed(b"a", True), b"a12;")
        other = self.request("/")
        self.assertIsNone(self.chain(row("doing", cast(Any, {}))).run_header_filter(other))
        self.assertIsNone(self.chain(row("doing", cast(Any, {}))).answer_filters(other))

    def test_a_replaced_answer_is_seen_by_those_behind(self) -> None:
        seen: list[int] = []
        chain = self.chain(
            row("doing", cast(Any, {"header_filter": lambda _: Answer(429)})),
            row("doing-later", cast(Any, {"header_filter": lambda exchange: seen.append(exchange.status)})),
        )
        answer = chain.run_header_filter(self.exchange)
        assert answer is not None
        self.assertEqual((answer.status, seen, self.exchange.answer_source), (429, [429], "exit"))


class StreamTests(PhaseTests):
    def test_watches_hear_of_the_end_once(self) -> None:
        told: list[str] = []
        stream: Any = object()
        chain = self.chain(
            row("doing", cast(Any, {"on_open": lambda got: Watch(told, fails=True) if got is stream else self.fail()})),
            row("doing-later", cast(Any, {"on_open": lambda _: Watch(told)})),
        )
        watches = chain.run_open(self.exchange, stream)
        assert watches is not None
        watches.on_close("gone")
        watches.on_close("again")
        self.assertEqual(told, ["gone", "gone"])
        self.assertIn("plugin doing failed in phase on_close", self.reports[0])

    def test_watches_hear_of_a_move_once(self) -> None:
        """A stream that goes to another process has no end here; a watch that knows nothing of moves takes it for one."""
        told: list[str] = []

        class Moving(Watch):
            def on_move(self) -> None:
                self.told.append("moved")
                raise RuntimeError("watch")

        chain = self.chain(
            row("doing", cast(Any, {"on_open": lambda _: Moving(told)})),
            row("doing-later", cast(Any, {"on_open": lambda _: Watch(told)})),
        )
        watches = chain.run_open(self.exchange, cast(Any, object()))
        assert watches is not None
        watches.on_move()
        watches.on_close("later")
        self.assertEqual(told, ["moved", "moved to another process"])
        self.assertIn("plugin doing failed in phase on_move", self.reports[0])

    def test_raising_refuses_the_stream(self) -> None:
        told: list[str] = []
        chain = self.chain(
            row("doing", cast(Any, {"on_open": lambda _: Watch(told)})),
            row("doing-later", cast(Any, {"on_open": self.fail})),
        )
        self.assertRaises(PluginFailed, chain.run_open, self.exchange, cast(Any, None))
        self.assertEqual(told, ["a plugin refused it"])

    def test_nobody_watches(self) -> None:
        self.assertIsNone(self.chain(row("doing", cast(Any, {}))).run_open(self.exchange, cast(Any, None)))


class LeavingTests(PhaseTests):
    """A client leaves while a plugin waits, on a route where a configuration is bound to a consumer."""

    def setUp(self) -> None:
        super().setUp()
        self.logged: list[str] = []
        self.pending: Deferred[None] = Deferred()
        self.running = self.chain(
            row("doing", cast(Any, {"access": lambda _: self.pending, "log": lambda _: self.logged.append("first")})),
            row("doing-later", cast(Any, {"log": lambda _: self.logged.append("later")})),
            row("doing-later", cast(Any, {"log": lambda _: self.logged.append("bound")}), consumer="c"),
        )
        self.waiting = ensureDeferred(cast(Any, self.running.run_access(self.exchange)))

    def test_log_of_later_plugins_runs(self) -> None:
        self.waiting.cancel()
        self.failureResultOf(self.waiting, CancelledError)
        self.running.run_log(self.exchange)
        self.assertEqual(self.logged, ["first", "later"])

    def test_log_runs_before_the_wait_is_over(self) -> None:
        """Whoever answers meanwhile (413, 408) runs the later phases of all plugins, and takes no turn from the access phase."""
        self.running.run_log(self.exchange)
        self.assertEqual(self.logged, ["first", "later"])
        self.pending.callback(None)
        self.assertIsNone(self.successResultOf(self.waiting))
        self.assertEqual(sorted(self.exchange.plugin_confs or ()), ["doing", "doing-later"])
