"""Run tests side by side, each exactly once: ``python -m tests.run [--jobs N] [--seconds N] [NAME...]``.

A name is a package, module, class or method, or a file; without one, all tests run. Each module of live tests runs in a
process of its own, unit tests in a few (`tests.run_group`); some run at a time, those that take long or wait much first.
A test that no process reports has failed: it was cut off, or its process crashed. The last line is always
``N passed, N failed, N skipped``; the exit status is 0 when something passed and nothing failed.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.run_group import OUTCOMES, cases

__all__ = ["Group", "Outcome", "grouped", "main", "outcomes"]

ROOT = Path(__file__).resolve().parents[1]

LONG = tuple(
    f"tests.live.test_{name}"
    for name in (
        "soak", "openapi", "grpc_interop", "grpc_conformance", "documents", "check", "postgres_nodes", "drain",
        "two_workers", "troubleshooting", "node_life", "admin_security", "workers", "clients", "curl_admin", "ends", "grpc_load",
        "grpc_clients", "grpc_ends", "admin_door", "postgres", "deployment", "embedding",
    )
)  # fmt: skip
"""Modules that begin first, for they take longest. Only the order depends on this."""

SPLIT = ("tests.live.test_soak",)
"""Modules whose tests have a process each: they wait for minutes."""

UNIT_GROUPS = 4
"""Processes that share the modules outside of tests/live."""

GRACE = 45.0
"""Seconds that tests have to end their processes when they are cut off."""

MARK = "KONGTWIST_TEST_RUN"
"""The environment variable by which a run's processes are known."""

SLOWEST = 12
"""Tests whose durations are printed at the end."""


@dataclass(frozen=True)
class Outcome:
    """What became of one test: one of `OUTCOMES`, after so many seconds."""

    test: str
    outcome: str
    seconds: float = 0.0
    why: str = ""


@dataclass
class Group:
    """Tests that run in one process, one after the other.

    Attributes:
        name: what to call it.
        modules: dotted names of the modules they are in.
        tests: their names.
        cpu: seconds of the processor that they took.
    """

    name: str
    modules: list[str] = field(default_factory=list)
    tests: list[str] = field(default_factory=list)
    cpu: float = 0.0


def grouped(tests: Iterable[tuple[str, str]]) -> list[Group]:
    """Divide tests, given as (module, test), into groups; those that take longest come first."""
    groups: dict[str, Group] = {}
    others: dict[str, int] = {}
    for module, test in tests:
        if module in SPLIT:
            name = test
        elif module.startswith("tests.live."):
            name = module
        else:
            name = f"unit tests {others.setdefault(module, len(others)) % UNIT_GROUPS + 1}"
        group = groups.setdefault(name, Group(name))
        if module not in group.modules:
            group.modules.append(module)
        group.tests.append(test)
    order = {name: number for number, name in enumerate(LONG)}
    unit, last = len(order), len(order) + 1

    def place(group: Group) -> int:
        return order.get(group.modules[0], last) if len(group.modules) == 1 else unit

    return sorted(groups.values(), key=place)


def outcomes(group: Group, records: str) -> list[Outcome]:
    """One outcome for each test of a group, from the records of its process; more for what was not to be in them."""
    begun: set[str] = set()
    ended: list[Outcome] = []
    for line in records.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # cut off within the line: the test is missing then
        if "begin" in record:
            begun.add(record["begin"])
        elif "cpu" in record:
            group.cpu = record["cpu"]
        else:
            ended.append(Outcome(record["end"], record["outcome"], record["seconds"]))
    wanted, seen = set(group.tests), Counter(each.test for each in ended)
    told = [each for each in ended if each.test in wanted or each.outcome == "failed"]
    for test, count in seen.items():
        if count > 1 and test in wanted:
            told.append(Outcome(test, "failed", why=f"it ran {count} times"))
    for test in group.tests:
        if test not in seen:
            told.append(Outcome(test, "failed", why="its process ended in it" if test in begun else "it was not run"))
    return told


class Run:
    """A run of groups.

    Args:
        groups: what to run, in this order.
        folder: an empty folder for working directories and outputs.
    """

    def __init__(self, groups: list[Group], folder: Path) -> None:
        self._groups, self._folder = groups, folder
        self._began = time.monotonic()
        self.outcomes: list[Outcome] = []

    async def all(self, jobs: int, seconds: float | None) -> None:
        """Run them, ``jobs`` at a time, for at most ``seconds``; what has not ended by then has failed."""
        waiting = iter(list(enumerate(self._groups)))

        async def runner() -> None:
            for number, group in waiting:
                await self._one(number, group)

        runners = [asyncio.ensure_future(runner()) for _ in range(jobs)]
        for end_signal in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(end_signal, lambda: [each.cancel() for each in runners])
        _, late = await asyncio.wait(runners, timeout=seconds)
        for each in late:
            each.cancel()
        ends = await asyncio.gather(*runners, return_exceptions=True)
        for number, group in waiting:
            self._tell(number, group, "was not begun")
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _one(self, number: int, group: Group) -> None:
        """Run one group and tell how it went."""
        records, trial = self._path(number, "records"), self._folder / str(number)
        with self._path(number, "output").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.run_group", records, trial, *group.modules,
                cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        end = "was cut off"
        try:
            await process.communicate("\n".join(group.tests).encode())
            end = f"ended with {process.returncode}" if process.returncode else ""
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)  # which Trial takes as the end: tests clean up
                try:
                    await asyncio.wait_for(process.wait(), GRACE)
                except TimeoutError:
                    os.killpg(process.pid, signal.SIGKILL)
                    await process.wait()
            self._tell(number, group, end)

    def _path(self, number: int, kind: str) -> Path:
        return self._folder / f"{number}.{kind}"

    def _tell(self, number: int, group: Group, end: str) -> None:
        """Print how a group went; all of its output, where something failed."""
        records = self._path(number, "records")
        told = outcomes(group, records.read_text(encoding="utf-8") if records.exists() else "")
        if end and all(each.outcome != "failed" for each in told):
            told.append(Outcome(group.name, "failed", why=f"its process {end}"))
        self.outcomes += told
        failed = [each for each in told if each.outcome == "failed"]
        output = self._path(number, "output")
        if failed and output.exists():
            print(f"\n==== the output of {group.name}", flush=True)
            print(output.read_text(encoding="utf-8", errors="replace"), end="", flush=True)
            print(f"==== the end of the output of {group.name}")
        seconds = sum(each.seconds for each in told)
        at = time.monotonic() - self._began
        print(
            f"{at:6.0f} s  {group.name}: {summary(told)}, in {seconds:.1f} s ({group.cpu:.1f} s of CPU) {end}".rstrip()
        )
        for each in failed:
            print(f"          FAILED {each.test} {each.why}".rstrip())
        for each in told:
            if each.outcome == "skipped":
                print(f"          skipped {each.test}")
        sys.stdout.flush()


def summary(told: list[Outcome]) -> str:
    """``N passed, N failed, N skipped``."""
    counts = Counter(each.outcome for each in told)
    return ", ".join(f"{counts[name]} {name}" for name in (OUTCOMES[0], OUTCOMES[2], OUTCOMES[1]))


def end_left(folder: Path) -> None:
    """Kill the processes of a run that are left: those of tests that were cut off."""
    mark = f"{MARK}={folder}".encode()
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (each / "environ").read_bytes().split(b"\0"):
                print(f"left: {(each / 'cmdline').read_bytes().replace(bytes(1), b' ').decode(errors='replace')}"[:200])
                os.kill(int(each.name), signal.SIGKILL)
        except OSError:
            continue  # it ended, or is somebody else's


def main(words: list[str]) -> int:
    """Run what the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.run", description="Run tests side by side.")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)) + 2, help="processes at a time")
    parser.add_argument("--seconds", type=float, help="what has not ended by then has failed")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a package, module, class, method or file")
    options = parser.parse_args(words)
    began = time.monotonic()
    for code in ("kongtwist", "twisted", "tests"):  # so that not each of a thousand processes compiles it again
        compileall.compile_dir(ROOT / code, quiet=2)
    tests = [(type(case).__module__, case.id()) for case in cases(options.names or ["tests"])]
    # What cannot be imported is one of Trial's own objects, with the module's name.
    tests = [(module if module.startswith("tests.") else test, test) for module, test in tests]
    twice = [test for test, count in Counter(test for _, test in tests).items() if count > 1]
    if twice:
        print(f"There are two tests of the same name: {', '.join(twice)}")
        return 1
    groups = grouped(tests)
    print(f"{len(tests)} tests in {len(groups)} processes, {options.jobs} at a time", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="kt-"))  # short, for paths of Unix sockets below it
    os.environ[MARK] = str(folder)
    run = Run(groups, folder)
    try:
        left = None if options.seconds is None else options.seconds - (time.monotonic() - began)
        asyncio.run(run.all(max(1, options.jobs), left))
    finally:
        end_left(folder)
        shutil.rmtree(folder, ignore_errors=True)
    print("\nThe slowest:")
    for each in sorted(run.outcomes, key=lambda each: -each.seconds)[:SLOWEST]:
        print(f"{each.seconds:8.1f} s  {each.test}")
    failed = [each for each in run.outcomes if each.outcome == "failed"]
    if failed:
        print("\nFailed:")
    for each in failed:
        print(f"  {each.test} {each.why}".rstrip())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"\nIt took {time.monotonic() - began:.0f} s, and {used.ru_utime + used.ru_stime:.0f} s of processor time.")
    print(summary(run.outcomes))
    return 0 if not failed and any(each.outcome == "passed" for each in run.outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
