"""One timer for all deadlines."""

from __future__ import annotations

import sys
from math import inf

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.net.deadlines import Deadlines


class Item:
    def __init__(self) -> None:
        self.deadline = inf
        self.wake = inf
        self.expired: list[float] = []

    def expire(self, now: float) -> None:
        self.expired.append(round(now, 3))


class DeadlineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock, self.clock.seconds)

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.05] * round(seconds / 0.05))

    def test_not_early_and_not_much_late(self) -> None:
        for seconds, late in ((0.3, 0.15), (0.51, 0.15), (4.0, 0.15), (60.0, 1.1), (3600.0, 1.1)):
            item = Item()
            start = self.clock.seconds()
            self.deadlines.set(item, start + seconds)
            self.pass_time(seconds - 0.05)
            self.assertEqual(item.expired, [], seconds)
            self.pass_time(late + 0.05)
            self.assertEqual(len(item.expired), 1, seconds)
            self.assertGreaterEqual(item.expired[0], round(start + seconds, 3))

    def test_later_is_an_assignment(self) -> None:
        """Moving a deadline back costs no call: it is seen when the old time comes."""
        item = Item()
        self.deadlines.set(item, 1.0)
        item.deadline = 10.0
        self.pass_time(9)
        self.assertEqual(item.expired, [])
        self.pass_time(2.5)
        self.assertEqual(len(item.expired), 1)

    def test_back_and_forth_is_an_assignment(self) -> None:
        """The deadlines of a connection in use are equally far away, again and again: its bucket stays the right one."""
        for seconds in (2.0, 60.0):
            item = Item()
            self.deadlines.set(item, self.clock.seconds() + seconds)
            for _ in range(20):
                self.clock.advance(0.001)
                self.assertGreaterEqual(self.clock.seconds() + seconds, item.wake)
            self.deadlines.drop(item)

    def test_any_time_ends(self) -> None:
        """Times at the very edges of buckets: each item expires once, on time, and looking comes to an end."""
        for number in range(1, 400):
            item = Item()
            when = self.clock.seconds() + number * 0.1
            self.deadlines.set(item, when)
            for at in (when - 1e-9, when, when + 1e-9):
                self.clock.advance(max(0.0, at - self.clock.seconds()))
                self.assertTrue(not item.expired or self.clock.seconds() >= when)
            self.clock.advance(1.1)
            self.assertEqual(len(item.expired), 1, number)

    def test_earlier(self) -> None:
        item, other = Item(), Item()
        self.deadlines.set(item, 60.0)
        self.deadlines.set(other, 60.0)
        self.deadlines.set(item, 1.0)
        self.pass_time(2)
        self.assertEqual((len(item.expired), other.expired), (1, []))
        self.pass_time(62)
        self.assertEqual((len(item.expired), len(other.expired)), (1, 1))

    def test_none_and_dropped(self) -> None:
        item, dropped = Item(), Item()
        self.deadlines.set(item, 1.0)
        item.deadline = inf
        self.deadlines.set(dropped, 1.0)
        self.deadlines.drop(dropped)
        self.pass_time(100)
        self.assertEqual((item.expired, dropped.expired), ([], []))
        self.assertEqual((item.wake, dropped.wake), (inf, inf))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_timer(self) -> None:
        for number in range(100):
            self.deadlines.set(Item(), 1.0 + number)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_room_is_given_back(self) -> None:
        """Of many that were watched and are closed long before their time."""
        items = [Item() for _ in range(1000)]
        for item in items:
            self.deadlines.set(item, 3600.0)
        for item in items:
            self.deadlines.drop(item)
        self.assertLess(sum(map(sys.getsizeof, self.deadlines._buckets.values())), 1000)

    def test_a_fault_does_not_stop_the_others(self) -> None:
        class Faulty(Item):
            def expire(self, now: float) -> None:
                raise RuntimeError("a fault")

        faulty, early, late = Faulty(), Item(), Item()
        self.deadlines.set(early, 1.0)
        self.deadlines.set(faulty, 1.0)
        self.deadlines.set(late, 2.0)
        for _ in range(60):
            self.clock.advance(0.05)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual((len(early.expired), len(late.expired)), (1, 1))

    def test_set_while_expiring(self) -> None:
        deadlines = self.deadlines

        class Again(Item):
            def expire(self, now: float) -> None:
                super().expire(now)
                if len(self.expired) < 3:
                    deadlines.set(self, now + 1)

        again, other = Again(), Item()
        deadlines.set(again, 1.0)
        deadlines.set(other, 1.5)
        self.pass_time(10)
        self.assertEqual((len(again.expired), len(other.expired)), (3, 1))

    def test_stop(self) -> None:
        item = Item()
        self.deadlines.set(item, 1.0)
        self.deadlines.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(item.wake, inf)
