"""What a chain with a clock at hand tells of one request, and that it runs the plugins of the plain one."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.builder import ChainBuilder
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.chain.timed_chain import TimedChain
from kongtwist.core.exchange import Answer, Exchange
from kongtwist.core.gateway_facts import GatewayFacts
from kongtwist.core.request_timing import RequestTiming
from kongtwist.observability.shared_counters import LocalCounters
from tests.unit.core.chain import test_traced_chain as kit


class TimedChainTests(SynchronousTestCase):
    """A plugin that takes two seconds in each phase, timed."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.slow = kit.Slow()
        self.slow.clock = self.clock
        self.told: list[bool] = []
        self.timing = RequestTiming(self.clock.seconds, {"request_id": "r"}, logs=False, loopback=True)

    def chain(self, **fields: Any) -> TimedChain:
        plugins: dict[str, Plugin] = {"slow": self.slow}
        self.row = kit.row("slow", **fields)
        plain = ChainBuilder((self.row,), plugins).chain(None, None)
        return TimedChain(plain, self.timing, lambda exchange, over: self.told.append(over))

    def exchange(self) -> Exchange:
        exchange = Exchange()
        exchange.gateway = GatewayFacts(counters=LocalCounters(), now=self.clock.seconds, report=lambda line: None)
        exchange.target, exchange.method, exchange.client_ip, exchange.request_id = b"/x", b"GET", "10.0.0.1", b"0" * 32
        exchange.route = cast(Any, None)
        exchange.snapshot = cast(Any, SimpleNamespace(rows={"plugins": {self.row["id"]: self.row}}))
        return exchange

    def child(self, *path: str) -> Any:
        node = json.loads(self.timing.text())
        for name in path:
            node = node["child"][name]
        return node.get("total_time")

    def test_phases(self) -> None:
        """Each phase, each plugin in it and its configuration have their milliseconds; who put the header in is told once it may."""
        chain, exchange = self.chain(), self.exchange()
        chain.run_rewrite(exchange)
        chain.run_access(exchange)
        self.clock.advance(7)
        self.assertEqual(self.told, [])
        chain.run_header_filter(exchange)
        self.assertEqual(self.told, [False])
        chain.run_log(exchange)
        self.assertEqual(self.told, [False, True])
        for phase in ("rewrite", "access", "header_filter"):
            for path in (
                (phase,),
                (phase, "plugins"),
                (phase, "plugins", "slow"),
                (phase, "plugins", "slow", self.row["id"]),
            ):
                self.assertEqual(self.child(*path), 2000, path)
        self.assertEqual(self.child("log"), 0)
        self.assertEqual(json.loads(self.timing.text())["total_time_without_upstream"], 6000)

    def test_waiting(self) -> None:
        """What a plugin waits for is its time, and its answer is passed on."""
        chain, exchange = self.chain(), self.exchange()
        self.slow.waiting = Deferred()
        running = Deferred.fromCoroutine(cast(Any, chain.run_access(exchange)))
        self.clock.advance(3)
        self.assertNoResult(running)
        answer = Answer(204)
        self.slow.waiting.callback(answer)
        self.assertIs(self.successResultOf(running), answer)
        self.assertEqual((self.child("access"), self.child("access", "plugins", "slow")), (5000, 5000))

    def test_given_up(self) -> None:
        """A client that leaves while a plugin waits: that is cancelled, and what it took until then is told."""
        chain, exchange = self.chain(), self.exchange()
        self.slow.waiting = Deferred()
        running = Deferred.fromCoroutine(cast(Any, chain.run_access(exchange)))
        self.clock.advance(1)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(self.child("access"), 3000)

    def test_same_as_plain(self) -> None:
        """An answer and a failure are those of the plain chain."""
        answer = Answer(403)
        self.assertIs(self.chain(config={"answer": answer}).run_access(self.exchange()), answer)
        failed = self.chain(config={"raises": True}).run_access(self.exchange())
        self.assertEqual(cast(Any, failed).status, 500)


class TimingTests(SynchronousTestCase):
    def test_sums(self) -> None:
        """The same place twice is one sum, two decimal places; the clock's steps back count for nothing."""
        timing = RequestTiming(lambda: 0.0, {"request_id": "r"}, logs=False, loopback=False)
        timing.add(0.0012345, "dns", "a.example")
        timing.add(0.001, "dns", "a.example", cache_hit=True)
        timing.add(-5.0, "dns", "a.example")
        told = json.loads(timing.text())
        self.assertEqual(told["child"]["dns"]["child"]["a.example"], {"total_time": 2.23, "cache_hit": True})
        self.assertEqual(timing.request_id, "r")

    def test_upstream(self) -> None:
        """Whole milliseconds; what the gateway itself took is told without them. Before the end there is no streaming."""
        timing = RequestTiming(lambda: 0.0, {}, logs=False, loopback=False)
        timing.add(0.5, "access")
        timing.upstream(0.0259, None)
        told = json.loads(timing.text())
        self.assertEqual(
            told["child"]["upstream"], {"total_time": 25, "child": {"time_to_first_byte": {"total_time": 25}}}
        )
        timing.upstream(0.0259, 1.0)
        told = json.loads(timing.text())
        self.assertEqual(told["child"]["upstream"]["child"]["streaming"], {"total_time": 1000})
        self.assertEqual((told["child"]["upstream"]["total_time"], told["total_time_without_upstream"]), (1025, 500))
