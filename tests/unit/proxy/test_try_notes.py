"""What is noted of attempts to reach an upstream."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.exchange import Exchange
from kongtwist.core.gateway_facts import GatewayFacts
from kongtwist.core.names import Address
from kongtwist.core.tracing.trace import instrumented, noted_of
from kongtwist.observability.shared_counters import LocalCounters
from kongtwist.proxy.try_notes import note_choice, note_failure, note_lookup, note_try

PLACE = cast(Any, SimpleNamespace(address="10.0.0.1", port=80))


class TryNotesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = 10

    def exchange(self, traced: bool, kinds: str = "all") -> Exchange:
        exchange = Exchange()
        exchange.gateway = GatewayFacts(
            counters=LocalCounters(), now=self.clock.seconds, report=self.fail, instrumentations=instrumented([kinds])
        )
        exchange.route = cast(Any, SimpleNamespace(chain=SimpleNamespace(traced=traced), host="name"))
        return exchange

    def told(self, exchange: Exchange) -> list[tuple[float, float, int | None]]:
        return [(each.started, each.ended, each.code) for each in exchange.tries or ()]

    def test_tries_of_a_traced_request(self) -> None:
        """From the choice of a target to its connection, or to its failure."""
        exchange, wall = self.exchange(True), self.clock.seconds
        note_choice(exchange, wall)
        self.clock.advance(1)
        note_failure(exchange, PLACE, False, wall)
        note_choice(exchange, wall)
        self.clock.advance(2)
        note_try(exchange, PLACE, wall)
        self.clock.advance(4)
        note_failure(exchange, PLACE, True, wall)
        note_try(exchange, PLACE, wall)
        self.assertEqual(self.told(exchange), [(10, 11, 502), (11, 17, 504), (17, 17, None)])
        self.assertEqual({each.host for each in exchange.tries or ()}, {"name"})

    def test_others(self) -> None:
        """Nothing but the tries is noted of a request that is not traced."""
        exchange = self.exchange(False)
        note_try(exchange, PLACE, self.clock.seconds)
        self.assertEqual(self.told(exchange), [(10, 10, None)])
        self.assertIsNone(noted_of(exchange))

    def test_dead_connection(self) -> None:
        """An idle connection that turns out dead is no try of its own."""
        exchange = self.exchange(False)
        note_try(exchange, PLACE, self.clock.seconds)
        self.clock.advance(1)
        note_try(exchange, PLACE, self.clock.seconds)
        self.assertEqual(self.told(exchange), [(11, 11, None)])

    def test_lookups(self) -> None:
        """A name that is asked for is a span, with its address or why there is none; the answer passes on."""
        exchange, wall = self.exchange(True), self.clock.seconds
        good, bad = Deferred[Address](), Deferred[Address]()
        note_lookup(exchange, "a.example", 80, good, wall)
        note_lookup(exchange, "b.example", 81, bad, wall)
        self.clock.advance(3)
        place = Address("10.0.0.9", None, None, "a.example")
        good.callback(place)
        bad.errback(Failure(ValueError("no such name")))
        self.assertIs(self.successResultOf(good), place)
        self.failureResultOf(bad, ValueError)
        trace = noted_of(exchange)
        assert trace is not None
        first, second = trace.spans
        self.assertEqual((first.name, first.end, first.attributes["dns.record.ip"]), ("kong.dns", 13, "10.0.0.9"))
        self.assertEqual((second.error, second.end), ("no such name", 13))
        exchange = self.exchange(True, "router")
        note_lookup(exchange, "a.example", 80, Deferred(), wall)
        self.assertEqual(noted_of(exchange).spans, [])  # type: ignore[union-attr]
