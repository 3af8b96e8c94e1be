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

__all__ = [
    "Row", "describe_machine", "headings_of", "markdown", "merged", "of_admin", "of_decisions", "rows_of", "table", "verdict",
]  # fmt: skip

HEADINGS = ("work", "unit", "nginx", "nginx, variant", "kongtwist", "ratio", "aim")
ADMIN_HEADINGS = ("work", "unit", "beside", "longest round", "kongtwist", "ratio", "aim")
"""Of rows about the Admin API, whose names begin so; they are compared with other things than nginx."""
DECISION_HEADINGS = ("work", "unit", "among 10", "among 100", "kongtwist", "ratio", "aim")
"""Of rows about decisions in memory, which are compared with the same ones among few."""
COUNTED = "instructions, thousands"
"""Heading of a further column, where the machine counts them."""

NOISE = 0.2
"""The part of a ratio that other work on the machine changes."""


@dataclass(frozen=True)
class Row:
    """One line of the table; costs in ``unit``."""

    name: str
    unit: str
    nginx: float
    variant: str  #: nginx configured otherwise, as text; of Admin rows the longest round
    kongtwist: float
    ratio: float
    aim: str
    instructions: tuple[float, float] | None = None  #: nginx's and ours, where the machine counts them

    @property
    def counted(self) -> str:
        """Instructions, as text."""
        return (
            "" if self.instructions is None else f"{self.instructions[0] / 1e3:.1f} / {self.instructions[1] / 1e3:.1f}"
        )

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
        found = re.fullmatch(r"(at most|at least|under|no round over) ([\d.]+)(x| KB| ms| us)", self.aim)
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


def of_decisions(row: Row) -> bool:
    """Whether a row is about choosing among many, in memory."""
    return row.name.startswith(("Choosing", "Matching"))


def headings_of(row: Row) -> tuple[str, ...]:
    """The headings of its table."""
    return ADMIN_HEADINGS if of_admin(row) else DECISION_HEADINGS if of_decisions(row) else HEADINGS


def table(rows: Sequence[Row], *, heading: bool = True) -> str:
    """Lines for a terminal."""
    lines = [row.cells() for row in rows]
    if heading:
        lines.insert(0, headings_of(rows[0]))
    form = "{:<48}  {:<4}  {:>9}  {:>21}  {:>9}  {:>6}  {:<22}"
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
    counted = any(row.instructions for row in rows)
    lines = [[*headings, *([COUNTED] if counted else [])], ["---"] * 2 + ["---:"] * 4 + ["---"] + ["---:"] * counted]
    lines += [[*row.cells(), *([row.counted] if counted else [])] for row in rows]
    return "\n".join(("|" + "|".join(line) + "|") if line[0] == "---" else f"| {' | '.join(line)} |" for line in lines)


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
    """The whole page docs/benchmarks.md. Rows of one table follow each other, whatever was measured when."""
    rows = sorted(rows, key=lambda row: (of_admin(row), of_decisions(row)))
    figures = _figures(HEADINGS, [row for row in rows if headings_of(row) is HEADINGS])
    if admin := [row for row in rows if of_admin(row)]:
        figures += f"\n\nThe Admin API, beside other work of the same kind:\n\n{_figures(ADMIN_HEADINGS, admin)}"
    if decisions := [row for row in rows if of_decisions(row)]:
        beside = "Decisions in memory, beside the same among few:"
        figures += f"\n\n{beside}\n\n{_figures(DECISION_HEADINGS, decisions)}"
    counted = COUNTED_HERE if any(row.instructions for row in rows) else NOT_COUNTED
    return PAGE.format(
        figures=figures, verdict=verdict(rows), machine=machine, rounds=pace.rounds, seconds=f"{pace.seconds:g}",
        warm=f"{pace.warm:g}", counted=counted,
    )  # fmt: skip


def rows_of(page: str) -> list[Row]:
    """The rows of a page that `markdown` has made, in their order."""
    rows = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) in (7, 8) and re.fullmatch(r"[\d.]+", cells[5]):
            name, unit, theirs, variant, ours, ratio, aim = cells[:7]
            counted = [float(each) * 1e3 for each in cells[7].split(" / ")] if cells[7:] and cells[7] else None
            aim = aim.partition(": missed")[0]
            instructions = None if counted is None else (counted[0], counted[1])
            rows.append(Row(name, unit, float(theirs), variant, float(ours), float(ratio), aim, instructions))
    return rows


def merged(before: Sequence[Row], measured: Sequence[Row]) -> list[Row]:
    """Rows with those that were measured anew in the place of what they were; one that is new follows the one measured before it."""
    rows = list(before)
    at = len(rows)
    for row in measured:
        places = [place for place, each in enumerate(rows) if each.name == row.name]
        if places:
            at = places[0]
            rows[at] = row
        else:
            rows.insert(at, row)
        at += 1
    return rows


COUNTED_HERE = """Instructions are those of user and kernel mode,
  counted by the processor (`perf_event_open`), as nginx's / kongtwist's for each operation."""
NOT_COUNTED = """Instructions are counted too, in a further
  column, where processor and system allow it (`perf_event_open`); this machine does not."""

PAGE = """# Benchmarks

What one operation costs the proxy in CPU time, beside nginx doing the same work in the same run. Written by
`python -m benchmarks --write docs/benchmarks.md`, with `--only` some rows alone; do not edit.

{figures}

{verdict}

Taken on: {machine}.

Rows may be of different runs, the figures of one row never are.

Each server had {rounds} turns of {seconds} seconds after {warm} of warm-up, one after the other. The figures are medians, the ratio is
the median of the turns' ratios. Other work on the machine changes single figures by half and ratios by a fifth and
more: for figures to keep, let nothing else run.

## How it is measured

- CPU time is user plus system time of all threads of the one process that does the work, in nanoseconds, from
  `/proc/PID/task/*/schedstat`, divided by the operations that the load generator counted. {counted}
- Memory is VmRSS. All traffic stays on the loopback interface.
- The interpreter is the one that runs `python -m benchmarks`. Let it be the distribution's, as nginx is: one that was built without
  profile-guided optimisation, which pyenv does by default, costs 3 to 25 % more, most where much of the work is Python's (gRPC).
- Both proxies run one worker and keep connections alive on both sides. nginx runs with `access_log off`,
  `keepalive 64` to the upstream, and `proxy_buffering off` for events. Where its buffers matter (messages larger than
  one buffer) it is measured a second time, as a variant, with `proxy_buffer_size 128k; proxy_buffers 4 256k`. The ratio
  is to its defaults.
- kongtwist runs with its default limits and time-outs, from a declarative file; the access log only in the row that
  says so.
- HTTP: `wrk -t1 -c32`, answers of 13 bytes. The plugin rows are compared with nginx's bare row: it has no such plugins.
  The key comes in a header. "Heads that differ": two header fields change with every request, so nothing that is
  remembered of a head helps.
- Beside itself without: the column nginx shows the gateway's own figure without the plugins.
- WebSocket: 4 connections play ping-pong with masked text messages. One operation is a message and its echo.
- TCP: the same ping-pong through a stream route, beside nginx's `stream` module, which Debian has in the package libnginx-mod-stream;
  without it these rows are left out.
- SSE: 8 streams of 100-byte events, each sent when the one before has arrived, so that every event is relayed by
  itself.
- gRPC: `1x32` is one connection with 32 streams, each with one call after the other. Load and echo server are written
  with grpc-go. One operation is a call, or a message and its answer; messages of 100 bytes where nothing else is said. nginx
  has `grpc_pass` with its default buffers. Metadata that differs: a token and a request id, another one for each call.
- gRPC-Web: unary calls over HTTP/2, beside the gateway's own plain gRPC: the column nginx shows that.
- HTTP/2 GET with TLS: answers of 13 bytes, from an upstream that speaks HTTP/1.1; certificates of P-256.
- TLS handshakes: 8 connections at a time, of TLS 1.3 with X25519 and certificates of P-256, each made, asked for nothing and ended by both
  sides in order; resumed ones by a ticket. Accepting the connection is in the figure. nginx runs on the
  OpenSSL of the system, with its defaults but for TLS 1.3; kongtwist on the one that pyOpenSSL brings along.
- Idle gRPC streams: opened, used once, and left alone; memory of both sides together.
- Idle pairs: WebSockets opened through the proxy and left alone; memory of both sides together. Beside 9,000 of them
  one client asks 300 times, and its longest wait is shown.
- Consumers: each with one credential of key-auth, from a declarative file; memory is what the process has in use more than
  one with ten consumers, divided by their number. The column nginx shows the aim there, and the gateway with ten
  consumers where requests are measured: ten keys come in turn on both.
- Kafka: 64 clients post 180 bytes of JSON; the answer says where the record is. The column nginx shows the gateway itself, relaying
  the same request to nginx. A record of 200 bytes to all clients of one topic: CPU time by event and client; there the
  column shows the aim. The broker is Apache Kafka, and takes no part in the figures.
- Admin creates: one client on one connection, in turns with a bare loop of inserts into SQLite (write-ahead log,
  `synchronous=FULL`) on the same disk; 16 clients in processes of their own. The faster the disk, the more of a create
  is our own work.
- Admin changes: CPU time of all the gateway's processes for each call, with 10,000 routes beside ten. "Longest round" is
  the longest time that a reactor took before it looked at its sockets again, as CPU time of its thread.

The programs are in `benchmarks/`: `load.c` and `grpc/main.go` make the load, `cases.py` and `http2_cases.py` say what
each row is, `usage.py` reads what a process used.
"""
