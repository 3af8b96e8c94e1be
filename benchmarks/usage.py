"""What a process has used: CPU time in nanoseconds, and instructions where the machine counts them."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

__all__ = ["Cost", "Usage", "cpu_seconds"]

PROC = Path("/proc")

_SYSCALLS = {"x86_64": 298, "aarch64": 241}
"""Number of perf_event_open(2) by machine."""
_HARDWARE, _INSTRUCTIONS = 0, 1
_SIZE = 112
"""Bytes of perf_event_attr, version 5 (Linux 4.1)."""
_INHERIT, _EXCLUDE_HYPERVISOR = 1 << 1, 1 << 6


class Cost(NamedTuple):
    """What something took: CPU seconds, and instructions; None where the machine does not count them."""

    seconds: float
    instructions: float | None = None

    def per(self, operations: int) -> Cost:
        """The cost of one operation."""
        return Cost(self.seconds / operations, None if self.instructions is None else self.instructions / operations)


def _threads(pid: int, proc: Path) -> list[int]:
    return [int(each.name) for each in Path(proc, str(pid), "task").iterdir()]


def cpu_seconds(pid: int, proc: Path = PROC) -> float:
    """CPU time that the threads of a process have used, user and system.

    From ``/proc/PID/task/*/schedstat``, which counts nanoseconds; ``/proc/PID/stat`` would count ticks of 10 ms. What a thread
    that has ended used is not in it.
    """
    total = 0
    for thread in _threads(pid, proc):
        try:
            total += int(Path(proc, str(pid), "task", str(thread), "schedstat").read_text(encoding="ascii").split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended just now
    return total / 1e9


def _opened(thread: int) -> int:
    """A descriptor that counts the instructions of a thread, and of threads that it makes, in user and kernel mode.

    Raises:
        OSError: the machine, or the system's settings, do not let them be counted.
    """
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        raise OSError(f"no perf_event_open on {platform.machine()}")
    # type, size, config, sample_period, sample_type, read_format, flags; the rest is nought (perf_event_open(2))
    attributes = struct.pack(
        "=IIQQQQQ", _HARDWARE, _SIZE, _INSTRUCTIONS, 0, 0, 0, _INHERIT | _EXCLUDE_HYPERVISOR
    ).ljust(_SIZE, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.syscall(number, ctypes.create_string_buffer(attributes, _SIZE), thread, -1, -1, ctypes.c_ulong(0)))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "perf_event_open")
    return fd


class Usage:
    """What processes use from here on; as a context manager it lets its counters go.

    Args:
        pids: the processes.
        proc: where their threads and times stand.
        counter: opens a counter of a thread's instructions.
    """

    def __init__(self, pids: Iterable[int], proc: Path = PROC, counter: Callable[[int], int] = _opened) -> None:
        self._pids, self._proc = list(pids), proc
        self._counters: list[int] = []
        try:
            for pid in self._pids:
                self._counters.extend(counter(thread) for thread in _threads(pid, proc))
        except OSError:
            self._close()
        self._instructions = self._counted()
        self._seconds = self._used()

    def __enter__(self) -> Usage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def cost(self) -> Cost:
        """What was used since the beginning."""
        seconds, instructions = self._used() - self._seconds, self._counted()
        if instructions is None or self._instructions is None:
            return Cost(seconds)
        return Cost(seconds, instructions - self._instructions)

    def _used(self) -> float:
        return sum(cpu_seconds(pid, self._proc) for pid in self._pids)

    def _counted(self) -> int | None:
        if not self._counters:
            return None
        return sum(int.from_bytes(os.read(fd, 8), "little") for fd in self._counters)

    def _close(self) -> None:
        while self._counters:
            os.close(self._counters.pop())
