"""The reactor's side of what reads a topic."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from kafka.errors import OffsetOutOfRangeError
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_kafka import KafkaFailed
from kongtwist.core.chain.host_reading import TopicRecord
from kongtwist.kafka.positions import Position, topic_mark
from kongtwist.kafka.topic_reader import TopicReader
from tests.unit.kafka.test_fan_out import Turns

FIRST, SECOND = UUID("a0b1c2d3-e4f5-4a6b-8c7d-9e8f00000001"), UUID("b0b1c2d3-e4f5-4a6b-8c7d-9e8f00000001")


class Listener:
    """Notes what comes; has enough when told so."""

    def __init__(self) -> None:
        self.has_enough = False
        self.got: list[int] = []
        self.on_records: Any = None
        self.lost: list[int] = []
        self.marks: list[str | None] = []

    def records_came(self, records: list[TopicRecord]) -> None:
        self.got += [record.offset for record in records]
        if self.on_records is not None:
            self.on_records()

    def records_lost(self, topic: str, partition: int, offset: int, count: int, mark: str | None = None) -> None:
        self.lost.append(offset)
        self.marks.append(mark)

    def topic_remade(self) -> None:
        raise AssertionError("it has as many partitions as before")


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


class Broker:
    """Topics of brokers, as a consumer of the library sees them; the last poll stops the reader."""

    def __init__(self, reader: TopicReader, polls: list[Any]) -> None:
        self.reader = reader
        self.polls = polls
        self.id = FIRST
        self.begin, self.end = 0, 3
        self.at: list[int] = []
        self._cluster = self
        self.closed = 0

    def topic_id(self, topic: str) -> UUID:
        return self.id

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0}

    def beginning_offsets(self, partitions: list[Any], timeout_ms: int) -> dict[Any, int]:
        return dict.fromkeys(partitions, self.begin)

    def end_offsets(self, partitions: list[Any], timeout_ms: int) -> dict[Any, int]:
        return dict.fromkeys(partitions, self.end)

    def assign(self, partitions: list[Any]) -> None:
        pass

    def seek(self, partition: Any, offset: int) -> None:
        self.at.append(offset)

    def poll(self, timeout_ms: int, max_records: int) -> dict[Any, list[Any]]:
        poll = self.polls.pop(0) if self.polls else self.reader.stop
        return poll() or {}

    def highwater(self, partition: Any) -> int:
        return self.end

    def close(self, timeout_ms: int) -> None:
        self.closed += 1


class MadeAnewTests(SynchronousTestCase):
    """A topic that is another by now, with the same name; what its thread does."""

    def setUp(self) -> None:
        self.clock = Turns()
        self.polls: list[Any] = []
        self.reader: TopicReader = TopicReader(self.clock, lambda: self.broker, "t", 10.0)
        self.broker = Broker(self.reader, self.polls)
        self.listener = Listener()
        self.reader.listeners.append(self.listener)

    def read(self) -> None:
        """As the thread does, and the reactor after it."""
        self.reader.read()
        self.clock.turns()

    def records(self, *offsets: int) -> dict[Any, list[Any]]:
        self.reader._note_ends = lambda *_: None  # type: ignore[method-assign]
        return {"t": [TopicRecord("t", 0, each, -1, None, b"") for each in offsets]}

    def other(self, end: int) -> dict[Any, list[Any]]:
        """It has more records than before, and is read from where the former one was."""
        self.broker.id, self.broker.end = SECOND, end
        return self.records(*range(4, end))

    def test_while_it_is_read(self) -> None:
        """Records at the old place are not taken for those that follow."""
        self.polls += [lambda: self.records(3), lambda: self.other(9), lambda: self.records(*range(9))]
        self.reader.read()
        self.assertEqual(
            (self.broker.at, self.reader._reached), ([3, 0], Position({"t": [9]}, {"t": topic_mark(SECOND)}))
        )
        self.reader._stopped.clear()
        self.clock.turns()
        self.assertEqual((self.listener.lost, self.listener.got), ([0], [3, *range(9)]))
        self.assertEqual(self.listener.marks, [topic_mark(SECOND)])
        self.assertEqual(self.reader.position, Position({"t": [9]}, {"t": topic_mark(SECOND)}))

    def test_while_its_ends_are_asked_for(self) -> None:
        """They may be those of the new topic already: the id is the one that was known before, and the next one tells more."""

        def ends(partitions: list[Any], timeout_ms: int) -> dict[Any, int]:
            self.broker.id = SECOND
            return dict.fromkeys(partitions, 3)

        self.patch(self.broker, "end_offsets", ends)
        self.polls += [lambda: self.records(3), lambda: self.records(0)]
        self.reader.read()
        self.assertEqual(
            (self.broker.at, self.reader._reached), ([3, 0], Position({"t": [1]}, {"t": topic_mark(SECOND)}))
        )

    def test_several_partitions(self) -> None:
        """Its mark comes with the last: who leaves before has the former one, and begins anew."""
        self.patch(self.broker, "partitions_for_topic", lambda topic: {0, 1, 2})
        self.polls += [lambda: self.records(3), lambda: self.other(9)]
        self.reader.read()
        self.reader._stopped.clear()
        self.clock.turns()
        self.assertEqual(self.listener.marks, [None, None, topic_mark(SECOND)])

    def test_known_to_the_next_consumer(self) -> None:
        """Reading failed meanwhile."""

        def fails() -> None:
            self.other(9)
            raise KafkaFailed("gone")

        self.polls += [lambda: self.records(3), fails]
        self.assertRaises(KafkaFailed, self.reader.read)
        self.reader.read()
        self.assertEqual(self.broker.at, [3, 0])

    def test_one_that_is_not_there_is_looked_for_by_a_new_consumer(self) -> None:
        """What was read may be gone by retention, or with the topic: a consumer that is there may not know yet."""

        def out_of_range(name: UUID, begin: int) -> None:
            self.broker.id, self.broker.begin, self.broker.end = name, begin, 20
            raise OffsetOutOfRangeError

        self.polls += [lambda: out_of_range(FIRST, 5), lambda: out_of_range(SECOND, 0)]
        self.reader.read()
        self.assertEqual((self.broker.closed, self.broker.at), (1, [3]))
        self.reader.read()
        self.assertEqual((self.broker.closed, self.broker.at), (2, [3, 5]))
        self.reader.read()
        self.assertEqual(self.broker.at, [3, 5, 0])

    def test_brokers_that_tell_no_ids(self) -> None:
        self.broker._cluster = None  # type: ignore[assignment]
        self.polls += [lambda: self.records(3), lambda: self.other(5)]
        self.reader.read()
        self.assertEqual((self.broker.at, self.reader._reached), ([3], Position({"t": [5]})))
