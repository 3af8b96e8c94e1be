"""One thread that does blocking work in order (kongtwist/net/work_thread.py)."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.net.work_thread import WorkThread


class Calls:
    """What a reactor was asked to do in its own thread; done when the test says so."""

    def __init__(self) -> None:
        self.waiting: deque[Any] = deque()

    def callFromThread(self, call: Any, *args: Any) -> None:
        self.waiting.append((call, args))

    def run(self) -> None:
        while self.waiting:
            call, args = self.waiting.popleft()
            call(*args)


class WorkThreadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.calls = Calls()
        self.thread = WorkThread(cast(Any, self.calls), "work")
        self.addCleanup(self.thread.stop)

    def test_in_order_and_in_another_thread(self) -> None:
        """Results come in the reactor's thread, never before it looks for them."""
        seen: list[Any] = []

        def work(number: int) -> int:
            seen.append((number, threading.current_thread().name))
            return number

        waiting = [self.thread.do(work, number) for number in range(5)]
        self.thread.stop()  # waits for its end
        self.assertEqual(seen, [(number, "work") for number in range(5)])
        for each in waiting:
            self.assertNoResult(each)
        self.calls.run()
        self.assertEqual([self.successResultOf(each) for each in waiting], [0, 1, 2, 3, 4])

    def test_what_is_raised_fails_the_waiting_and_nothing_else(self) -> None:
        def broken() -> None:
            raise OSError("the disk is full")

        failed, next_ = self.thread.do(broken), self.thread.do(lambda: "went on")
        self.thread.stop()
        self.calls.run()
        self.failureResultOf(failed, OSError)
        self.assertEqual(self.successResultOf(next_), "went on")

    def test_nobody_waits_any_more(self) -> None:
        """Work that has begun is done; its result is dropped."""
        cancelled = self.thread.do(lambda: 1)
        cancelled.cancel()
        self.failureResultOf(cancelled)
        self.thread.stop()
        self.calls.run()

    def test_begins_again_after_its_end(self) -> None:
        self.thread.stop()
        again = self.thread.do(lambda: 2)
        self.thread.stop()
        self.calls.run()
        self.assertEqual(self.successResultOf(again), 2)
