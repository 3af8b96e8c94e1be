"""Values that coroutines wait for: the gateway's and the kit's are the same to plugins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.clients.waiting import Promise
from kongtwist.testing.stand_in_promise import StandInPromise


class PromiseTests(SynchronousTestCase):
    made: Callable[[Any], Any] = Promise

    def setUp(self) -> None:
        self.clock = Clock()
        self.promise = type(self).made(self.clock)

    def test_all_get_it(self) -> None:
        early = [self.promise.wait(), self.promise.wait(10)]
        self.assertFalse(self.promise.over)
        self.promise.give(7)
        self.promise.give(8)
        self.promise.fail(ValueError())
        self.assertTrue(self.promise.over)
        for each in (*early, self.promise.wait(), self.promise.wait(1)):
            self.assertEqual(self.successResultOf(each), 7)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_fails(self) -> None:
        early = self.promise.wait()
        self.promise.fail(ValueError())
        for each in (early, self.promise.wait()):
            self.failureResultOf(each, ValueError)

    def test_time_is_over(self) -> None:
        """For one, and not for the others."""
        early, patient = self.promise.wait(1), self.promise.wait()
        self.clock.advance(1)
        self.failureResultOf(early, TimeoutError)
        self.promise.give(1)
        self.assertEqual(self.successResultOf(patient), 1)

    def test_cancelled(self) -> None:
        one, other = self.promise.wait(1), self.promise.wait()
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.promise.give(1)
        self.assertEqual(self.successResultOf(other), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StandInTests(PromiseTests):
    made = StandInPromise
