"""What a chain with a plugin that traces notes: phases, plugins, streams; and that no other chain notes anything."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.builder import ChainBuilder
from kongtwist.core.chain.chain import Chain
from kongtwist.core.chain.phases import ProxyEndpoint
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.chain.traced_chain import TracedChain
from kongtwist.core.exchange import Answer, Exchange, Row
from kongtwist.core.gateway_facts import GatewayFacts
from kongtwist.core.tracing.trace import CURRENT, MOST_SPANS, Trace, instrumented, noted_of
from kongtwist.observability.shared_counters import LocalCounters


def row(name: str, **fields: Any) -> Row:
    references = {each: {"id": fields[each]} if each in fields else None for each in ("route", "service", "consumer")}
    return {"id": f"{name}/{fields}", "name": name, "config": fields.get("config", {}), **references, "enabled": True,
            "protocols": ["http"]}  # fmt: skip


class Tracer(Plugin):
    name = "tracer"
    priority = 10
    traces = True

    def log(self, exchange: Exchange, conf: Any) -> None:
        """It has a phase."""


class Slow(Plugin):
    """Takes two seconds in each phase."""

    name = "slow"
    priority = 50

    def __init__(self) -> None:
        self.clock: Clock | None = None
        self.waiting: Deferred[Any] | None = None
        self.seen: list[Trace | None] = []

    def rewrite(self, exchange: Exchange, conf: Any) -> None:
        self._pass()

    def access(self, exchange: Exchange, conf: Any) -> Any:
        self.seen.append(CURRENT.get())
        self._pass()
        if conf.get("raises"):
            raise RuntimeError("no")
        return self._wait() if self.waiting is not None else conf.get("answer")

    def header_filter(self, exchange: Exchange, conf: Any) -> None:
        self._pass()

    async def _wait(self) -> Any:
        assert self.waiting is not None
        self.seen.append(CURRENT.get())
        answer = await self.waiting
        self.seen.append(CURRENT.get())
        return answer

    def _pass(self) -> None:
        assert self.clock is not None
        self.clock.advance(2)


class Answering(Plugin):
    name = "answering"
    priority = 60
    proxy_endpoints = (ProxyEndpoint("/own", lambda exchange, conf: Answer(204)),)


class Same(Plugin):
    """Says who it is."""

    name = "auth"
    priority = 90

    def access(self, exchange: Exchange, conf: Any) -> None:
        exchange.consumer = {"id": "c"}


class TracedChainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.slow = Slow()
        self.slow.clock = self.clock
        plugins = (Tracer(), self.slow, Answering(), Same())
        self.plugins: dict[str, Plugin] = {each.name: each for each in plugins}

    def chain(self, *rows: Row) -> Chain:
        return ChainBuilder(rows, self.plugins).chain(None, None)

    def exchange(self, kinds: str = "all") -> Exchange:
        exchange = Exchange()
        self.reports: list[str] = []
        exchange.gateway = GatewayFacts(
            counters=LocalCounters(), now=self.clock.seconds, report=self.reports.append,
            instrumentations=instrumented(kinds.split(",")),
        )  # fmt: skip
        exchange.target, exchange.method, exchange.client_ip, exchange.request_id = b"/x", b"GET", "10.0.0.1", b"0" * 32
        exchange.route = cast(Any, None)
        return exchange

    def spans(self, exchange: Exchange) -> list[tuple[str, float, float]]:
        trace = noted_of(exchange)
        assert trace is not None
        self.assertIsNone(trace.active)
        return [(each.name, each.start, each.end) for each in trace.spans]

    def test_only_where_one_traces(self) -> None:
        """Other chains are plain, and nothing is noted of their requests."""
        plain, traced = self.chain(row("slow")), self.chain(row("slow"), row("tracer"))
        self.assertIs(type(plain), Chain)
        self.assertEqual((plain.traced, traced.traced, type(traced)), (False, True, TracedChain))
        exchange = self.exchange()
        plain.run_access(exchange)
        self.assertIsNone(noted_of(exchange))
        self.assertIsNone(exchange._own)

    def test_phases_and_plugins(self) -> None:
        """When phases began and ended, and a span for each plugin that takes part."""
        chain = self.chain(row("slow"), row("tracer"))
        exchange = self.exchange()
        chain.run_rewrite(exchange)
        self.clock.advance(1)
        chain.run_access(exchange)
        chain.run_header_filter(exchange)
        trace = noted_of(exchange)
        assert trace is not None
        self.assertEqual(
            (trace.rewrite_end, trace.access_start, trace.access_end, trace.header_start, trace.header_end),
            (2, 3, 5, 5, 7),
        )
        self.assertEqual(
            self.spans(exchange),
            [
                ("kong.rewrite.plugin.slow", 0, 2),
                ("kong.access.plugin.slow", 3, 5),
                ("kong.header_filter.plugin.slow", 5, 7),
            ],
        )

    def test_what_is_asked_for(self) -> None:
        """No spans but those that the property names; phases are noted always."""
        exchange = self.exchange("plugin_header_filter,router")
        chain = self.chain(row("slow"), row("tracer"))
        chain.run_access(exchange)
        chain.run_header_filter(exchange)
        self.assertEqual(self.spans(exchange), [("kong.header_filter.plugin.slow", 2, 4)])
        exchange = self.exchange("off")
        chain.run_access(exchange)
        self.assertEqual(self.spans(exchange), [])
        self.assertGreater(noted_of(exchange).access_end, 0)  # type: ignore[union-attr]

    def test_waiting(self) -> None:
        """A plugin that waits is a span until it goes on; it knows its trace all the time, and nobody else does."""
        exchange = self.exchange()
        self.slow.waiting = Deferred()
        result = self.chain(row("slow"), row("tracer")).run_access(exchange)
        assert result is not None and not isinstance(result, Answer)
        running = Deferred.fromCoroutine(cast(Any, result))
        self.clock.advance(5)
        self.assertIsNone(CURRENT.get())
        self.slow.waiting.callback(None)
        self.assertIsNone(self.successResultOf(running))
        trace = noted_of(exchange)
        self.assertEqual(self.slow.seen, [trace, trace, trace])
        self.assertEqual(self.spans(exchange), [("kong.access.plugin.slow", 0, 7)])
        self.assertEqual((trace.access_end, CURRENT.get()), (7, None))  # type: ignore[union-attr]

    def test_client_gone(self) -> None:
        """A plugin whose wait is cancelled has ended."""
        exchange = self.exchange()
        self.slow.waiting = Deferred()
        result = self.chain(row("slow"), row("tracer")).run_access(exchange)
        running = Deferred.fromCoroutine(cast(Any, result))
        self.clock.advance(1)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(self.spans(exchange), [("kong.access.plugin.slow", 0, 3)])

    def test_raises(self) -> None:
        """A plugin that raises has a span, and is answered 500 as in any chain; the line names it."""
        exchange = self.exchange()
        answer = self.chain(row("slow", config={"raises": True}), row("tracer")).run_access(exchange)
        assert isinstance(answer, Answer)
        self.assertEqual(answer.status, 500)
        self.assertIn("slow", self.reports[0])
        self.assertEqual(self.spans(exchange), [("kong.access.plugin.slow", 0, 2)])

    def test_consumers(self) -> None:
        """Plugins that are chosen by the consumer are noted, too."""
        exchange = self.exchange()
        chain = self.chain(row("auth"), row("slow", consumer="c"), row("tracer"))
        chain.run_access(exchange)
        chain.run_header_filter(exchange)
        names = [name for name, _, _ in self.spans(exchange)]
        self.assertEqual(
            names, ["kong.access.plugin.auth", "kong.access.plugin.slow", "kong.header_filter.plugin.slow"]
        )

    def test_endpoints(self) -> None:
        """Paths that a plugin answers are still known."""
        chain = self.chain(row("answering"), row("tracer"))
        exchange = self.exchange()
        exchange.target = b"/own"
        self.assertTrue(chain.has_endpoint(exchange))
        self.assertEqual(cast(Any, chain.run_access(exchange)).status, 204)
        exchange.target = b"/other"
        self.assertFalse(chain.has_endpoint(exchange))

    def test_streams(self) -> None:
        """At the end of a stream it is noted what it was."""
        exchange = self.exchange()
        stream = SimpleNamespace(
            kind="sse", bytes_in=1, bytes_out=2, messages_in=3, messages_out=4, end=("closed", 4001)
        )
        watches = self.chain(row("tracer")).run_open(exchange, cast(Any, stream))
        assert watches is not None
        stream.bytes_out = 20
        watches.on_close("client closed")
        told = noted_of(exchange).stream  # type: ignore[union-attr]
        assert told is not None
        self.assertEqual((told["kongtwist.stream.end"], told["kongtwist.stream.bytes_out"]), ("client closed", 20))
        self.assertEqual(told["kongtwist.stream.close_code"], 4001)

    def test_bounded(self) -> None:
        """Spans of one request are bounded."""
        trace = Trace(frozenset())
        for _ in range(MOST_SPANS + 9):
            trace.begin("x", 0)
        self.assertEqual(len(trace.spans), MOST_SPANS)
