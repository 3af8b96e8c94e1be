"""`tests.run`: each test exactly once, and nothing that went wrong is overlooked."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.run import LONG, SPLIT, Group, Outcome, grouped, outcomes, summary


def ended(test: str, outcome: str = "passed") -> str:
    """The records of a test that came to its end."""
    return f"{json.dumps({'begin': test})}\n{json.dumps({'end': test, 'outcome': outcome, 'seconds': 1.5})}\n"


class GroupedTests(SynchronousTestCase):
    """Which tests share a process."""

    def test_each_once(self) -> None:
        """No test is lost or doubled; live modules are alone, those that take long come first."""
        tests = [
            (module, f"{module}.Tests.test_{number}")
            for module in ("tests.test_a", *(f"tests.unit.test_{n}" for n in range(9)), "tests.live.test_b", LONG[0])
            for number in range(3)
        ]
        groups = grouped(tests)
        self.assertEqual(sorted(test for group in groups for test in group.tests), sorted(test for _, test in tests))
        self.assertEqual(groups[0].modules, [LONG[0]])
        for group in groups:
            if any(module in SPLIT for module in group.modules):
                self.assertEqual(group.tests, [group.name])
            elif any(module.startswith("tests.live.") for module in group.modules):
                self.assertEqual(group.modules, [group.name])
        self.assertLess(len(groups), 10)


class OutcomeTests(SynchronousTestCase):
    """What the records of a process mean."""

    GROUP = Group("g", ["m"], ["m.a", "m.b"])

    def told(self, records: str) -> list[Outcome]:
        return sorted(outcomes(self.GROUP, records), key=lambda each: each.test)

    def test_all(self) -> None:
        """Each is told as it was."""
        told = self.told(ended("m.a") + ended("m.b", "skipped"))
        self.assertEqual(told, [Outcome("m.a", "passed", 1.5), Outcome("m.b", "skipped", 1.5)])
        self.assertEqual(summary(told), "1 passed, 0 failed, 1 skipped")

    def test_crash(self) -> None:
        """A test in which the process ended, or that it did not come to, has failed; half a line is no end."""
        self.assertEqual(summary(self.told("")), "0 passed, 2 failed, 0 skipped")
        cut = ended("m.a")[:-5]
        self.assertEqual([each.why for each in self.told(cut)], ["its process ended in it", "it was not run"])
        self.assertEqual(summary(self.told(ended("m.a"))), "1 passed, 1 failed, 0 skipped")

    def test_twice(self) -> None:
        """A test that ran twice is a fault of the run."""
        self.assertEqual(
            summary(self.told(ended("m.a") * 2 + ended("m.b")))[-len("1 failed, 0 skipped") :], "1 failed, 0 skipped"
        )

    def test_outside_of_tests(self) -> None:
        """What goes wrong outside of tests is counted too."""
        outside = json.dumps({"end": "<logging>", "outcome": "failed", "seconds": 0.0})
        self.assertEqual(summary(self.told(ended("m.a") + ended("m.b") + outside)), "2 passed, 1 failed, 0 skipped")
