"""Figures of a process."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.observability.plugin_metrics import Metrics
from kongtwist.observability.process_figures import DELAYS, ProcessFigures


class ProcessFiguresTests(SynchronousTestCase):
    def test_delay(self) -> None:
        """How late the reactor is, once a second while traffic is served; no timer is left."""
        clock, metrics = Clock(), Metrics()
        figures = ProcessFigures(clock, metrics, 3)
        self.assertEqual(clock.getDelayedCalls(), [])
        figures.begin()
        figures.begin()
        self.assertEqual(len(clock.getDelayedCalls()), 1)
        clock.advance(1)
        clock.advance(1.2)
        delay = metrics.histogram("kongtwist_reactor_delay_seconds", DELAYS, {"worker": "3"})
        self.assertEqual((delay.counts[0], delay.counts[DELAYS.index(0.25)]), (1, 1))
        figures.end()
        figures.end()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_told(self) -> None:
        """Memory, descriptors and CPU; CPU time is told as growth."""
        metrics = Metrics()
        ProcessFigures(Clock(), metrics, 0)
        told = {facts[1]: facts[0] for what, *facts in metrics.take() if what == "new"}
        self.assertEqual(sorted(told), [
            "kongtwist_process_cpu_seconds_total", "kongtwist_process_max_descriptors", "kongtwist_process_open_descriptors",
            "kongtwist_process_resident_bytes", "kongtwist_reactor_delay_seconds",
        ])  # fmt: skip
        first = metrics.counter("kongtwist_process_cpu_seconds_total", {"worker": "0"})
        self.assertEqual(first.value, 0)
        sum(range(3_000_000))
        metrics.take()
        self.assertLess(first.value, 1)
