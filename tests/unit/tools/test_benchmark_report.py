"""What docs/benchmarks.md says of its aims."""

from __future__ import annotations

import re
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.measures import Pace
from benchmarks.report import Row, markdown, merged, rows_of, verdict
from tests.documents import ROOT, page_text


def row(aim: str, ratio: float = 1.0, ours: float = 1.0, unit: str = "us", variant: str = "") -> Row:
    """A row that comes to this."""
    return Row("a row", unit, 1.0, variant, ours, ratio, aim)


class AimTests(SynchronousTestCase):
    """`Row.met` and `verdict`."""

    def test_judged(self) -> None:
        """Ratios, sizes and times, each at its limit and beyond it."""
        for aim, reached, missed in (
            ("at most 2.4x", row("at most 2.4x", 2.4), row("at most 2.4x", 2.41)),
            ("at least 3x", row("at least 3x", 3.0), row("at least 3x", 2.9)),
            ("at most 6 KB", row("at most 6 KB", 9, 6.0), row("at most 6 KB", 0.1, 6.1)),
            ("under 10 ms", row("under 10 ms", 9, 9.9), row("under 10 ms", 0.1, 10.0)),
            ("no round over 20 ms", row("no round over 20 ms", 9, 19.0), row("no round over 20 ms", 1, 21.0)),
            ("no round over 20 ms", row("no round over 20 ms", 9, 99.0, variant="19.9 ms"),
             row("no round over 20 ms", 1, 1.0, variant="20.1 ms")),
            ("the same", row("the same", 1.2), row("the same", 1.3)),
        ):  # fmt: skip
            self.assertEqual((reached.met, missed.met), (True, False), aim)
            self.assertEqual(reached.cells()[-1], aim)
            self.assertEqual(missed.cells()[-1], f"{aim}: missed")
        self.assertIsNone(row("").met)
        self.assertRaises(ValueError, lambda: row("rather fast").met)

    def test_all_aims_can_be_judged(self) -> None:
        """Those that the programs name."""
        sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
        named = set(re.findall(r'"((?:at most|at least|under|no round over) [^"]+|the same)"', sources))
        self.assertGreater(len(named), 9)
        for aim in named:
            self.assertIsNotNone(row(aim, variant="1.0 ms" if aim.startswith("no round") else "").met)

    def test_verdict(self) -> None:
        """Missed aims are counted and named with what was reached; rows without an aim do not count."""
        rows = [row("at most 2.4x", 3.01), row("at most 6 KB", 1, 7.5, "KB"), row("at most 2x", 1.0), row("")]
        text = verdict(rows)
        self.assertTrue(text.startswith("**2 of 3 aims are missed**"), text)
        self.assertIn("- a row: 3.01x, the aim is at most 2.4x", text)
        self.assertIn("- a row: 7.5 KB, the aim is at most 6 KB", text)
        self.assertEqual(verdict(rows[2:]), "All 1 aims are reached.")
        self.assertIn(text, markdown(rows, Pace(), "a machine"))

    def test_the_page(self) -> None:
        """docs/benchmarks.md is what the program writes of its own figures, and marks what they miss."""
        page = page_text("docs/benchmarks.md")
        rows = rows_of(page)
        self.assertGreater(len(rows), 9)
        machine = re.findall(r"^Taken on: (.*)\.$", page, re.MULTILINE)
        self.assertEqual(page, markdown(rows, Pace(), machine[0]))

    def test_merged(self) -> None:
        """Rows that were measured anew replace what they were; new ones follow those they were measured behind."""
        a, b, c, new = (replace(row(""), name=name) for name in ("a", "b", "c", "new"))
        again = replace(b, ratio=2.0)
        self.assertEqual(merged([a, b, c], [again, new]), [a, again, new, c])
        self.assertEqual(merged([a, b], [new]), [a, b, new])
        missed, late = replace(row("at most 2x", 3.0), name="Admin b"), replace(row("at most 2x", 3.0), name="c")
        page = markdown(merged([a, missed], [late]), Pace(), "a machine")
        self.assertEqual(page, markdown(rows_of(page), Pace(), "a machine"))
        counted = replace(a, instructions=(31_200.0, 96_000.0), variant="20.0 (large buffers)", aim="at most 0.5x")
        self.assertEqual(rows_of(markdown([counted, b], Pace(), "a machine")), [counted, b])

    def test_instructions(self) -> None:
        """They have a column where the machine counts them, and the page says so; elsewhere it says that they are not."""
        plain = markdown([row("")], Pace(), "a machine")
        self.assertNotIn("instructions, thousands", plain)
        self.assertIn("this machine does not", plain)
        counted = Row("a row", "us", 1.0, "", 1.0, 1.0, "", (31_234.0, 96_000.0))
        page = markdown([counted, row("")], Pace(), "a machine")
        self.assertIn("| aim | instructions, thousands |\n|---|---|---:|---:|---:|---:|---|---:|\n", page)
        self.assertIn("|  | 31.2 / 96.0 |\n| a row | us | 1.0 |  | 1.0 | 1.00 |  |  |\n", page)
        self.assertNotIn("this machine does not", page)
