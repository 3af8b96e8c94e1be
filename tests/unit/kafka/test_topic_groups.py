"""Members of groups and their clients without brokers: who gets what, what is committed, and when the member leaves."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_groups import GroupSettings
from kongtwist.core.chain.host_kafka import KafkaFailed
from kongtwist.core.chain.host_reading import KafkaBusy, TopicRecord, UnknownTopic
from kongtwist.kafka.permits import Permits
from kongtwist.kafka.topic_groups import LINGER, MemberClient, TopicGroups


class Reader:
    """Stands in for the thread: a transcript of what it is asked."""

    def __init__(self, group: str, listener: Any) -> None:
        self.group = group
        self.listener = listener
        self.done: list[Any] = []
        self.ended: Deferred[None] = Deferred()

    def start(self) -> None:
        self.done.append("start")

    def commit(self, offsets: dict[Any, int]) -> None:
        if offsets:
            self.done.append({partition: offset for (_, partition), offset in offsets.items()})

    def fill(self, is_full: bool) -> None:
        self.done.append("full" if is_full else "not full")

    def stop(self) -> None:
        self.done.append("stop")


def records(partition: int, *offsets: int, value: bytes = b"x") -> list[TopicRecord]:
    return [TopicRecord("t", partition, offset, -1, None, value) for offset in offsets]


class GroupCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.permits = Permits(2)
        self.readers: list[Reader] = []
        self.begin()

    def begin(self, **settings: Any) -> None:
        self.groups = TopicGroups(self.clock, GroupSettings(("t",), **settings), self.read, self.permits)

    def read(self, group: str, listener: Any) -> Any:
        self.readers.append(Reader(group, listener))
        return self.readers[-1]

    def joining(self, group: str = "g") -> Deferred[MemberClient]:
        return Deferred.fromCoroutine(self.groups.join(group))

    def join(self, group: str = "g", partitions: int = 1) -> MemberClient:
        """A client whose member has partitions."""
        joining = self.joining(group)
        if not joining.called:
            self.assign(partitions)
        return self.successResultOf(joining)

    @property
    def reader(self) -> Reader:
        """The latest."""
        return self.readers[-1]

    def assign(self, partitions: int) -> None:
        self.reader.listener.member_assigned(frozenset(("t", number) for number in range(partitions)))

    def come(self, partition: int, *offsets: int, value: bytes = b"x") -> None:
        self.reader.listener.member_read(records(partition, *offsets, value=value))

    def taking(self, client: MemberClient, count: int = 100, wait: float | None = 0) -> Deferred[Any]:
        async def take() -> list[Any]:
            return [(each.record.partition, each.record.offset) for each in await client.take(count, wait)]

        return Deferred.fromCoroutine(take())

    def take(self, client: MemberClient, count: int = 100) -> Any:
        return self.successResultOf(self.taking(client, count))


class JoiningTests(GroupCase):
    def test_one_member_for_all_clients(self) -> None:
        one, two = self.joining(), self.joining()
        self.assertNoResult(one)
        self.assign(1)
        self.assertIsNot(self.successResultOf(one), self.successResultOf(two))
        self.successResultOf(self.joining())
        self.assertEqual([each.done for each in self.readers], [["start"]])

    def test_as_many_groups_as_may_be(self) -> None:
        """One that has left makes room when its thread is over, not before."""
        client = self.join("a")
        self.join("b")
        self.assertIn("plugin_kafka_groups", str(self.failureResultOf(self.joining("c"), KafkaBusy).value))
        client.leave()
        self.clock.advance(LINGER)
        self.assertEqual(self.readers[0].done, ["start", "stop"])
        self.failureResultOf(self.joining("c"), KafkaBusy)
        self.readers[0].ended.callback(None)
        self.join("c")

    def test_failures(self) -> None:
        for error in (KafkaFailed("away"), UnknownTopic("no topic")):
            joining = self.joining()
            self.reader.listener.member_failed(error)
            self.failureResultOf(joining, type(error))
        self.assertEqual(len(self.readers), 1)  # it tries on, for a while
        self.clock.advance(LINGER)
        self.assertEqual(self.reader.done, ["start", "stop"])

    def test_no_partitions_in_time(self) -> None:
        joining = self.joining()
        self.clock.advance(10)
        self.assertIn("within 10 s", str(self.failureResultOf(joining, KafkaFailed).value))

    def test_client_that_leaves_while_it_joins(self) -> None:
        joining = self.joining()
        joining.cancel()
        self.failureResultOf(joining, CancelledError)
        self.clock.advance(LINGER)
        self.assertEqual(self.reader.done, ["start", "stop"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_partition_for_this_member(self) -> None:
        client = self.join(partitions=0)
        self.assertEqual(self.take(client), [])


class RecordTests(GroupCase):
    def test_committed_when_finished(self) -> None:
        client = self.join()
        self.come(0, 5, 6, 7)
        self.assertEqual(self.take(client), [(0, 5), (0, 6), (0, 7)])
        self.assertTrue(client.finish("t", 0, 6))
        self.assertTrue(client.finish("t", 0, 5))
        self.assertEqual(self.reader.done, ["start", {0: 7}])
        for place in (("t", 0, 5), ("t", 0, 99), ("t", 1, 5), ("u", 0, 5)):
            self.assertEqual((client.finish(*place), client.give_back(*place), client.holds(*place)), (False,) * 3)
        self.assertTrue(client.holds("t", 0, 7))
        self.assertTrue(client.give_back("t", 0, 7))
        self.assertFalse(client.holds("t", 0, 7))
        self.assertEqual(self.take(client), [(0, 7)])

    def test_waits_for_records(self) -> None:
        client = self.join()
        waiting = self.taking(client, wait=None)
        self.assertNoResult(waiting)
        self.come(0, 1)
        self.assertEqual(self.successResultOf(waiting), [(0, 1)])
        waiting = self.taking(client, wait=3)
        self.clock.advance(3)
        self.assertEqual(self.successResultOf(waiting), [])

    def test_cancelled_while_it_waits(self) -> None:
        client = self.join()
        waiting = self.taking(client, wait=3)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.come(0, 1)
        self.assertEqual(self.take(client), [(0, 1)])

    def test_kept_for_too_long(self) -> None:
        """Another gets it; who had it may still say that it is done."""
        slow, other = self.join(), self.join()
        self.come(0, 1, 2)
        self.assertEqual((self.take(slow), self.take(other)), ([(0, 1), (0, 2)], []))
        self.clock.pump([1] * 32)
        self.assertFalse(slow.holds("t", 0, 1))
        self.assertEqual(self.take(other), [(0, 1), (0, 2)])
        self.assertTrue(slow.finish("t", 0, 1))
        self.assertFalse(other.finish("t", 0, 1))
        self.assertEqual(self.reader.done[-1], {0: 2})

    def test_left_behind(self) -> None:
        one, two = self.join(), self.join()
        self.come(0, 1)
        self.assertEqual(self.take(one), [(0, 1)])
        waiting = self.taking(two, wait=None)
        one.leave()
        one.leave()
        self.assertEqual(self.successResultOf(waiting), [(0, 1)])
        self.assertFalse(one.finish("t", 0, 1))
        self.assertEqual(self.take(one), [])

    def test_window(self) -> None:
        self.begin(most=2)
        client = self.join()
        self.come(0, 1, 2, 3)
        self.assertEqual(self.take(client), [(0, 1), (0, 2)])
        waiting = self.taking(client, wait=None)
        self.assertNoResult(waiting)
        client.finish("t", 0, 1)
        self.assertEqual(self.successResultOf(waiting), [(0, 3)])

    def test_bounded(self) -> None:
        """Records, and their bytes with those of headers."""
        self.begin(count=3)
        client = self.join()
        self.come(0, 1, 2, 3)
        self.assertEqual(self.reader.done, ["start", "full"])
        self.take(client)
        client.finish("t", 0, 1)
        self.assertEqual(self.reader.done[-1], "not full")
        self.begin(size=10_000)
        self.join()
        self.reader.listener.member_read([TopicRecord("t", 0, 1, -1, None, b"", (("h", b"x" * 10_000),))])
        self.assertEqual(self.reader.done, ["start", "full"])

    def test_topic_made_anew(self) -> None:
        """Its records have offsets that the member has seen: they are others."""
        client = self.join()
        self.come(0, 100, 101)
        self.take(client)
        renewed = frozenset([("t", 0), ("t", 7)])  # one of these it does not have
        self.reader.listener.member_renewed(renewed)
        self.come(0, 0, 1)
        self.assertEqual(self.take(client), [(0, 0), (0, 1)])
        self.assertFalse(client.finish("t", 0, 100))
        self.assertTrue(client.finish("t", 0, 0))
        self.assertEqual(self.reader.done[-1], {0: 1})

    def test_held_partitions(self) -> None:
        """What may go to another member is given to nobody, until it is known who has it."""
        client = self.join(partitions=2)
        self.reader.listener.member_held(frozenset([("t", 0)]))
        self.come(0, 1)
        self.come(1, 1)
        self.assertEqual(self.take(client), [(1, 1)])
        self.assign(2)
        self.assertEqual(self.take(client), [(0, 1)])


class LeavingTests(GroupCase):
    def test_behind_the_last_client(self) -> None:
        client = self.join()
        client.leave()
        self.clock.advance(LINGER - 1)
        other = self.join()  # in time
        self.clock.advance(LINGER)
        self.assertEqual(self.reader.done, ["start"])
        other.leave()
        self.clock.advance(LINGER)
        self.assertEqual(self.reader.done, ["start", "stop"])
        self.assertEqual((self.groups.members, self.clock.getDelayedCalls()), ({}, []))

    def test_configuration_closes(self) -> None:
        client, waiting_to_join = self.join(), self.joining("other")
        self.come_to_first(1)
        self.take(client)
        client.finish("t", 0, 1)
        taking = self.taking(client, wait=None)
        self.groups.close()
        self.failureResultOf(taking, KafkaFailed)
        self.failureResultOf(waiting_to_join, KafkaFailed)
        self.failureResultOf(self.joining(), KafkaFailed)
        self.assertEqual([each.done[-1] for each in self.readers], ["stop", "stop"])
        self.assertFalse(client.holds("t", 0, 1))
        client.leave()
        for each in self.readers:
            each.ended.callback(None)
        self.assertEqual((self.permits.used, self.clock.getDelayedCalls()), (0, []))

    def come_to_first(self, *offsets: int) -> None:
        self.readers[0].listener.member_read(records(0, *offsets))
