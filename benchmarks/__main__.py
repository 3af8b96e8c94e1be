"""``python -m benchmarks [--quick] [--only WORD ...] [--write FILE]``; needs nginx, wrk, a C compiler and Go."""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from .admin import admin_rows
from .cases import Case, Field, cases
from .choosing_rows import choosing_rows
from .consumers import consumer_rows
from .http2_cases import HTTP2Field, http2_cases, http2_memory
from .kafka_rows import kafka_rows
from .measures import Pace, idle_memory
from .metrics_rows import metrics_rows
from .report import Row, describe_machine, headings_of, markdown, merged, rows_of, table
from .servers import Stage
from .session_cases import session_cases
from .usage import Cost


def main() -> None:
    """Measure, print, and write when asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it runs, not how fast it is")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="only rows whose name has one of these")
    parser.add_argument(
        "--write", metavar="FILE", help="also write the table, as docs/benchmarks.md; with --only other rows of it stay"
    )
    options = parser.parse_args()
    lacking = [name for name in ("nginx", "wrk", "cc") if not (shutil.which(name) or Path("/usr/sbin", name).exists())]
    if lacking:
        raise SystemExit(f"the benchmarks need {', '.join(lacking)}")
    pace = Pace(warm=0.5, seconds=1.5, rounds=1) if options.quick else Pace()

    def wanted(name: str) -> bool:
        return not options.only or any(word.lower() in name.lower() for word in options.only)

    rows = []
    with Stage() as stage:
        for case in chain(cases(Field(stage)), session_cases(stage), http2_cases(HTTP2Field(stage))):
            if wanted(case.name):
                rows.append(_measured(case, pace))
                print(table(rows[-1:], heading=len(rows) == 1), flush=True)
        for row in chain(
            _memory(stage, wanted, quick=options.quick),
            http2_memory(stage, wanted, quick=options.quick),
            consumer_rows(stage, wanted, pace, quick=options.quick),
            kafka_rows(stage, wanted, pace, quick=options.quick),
            admin_rows(stage, wanted, pace, quick=options.quick),
            metrics_rows(stage, wanted, quick=options.quick),
            choosing_rows(wanted, quick=options.quick),
        ):
            print(table([row], heading=not rows or headings_of(row) != headings_of(rows[-1])), flush=True)
            rows.append(row)
    if options.write:
        page = Path(options.write)
        if options.only and page.exists():
            rows = merged(rows_of(page.read_text(encoding="utf-8")), rows)
        page.write_text(markdown(rows, pace, describe_machine()), encoding="utf-8")
        print(f"written: {options.write}")


def _measured(case: Case, pace: Pace) -> Row:
    """One row: the servers in turns, so that a disturbance of the machine meets all; the medians of the rounds."""
    turns: list[list[Cost]] = []
    for number in range(pace.rounds):
        turns.append([measure(pace) for _, measure in case.servers])
        shown = "  ".join(
            f"{name} {cost.seconds * 1e6:.1f}" for (name, _), cost in zip(case.servers, turns[-1], strict=True)
        )
        print(f"  {case.name}, round {number + 1}: {shown} us", file=sys.stderr, flush=True)
    costs = [statistics.median(turn[place].seconds for turn in turns) * 1e6 for place in range(len(case.servers))]
    ratio = statistics.median(turn[-1].seconds / turn[0].seconds for turn in turns)
    variant = f"{costs[1]:.1f} ({case.servers[1][0]})" if len(costs) == 3 else ""
    return Row(case.name, "us", costs[0], variant, costs[-1], ratio, case.aim, _instructions(turns))


def _instructions(turns: list[list[Cost]]) -> tuple[float, float] | None:
    """Medians of nginx's instructions and ours; None where the machine does not count them."""
    medians = []
    for place in (0, -1):
        counted = [turn[place].instructions for turn in turns]
        known = [each for each in counted if each is not None]
        if len(known) < len(counted):
            return None
        medians.append(statistics.median(known))
    return medians[0], medians[1]


def _memory(stage: Stage, wanted: Callable[[str], bool], *, quick: bool) -> list[Row]:
    """Idle WebSocket pairs: what they take, and whether a request is still answered beside them."""
    rows = []
    count = 500 if quick else 4000
    if wanted(name := f"idle WebSocket pair ({count} open)"):
        field = Field(stage)
        theirs, _ = idle_memory(stage, field.nginx, "/ws", count)
        ours, _ = idle_memory(stage, field.kongtwist, "/ws", count)
        rows.append(Row(name, "KB", theirs / 1024, "", ours / 1024, ours / theirs, "at most 6 KB"))
    many = 1000 if quick else 9000
    if wanted(name := f"longest wait of a request beside {many} idle pairs"):
        field = Field(stage)
        _, theirs_waits = idle_memory(stage, field.nginx, "/ws", many, ask="/plain")
        _, ours_waits = idle_memory(stage, field.kongtwist, "/ws", many, ask="/plain")
        assert theirs_waits is not None and ours_waits is not None
        ratio = ours_waits.longest / theirs_waits.longest
        rows.append(Row(name, "ms", theirs_waits.longest * 1e3, "", ours_waits.longest * 1e3, ratio, "under 10 ms"))
    return rows


if __name__ == "__main__":
    main()
