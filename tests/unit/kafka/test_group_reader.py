"""A member of a group without brokers: what its listener is told, in order, and what it commits."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

from kafka import TopicPartition
from kafka.errors import CommitFailedError, KafkaTimeoutError
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_kafka import KafkaFailed
from kongtwist.core.chain.host_reading import TopicRecord, UnknownTopic
from kongtwist.kafka import group_reader
from kongtwist.kafka.group_reader import GroupReader
from kongtwist.kafka.polling_pace import PollingPace
from kongtwist.kafka.reading_thread import ReadingThread
from tests.unit.kafka.test_fan_out import Turns


class Over(Exception):
    """The script of a consumer is over."""


class Listener:
    """A transcript."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def member_assigned(self, keys: Any) -> None:
        self.told.append(("assigned", *sorted(number for _, number in keys)))

    def member_held(self, keys: Any) -> None:
        self.told.append(("held", *sorted(number for _, number in keys)))

    def member_lost(self, keys: Any) -> None:
        self.told.append(("lost", *sorted(number for _, number in keys)))

    def member_renewed(self, keys: Any) -> None:
        self.told.append(("renewed", *sorted(number for _, number in keys)))

    def member_read(self, records: list[TopicRecord]) -> None:
        self.told += [(each.partition, each.offset) for each in records]

    def member_failed(self, error: KafkaFailed) -> None:
        self.told.append(("failed", str(error)))


class Consumer:
    """kafka-python's, as far as members use it: each poll is the next part of a script.

    Attributes:
        ends: offsets behind the last records; kept: those that the group has committed.
        done: a transcript of what it was asked to do.
    """

    def __init__(self, script: list[Callable[[], Any]]) -> None:
        self._script = script
        self.topics = {"t": {0, 1}}
        self.mine: set[TopicPartition] = set()
        self.stopped: set[TopicPartition] = set()
        self.ends: dict[int, int] = {}
        self.kept: dict[int, int] = {}
        self.done: list[Any] = []
        self.fails: Exception | None = None
        self.joins = False
        self.timeouts: list[int] = []
        self.listener: Any = None
        self._coordinator = SimpleNamespace(
            rejoining=False, rejoin_needed=False, need_rejoin=lambda: self.joins, coordinator_id="broker"
        )
        self.ids: dict[str, UUID] = {}
        self._cluster = SimpleNamespace(topic_id=self.ids.get)

    def partitions_for_topic(self, topic: str) -> Any:
        return self.topics.get(topic)

    def subscribe(self, topics: Any, listener: Any) -> None:
        self.listener = listener

    def assignment(self) -> set[TopicPartition]:
        return self.mine

    def paused(self) -> set[TopicPartition]:
        return self.stopped

    def pause(self, *partitions: TopicPartition) -> None:
        self.done.append("pause")
        self.stopped |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self.done.append("resume")
        self.stopped -= set(partitions)

    def poll(self, timeout_ms: int, **_: Any) -> Any:
        self.timeouts.append(timeout_ms)
        if not self._script:
            raise Over
        return self._script.pop(0)() or {}

    def committed(self, partition: TopicPartition, **_: Any) -> int | None:
        return self.kept.get(partition.partition)

    def position(self, partition: TopicPartition, **_: Any) -> int | None:
        return 50

    def end_offsets(self, partitions: Any, **_: Any) -> dict[TopicPartition, int]:
        return {each: self.ends.get(each.partition, 1 << 40) for each in partitions}

    def beginning_offsets(self, partitions: Any, **_: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.done.append(("seek", partition.partition, offset))

    def commit(self, offsets: Any, **_: Any) -> None:
        self._committed("commit", offsets)

    def commit_async(self, offsets: Any) -> None:
        self._committed("commit_async", offsets)

    def _committed(self, how: str, offsets: Any) -> None:
        self.done.append((how, {each.partition: told.offset for each, told in offsets.items()}))
        fails, self.fails = self.fails, None
        if fails is not None:
            raise fails

    def close(self, **_: Any) -> None:
        self.done.append("close")


class ReaderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Turns()
        self.listener = Listener()
        self.script: list[Callable[[], Any]] = []
        self.consumer = Consumer(self.script)
        self.reader = GroupReader(self.reactor, lambda: self.consumer, ("t",), self.listener)
        self.patch(self.reader, "_stopped", SimpleNamespace(is_set=lambda: False, wait=lambda _: False))

    # -- a script -------------------------------------------------------------------------------------------------------------

    def given(self, *numbers: int) -> None:
        """A poll in which the member gets these partitions."""

        def assigned() -> None:
            self.consumer.mine = {TopicPartition("t", each) for each in numbers}
            self.consumer.listener.on_partitions_assigned(self.consumer.mine)

        self.script.append(assigned)

    def asked_back(self, *numbers: int) -> None:
        """A poll in which the member may lose these."""
        self.script.append(
            lambda: self.consumer.listener.on_partitions_revoked([TopicPartition("t", each) for each in numbers])
        )

    def polled(self, number: int, *offsets: int) -> None:
        """A poll that gives records of a partition."""
        records = [TopicRecord("t", number, each, 1000, None, b"x") for each in offsets]
        self.script.append(lambda: {TopicPartition("t", number): records})

    def does(self, call: Callable[..., object], *args: Any) -> None:
        """A poll in which the reactor does something."""
        self.script.append(lambda: call(*args) and None)

    def run_script(self) -> list[Any]:
        """Run it, all of it before the reactor's turn; what the listener was told."""
        self.assertRaises(Over, self.reader.read)
        self.reactor.turns()
        return self.listener.told

    # -- order ---------------------------------------------------------------------------------------------------------------

    def test_records_and_assignments_come_in_order(self) -> None:
        """Though the reactor had not looked at the first records when the partition came of which the next are."""
        self.given(0)
        self.polled(0, 1, 2)
        self.asked_back(0)
        self.given(0, 1)
        self.polled(1, 7)
        self.polled(0, 3)
        told = self.run_script()
        self.assertEqual(
            told,
            [("assigned", 0), (0, 1), (0, 2), ("held", 0), ("assigned", 0, 1), (1, 7), (0, 3)],
        )
        self.assertEqual(self.consumer.done[-1], "close")

    def test_reactor_is_asked_once(self) -> None:
        self.given(0)
        for offset in range(5):
            self.polled(0, offset)
        self.assertRaises(Over, self.reader.read)
        self.assertEqual(len(self.reactor.calls), 1)

    def test_lost(self) -> None:
        self.given(0)
        self.script.append(lambda: self.consumer.listener.on_partitions_lost([TopicPartition("t", 0)]))
        self.assertEqual(self.run_script(), [("assigned", 0), ("lost", 0)])

    def test_failures(self) -> None:
        self.reader.failed(KafkaFailed("away"), False)
        self.reader.failed(UnknownTopic("none"), True)
        self.reactor.turns()
        self.assertEqual(self.listener.told, [("failed", "away"), ("failed", "none")])
        self.consumer.topics.clear()
        self.assertRaises(UnknownTopic, self.reader.read)

    def test_joining_is_given_its_time(self) -> None:
        """Also where the broker is one that does not wait, and is asked at intervals else: such a poll never gets into the group."""

        class Asking(PollingPace):
            def __init__(self, pause: Callable[[float], object]) -> None:
                super().__init__(pause)
                self._rounds = 500

        self.patch(group_reader, "PollingPace", Asking)
        self.consumer.joins = True
        self.script.append(lambda: None)
        self.does(setattr, self.consumer, "joins", False)
        self.polled(0, 1)
        self.run_script()
        self.assertEqual(self.consumer.timeouts, [100, 100, 0, 0])

    # -- topics that are made anew ------------------------------------------------------------------------------------------------

    def test_topic_made_anew(self) -> None:
        """Offsets go back: what is known of the partition holds no more, and commits of it would be of other records."""
        self.consumer.kept[0] = 100
        self.given(0)
        self.polled(0, 100, 101)
        self.does(self.reader.commit, {("t", 0): 102})
        self.polled(0, 0, 1)
        told = self.run_script()
        self.assertEqual(told, [("assigned", 0), (0, 100), (0, 101), ("renewed", 0), (0, 0), (0, 1)])
        self.assertNotIn(("commit", {0: 102}), self.consumer.done[1:])

    def test_topic_made_anew_while_partitions_change_hands(self) -> None:
        """Where the group has begun anew meanwhile, the end tells it."""
        self.consumer.kept.update({0: 100, 1: 5})
        self.given(0, 1)
        self.polled(0, 100, 101)
        self.polled(1, 5)
        self.consumer.ends.update({0: 2, 1: 6})
        self.given(0, 1)
        self.polled(0, 0, 1)
        self.polled(1, 5)
        told = self.run_script()
        self.assertEqual(
            told[4:], [("assigned", 0, 1), ("renewed", 0), (0, 0), (0, 1), (1, 5)]
        )  # 1 5 was not committed, and is read again
        self.assertIn(("seek", 0, 0), self.consumer.done)

    def test_topic_with_another_id(self) -> None:
        """It is read from its beginning, wherever the library goes on; its records that came before are read again."""
        self.consumer.kept.update({0: 100, 1: 5})
        self.consumer.ids["t"] = uuid4()
        self.given(0, 1)
        self.polled(0, 100, 101)
        self.does(self.reader.commit, {("t", 0): 102})
        self.does(self.consumer.ids.pop, "t")  # it is deleted
        self.does(self.consumer.ids.update, {"t": uuid4()})
        self.polled(0, 0, 1)
        told = self.run_script()
        self.assertEqual(told, [("assigned", 0, 1), (0, 100), (0, 101), ("renewed", 0, 1), (0, 0), (0, 1)])
        self.assertEqual({each for each in self.consumer.done if each[0] == "seek"}, {("seek", 0, 0), ("seek", 1, 0)})
        self.assertIn(("commit", {0: 0, 1: 0}), self.consumer.done)

    def test_topic_with_another_id_while_nothing_is_assigned(self) -> None:
        """What was asked back, and comes again, is begun again then."""
        self.consumer.kept[0] = 100
        self.consumer.ids["t"] = uuid4()
        self.given(0)
        self.polled(0, 100)
        self.does(lambda: setattr(self.consumer, "mine", set()))
        self.asked_back(0)
        self.does(self.consumer.ids.update, {"t": uuid4()})
        self.given(0)
        told = self.run_script()
        self.assertEqual(told[-2:], [("assigned", 0), ("renewed", 0)])
        self.assertIn(("seek", 0, 0), self.consumer.done)

    def test_ends_of_what_was_asked_back(self) -> None:
        """Nothing is forgotten of partitions that come again, where brokers tell no ids."""
        self.consumer.kept[0] = 100
        self.given(0)
        self.polled(0, 100)
        self.does(lambda: setattr(self.consumer, "mine", set()))
        self.asked_back(0)
        self.consumer.ends[0] = 2
        self.given(0)
        told = self.run_script()
        self.assertIn(("renewed", 0), told)
        self.assertIn(("seek", 0, 0), self.consumer.done)

    def test_ends_that_are_not_told(self) -> None:
        self.given(0)
        self.polled(0, 1)

        def fails(*_: Any, **__: Any) -> None:
            raise KafkaTimeoutError

        self.patch(self.consumer, "end_offsets", fails)
        self.given(0)
        self.polled(0, 1)
        self.assertEqual(self.run_script()[2:], [("assigned", 0), ("renewed", 0), (0, 1)])

    # -- commits -------------------------------------------------------------------------------------------------------------

    def test_anchored(self) -> None:
        """A group begins where it has come to at first, though nothing is acknowledged."""
        self.consumer.kept[1] = 9
        self.given(0, 1)
        self.polled(0, 3)
        self.run_script()
        self.assertEqual(self.consumer.done[0], ("commit", {0: 50}))

    def test_commit_that_fails_is_made_again(self) -> None:
        self.consumer.kept[0] = 1
        self.given(0)
        self.does(self.reader.commit, {("t", 0): 4})
        self.polled(0, 4)
        self.polled(0, 5)
        self.consumer.fails = CommitFailedError("again")
        self.run_script()
        self.assertEqual(self.consumer.done[:2], [("commit", {0: 4})] * 2)

    def test_commits_of_partitions_that_others_have_are_dropped(self) -> None:
        self.consumer.kept.update({0: 1, 1: 1})
        self.given(0, 1)

        def moved() -> None:
            self.reader.commit({("t", 0): 4, ("t", 1): 5})
            self.consumer.mine = {TopicPartition("t", 1)}
            self.consumer.listener.on_partitions_assigned(self.consumer.mine)

        self.script.append(moved)
        self.polled(1, 5)
        self.run_script()
        self.assertEqual(self.consumer.done[:1], [("commit", {1: 5})])

    def test_committed_before_partitions_are_given_back(self) -> None:
        self.consumer.kept[0] = 1
        self.given(0)

        def asked_back() -> None:
            self.reader.commit({("t", 0): 4})
            self.consumer.listener.on_partitions_revoked(self.consumer.mine)

        self.script.append(asked_back)
        self.run_script()
        self.assertEqual(self.consumer.done[0], ("commit_async", {0: 4}))

    # -- bounds --------------------------------------------------------------------------------------------------------------

    def test_full(self) -> None:
        self.consumer.kept[0] = 0
        self.given(0)
        self.does(self.reader.fill, True)
        self.polled(0)
        self.does(self.reader.fill, False)
        self.polled(0)
        self.run_script()
        self.assertEqual(self.consumer.done, ["pause", "pause", "resume", "close"])


class _Held(ReadingThread):
    """Notes how large what it takes is."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor, "test")
        self.taken: list[int] = []

    def flush(self) -> None:
        self.taken += [len(each) for each in self._take() if isinstance(each, list)]


class BoundTests(SynchronousTestCase):
    """The thread waits for the reactor, whose turn stands in for the waiting."""

    def setUp(self) -> None:
        self.reactor = Turns()
        self.reading = _Held(self.reactor)
        self.waits = 0
        self.patch(self.reading, "_lock", _Open())
        self.patch(self.reading, "_taken", SimpleNamespace(wait=self.wait, notify_all=lambda: None))

    def wait(self) -> None:
        self.waits += 1
        self.reactor.turn()

    def give(self, count: int, size: int, header: int = 0) -> None:
        headers = (("h", b"x" * header),)
        self.reading._give([TopicRecord("t", 0, n, -1, None, b"x" * size, headers) for n in range(count)])

    def test_records(self) -> None:
        for _ in range(8):
            self.give(500, 1)
        self.assertEqual((self.waits, self.reading.taken), (2, [2000, 2000]))

    def test_bytes(self) -> None:
        for _ in range(8):
            self.give(2, 1 << 20)
        self.assertEqual((self.waits, self.reading.taken), (2, [8, 8]))

    def test_bytes_of_headers(self) -> None:
        for _ in range(8):
            self.give(2, 0, 1 << 20)
        self.assertEqual((self.waits, self.reading.taken), (2, [8, 8]))

    def test_larger_than_the_bound(self) -> None:
        self.give(1, 9 << 20)
        self.assertEqual((self.waits, self.reading.taken), (1, [1]))


class _Open:
    """A lock that is never held: all is one thread here."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
