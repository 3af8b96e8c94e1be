"""Long work beside the reactor (kongtwist/node/background_work.py) and what stands in for it where there is no traffic."""

from __future__ import annotations

import sys
import threading
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.long_work import AtOnce, stepped
from kongtwist.node.background_work import SWITCH, BackgroundWork

from ..net.test_work_thread import Calls


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.calls = Calls()
        self.turns = BackgroundWork(cast(Any, self.calls))
        self.addCleanup(self.turns.stop)

    def test_threads_give_way_while_there_is_work(self) -> None:
        """Sooner than usual, until the last of it is done; whatever becomes of it."""
        before = sys.getswitchinterval()
        names: list[str] = []

        def work() -> float:
            names.append(threading.current_thread().name)
            return sys.getswitchinterval()

        def broken() -> None:
            raise ValueError("no")

        first, second, third = self.turns.aside(work), self.turns.aside(broken), self.turns.aside(work)
        self.turns.stop()  # waits for its end
        self.assertAlmostEqual(sys.getswitchinterval(), SWITCH)
        self.calls.run()
        self.assertAlmostEqual(self.successResultOf(first), SWITCH)
        self.failureResultOf(second, ValueError)
        self.assertAlmostEqual(self.successResultOf(third), SWITCH)
        self.assertEqual(names, ["kongtwist-aside"] * 2)
        self.assertAlmostEqual(sys.getswitchinterval(), before)

    def test_two_gateways(self) -> None:
        """The interval is the process's: it comes back when both are done."""
        before = sys.getswitchinterval()
        other = BackgroundWork(cast(Any, self.calls))
        self.addCleanup(other.stop)
        work = [self.turns.aside(int), other.aside(int)]
        self.turns.stop()
        other.stop()
        while self.calls.waiting:
            self.assertAlmostEqual(sys.getswitchinterval(), SWITCH)
            call, args = self.calls.waiting.popleft()
            call(*args)
        self.assertEqual([self.successResultOf(each) for each in work], [0, 0])
        self.assertAlmostEqual(sys.getswitchinterval(), before)


class AtOnceTests(SynchronousTestCase):
    def test_everything_now(self) -> None:
        turns = AtOnce()
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(turns.aside(max, 1, 2))), 2)
        steps = iter(range(5))
        self.successResultOf(Deferred.fromCoroutine(stepped(steps, turns.slices())))
        self.assertEqual(list(steps), [])

    def test_a_look_at_the_time_now_and_then(self) -> None:
        class Breather:
            breaths = 0

            async def breathe(self) -> None:
                self.breaths += 1

        breather = Breather()
        self.successResultOf(Deferred.fromCoroutine(stepped(range(10), breather, 3)))
        self.assertEqual(breather.breaths, 3)
