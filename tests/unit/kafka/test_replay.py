"""Reading again: what is left of it when it is over."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.kafka.replay import Replay
from tests.unit.net.test_work_thread import Calls

PATIENCE = 30.0


class Consumer:
    """Its end takes as long as the test says."""

    def __init__(self) -> None:
        self.may_end, self.ended = threading.Event(), threading.Event()
        self.thread: threading.Thread | None = None

    def close(self, timeout_ms: int) -> None:
        self.thread = threading.current_thread()
        assert self.may_end.wait(PATIENCE)
        self.ended.set()


class CloseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.calls: Any = Calls()
        self.consumer = Consumer()
        self.addCleanup(self.consumer.may_end.set)
        self.replay = Replay(self.calls, lambda: self.consumer, ("t",), 1.0)
        self.replay._consumer = self.consumer

    def assertGone(self) -> None:
        """Consumer and thread are."""
        self.assertTrue(self.consumer.ended.wait(PATIENCE))
        assert self.consumer.thread is not None
        self.consumer.thread.join(PATIENCE)
        self.assertFalse(self.consumer.thread.is_alive())

    def test_waits_for_the_consumer(self) -> None:
        closing = Deferred.fromCoroutine(self.replay.close())
        self.assertNoResult(closing)
        self.consumer.may_end.set()
        self.assertGone()
        self.calls.run()
        self.successResultOf(closing)

    def test_the_client_leaves_meanwhile(self) -> None:
        """Nobody waits for the end any more: all is given back, and the reactor does not wait either."""
        closing = Deferred.fromCoroutine(self.replay.close())
        closing.cancel()
        self.failureResultOf(closing, CancelledError)
        self.assertFalse(self.consumer.ended.is_set())
        self.consumer.may_end.set()
        self.assertGone()
