"""The figures as a table, for the terminal and for docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from .measures import Pace

__all__ = ["Row", "describe_machine", "markdown", "of_admin", "table", "verdict"]

HEADINGS = ("work", "unit", "nginx", "large buffers", "kongtwist", "ratio", "aim")
ADMIN_HEADINGS = ("work", "unit", "beside", "longest round", "kongtwist", "ratio", "aim")
"""Of rows about the Admin API, whose names begin so; they are compared with other things than nginx."""

NOISE = 0.2
"""The part of a ratio that other work on the machine changes."""


@dataclass(frozen=True)
class Row:
    """One line of the table; costs in ``unit``."""

    name: str
    unit: str
    nginx: float
    variant: str  #: nginx with large buffers, as text
    kongtwist: float
    ratio: float
    aim: str

    def cells(self) -> tuple[str, ...]:
        nginx, ours, ratio = f"{self.nginx:.1f}", f"{self.kongtwist:.1f}", f"{self.ratio:.2f}"
        verdict = {None: "", True: "", False: ": missed"}[self.met]
        return (self.name, self.unit, nginx, self.variant, ours, ratio, self.aim + verdict)

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None without one.

        Raises:
            ValueError: the aim is none that can be judged.
        """
        if not self.aim:
            return None
        if self.aim == "the same":
            return self.ratio <= 1 + NOISE
        found = re.fullmatch(r"(at most|at least|under|no round over) ([\d.]+)(x| KB| ms)", self.aim)
        if found is None:
            raise ValueError(f"{self.name}: cannot judge the aim '{self.aim}'")
        how, limit = found[1], float(found[2])
        value = self.ratio if found[3] == "x" else self.kongtwist
        if how == "no round over" and self.variant:
            value = float(self.variant.removesuffix(" ms"))
        return value >= limit if how == "at least" else value < limit if how == "under" else value <= limit


def of_admin(row: Row) -> bool:
    """Whether a row is about the Admin API."""
    return row.name.startswith("Admin")


def table(rows: Sequence[Row], *, heading: bool = True) -> str:
    """Lines for a terminal."""
    lines = [row.cells() for row in rows]
    if heading:
        lines.insert(0, ADMIN_HEADINGS if of_admin(rows[0]) else HEADINGS)
    form = "{:<48}  {:<4}  {:>9}  {:>13}  {:>9}  {:>6}  {:<22}"
    return "\n".join(form.format(*line).rstrip() for line in lines)


def describe_machine() -> str:
    """Where the figures were taken: processor, kernel, versions."""
    about = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", about.read_text(encoding="utf-8")) if about.exists() else None
    nginx = subprocess.run(
        [shutil.which("nginx") or "/usr/sbin/nginx", "-v"], check=True, capture_output=True, text=True
    ).stderr.strip().rpartition("/")[2]  # fmt: skip
    parts = [f"{os.cpu_count()} CPUs ({model[1].strip() if model else platform.machine()})"]
    parts += [f"Linux {platform.release().split('-')[0]}", f"Python {platform.python_version()}"]
    parts += [f"Twisted {version('twisted')}", f"httptools {version('httptools')}", f"nginx {nginx}"]
    return ", ".join(parts)


def _figures(headings: Sequence[str], rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|---|---|---:|---:|---:|---:|---|"]
    return "\n".join(lines + ["| " + " | ".join(row.cells()) + " |" for row in rows])


def verdict(rows: Sequence[Row]) -> str:
    """A paragraph about aims: which are missed, and by how much."""
    aims = [row for row in rows if row.met is not None]
    missed = [row for row in aims if row.met is False]
    if not missed:
        return f"All {len(aims)} aims are reached."
    lines = "".join(f"- {row.name}: {_reached(row)}, the aim is {row.aim}\n" for row in missed)
    return (
        f"**{len(missed)} of {len(aims)} aims are missed**, and marked so in the last column. An aim is what a row should"
        f" come to; it is not a promise.\n\n{lines}"
    ).rstrip()


def _reached(row: Row) -> str:
    """What a row comes to, in the terms of its aim."""
    if row.aim.endswith("x") or row.aim == "the same":
        return f"{row.ratio:.2f}x"
    return row.variant or f"{row.kongtwist:.1f} {row.unit}"


def markdown(rows: Sequence[Row], pace: Pace, machine: str) -> str:
    """The whole page docs/benchmarks.md."""
    figures = _figures(HEADINGS, [row for row in rows if not of_admin(row)])
    if admin := [row for row in rows if of_admin(row)]:
        figures += f"\n\nThe Admin API, beside other work of the same kind:\n\n{_figures(ADMIN_HEADINGS, admin)}"
    return f"""# Benchmarks

CPU time of the proxy process per operation, beside nginx doing the same work in the same run. Written by
`python -m benchmarks --write docs/benchmarks.md`; do not edit.

{figures}

{verdict(rows)}

Taken on: {machine}.

Each server had {pace.rounds} turns of {pace.seconds:g} seconds after {pace.warm:g} of warm-up, one after the other; the
figures are medians, the ratio is the median of the turns' ratios. Other work on the machine changes single figures by
half and ratios by a fifth and more: for figures to keep, let nothing else run.

## How it is measured

- CPU time is user plus system time of the one process that does the work, from `/proc/PID/stat`, divided by the
  operations the load generator counted. Memory is VmRSS. All traffic stays on the loopback interface.
- Both proxies run one worker and keep connections alive on both sides. nginx runs with `access_log off`,
  `keepalive 64` to the upstream, and `proxy_buffering off` for events. Where its buffers matter (messages larger than
  one buffer) it is measured a second time with `proxy_buffer_size 128k; proxy_buffers 4 256k`; the ratio is to its
  defaults.
- kongtwist runs with its default limits and time-outs, from a declarative file; the access log only in the row that
  says so.
- HTTP: `wrk -t1 -c32`, answers of 13 bytes. The plugin rows are compared with nginx's bare row: it has no such plugins.
  The key comes in a header.
  "Heads that differ": two header fields change with every request, so nothing that is remembered per head helps.
- WebSocket: 4 connections play ping-pong with masked text messages; one operation is a message and its echo.
- SSE: 8 streams of 100-byte events, each sent when the one before has arrived, so that every event is relayed by
  itself.
- Idle pairs: WebSockets opened through the proxy and left alone; memory of both sides together. Beside 9,000 of them
  one client asks 300 times, and its longest wait is shown.

- Admin creates: one client on one connection, in turns with a bare loop of inserts into SQLite (write-ahead log,
  `synchronous=FULL`) on the same disk; 16 clients in processes of their own. The faster the disk, the more of a create is
  our own work.
- Admin changes: CPU time of all the gateway's processes per call, with 10,000 routes beside ten. "Longest round" is the
  longest time that a reactor took before it looked at its sockets again, as CPU time of its thread.

The programs are in `benchmarks/`: `load.c` makes the streams, `cases.py` says what each row is.
"""
