"""Counts of rate limits that go to another process with a restart."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.counters import RateWindow
from kongtwist.observability.shared_counters import CARRIED, LocalWindows, SharedCounters

NOW = 1000.0
HOUR = RateWindow(7, NOW + 3600, 1_000_000)
OVER = RateWindow(3, NOW - 1, 1_000_000)


def carry(old: Any, new: Any) -> None:
    """Through JSON, as a restart does."""
    for piece in json.loads(json.dumps(list(old.carried(NOW)))):
        new.carry(piece, NOW)


class CarriedTests(SynchronousTestCase):
    """What was counted before counts afterwards; windows that are over are left behind."""

    def shared(self, workers: int) -> SharedCounters:
        counters = SharedCounters.create(workers, 64)
        self.addCleanup(counters.close)
        return counters

    def count(self, windows: Any) -> None:
        windows.add("old", (OVER,), 5, NOW - 10)
        windows.add("a", (HOUR,), 3, NOW)
        windows.add("b", (HOUR,), 1, NOW)

    def expect(self, windows: Any, extra: int = 0) -> None:
        self.assertEqual([windows.read(key, (HOUR,))[0] for key in ("a", "b", "c")], [3 + extra, 1, 0])
        self.assertEqual(windows.read("old", (OVER,)), [0])

    def test_one_process(self) -> None:
        """To one process, or to workers."""
        old = LocalWindows()
        self.count(old)
        for new in (LocalWindows(), self.shared(2).windows):
            carry(old, new)
            self.expect(new)

    def test_many(self) -> None:
        """In pieces of bounded size."""
        old, new = LocalWindows(), LocalWindows()
        for number in range(2 * CARRIED + 1):
            old.add(f"k{number}", (HOUR,), 1, NOW)
        pieces = list(old.carried(NOW))
        self.assertEqual([len(piece["keys"]) for piece in pieces], [CARRIED, CARRIED, 1])
        carry(old, new)
        self.assertEqual(new.read(f"k{2 * CARRIED}", (HOUR,)), [1])

    def test_workers(self) -> None:
        """From workers to another number of them: what each counted is added up, and goes on."""
        parent = self.shared(2)
        self.count(SharedCounters(parent.fileno(), 2, 0, 64).windows)
        SharedCounters(parent.fileno(), 2, 1, 64).windows.add("a", (HOUR,), 4, NOW)
        new = self.shared(3)
        carry(parent.windows, new.windows)
        worker = SharedCounters(new.fileno(), 3, 1, 64).windows
        self.expect(worker, 4)
        self.assertEqual(worker.take("a", (HOUR,), NOW), [7])
        self.assertEqual(new.windows.read("a", (HOUR,)), [8])

    def test_workers_to_one(self) -> None:
        """Keys are not known: nothing is taken, and nothing breaks."""
        parent = self.shared(2)
        self.count(parent.windows)
        new = LocalWindows()
        carry(parent.windows, new)
        self.assertEqual(new.read("a", (HOUR,)), [0])
