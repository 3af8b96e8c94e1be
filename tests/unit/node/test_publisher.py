"""Tests of the publisher (kongtwist/node/publisher.py): one snapshot per turn, followers waited for, bounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.snapshot.snapshot import Snapshot
from kongtwist.core.storage_contract import Change
from kongtwist.node.publisher import PUBLISH_WAIT, Publisher, overlaid


def service(number: int) -> dict[str, Any]:
    return {"id": f"00000000-0000-4000-8000-{number:012}", "name": f"s{number}", "host": "h", "port": 80}


class SlowFollower:
    """A worker that serves a change when the test says so."""

    def __init__(self) -> None:
        self.told: list[Sequence[Change] | str] = []
        self.done: Deferred[None] = Deferred()

    def send(self, version: int, changes: Sequence[Change]) -> Deferred[None]:
        self.told.append(changes)
        return self.done

    def replace(self) -> Deferred[None]:
        self.told.append("all")
        return self.done


class PublisherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.served: list[Snapshot] = []
        self.publisher = Publisher(self.clock, {}, self.served.append)
        self.publisher.begin({"services": {}})

    def test_changes_of_one_turn_are_one_snapshot(self) -> None:
        """Three changes in one reactor turn give one snapshot with all of them."""
        for number in range(3):
            self.publisher.changed([Change("create", "services", service(number), None)])
        self.assertEqual(len(self.served), 1)
        self.clock.advance(0)
        self.assertEqual(len(self.served), 2)
        self.assertEqual(len(self.served[-1].rows["services"]), 3)

    def test_another_builder_goes_on(self) -> None:
        """While it is held nothing is published; then the new builder has the changes that came, and the numbers go on."""
        self.publisher.changed([Change("create", "services", service(1), None)])
        holding = Deferred.fromCoroutine(self.publisher.hold())
        self.assertNoResult(holding)
        self.clock.advance(0)
        self.successResultOf(holding)
        others: list[Snapshot] = []
        builder = self.publisher.builder({}, others.append)
        assert self.publisher.snapshot is not None
        rows = {"services": {service(number)["id"]: service(number) for number in (1, 2)}}
        made = self.successResultOf(Deferred.fromCoroutine(builder.follow(self.publisher.snapshot, rows)))
        self.publisher.changed([Change("create", "services", service(3), None)])
        self.clock.advance(1)
        self.assertEqual((len(self.served), len(others), made.version), (2, 1, self.served[-1].version + 1))
        self.publisher.adopt(builder)
        self.publisher.release()
        self.clock.advance(0)
        self.assertEqual((len(self.served), len(others)), (2, 2))
        self.assertEqual(len(others[-1].rows["services"]), 3)
        self.assertIs(self.publisher.snapshot, others[-1])

    def test_a_builder_that_fails(self) -> None:
        """It says why, and the publisher goes on with its own."""
        assert self.publisher.snapshot is not None
        broken: Any = {"services": {"a": 5}}
        failed = Deferred.fromCoroutine(
            self.publisher.builder({}, self.served.append).follow(self.publisher.snapshot, broken)
        )
        self.failureResultOf(failed)
        self.assertEqual(len(self.served), 1)

    def test_published_waits_for_the_snapshot(self) -> None:
        """A writer goes on when its change serves, not before."""
        self.publisher.changed([Change("create", "services", service(1), None)])
        waiting = Deferred.fromCoroutine(self.publisher.published())
        self.assertNoResult(waiting)
        self.clock.advance(0)
        self.assertTrue(self.successResultOf(waiting))

    def test_published_without_changes_does_not_wait(self) -> None:
        self.assertTrue(self.successResultOf(Deferred.fromCoroutine(self.publisher.published())))

    def test_published_waits_for_followers(self) -> None:
        """Workers serve the change before its writer is answered."""
        follower = SlowFollower()
        self.publisher.followers.append(follower)
        self.publisher.changed([Change("create", "services", service(1), None)])
        waiting = Deferred.fromCoroutine(self.publisher.published())
        self.clock.advance(0)
        self.assertEqual(len(follower.told), 1)
        self.assertNoResult(waiting)
        follower.done.callback(None)
        self.assertTrue(self.successResultOf(waiting))

    def test_published_waits_for_a_round_that_has_begun(self) -> None:
        """A writer that asks after the followers were told waits for their word all the same."""
        follower = SlowFollower()
        self.publisher.followers.append(follower)
        self.publisher.changed([Change("create", "services", service(1), None)])
        self.clock.advance(0)
        waiting = Deferred.fromCoroutine(self.publisher.published())
        self.assertNoResult(waiting)
        follower.done.callback(None)
        self.assertTrue(self.successResultOf(waiting))
        self.assertTrue(self.successResultOf(Deferred.fromCoroutine(self.publisher.published())))

    def test_sent(self) -> None:
        """Changes are on their way to followers when they serve here; nobody's word is waited for."""
        follower = SlowFollower()
        self.publisher.followers.append(follower)
        self.successResultOf(Deferred.fromCoroutine(self.publisher.sent()))
        self.publisher.changed([Change("create", "services", service(1), None)])
        first = Deferred.fromCoroutine(self.publisher.sent())
        self.assertNoResult(first)
        self.clock.advance(0)
        self.successResultOf(first)
        self.assertEqual((len(follower.told), len(self.served)), (1, 2))
        self.successResultOf(Deferred.fromCoroutine(self.publisher.sent()))

    def test_sent_though_it_cannot_be_served(self) -> None:
        """A writer is let go; the fault is in the log."""
        self.publisher.changed([Change("nonsense", "services", None, cast(Any, object()))])
        waiting = Deferred.fromCoroutine(self.publisher.sent())
        gone = Deferred.fromCoroutine(self.publisher.sent())
        gone.addErrback(lambda failure: None).cancel()
        self.clock.advance(0)
        self.successResultOf(waiting)
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.publisher.changed([Change("create", "services", service(1), None)])
        stopped = Deferred.fromCoroutine(self.publisher.sent())
        self.publisher.stop()
        self.successResultOf(stopped)

    def test_a_new_dataset_reaches_followers(self) -> None:
        """Workers are told of a file read again, and are waited for."""
        follower = SlowFollower()
        self.publisher.followers.append(follower)
        self.publisher.replace({"services": {}})
        self.assertEqual(follower.told, ["all"])
        waiting = Deferred.fromCoroutine(self.publisher.published())
        self.assertNoResult(waiting)
        follower.done.callback(None)
        self.assertTrue(self.successResultOf(waiting))

    def test_a_follower_that_hangs_is_not_waited_for_longer_than_the_bound(self) -> None:
        self.publisher.followers.append(SlowFollower())
        self.publisher.changed([Change("create", "services", service(1), None)])
        waiting = Deferred.fromCoroutine(self.publisher.published())
        self.clock.advance(0)
        self.clock.advance(PUBLISH_WAIT)
        self.assertFalse(self.successResultOf(waiting))

    def test_stopping_lets_writers_go_and_leaves_no_timer(self) -> None:
        self.publisher.changed([Change("create", "services", service(1), None)])
        waiting = Deferred.fromCoroutine(self.publisher.published())
        self.publisher.stop()
        self.successResultOf(waiting)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OverlayTests(SynchronousTestCase):
    def test_rows_beside_the_stored_ones(self) -> None:
        """An overlay adds rows and leaves the dataset as it was."""
        stored = {"services": {"a": {"id": "a"}}}
        merged = overlaid(stored, {"services": {"b": {"id": "b"}}, "routes": {"r": {"id": "r"}}})
        self.assertEqual(
            {name: sorted(rows) for name, rows in merged.items()}, {"services": ["a", "b"], "routes": ["r"]}
        )
        self.assertEqual(list(stored["services"]), ["a"])
