"""`kongtwist.core.stream_counts`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.stream_counts import MessageTimes, StreamCounting


class MessageTimesTests(SynchronousTestCase):
    """When messages come."""

    def test_first_and_longest(self) -> None:
        """The first message's time counts from the beginning; the longest gap is one between two messages."""
        clock = Clock()
        clock.advance(100)
        times = MessageTimes(clock.seconds)
        self.assertEqual((times.first, times.longest, times.latest), (-1.0, 0.0, 100.0))
        for step in (5.0, 1.0, 3.0, 2.0):
            clock.advance(step)
            times.came()
        self.assertEqual((times.first, times.longest, times.latest), (5.0, 3.0, 111.0))

    def test_gaps_are_told(self) -> None:
        """Each gap is told, the time before the first message not."""
        clock, gaps = Clock(), list[float]()
        times = MessageTimes(clock.seconds, gaps.append)
        for step in (5.0, 1.0, 3.0):
            clock.advance(step)
            times.came()
        self.assertEqual(gaps, [1.0, 3.0])


class StreamCountingTests(SynchronousTestCase):
    """Whether times are measured."""

    def test_off(self) -> None:
        """Nobody has asked: a stream has no times."""
        self.assertIsNone(StreamCounting(Clock().seconds).times())

    def test_on(self) -> None:
        """Both directions are measured; the gaps of the upstream's are told."""
        clock, gaps = Clock(), list[float]()
        counting = StreamCounting(clock.seconds)
        counting.on, counting.gap = True, gaps.append
        times = counting.times()
        assert times is not None
        for each in (times.client, times.upstream):
            each.came()
            clock.advance(2)
            each.came()
        self.assertEqual((gaps, times.client.longest), ([2.0], 2.0))
