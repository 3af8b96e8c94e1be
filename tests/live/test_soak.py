"""Two minutes of clients and upstreams that misbehave in every state; afterwards everything is as it was before.

    SOAK_SECONDS=600 SOAK_SEED=7 python -m twisted.trial tests.live.test_soak

``SOAK_SECONDS``: load in all three forms together (120 on CI, else 30). ``SOAK_SEED``: the clients' (made up and printed if
not given). ``SOAK_AT_ONCE``: clients at a time. ``SOAK_KINDS``: only these kinds of `soak.transcripts.KINDS`, with commas.
``SOAK_PATIENCE``: seconds within which everything must be as it was (120).
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping

from .soak.stage import Seen, Stage, newcomers
from .support import LiveTestCase, wait_until

SECONDS = float(os.environ.get("SOAK_SECONDS") or (120 if os.environ.get("CI") else 30))
SEED = os.environ.get("SOAK_SEED") or str(int.from_bytes(os.urandom(3)))
AT_ONCE = int(os.environ.get("SOAK_AT_ONCE") or 150)
KINDS = [kind for kind in os.environ.get("SOAK_KINDS", "").split(",") if kind]

ROUND = 60.0
"""Seconds that a round of load lasts at most: after each, memory is looked at."""
ANSWERED = re.compile(r'" (?:200|101) ').search
"""A line of the access log about a request that was answered as it should be."""
PATIENCE = float(os.environ.get("SOAK_PATIENCE") or 120)
"""Seconds within which everything must have come to its end: the longest of the gateway's own time-outs is 60, for a client
of the Admin API that does not take its answer."""
GROWTH = 0.10
"""Share by which memory may have grown since the end of the first round: caches that fill, and what fragments."""
HELD = 512 * 1024
"""Bytes that the gateway may hold at a time for each client: both directions, pipelined requests, TLS."""
SLACK = 12 * 1024 * 1024
"""Bytes of memory that nobody asks about."""


TWISTEDS_OWN = r"AttributeError: 'HTTPChannel' object has no attribute '_(version|command|path)'$"
"""A fault of Twisted's Site: it reads on behind a request line that is none, and the next empty line is the end of no head."""


class SoakTests(LiveTestCase):
    """The same with the gateway in each of its forms."""

    def test_one_process(self) -> None:
        """A node that is one process: plain TCP, TLS, a unix socket."""
        self.soak("one", SECONDS * 0.5)

    def test_two_workers(self) -> None:
        """A node with two workers."""
        self.soak("workers", SECONDS * 0.25)

    def test_embedded(self) -> None:
        """In a Site and as the owner of ports, on Twisted's own reactor."""
        self.soak("embedded", SECONDS * 0.25)

    def soak(self, form: str, seconds: float) -> None:
        """Play it and compare."""
        sys.stderr.write(f"\nsoak: {form}, {seconds:g} s, SOAK_SEED={SEED}\n")
        stage = self.stage = Stage(self, form, SEED, AT_ONCE, KINDS)
        stage.tell("calm", "go")
        self.wait_for_calm(len(stage.doors) * 3 + 1)
        stage.tell("calm", "pause")
        before = stage.quiet()
        stage.forget_peaks()
        problems: list[str] = []
        rounds = max(2, round(seconds / ROUND))
        memory = []
        for number in range(rounds):
            problems += self.play(before, seconds / rounds, last=number == rounds - 1)
            memory.append(stage.look())
            if problems:
                break
        problems += self.grown(before, memory)
        problems += self.complaints()
        problems += self.calm_failures()
        sys.stderr.write(f"done: {stage.tell('wild', 'report')} {stage.tell('calm', 'report')}\n")
        if not problems:
            self.check_variety()
        if problems:
            wild, upstream = stage.tell("wild", "report"), stage.tell("wild-upstream", "report")
            self.fail("\n".join([f"SOAK_SEED={SEED}", *problems, f"clients: {wild}", f"upstreams: {upstream}"]))

    def wait_for_calm(self, kinds: int) -> None:
        """Wait until the client that behaves has done everything once."""
        wait_until(lambda: len(self.stage.tell("calm", "report")["done"]) >= kinds, "the first requests")

    def play(self, before: Mapping[int, Seen], seconds: float, last: bool) -> list[str]:
        """One round: load, then quiet. In the ``last`` clients and upstreams freeze, and all ends are the gateway's."""
        stage = self.stage
        stage.tell("calm", "go")
        stage.tell("wild", "go")
        time.sleep(seconds)
        problems = []
        if last:
            stage.tell("wild-upstream", "rest")
            stage.tell("wild", "freeze")
            stage.tell("calm", "pause")
            left, now = stage.settle(before, PATIENCE)
            problems += _told("with clients and upstreams that are silent", left, before, now)
            stage.tell("wild-upstream", "leave")
        stage.tell("wild", "leave")
        stage.tell("calm", "pause")
        left, now = stage.settle(before, PATIENCE)
        stage.tell("wild-upstream", "leave")
        return problems + _told("after the clients went", left, before, now)

    def grown(self, before: Mapping[int, Seen], memory: list[dict[int, Seen]]) -> list[str]:
        """Memory that is not given back, and memory that no buffer with a bound can have taken."""
        told = []
        for pid, first in memory[0].items():
            for name in ("resident", "blocks"):
                sizes = [each[pid][name] for each in memory if pid in each]
                slack = SLACK if name == "resident" else SLACK // 100
                if sizes[-1] > first[name] * (1 + GROWTH) + slack:
                    told.append(f"process {pid}: {name} after each round: {sizes}")
        most = AT_ONCE * HELD
        for pid, peak in self.stage.peaks().items():
            rest = before.get(pid, {}).get("resident", 0)
            if peak > rest + most:
                told.append(f"process {pid}: {peak >> 20} MB at the most, {rest >> 20} MB before")
        sys.stderr.write("memory: " + "; ".join(
            f"{pid}: " + " ".join(f"{each[pid]['resident'] >> 20}M/{each[pid]['blocks']}" for each in memory if pid in each)
            for pid in memory[0]
        ) + "; at the most " + " ".join(f"{peak >> 20}M" for peak in self.stage.peaks().values()) + "\n")  # fmt: skip
        return told

    def complaints(self) -> list[str]:
        """What the error log must not have."""
        log = self.stage.error_log()
        found: Counter[str] = Counter()
        for block in re.split(r"\n(?=\d{4}/\d\d/\d\d )", log):
            if re.search(r"Traceback|Unhandled|\[(crit|alert|emerg)\]", block) and not re.search(TWISTEDS_OWN, block):
                lines = [re.sub(r"0x[0-9a-f]+|\d+", "N", line) for line in block.splitlines()]
                found["\n    ".join([lines[0], *lines[-5:]])] += 1
        return [f"{count} times in the error log: {text}" for text, count in found.most_common(20)]

    def calm_failures(self) -> list[str]:
        """What went wrong for the client that behaves."""
        report = self.stage.tell("calm", "report")
        if not report["failed"]:
            return []
        told = [line for line in self.stage.error_log().splitlines() if '"GET /calm' in line or "/calm/" in line]
        told += [line for line in self.stage.access_log().splitlines() if "/calm/" in line and not ANSWERED(line)]
        return [f"the client that behaves failed {report['failed']} times: {report['failures']}", *told[-20:]]

    def check_variety(self) -> None:
        """Something was tried at all."""
        report = self.stage.tell("wild", "report")
        self.assertGreater(report["clients"], AT_ONCE, report)
        self.assertLessEqual({"200", "101", "none"} if not KINDS else set(), set(report["statuses"]), report)


def _told(when: str, left: list[str], before: Mapping[int, Seen], now: Mapping[int, Seen]) -> list[str]:
    """The words for what is left."""
    if not left:
        return []
    return [
        f"{when}, {PATIENCE:g} s later:", *(f"  {each}" for each in left), "what is open now and was not before:",
        *(f"  {each}" for each in newcomers(before, now)),
    ]  # fmt: skip
