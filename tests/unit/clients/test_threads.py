"""Bounds of the pool for calls that block (kongtwist/clients/threads.py); the pool here runs what the test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from kongtwist.clients.threads import Threads, ThreadsBusy


class FakePool:
    """Calls that block until the test lets them go on."""

    def __init__(self) -> None:
        self.started = self.joined = False
        self.begun: list[Callable[[], None]] = []

    def start(self) -> None:
        self.started = True

    def stop(self) -> None:
        self.joined = True

    def callInThreadWithCallback(self, told: Callable[[bool, Any], object], work: Any, *args: Any) -> None:
        def go_on() -> None:
            try:
                result = work(*args)
            except Exception:  # noqa: BLE001 - as a thread pool: a failure is the result
                told(False, Failure())
            else:
                told(True, result)

        self.begun.append(go_on)


class FakeReactor(Clock):
    """Time, and calls from threads that are none."""

    def callFromThread(self, call: Callable[..., object], *values: Any, **options: Any) -> None:
        call(*values, **options)


class ThreadsTests(TestCase):
    def setUp(self) -> None:
        self.reactor, self.pool = FakeReactor(), FakePool()
        self.threads = Threads(self.reactor, 2, 2, cast(Any, self.pool))

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.threads.close(5))

    def test_in_turn(self) -> None:
        calls = [self.threads.run(pow, 2, n) for n in range(4)]
        self.assertEqual((len(self.pool.begun), self.threads.running, self.threads.waiting), (2, 2, 2))
        for n in range(4):
            self.pool.begun[n]()
        self.assertEqual([self.successResultOf(call) for call in calls], [1, 2, 4, 8])
        self.assertEqual((self.threads.running, self.threads.waiting), (0, 0))

    def test_bounded(self) -> None:
        calls = [self.threads.run(pow, 2, n) for n in range(4)]
        error = self.failureResultOf(self.threads.run(pow, 2, 5), ThreadsBusy).value
        self.assertEqual(str(error), "2 calls run in threads and 2 wait for one: no more are taken")
        self.pool.begun[0]()
        self.successResultOf(calls[0])
        self.assertNoResult(self.threads.run(pow, 2, 6))

    def test_what_is_raised(self) -> None:
        call = self.threads.run(int, "x")
        self.pool.begun[0]()
        self.failureResultOf(call, ValueError)

    def test_cancelled(self) -> None:
        """One that waits is taken back; one that runs keeps its place until it is over."""
        calls = [self.threads.run(pow, 2, n) for n in range(4)]
        calls[3].cancel()
        self.failureResultOf(calls[3], CancelledError)
        calls[0].cancel()
        self.failureResultOf(calls[0], CancelledError)
        self.assertEqual((self.threads.running, self.threads.waiting), (2, 1))
        for n in range(3):
            self.pool.begun[n]()
        self.assertEqual([self.successResultOf(call) for call in calls[1:3]], [2, 4])
        self.assertEqual(len(self.pool.begun), 3)

    def test_close(self) -> None:
        calls = [self.threads.run(pow, 2, n) for n in range(3)]
        closed = self.close()
        self.assertEqual(
            str(self.failureResultOf(calls[2], ThreadsBusy).value), "the gateway is stopping: the call was not begun"
        )
        self.failureResultOf(self.threads.run(pow, 2, 5), ThreadsBusy)
        self.pool.begun[0]()
        self.assertNoResult(closed)
        self.pool.begun[1]()
        self.successResultOf(closed)
        self.assertTrue(self.pool.joined)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_close_does_not_wait_for_ever(self) -> None:
        """What hangs is left to the end of the process."""
        call = self.threads.run(pow, 2, 2)
        closed = self.close()
        self.reactor.advance(5)
        self.successResultOf(closed)
        self.assertFalse(self.pool.joined)
        self.pool.begun[0]()
        self.assertEqual(self.successResultOf(call), 4)

    def test_close_without_any_call(self) -> None:
        self.successResultOf(self.close())
        self.assertEqual((self.pool.started, self.pool.joined), (False, False))
