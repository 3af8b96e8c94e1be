"""Entries of bytes, most of which a queue takes in without a further look."""

from __future__ import annotations

from tests.unit.clients.test_queue import BEGIN, QueueCase


class BytesTests(QueueCase):
    def test_bytes_behind_others(self) -> None:
        """They wait with the others, in their order and within the same bounds; a full batch goes at once."""
        queue = self.take(max_batch_size=3, max_coalescing_delay=10.0, max_entries=10, max_bytes=12)
        for entry in (b"ab", b"cd"):
            queue.add(entry)
        self.at(1.0)
        self.assertEqual(self.seen, [])
        queue.add(b"ef")
        self.at(1.0)
        self.assertEqual(self.seen, [(1.0, [b"ab", b"cd", b"ef"])])
        for number in range(5):
            queue.add(b"%d..." % number)  # four bytes: three fit
        self.at(1.0)
        self.assertEqual(self.seen[1:], [(1.0, [b"2...", b"3...", b"4..."])])
        self.assertEqual(queue.counts.dropped, 2)
        for number in range(9):
            queue.add(b"%d" % number)
        self.assertIn(f"warn {BEGIN}queue at 80% capacity", self.log.taken())

    def test_bytes_without_limit_of_concurrency(self) -> None:
        """Settings that have each sent alone hold for the next entry, whatever waits."""
        queue = self.take(max_batch_size=3, max_coalescing_delay=10.0)
        queue.add(b"a")
        self.at(1.0)
        self.take(concurrency_limit=-1).add(b"b")
        self.at(1.0)
        self.assertEqual(self.seen, [(1.0, [b"b"])])
