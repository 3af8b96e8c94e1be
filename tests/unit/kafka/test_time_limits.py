"""Time limits of records."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.kafka.time_limits import TimeLimits


class Item:
    is_over = False


class TimeLimitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.late: list[Item] = []
        self.limits = TimeLimits(self.clock, self._late)

    def _late(self, item: Item) -> None:
        self.late.append(item)
        self.end(item)

    def begin(self, seconds: float) -> Item:
        item = Item()
        self.limits.add(item, self.clock.seconds(), seconds)
        return item

    def end(self, item: Item) -> None:
        item.is_over = True
        self.limits.done()

    def test_each_in_its_time(self) -> None:
        """Also one whose time comes before that of those that were there."""
        long, short, same = self.begin(10), self.begin(2), self.begin(2)
        self.clock.advance(1.99)
        self.assertEqual(self.late, [])
        self.clock.advance(0.01)
        self.assertEqual(self.late, [short, same])
        self.clock.advance(8)
        self.assertEqual(self.late, [short, same, long])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_in_time(self) -> None:
        """What is over is not called back for, and leaves no timer."""
        items = [self.begin(5) for _ in range(3)]
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for item in items:
            self.end(item)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(5)
        self.assertEqual(self.late, [])

    def test_bounded(self) -> None:
        """One that is never over keeps nothing of the others."""
        first = self.begin(100)
        for _ in range(20_000):
            self.end(self.begin(100))
        self.assertLess(len(self.limits), 2000)
        self.clock.advance(100)
        self.assertEqual(self.late, [first])

    def test_later_ones(self) -> None:
        """The timer goes on with those that are left."""
        done, left = self.begin(1), self.begin(3)
        self.end(done)
        self.clock.advance(1)
        self.clock.advance(2)
        self.assertEqual(self.late, [left])

    def test_added_while_late_ones_are_told(self) -> None:
        again: list[Item] = []

        def late(item: Item) -> None:
            self._late(item)
            if not again:
                again.append(self.begin(1))

        self.limits = TimeLimits(self.clock, late)
        self.begin(1)
        self.clock.advance(1)
        self.assertEqual(len(self.late), 1)
        self.clock.advance(1)
        self.assertEqual(self.late[1:], again)
