"""Timers and coroutines that end with their owner (kongtwist/clients/tasks.py)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from kongtwist.clients.tasks import Tasks
from kongtwist.core.chain.host import HostError
from tests.unit.clients.log_lines import LogLines


class TasksCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tasks = Tasks(self.clock, "acme plugin 5d3c")
        self.log = LogLines(self, "kongtwist.plugins")
        self.seen: list[Any] = []

    def close(self, seconds: float = 5) -> Deferred[None]:
        return Deferred.fromCoroutine(self.tasks.close(seconds))

    def nothing_is_left(self) -> None:
        self.assertEqual((self.clock.getDelayedCalls(), len(self.tasks)), ([], 0))


class TimerTests(TasksCase):
    def tick(self) -> None:
        self.seen.append(self.clock.seconds())

    def test_later(self) -> None:
        self.tasks.later(2, self.tick)
        self.clock.pump([1.5, 1, 5])
        self.assertEqual(self.seen, [2.5])
        self.nothing_is_left()

    def test_every(self) -> None:
        timer = self.tasks.every(2, self.tick)
        self.clock.pump([2, 2, 1, 1])
        self.assertEqual(self.seen, [2, 4, 6])
        timer.cancel()
        timer.cancel()
        self.clock.pump([2, 2])
        self.assertEqual(len(self.seen), 3)
        self.nothing_is_left()

    def test_what_fails_goes_on(self) -> None:
        def broken() -> None:
            self.tick()
            raise ValueError("no")

        self.tasks.every(1, broken)
        self.clock.pump([1, 1])
        self.assertEqual(self.seen, [1, 2])
        self.assertEqual(self.log.taken(), ["critical acme plugin 5d3c: a timer failed"] * 2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_waiting_call(self) -> None:
        """The next pause begins when the call is over; a failure of it is logged."""
        waiting: list[Deferred[None]] = []

        def call() -> Deferred[None]:
            self.tick()
            waiting.append(Deferred())
            return waiting[-1]

        self.tasks.every(1, call)
        self.clock.pump([1, 5])
        self.assertEqual(self.seen, [1])
        waiting[0].errback(ValueError("no"))
        self.clock.pump([0.5, 0.5])
        self.assertEqual(self.seen, [1, 7])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_cancelled_by_its_own_call(self) -> None:
        timer = self.tasks.every(1, lambda: timer.cancel())
        self.clock.pump([1, 1])
        self.nothing_is_left()

    def test_cancelled_while_a_call_waits(self) -> None:
        waiting = Deferred[None]()
        timer = self.tasks.every(1, lambda: waiting)
        self.clock.advance(1)
        timer.cancel()
        self.assertTrue(waiting.called)
        self.nothing_is_left()

    def test_close(self) -> None:
        self.tasks.every(1, self.tick)
        self.tasks.later(1, self.tick)
        self.successResultOf(self.close())
        self.nothing_is_left()
        self.assertRaises(HostError, self.tasks.later, 1, self.tick)
        self.assertRaises(HostError, self.tasks.every, 1, self.tick)


class CoroutineTests(TasksCase):
    def test_failure_is_logged_with_its_name(self) -> None:
        async def broken() -> None:
            await deferLater(self.clock, 1, lambda: None)
            raise ValueError("no")

        self.tasks.spawn("renewal", broken())
        self.assertEqual(len(self.tasks), 1)
        self.clock.advance(1)
        self.assertEqual(self.log.taken(), ["critical acme plugin 5d3c: renewal failed"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.nothing_is_left()

    def test_over_at_once(self) -> None:
        async def short() -> None:
            self.seen.append("done")

        self.tasks.spawn("short", short())
        self.assertEqual(self.seen, ["done"])
        self.nothing_is_left()

    def test_close_waits_for_those_that_tidy_up(self) -> None:
        async def careful() -> None:
            try:
                await Deferred[None]()
            except CancelledError:
                self.seen.append("cancelled")
                await deferLater(self.clock, 2, lambda: None)
                self.seen.append("tidy")
                raise

        self.tasks.spawn("careful", careful())
        closed = self.close()
        self.assertEqual(self.seen, ["cancelled"])
        self.assertNoResult(closed)
        self.clock.advance(2)
        self.successResultOf(closed)
        self.assertEqual(self.seen, ["cancelled", "tidy"])
        self.assertEqual(self.log.taken(), [])
        self.nothing_is_left()

    def test_close_does_not_wait_for_ever(self) -> None:
        stuck = Deferred[None](lambda _: None)

        async def stubborn() -> None:
            try:
                await Deferred[None]()
            finally:
                await stuck

        self.tasks.spawn("stubborn", stubborn())
        closed = self.close(5)
        self.clock.advance(5)
        self.successResultOf(closed)
        self.assertEqual(self.log.taken(), ["error acme plugin 5d3c: 1 coroutines go on after they were cancelled"])
        stuck.callback(None)
        self.nothing_is_left()

    def test_none_begins_when_closed(self) -> None:
        async def late() -> None:
            self.seen.append("began")

        self.successResultOf(self.close())
        self.assertRaises(HostError, self.tasks.spawn, "late", late())
        self.assertEqual(self.seen, [])
