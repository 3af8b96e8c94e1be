"""Who gets which record of a group, and up to where all are finished."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_reading import TopicRecord
from kongtwist.kafka.group_ledger import GroupLedger


def records(partition: int, *offsets: int) -> list[TopicRecord]:
    return [TopicRecord("t", partition, offset, -1, None, b"x" * 10) for offset in offsets]


class LedgerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ledger: GroupLedger[str] = GroupLedger()

    def begin(self, partitions: int, *clients: str) -> None:
        """A member with some partitions of three records each, and clients."""
        self.ledger.assign(("t", number) for number in range(partitions))
        for client in clients:
            self.ledger.join(client)
        for number in range(partitions):
            self.ledger.add(records(number, 0, 1, 2))

    def take(self, client: str, count: int = 100, deadline: float = 30.0) -> list[tuple[int, int, int]]:
        """Partition, offset and delivery of what a client gets."""
        return sorted(
            (each.record.partition, each.record.offset, each.delivery)
            for each in self.ledger.take(client, count, deadline)
        )

    def finish(self, client: str, partition: int, *offsets: int) -> list[bool]:
        return [self.ledger.finish(client, ("t", partition), offset) for offset in offsets]

    def commits(self) -> dict[int, int]:
        return {partition: offset for (_, partition), offset in self.ledger.taken_commits().items()}

    def test_committed_up_to_the_first_that_is_not_finished(self) -> None:
        self.begin(1, "a")
        self.assertEqual(self.take("a"), [(0, 0, 1), (0, 1, 1), (0, 2, 1)])
        self.assertEqual(self.finish("a", 0, 1), [True])
        self.assertEqual(self.commits(), {})
        self.assertEqual(self.finish("a", 0, 0), [True])
        self.assertEqual(self.commits(), {0: 2})
        self.assertEqual(self.finish("a", 0, 2, 2, 7), [True, False, False])
        self.assertEqual(self.commits(), {0: 3})
        self.assertEqual((self.ledger.count, self.ledger.size), (0, 0))

    def test_offsets_that_are_no_records(self) -> None:
        self.ledger.assign([("t", 0)])
        self.ledger.join("a")
        self.ledger.add(records(0, 3, 7, 9))
        self.take("a")
        self.finish("a", 0, 3)
        self.assertEqual(self.commits(), {0: 7})
        self.finish("a", 0, 9, 7)
        self.assertEqual(self.commits(), {0: 10})

    def test_shared_out_and_in_order(self) -> None:
        self.begin(4, "a", "b")
        one, two = self.take("a"), self.take("b")
        self.assertEqual((len(one), len(two)), (6, 6))
        self.assertEqual({each[0] for each in one} & {each[0] for each in two}, set())
        self.ledger.join("c")
        self.assertEqual(self.ledger.eligible(), set())
        for number in range(4):
            self.ledger.add(records(number, 3))
        self.assertNotIn("c", self.ledger.eligible())  # its partition's last records are with another still
        self.assertEqual(self.take("c"), [])
        for client, found in (("a", one), ("b", two)):
            for partition, offset, _ in found:
                self.finish(client, partition, offset)
        self.assertEqual(len(self.take("c")), 1)
        self.assertEqual(len(self.take("a")) + len(self.take("b")), 3)

    def test_what_one_leaves_others_get(self) -> None:
        self.begin(1, "a", "b")
        owner, other = ("a", "b") if self.take("a", 2) else ("b", "a")
        if owner == "b":
            self.take("b", 2)
        self.finish(owner, 0, 0)
        self.assertEqual(self.take(other), [])
        self.ledger.leave(owner)
        self.ledger.leave(owner)
        self.assertEqual(self.take(other), [(0, 1, 2), (0, 2, 1)])
        self.assertEqual(self.finish(owner, 0, 1), [False])
        self.assertEqual(self.finish(other, 0, 1, 2), [True, True])
        self.assertEqual(self.commits(), {0: 3})

    def test_again(self) -> None:
        self.begin(1, "a")
        self.take("a", 2)
        self.assertTrue(self.ledger.give_back("a", ("t", 0), 0))
        self.assertFalse(self.ledger.give_back("a", ("t", 0), 0))
        self.assertFalse(self.ledger.give_back("b", ("t", 0), 1))
        self.assertEqual(self.take("a", 1), [(0, 0, 2)])
        self.assertEqual(self.ledger.held_by("a"), 2)

    def test_too_late(self) -> None:
        self.begin(1, "a", "b")
        owner, other = ("a", "b") if self.ledger.eligible() == {"a"} else ("b", "a")
        self.take(owner, 2, 30.0)
        self.assertEqual(self.ledger.expire(29.0), 0)
        self.assertEqual(self.ledger.expire(30.0), 2)
        self.assertEqual(self.ledger.eligible(), {other})
        self.assertEqual(self.finish(owner, 0, 0), [True])  # before another has got it
        self.assertEqual(self.take(other), [(0, 1, 2), (0, 2, 1)])
        self.assertEqual(self.finish(owner, 0, 1), [True])  # behind that
        self.assertEqual(self.finish(other, 0, 1, 2), [False, True])
        self.assertEqual(self.commits(), {0: 3})
        self.assertEqual(self.ledger.expire(99.0), 0)

    def test_alone_it_gets_it_again(self) -> None:
        self.begin(1, "a")
        self.take("a", 1, 30.0)
        self.ledger.expire(30.0)
        self.assertEqual(self.take("a", 1), [(0, 0, 2)])

    def test_partitions_change_hands(self) -> None:
        self.begin(2, "a")
        self.take("a", 2)
        self.finish("a", 0, 0)
        self.finish("a", 1, 0)
        self.ledger.hold([("t", 0), ("t", 1)])
        self.assertEqual((self.take("a"), self.ledger.eligible()), ([], set()))
        self.ledger.assign([("t", 1)])  # the other one is another member's now
        self.ledger.add([*records(0, 5), *records(1, 0, 1, 2, 3)])  # read again from where the group has committed
        found = {(partition, offset) for partition, offset, _ in self.take("a")}
        self.assertTrue(found <= {(1, 0), (1, 1), (1, 2), (1, 3)})
        self.assertIn((1, 3), found)
        self.assertEqual(self.finish("a", 0, 1), [False])
        self.assertNotIn(0, self.commits())
        self.ledger.drop(("t", 1))
        self.assertEqual((self.ledger.count, self.ledger.size, self.ledger.held_by("a")), (0, 0, 0))

    def test_bounds_count_what_is_behind(self) -> None:
        self.begin(1, "a")
        self.assertEqual(self.ledger.count, 3)
        full = self.ledger.size
        self.take("a")
        self.finish("a", 0, 1, 2)
        self.assertEqual(self.ledger.count, 3)
        self.assertLess(self.ledger.size, full)
        self.finish("a", 0, 0)
        self.assertEqual((self.ledger.count, self.ledger.size), (0, 0))
