"""Making snapshots in slices (kongtwist/node/snapshot_builder.py), and what the garbage collector may look at meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.snapshot.snapshot import SLICE, Snapshot
from kongtwist.core.storage_contract import Change
from kongtwist.node.snapshot_builder import FREEZE_AFTER, FREEZE_AT_LAST, FREEZE_ROWS, Collector, SnapshotBuilder

from ..core.routing.router_rows import exchange, route_row, service_row


class FakeGC:
    """Notes what is asked of the collector."""

    def __init__(self) -> None:
        self.enabled = True
        self.frozen = 0
        self.collected: tuple[int, bool] | None = None

    def isenabled(self) -> bool:
        return self.enabled

    def enable(self) -> None:
        self.enabled = True

    def disable(self) -> None:
        self.enabled = False

    def freeze(self) -> None:
        self.frozen += 1

    def unfreeze(self) -> None:
        self.frozen = 0

    def collect(self) -> None:
        self.collected = (self.frozen, self.enabled)


def routes(count: int, first: int = 0) -> list[Change]:
    rows = [route_row(f"r{number}", paths=[f"/{number}"]) for number in range(first, first + count)]
    return [Change("create", "routes", row, None) for row in rows]


class BackgroundWork(Clock):
    """Counts how often a turn of the reactor is waited for. `advance` goes through all that follow one another."""

    asked = 0

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:
        self.asked += delay == 0
        return super().callLater(delay, callable, *args, **kw)


class SnapshotBuilderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = BackgroundWork()
        self.served: list[Snapshot] = []
        self.failures: list[Failure] = []
        self.told: list[str] = []
        self.builder = SnapshotBuilder(self.clock, {}, self.served.append, self.failures.append)
        self.gc = FakeGC()
        self.builder.collector = Collector(self.clock, self.gc)
        self.builder.begin({"services": {"s": service_row()}})

    def then(self, name: str) -> Any:
        return lambda: self.told.append(name)

    def turns(self) -> int:
        """Reactor turns that were asked for since the last call, until nothing is left to do."""
        self.clock.advance(0)
        self.assertFalse(self.builder.busy)
        count, self.clock.asked = self.clock.asked, 0
        return count

    def test_a_few_changes_are_worked_in_at_once(self) -> None:
        self.builder.apply(routes(SLICE), self.then("a"))
        self.assertEqual((self.told, len(self.served), self.builder.busy), (["a"], 2, False))

    def test_many_changes_get_a_slice_of_each_turn(self) -> None:
        """Nothing of them serves before all do, and what comes meanwhile waits its turn."""
        self.builder.apply(routes(5 * SLICE), self.then("many"))
        self.builder.apply(routes(1, 5 * SLICE), self.then("one"))
        self.assertEqual((self.told, len(self.served)), ([], 1))
        self.assertFalse(self.gc.enabled)
        self.assertEqual(self.turns(), 4)
        self.assertEqual(self.told, ["many", "one"])
        self.assertEqual([len(each.rows["routes"]) for each in self.served], [0, 5 * SLICE, 5 * SLICE + 1])
        self.assertEqual([each.version for each in self.served], [1, 2, 3])
        self.assertIsNotNone(self.served[-1].router.find(exchange(b"/499/x")))
        self.assertTrue(self.gc.enabled)
        self.assertEqual(self.gc.frozen, 2)

    def test_a_service_whose_many_routes_come_and_go_is_one_change_in_many_slices(self) -> None:
        self.builder.apply(routes(3 * SLICE), self.then("routes"))
        self.turns()
        enabled, disabled = service_row(), service_row(enabled=False)
        self.builder.apply([Change("update", "services", disabled, enabled)], self.then("off"))
        self.assertEqual(self.turns(), 2)
        self.assertIsNone(self.served[-1].router.find(exchange(b"/1")))
        self.assertEqual(len(self.served[-1].router), 0)
        self.builder.apply([Change("update", "services", enabled, disabled)], self.then("on"))
        self.turns()
        self.assertIsNotNone(self.served[-1].router.find(exchange(b"/1")))
        self.assertEqual(self.told, ["routes", "off", "on"])

    def test_a_new_dataset_is_compared_and_worked_in_by_slices(self) -> None:
        rows = {change.new["id"]: change.new for change in routes(50 * SLICE) if change.new}
        self.builder.replace({"services": {"s": service_row()}, "routes": rows}, self.then("all"))
        self.assertGreater(self.turns(), 49)
        self.builder.replace({"services": {"s": service_row()}, "routes": rows}, self.then("same"))
        self.assertLess(self.turns(), 6)
        self.assertEqual((self.told, len(self.served)), (["all", "same"], 3))

    def test_what_cannot_be_made_is_told_and_the_next_is_made_from_what_was_right(self) -> None:
        broken = [Change("create", "routes", {"id": "x"}, None)]
        self.builder.apply(broken, self.then("broken"))
        self.builder.apply([*routes(SLICE), *broken], self.then("late"))
        self.turns()
        self.builder.apply(routes(1), self.then("right"))
        self.assertEqual((len(self.failures), self.told), (2, ["right"]))
        self.assertEqual(list(self.served[-1].rows["routes"]), ["r0"])
        self.assertTrue(self.gc.enabled)

    def test_stopping_leaves_no_timer_and_a_working_collector(self) -> None:
        self.builder.apply(routes(5 * SLICE), self.then("many"))
        self.builder.apply(routes(1), self.then("one"))
        self.builder.stop()
        self.assertEqual((self.clock.getDelayedCalls(), self.told, self.gc.enabled), ([], [], True))


class CollectorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.gc = FakeGC()
        self.collector = Collector(self.clock, self.gc)

    def test_few_rows_are_left_alone(self) -> None:
        """Freezing makes garbage of connections that are open now immortal: not for nothing."""
        self.collector.grew(FREEZE_ROWS - 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_rows_are_frozen_once_it_is_quiet(self) -> None:
        self.collector.grew(FREEZE_ROWS)
        self.clock.advance(FREEZE_AFTER / 2)
        self.collector.grew(1)
        self.clock.advance(FREEZE_AFTER * 0.9)
        self.assertEqual(self.gc.frozen, 0)
        self.clock.advance(FREEZE_AFTER)
        self.assertEqual((self.gc.frozen, self.clock.getDelayedCalls()), (1, []))

    def test_changes_that_never_cease_do_not_put_it_off_for_ever(self) -> None:
        seconds = 0.0
        while not self.gc.frozen:
            self.collector.grew(FREEZE_ROWS)
            self.clock.advance(1)
            seconds += 1
        self.assertLessEqual(seconds, FREEZE_AT_LAST + 1)

    def test_sweep(self) -> None:
        """What was taken out of sight is looked at once more, not while something is made, and only once for several."""
        self.collector.pause()
        self.collector.resume()
        self.collector.sweep_later()
        self.collector.sweep_later()
        self.collector.pause()
        self.clock.advance(FREEZE_AFTER)
        self.assertIsNone(self.gc.collected)
        self.collector.resume()
        self.clock.advance(FREEZE_AFTER)
        self.assertEqual((self.gc.collected, self.gc.frozen, self.clock.getDelayedCalls()), ((0, True), 1, []))
        self.collector.sweep_later()
        self.collector.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pauses_nest_and_leave_it_as_it_was(self) -> None:
        for enabled in (True, False):
            self.gc.enabled = enabled
            self.collector.pause()
            self.collector.pause()
            self.collector.resume()
            self.assertFalse(self.gc.enabled)
            self.collector.resume()
            self.assertEqual(self.gc.enabled, enabled)
