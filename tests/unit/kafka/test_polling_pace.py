"""Brokers that wait for records and those that do not."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.kafka.polling_pace import PollingPace


class Broker:
    """A consumer whose polls take their time, some of it at work."""

    def __init__(self, busy: float) -> None:
        self.busy = busy
        self.now = self.used = 0.0
        self.polls: list[int] = []
        self.pauses: list[float] = []
        self.has: dict[str, list[int]] = {}

    def poll(self, timeout_ms: int, max_records: int) -> dict[str, list[int]]:
        self.polls.append(timeout_ms)
        found, self.has = self.has, {}
        if not found:
            self.now += timeout_ms / 1000
            self.used += timeout_ms / 1000 * self.busy
        return found

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class PollingPaceTests(SynchronousTestCase):
    def polled(self, broker: Broker, times: int, milliseconds: int = 500) -> None:
        self.pace: Any = PollingPace(broker.pause, lambda: broker.now, lambda: broker.used)
        for _ in range(times):
            self.assertEqual(self.pace.poll(broker, milliseconds, 10), {})

    def test_one_that_waits(self) -> None:
        broker = Broker(0.02)
        self.polled(broker, 3)
        self.assertEqual((broker.polls, broker.pauses), ([500, 500, 500], []))

    def test_one_that_does_not(self) -> None:
        """It is asked at intervals; what it has comes at once, and now and then it is tried anew."""
        broker = Broker(0.3)
        self.polled(broker, 1 + 2)
        self.assertEqual((broker.polls, broker.pauses), ([500, 0, 0], [0.04, 0.04]))
        broker.has = {"t": [1]}
        self.assertEqual(self.pace.poll(broker, 500, 10), {"t": [1]})
        self.assertEqual(len(broker.pauses), 2)
        for _ in range(500 - 3 + 1):
            self.pace.poll(broker, 500, 10)
        self.assertEqual((broker.polls[-2:], len(broker.polls)), ([0, 500], 502))

    def test_short_polls_tell_nothing(self) -> None:
        broker = Broker(0.9)
        self.polled(broker, 3, 50)
        self.assertEqual(broker.polls, [50, 50, 50])

    def test_records_are_work(self) -> None:
        broker = Broker(0.0)
        self.polled(broker, 1)
        broker.used, broker.has = 100.0, {"t": [1]}
        self.pace.poll(broker, 500, 10)
        self.polled(broker, 1)
        self.assertEqual((broker.polls, broker.pauses), ([500, 500, 500], []))

    def test_time_that_is_needed_is_given(self) -> None:
        """Joining a group takes its time, and work; it tells nothing of the broker."""
        broker = Broker(0.3)
        self.polled(broker, 0)
        for whole in (True, False, False, True, False):
            self.pace.poll(broker, 500, 10, whole)
        self.assertEqual((broker.polls, len(broker.pauses)), ([500, 500, 0, 500, 0], 2))
