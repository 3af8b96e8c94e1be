"""Batches for single requests, without brokers: who reads beside whom, who waits, who is refused."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_kafka import KafkaFailed
from kongtwist.core.chain.host_reading import KafkaBusy, StartAt, TopicRecord
from kongtwist.kafka.permits import Permits
from kongtwist.kafka.positions import Position
from kongtwist.kafka.topic_fetches import TopicFetches


class Replay:
    """Stands in for what reads; `read` waits for `come`."""

    def __init__(self) -> None:
        self.position = Position()
        self.begun: list[StartAt] = []
        self.waits: list[float] = []
        self.reading: Deferred[list[TopicRecord]] = Deferred()
        self.closed = False

    async def begin(self, start: StartAt) -> list[Any]:
        self.begun.append(start)
        self.position = Position.parse(start.position or b"t:0")
        return []

    async def read(self, count: int, wait: float) -> list[TopicRecord]:
        self.waits.append(wait)
        self.reading = Deferred()
        return await self.reading

    async def ends(self) -> Position:
        return Position({"t": [9]})

    async def close(self) -> None:
        self.closed = True

    def come(self, count: int = 1) -> None:
        """Records come."""
        first = self.position.next_of("t", 0) or 0
        self.position = Position({"t": [first + count]}, self.position.marks)
        self.reading.callback([TopicRecord("t", 0, first + at, -1, None, b"x") for at in range(count)])


class FetchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.made: list[Replay] = []
        self.permits = Permits(3)
        self.fetches: Any = TopicFetches(self.clock, self.make, 10.0, self.permits)  # type: ignore[arg-type]

    def make(self) -> Replay:
        self.made.append(Replay())
        return self.made[-1]

    def fetch(self, go_on: bool = False, position: bytes | None = None) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.fetches.fetch(StartAt(position), go_on, 10, 1.0))

    def end(self) -> None:
        """Nothing is left of it."""
        self.fetches.close()
        self.assertEqual([each.closed for each in self.made], [True] * len(self.made))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.permits.used, 0)

    def test_positions_of_their_own_are_read_side_by_side(self) -> None:
        one, two = self.fetch(position=b"t:1"), self.fetch(position=b"t:5")
        self.made[1].come()
        parts, position = self.successResultOf(two)
        self.assertEqual((position, parts[0].end, parts[0].records[0].offset), (b"t:6", 9, 5))
        self.assertNoResult(one)
        self.made[0].come(2)
        self.assertEqual(self.successResultOf(one)[1], b"t:3")
        three = self.fetch(position=b"t:7")
        self.assertEqual(len(self.made), 2)  # a consumer that is there is taken
        self.made[0].come()
        self.assertEqual(self.successResultOf(three)[1], b"t:8")
        self.end()

    def test_those_that_go_on_take_turns(self) -> None:
        one, two = self.fetch(True), self.fetch(True)
        self.clock.advance(0.75)
        self.made[0].come(2)
        self.assertEqual(self.successResultOf(one)[1], b"t:2")
        self.assertEqual(self.made[0].waits, [1.0, 0.25])  # the second has waited already
        self.made[0].come()
        self.assertEqual(self.successResultOf(two)[1], b"t:3")
        self.assertEqual(self.made[0].begun, [StartAt()])
        self.clock.advance(30)
        self.assertTrue(self.made[0].closed)
        three = self.fetch(True)
        self.assertEqual(self.made[1].begun, [StartAt(b"t:3")])
        self.made[1].come()
        self.successResultOf(three)
        self.end()

    def test_marks_of_topics_are_kept(self) -> None:
        """What begins anew has them: that is how a topic that was made anew is known (`begin_at`)."""
        one = self.fetch(True)
        self.made[0].position = Position({"t": [0]}, {"t": "abcdefgh"})
        self.made[0].come(2)
        self.assertEqual(self.successResultOf(one)[1], b"t@abcdefgh:2")
        two = self.fetch(True)
        self.made[0].reading.errback(KafkaFailed("a topic was made anew while it was read"))
        self.assertEqual(self.made[1].begun, [StartAt(b"t@abcdefgh:2")])
        self.made[1].come()
        self.successResultOf(two)
        self.end()

    def test_what_cannot_go_on_begins_anew(self) -> None:
        """Where the records or the whole topic are gone a request gets what there is."""
        one = self.fetch(True)
        self.made[0].come(2)
        self.successResultOf(one)
        two = self.fetch(True)
        self.made[0].reading.errback(KafkaFailed("the topic was made anew"))
        self.assertTrue(self.made[0].closed)
        self.assertEqual(self.made[1].begun, [StartAt(b"t:2")])
        self.made[1].come()
        self.assertEqual(self.successResultOf(two)[1], b"t:3")
        self.end()

    def test_full(self) -> None:
        under_way = [self.fetch(), self.fetch(True), self.fetch(True)]
        self.assertIn("plugin_kafka_fetches", str(self.failureResultOf(self.fetch(), KafkaBusy).value))
        under_way[0].cancel()
        self.failureResultOf(under_way[0], CancelledError)
        self.assertTrue(self.made[0].closed)
        again = self.fetch()
        self.made[2].come()
        self.successResultOf(again)
        under_way[2].cancel()
        self.failureResultOf(under_way[2], CancelledError)
        self.made[1].come()
        self.successResultOf(under_way[1])
        self.end()

    def test_nobody_waits_for_ever(self) -> None:
        one, two = self.fetch(True), self.fetch(True)
        self.clock.advance(10)
        self.failureResultOf(two, KafkaBusy)
        self.made[0].reading.errback(KafkaFailed("away"))
        self.failureResultOf(one, KafkaFailed)
        self.end()

    def test_closed_meanwhile(self) -> None:
        one = self.fetch()
        self.fetches.close()
        self.made[0].come()
        self.failureResultOf(one, KafkaFailed)
        self.end()

    def test_few_are_kept(self) -> None:
        self.permits.most = 9
        waiting = [self.fetch() for _ in range(6)]
        for each in self.made:
            each.come()
        for done in waiting:
            self.successResultOf(done)
        self.assertEqual([each.closed for each in self.made], [False] * 4 + [True] * 2)
        self.end()
