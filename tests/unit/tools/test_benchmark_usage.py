"""What the benchmarks read of a process."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.usage import Cost, Usage, cpu_seconds


class UsageTests(SynchronousTestCase):
    """`Usage`, on a folder in place of /proc."""

    def setUp(self) -> None:
        self.proc = Path(self.mktemp())

    def thread(self, pid: int, thread: int, nanoseconds: int) -> None:
        """A thread of a process that has used so much."""
        folder = Path(self.proc, str(pid), "task", str(thread))
        folder.mkdir(parents=True, exist_ok=True)
        Path(folder, "schedstat").write_text(f"{nanoseconds} 77 5\n", encoding="ascii")

    def test_all_threads(self) -> None:
        """The first number of each thread, in nanoseconds; a thread that has just ended is left out."""
        self.thread(7, 7, 1_500_000_000)
        self.thread(7, 9, 20)
        Path(self.proc, "7", "task", "11").mkdir()
        self.assertEqual(cpu_seconds(7, self.proc), 1.50000002)

    def test_since_the_beginning(self) -> None:
        """Of several processes, without instructions where there is no counter."""
        self.thread(7, 7, 1_000_000)
        self.thread(8, 8, 500)

        def refuse(thread: int) -> int:
            raise OSError("no counter")

        with Usage([7, 8], self.proc, refuse) as usage:
            self.thread(7, 7, 3_000_000)
            self.thread(8, 8, 1_000_500)
            self.assertAlmostEqual(usage.cost().seconds, 0.003)
            self.assertIsNone(usage.cost().instructions)
        self.assertEqual(Cost(0.003).per(3), Cost(0.001))

    def test_instructions(self) -> None:
        """Those of all threads since the beginning; each counter is read where it stands, and closed at the end."""
        self.thread(7, 7, 0)
        self.thread(7, 8, 0)
        counts, opened = Path(self.mktemp()), []
        counts.write_bytes(b"".join(each.to_bytes(8, "little") for each in (100, 350)))

        def counter(thread: int) -> int:
            opened.append(os.open(counts, os.O_RDONLY))
            return opened[-1]

        with Usage([7], self.proc, counter) as usage:
            cost = usage.cost()
        self.assertEqual(cost, Cost(0.0, 500.0))
        self.assertEqual(cost.per(100), Cost(0.0, 5.0))
        for fd in opened:
            self.assertRaises(OSError, os.fstat, fd)

    def test_some_without_counter(self) -> None:
        """Where one thread cannot be counted, the others would be a part that looks like the whole."""
        self.thread(7, 7, 0)
        self.thread(7, 8, 0)
        ends: list[int] = []

        def counter(thread: int) -> int:
            if ends:
                raise OSError("no counter left")
            ends.append(os.open("/dev/zero", os.O_RDONLY))
            return ends[0]

        with Usage([7], self.proc, counter) as usage:
            self.assertIsNone(usage.cost().instructions)
        self.assertRaises(OSError, os.fstat, ends[0])
