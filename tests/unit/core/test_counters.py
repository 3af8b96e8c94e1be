"""A node's counters and rate-limit windows, in one process and in shared memory."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.counters import ACCEPTED, ACTIVE, MOST_AT_ONCE, READING, REQUESTS, WRITING, RateWindow, Windows
from kongtwist.observability.shared_counters import LocalCounters, LocalWindows, SharedCounters

MINUTE = RateWindow(8, 60.0, 3)
HOUR = RateWindow(9, 3600.0, 5)


class WindowsContract:
    """What every implementation of `Windows` must do."""

    assertEqual: Any
    assertGreater: Any

    def windows(self) -> Windows:
        raise NotImplementedError

    def test_counts_up_to_the_limit(self) -> None:
        """Each request sees those before it; a full window counts no more."""
        windows = self.windows()
        self.assertEqual([windows.take("k", [MINUTE], 1) for _ in range(5)], [[0], [1], [2], [3], [3]])

    def test_refused_request_is_counted_nowhere(self) -> None:
        """One full window keeps the others from counting."""
        windows = self.windows()
        seen = [windows.take("k", [MINUTE, HOUR], 1) for _ in range(5)]
        self.assertEqual(seen[-1], [3, 3])
        self.assertEqual(windows.take("k", [RateWindow(16, 120.0, 3), HOUR], 61), [0, 3])

    def test_amounts(self) -> None:
        """They are added whether they fit or not, and read without being counted."""
        windows = self.windows()
        windows.add("k", [MINUTE, HOUR], 2, 1)
        windows.add("k", [MINUTE], 40, 1)
        windows.add("other", [MINUTE], 1, 1)
        for _ in range(2):
            self.assertEqual(windows.read("k", [MINUTE, HOUR]), [42, 2])
        self.assertEqual(windows.read("nobody", [MINUTE]), [0])
        self.assertEqual(windows.take("k", [MINUTE, HOUR], 1), [42, 2])
        later = RateWindow(16, 120.0, 3)
        windows.add("k", [later], 1, 61)
        self.assertEqual(windows.read("k", [later]), [1])
        for _ in range(3000):
            windows.add("k", [later], MOST_AT_ONCE, 61)
        self.assertGreater(windows.read("k", [later])[0], MOST_AT_ONCE)

    def test_keys_are_apart(self) -> None:
        """Other keys and other windows of a key have counts of their own."""
        windows = self.windows()
        windows.take("a", [MINUTE], 1)
        self.assertEqual(windows.take("b", [MINUTE], 1), [0])
        self.assertEqual(windows.take("a", [HOUR], 1), [0])
        self.assertEqual(windows.take("a", [MINUTE], 1), [1])

    def test_a_flood_does_not_push_out_who_is_near_the_limit(self) -> None:
        """Made-up keys beyond what the table holds push out one another."""
        windows = self.windows()
        limit = RateWindow(8, 60.0, 100)
        for _ in range(50):
            windows.take("heavy", [limit], 1)
        for number in range(500):
            windows.take(f"made up {number}", [limit], 1)
            windows.add(f"made up too {number}", [limit], 1, 1)
        self.assertEqual(windows.take("heavy", [limit], 1), [50])


class LocalWindowsTests(WindowsContract, SynchronousTestCase):
    def windows(self) -> Windows:
        return LocalWindows(max_keys=64)

    def test_bounded_and_forgotten(self) -> None:
        """No more keys than allowed, and none of windows that are over."""
        windows = LocalWindows(max_keys=64)
        for number in range(200):
            windows.take(str(number), [MINUTE], 1)
        self.assertEqual(len(windows._tables[MINUTE.window]), 64)
        windows.take("k", [RateWindow(16, 120.0, 3)], 61)
        self.assertEqual(list(windows._tables), [16])


class SharedWindowsTests(WindowsContract, SynchronousTestCase):
    def windows(self) -> Windows:
        counters = SharedCounters.create(1, sets=8)
        self.addCleanup(counters.close)
        return counters.windows

    def test_over_gives_way_first(self) -> None:
        """In a full set a window that is over is replaced before any that still counts."""
        counters = SharedCounters.create(1, sets=1)
        self.addCleanup(counters.close)
        windows = counters.windows
        old, new = RateWindow(8, 60.0, 100), RateWindow(16, 120.0, 100)
        for _ in range(9):
            windows.take("old", [old], 1)
        for key in "abc":
            windows.take(key, [new], 50)
        windows.take("d", [new], 61)
        self.assertEqual([windows.take(key, [new], 61) for key in "abcd"], [[1]] * 4)
        self.assertEqual(windows.take("old", [old], 61), [0])


class LocalCountersTests(SynchronousTestCase):
    def test_totals(self) -> None:
        """By nginx's names; a gauge is never shown below nought."""
        counters = LocalCounters()
        counters.cells[REQUESTS] += 2
        counters.cells[READING] -= 1
        totals = counters.totals()
        self.assertEqual(totals["requests"], 2)
        self.assertEqual(totals["reading"], 0)
        connections = [
            "accepted", "active", "handled", "reading", "requests", "sessions", "sse", "tcp", "udp", "waiting", "websocket",
            "writing",
        ]  # fmt: skip
        self.assertEqual(sorted(totals), connections)


class SharedCountersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.parent = SharedCounters.create(2, sets=8)
        self.addCleanup(self.parent.close)
        self.workers = [SharedCounters.attach(os.dup(self.parent.fileno()), 2, row, sets=8) for row in range(2)]
        for worker in self.workers:
            self.addCleanup(worker.close)

    def test_totals_are_the_nodes(self) -> None:
        """Whoever asks gets the sum over all workers."""
        self.workers[0].cells[ACCEPTED] += 3
        self.workers[1].cells[ACCEPTED] += 4
        self.assertEqual({each.totals()["accepted"] for each in (self.parent, *self.workers)}, {7})

    def test_memory(self) -> None:
        """What is used is what was touched, and never more than there may be."""
        self.workers[0].cells[ACCEPTED] += 1
        used, most = self.parent.memory()
        self.assertEqual(most, SharedCounters.size(2, sets=8))
        self.assertGreater(used, 0)

    def test_bury(self) -> None:
        """A dead worker's requests still count, its open connections do not; its successor begins at nought."""
        for worker in self.workers:
            worker.cells[REQUESTS] += 10
            worker.cells[ACTIVE] += 2
            worker.cells[WRITING] += 1
        self.parent.retire(0)
        totals = self.parent.totals()
        self.assertEqual((totals["requests"], totals["active"], totals["writing"]), (20, 2, 1))
        self.assertEqual([self.workers[0].cells[cell] for cell in range(16)], [0] * 16)
        self.workers[0].cells[REQUESTS] += 1
        self.assertEqual(self.parent.totals()["requests"], 21)

    def test_windows_are_the_nodes(self) -> None:
        """Workers taking turns let through exactly the limit."""
        let = [self.workers[turn % 2].windows.take("k", [MINUTE], 1)[0] < 3 for turn in range(8)]
        self.assertEqual(let, [True] * 3 + [False] * 5)

    def test_windows_survive_their_worker(self) -> None:
        """A crash opens no limit."""
        for _ in range(3):
            self.workers[0].windows.take("k", [MINUTE], 1)
        self.parent.retire(0)
        successor = SharedCounters.attach(os.dup(self.parent.fileno()), 2, 0, sets=8)
        self.addCleanup(successor.close)
        self.assertEqual(successor.windows.take("k", [MINUTE], 1), [3])

    def test_another_process_finds_the_same_entries(self) -> None:
        """Entries are found by a hash that does not differ between processes."""
        self.workers[0].windows.take("who", [MINUTE, HOUR], 1)
        fd = self.parent.fileno()
        code = (
            "from kongtwist.observability.shared_counters import SharedCounters; from kongtwist.core.counters import RateWindow;"
            f"c = SharedCounters.attach({fd}, 2, 1, sets=8);"
            "print(c.windows.take('who', [RateWindow(8, 60.0, 3), RateWindow(9, 3600.0, 5)], 1))"
        )
        found = subprocess.run(
            [sys.executable, "-c", code], pass_fds=[fd], capture_output=True, text=True, check=True, env={
                **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7",
            },
        )  # fmt: skip
        self.assertEqual(found.stdout, "[1, 1]\n")
        self.assertEqual(self.workers[0].windows.take("who", [MINUTE, HOUR], 1), [2, 2])

    def test_wrong_size_is_refused(self) -> None:
        """A worker started for another number of workers must not write into foreign rows."""
        self.assertRaises(ValueError, SharedCounters.attach, self.parent.fileno(), 3, 0, 8)
