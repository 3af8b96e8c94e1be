"""The reactor's side of what reads a topic."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_kafka import KafkaFailed
from kongtwist.core.chain.host_reading import TopicRecord
from kongtwist.kafka.positions import Position
from kongtwist.kafka.topic_reader import TopicReader
from tests.unit.kafka.test_fan_out import Turns


class Listener:
    """Notes what comes; has enough when told so."""

    def __init__(self) -> None:
        self.has_enough = False
        self.got: list[int] = []
        self.on_records: Any = None
        self.lost: list[int] = []

    def records_came(self, records: list[TopicRecord]) -> None:
        self.got += [record.offset for record in records]
        if self.on_records is not None:
            self.on_records()

    def records_lost(self, topic: str, partition: int, offset: int, count: int) -> None:
        self.lost.append(offset)


def made(clock: Clock) -> Any:
    return TopicReader(clock, lambda: None, "t", 10.0)


class WaitingTests(SynchronousTestCase):
    """Thousands may wait for the first answer of the brokers."""

    def setUp(self) -> None:
        self.clock = Turns()
        self.reader = made(self.clock)
        self.waiting = [self.reader.ready() for _ in range(100)]

    def test_told_some_in_each_turn(self) -> None:
        self.reader._begun(Position({"t": [0]}))
        counts = [sum(each.called for each in self.waiting)]
        while self.clock.turn():
            counts.append(sum(each.called for each in self.waiting))
        self.assertEqual(counts, [32, 64, 96, 100])
        self.assertIsNone(self.successResultOf(self.reader.ready()))

    def test_failure(self) -> None:
        self.waiting[0].cancel()
        self.reader._broken(KafkaFailed("away"))
        self.waiting[99].cancel()
        self.clock.turns()
        self.failureResultOf(self.waiting[0], CancelledError)
        self.failureResultOf(self.waiting[99], CancelledError)
        for each in self.waiting[1:99]:
            self.failureResultOf(each, KafkaFailed)


class HeldBackTests(SynchronousTestCase):
    """A listener that has enough holds records back, in bounds, and misses none."""

    def setUp(self) -> None:
        self.clock = Turns()
        self.reader = made(self.clock)
        self.reader._begun(Position({"t": [0]}))
        self.one, self.two = Listener(), Listener()
        self.reader.listeners += [self.one, self.two]

    def come(self, offset: int) -> None:
        self.reader._give([TopicRecord("t", 0, offset, -1, None, b"")])
        self.clock.turn()

    def test_until_it_takes_more(self) -> None:
        self.come(0)
        self.two.has_enough = True
        self.come(1)
        self.come(2)
        self.assertEqual((self.one.got, self.two.got), ([0], [0]))
        self.reader.go_on()
        self.assertEqual(self.one.got, [0])
        self.two.has_enough = False
        self.reader.go_on()
        self.assertEqual((self.one.got, self.two.got), ([0, 1, 2], [0, 1, 2]))
        self.assertEqual(self.reader.position, Position({"t": [3]}))
        self.reader.go_on()
        self.assertEqual(self.one.got, [0, 1, 2])

    def test_what_is_lost_comes_in_its_place(self) -> None:
        self.one.has_enough = True
        self.come(0)
        self.reader._add(partial(self.reader._lost, 0, 7, 6))
        self.come(7)
        self.assertEqual((self.one.got, self.one.lost), ([], []))
        self.one.has_enough = False
        self.reader.go_on()
        self.assertEqual((self.one.got, self.one.lost), ([0, 7], [7]))
        self.assertEqual(self.reader.position, Position({"t": [8]}))

    def test_all_get_them_in_order(self) -> None:
        """Also when one is done at once, asks for more, and more has come by then."""

        def more() -> None:
            self.one.on_records = None
            self.reader._give([TopicRecord("t", 0, 1, -1, None, b"")])
            self.reader.go_on()

        self.one.on_records = more
        self.come(0)
        self.assertEqual((self.one.got, self.two.got), ([0], [0]))
        self.clock.turns()
        self.assertEqual((self.one.got, self.two.got), ([0, 1], [0, 1]))
