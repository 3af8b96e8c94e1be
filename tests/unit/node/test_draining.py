"""A drain's order of events, on a clock."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.node.graceful_shutdown import Drain
from kongtwist.node.outcomes import Drained, DrainOrder


class Gateway:
    """One that notes what it is told."""

    def __init__(self, events: list[object]) -> None:
        self.events = events
        self.finished: Deferred[None] = Deferred()
        self.counts = {"websocket": 2, "sse": 1, "active": 4}
        self.counters = self

    def totals(self) -> dict[str, int]:
        return self.counts

    def leave(self) -> None:
        self.events.append("leave")

    def finish(self) -> Deferred[None]:
        self.events.append("finish")
        return self.finished


class DrainTests(SynchronousTestCase):
    """Monitors first, then listeners, then what is open, then the node."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[object] = []
        self.gateway = Gateway(self.events)
        self.drain = Drain(self.clock, self.gateway, lambda: self.events.append("unlisten"), self.events.append)

    def test_in_order(self) -> None:
        """What is open ends by itself: the node stops at once, nothing was left."""
        self.drain.begin(DrainOrder(5, 60))
        self.assertEqual(self.events, ["leave"])
        self.clock.advance(4.9)
        self.assertEqual(self.events, ["leave"])
        self.clock.advance(0.1)
        self.assertEqual(self.events, ["leave", "finish", "unlisten"])
        self.clock.advance(30)
        self.gateway.finished.callback(None)
        self.assertEqual(self.events[3:], [Drained(0, 0)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late(self) -> None:
        """The time is over: the node stops, and tells what was left; it does so once."""
        self.drain.begin(DrainOrder(0, 60))
        self.clock.advance(0)
        self.clock.advance(60)
        self.assertEqual(self.events[3:], [Drained(3, 4)])
        self.gateway.finished.callback(None)
        self.assertEqual(len(self.events), 4)

    def test_another_order(self) -> None:
        """It holds from then on: while new connections are accepted, and afterwards."""
        self.drain.begin(DrainOrder(100, 100))
        self.clock.advance(50)
        self.drain.begin(DrainOrder(1, 100))
        self.clock.advance(1)
        self.assertEqual(self.events, ["leave", "leave", "finish", "unlisten"])
        self.clock.advance(50)
        self.drain.begin(DrainOrder(100, 2))
        self.clock.advance(2)
        self.assertEqual(self.events[4:], [Drained(3, 4)])
        self.drain.begin(DrainOrder(0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped_meanwhile(self) -> None:
        """A stop from elsewhere ends it; nothing is told, no timer is left."""
        self.drain.begin(DrainOrder(0, 60))
        self.clock.advance(0)
        self.drain.stop()
        self.gateway.finished.callback(None)
        self.assertEqual(self.events[3:], [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failure(self) -> None:
        """A fault of ours does not keep the node alive."""
        self.drain.begin(DrainOrder(0, 60))
        self.clock.advance(0)
        self.gateway.finished.errback(ValueError("a fault"))
        self.assertEqual(self.events[3:], [Drained(0, 0)])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
