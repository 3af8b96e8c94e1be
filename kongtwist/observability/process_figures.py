"""Figures of a process that serves: memory, CPU, descriptors, and how late its reactor is."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .plugin_metrics import Metrics

__all__ = ["DELAYS", "ProcessFigures"]

DELAYS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Seconds that a timer is late: upper bounds of the histogram's buckets."""

_EVERY = 1.0
"""Seconds between two looks at how late the reactor is."""

_PAGE = resource.getpagesize()


class ProcessFigures:
    """Tells the figures of this process when they are taken, under its worker's number.

    Args:
        reactor: whose delay is looked at, from `begin` to `end`.
        metrics: takes the figures.
        row: the worker's number.
    """

    def __init__(self, reactor: Any, metrics: Metrics, row: int) -> None:
        self._reactor = reactor
        self._labels = {"worker": str(row)}
        self._delay = metrics.histogram("kongtwist_reactor_delay_seconds", DELAYS, self._labels)
        self._used = 0.0
        self._call: Any = None
        self._due = 0.0
        metrics.sources.append(self.tell)

    def begin(self) -> None:
        """Traffic is served from now on."""
        if self._call is None:
            self._again()

    def end(self) -> None:
        """Leave no timer behind."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _again(self) -> None:
        self._due = self._reactor.seconds() + _EVERY
        self._call = self._reactor.callLater(_EVERY, self._look)

    def _look(self) -> None:
        self._delay.observe(max(0.0, self._reactor.seconds() - self._due))
        self._again()

    def tell(self, metrics: Metrics) -> None:
        """Tell what memory, CPU and descriptors are now."""
        labels = self._labels
        spent = os.times()
        used = spent.user + spent.system
        metrics.count("kongtwist_process_cpu_seconds_total", max(0.0, used - self._used), labels)
        self._used = used
        metrics.gauge("kongtwist_process_resident_bytes", _resident(), labels)
        metrics.gauge("kongtwist_process_open_descriptors", _descriptors(), labels)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        metrics.gauge("kongtwist_process_max_descriptors", float("inf") if most < 0 else most, labels)


def _resident() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _descriptors() -> int:
    """How many are open. Linux 6.2 and newer say so by themselves; before, they are counted."""
    try:
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
