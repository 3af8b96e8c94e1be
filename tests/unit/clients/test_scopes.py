"""A scope gives back whatever was asked through it (kongtwist/clients/scopes.py)."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from kongtwist.clients.scopes import Scope, Services
from kongtwist.core.chain.host import Host, HostError, QueueSettings, RedisSettings, RedisUnavailable
from tests.unit.clients.log_lines import LogLines
from tests.unit.clients.memory_net import MemoryNet, Names

ROW = {"id": "5d3c", "instance_name": "audit"}


class HostCase(TestCase):
    def setUp(self) -> None:
        self.net, self.names = MemoryNet(), Names()
        self.services = Services(self.net, self.names)
        self.facts = Host(counters=cast(Any, None), now=lambda: 12.5, report=self.fail, node_id="node")
        self.scope = self.open()

    def open(self, plugin: str = "http-log") -> Scope:
        return self.services.scope(self.facts, plugin, ROW)

    def release(self, scope: Scope | None = None) -> Deferred[None]:
        return Deferred.fromCoroutine((scope or self.scope).release())

    def nothing_is_left(self) -> None:
        services = self.services
        left = (len(services.scopes), len(services.redises), len(services.queues), len(services.connector.links))
        self.assertEqual((left, self.net.getDelayedCalls()), ((0, 0, 0, 0), []))


class FactsTests(HostCase):
    def test_facts_and_what_else_the_gateway_offers(self) -> None:
        rows: Any = object()
        self.facts.rows = rows
        scope = self.open()
        self.assertEqual((scope.now(), scope.node_id, scope.rows), (12.5, "node", rows))

    def test_what_it_does_not_offer(self) -> None:
        with self.assertRaises(HostError):
            self.scope.cells("hits", 2)
        with self.assertRaises(HostError):
            self.scope.tallies.add([])  # type: ignore[unused-awaitable]


class ReleaseTests(HostCase):
    def test_everything(self) -> None:
        scope = self.scope
        events: list[str] = []
        scope.every(1, lambda: events.append("tick"))
        scope.later(3, lambda: events.append("late"))

        async def forever() -> None:
            try:
                await Deferred[None]()
            finally:
                events.append("ended")

        async def send(batch: list[Any]) -> None:
            events.append(f"sent {batch}")

        scope.spawn("forever", forever())
        connecting = scope.connect("127.0.0.1", 5140, timeout=2)
        wire = self.net.accept()
        self.successResultOf(connecting)
        connecting = scope.connect("127.0.0.1", 5141, timeout=2)
        asking = scope.http.request("GET", "http://127.0.0.1/")
        redis = scope.redis(RedisSettings("127.0.0.1"))
        call: Any = redis.command("PING")
        scope.queue("target", QueueSettings(max_batch_size=9, max_coalescing_delay=3600), send).add("a")
        released = self.release()
        self.assertEqual(events, ["ended"])
        self.assertNoResult(released)
        self.net.advance(0)
        self.net.advance(0.05)
        self.successResultOf(released)
        self.assertEqual(events, ["ended", "sent ['a']"])
        self.failureResultOf(connecting, CancelledError)
        self.failureResultOf(asking, CancelledError)
        self.failureResultOf(call, RedisUnavailable)
        self.assertTrue(wire.cut)
        self.nothing_is_left()
        self.successResultOf(self.release())

    def test_what_is_sent_with_stays_until_the_queue_is_empty(self) -> None:
        """A queue that empties may still use the scope's clients."""
        scope = self.scope
        redis = scope.redis(RedisSettings("127.0.0.1"))

        async def send(batch: list[Any]) -> None:
            await redis.command("RPUSH", "log", *batch)

        queue = scope.queue("target", QueueSettings(), send)
        queue.add("a")
        released = self.release()
        self.net.advance(0)
        wire = self.net.accept()
        wire.send(b"+PONG\r\n:1\r\n")
        self.successResultOf(released)
        self.assertEqual(queue.counts.sent, 1)
        self.nothing_is_left()

    def test_drain_time(self) -> None:
        self.services.stop(10)
        LogLines(self, "kongtwist.queue")
        self.scope.queue("target", QueueSettings(), lambda batch: Deferred[None]()).add("a")
        self.net.advance(0)
        released = self.release()
        self.net.advance(9.9)
        self.assertNoResult(released)
        self.net.advance(0.1)
        self.successResultOf(released)
        self.nothing_is_left()

    def test_a_stop_has_one_time_for_all(self) -> None:
        """What ends late takes the time from what comes behind it: coroutines that will not end, then a queue."""
        lines = LogLines(self, "kongtwist.plugins")
        LogLines(self, "kongtwist.queue")

        async def stays() -> None:
            while not ended:
                try:
                    await waiting.pop()
                except CancelledError:
                    pass

        ended, waiting = list[bool](), [Deferred[None](), Deferred[None]()]
        last = waiting[0]
        self.scope.spawn("stays", stays())
        self.scope.queue("target", QueueSettings(), lambda batch: Deferred[None]()).add("a")
        self.services.stop(2)
        self.net.advance(0.5)
        released = self.release()
        self.net.advance(1.4)
        self.assertNoResult(released)
        self.net.advance(0.1)
        self.net.advance(0)
        self.successResultOf(released)
        self.assertIn("1 coroutines go on after they were cancelled", str(lines.taken()))
        ended.append(True)
        last.callback(None)
        self.nothing_is_left()

    def test_nothing_begins_behind_it(self) -> None:
        scope = self.scope
        self.successResultOf(self.release())
        for ask in (
            lambda: scope.redis(RedisSettings("127.0.0.1")),
            lambda: scope.connect("127.0.0.1", 1, timeout=1),
            lambda: scope.http.request("GET", "http://127.0.0.1/"),
            lambda: scope.threads(len, ""),
            lambda: scope.queue("target", QueueSettings(), lambda batch: Deferred[None]()),
            lambda: scope.every(1, lambda: None),
            lambda: scope.later(1, lambda: None),
        ):
            error = self.assertRaises(HostError, ask)
            self.assertIn("http-log plugin 5d3c (audit) has closed", str(error))
        self.nothing_is_left()

    def test_shared_with_another(self) -> None:
        """Redis clients and queues go on while another scope holds them; a changed row takes its queue over."""
        settings = RedisSettings("127.0.0.1")
        other = self.open()
        shared = self.scope.redis(settings)
        self.assertIs(shared, self.scope.redis(settings))
        self.assertIs(shared, other.redis(settings))
        old, new = list[Any](), list[Any]()

        async def send_old(batch: list[Any]) -> None:
            old.append(batch)

        async def send_new(batch: list[Any]) -> None:
            new.append(batch)

        self.scope.queue("target", QueueSettings(max_batch_size=2), send_old).add("a")
        other.queue("target", QueueSettings(max_batch_size=2), send_new)
        self.successResultOf(self.release())
        call: Any = shared.command("PING")
        self.assertNoResult(call)
        self.net.advance(1)
        self.assertEqual((old, new), ([], [["a"]]))
        released = self.release(other)
        self.failureResultOf(call, RedisUnavailable)
        self.successResultOf(released)
        self.nothing_is_left()

    def test_queues_of_other_plugins(self) -> None:
        """Equal keys of another plugin are another queue."""
        for plugin in ("http-log", "tcp-log"):
            self.open(plugin).queue("target", QueueSettings(), lambda batch: Deferred[None]())
        self.assertEqual(len(self.services.queues), 2)

    def test_a_connection_that_ends_is_forgotten(self) -> None:
        opening = self.scope.connect("127.0.0.1", 5140, timeout=2)
        wire = self.net.accept()
        self.successResultOf(opening)
        wire.end()
        self.assertEqual(len(self.services.connector.links), 0)
        self.successResultOf(self.release())

    def test_the_process_ends(self) -> None:
        """What nobody has released is given back, too."""
        self.scope.every(1, lambda: None)
        call: Any = self.open().redis(RedisSettings("127.0.0.1")).command("PING")
        self.successResultOf(Deferred.fromCoroutine(self.services.close(5)))
        self.failureResultOf(call, RedisUnavailable)
        self.nothing_is_left()
