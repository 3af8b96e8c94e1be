"""Run some tests of some modules with Trial, and write down what became of each: the child process of `tests.run`.

    python -m tests.run_group RECORDS FOLDER MODULE... < NAMES

``NAMES``: full names of the tests, one a line. ``FOLDER``: Trial's working directory. ``RECORDS``: the file that gets a line
of JSON for each test that begins (``begin``) or ends (``end``, with ``outcome``, one of `OUTCOMES`, and ``seconds``), and one of the
processor's time (``cpu``, seconds, with those of processes that have ended).
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

from twisted.python.failure import Failure
from twisted.trial.reporter import VerboseTextReporter
from twisted.trial.runner import TestLoader, TrialRunner

__all__ = ["OUTCOMES", "cases", "main"]

OUTCOMES = ("passed", "skipped", "failed")
"""From the best to the worst; a test that has several has the worst."""


def cases(names: list[str]) -> Iterator[Any]:
    """The tests of modules, packages, files, classes or methods, each once. What cannot be imported is a test that fails."""
    pending: list[Any] = [TestLoader().loadByNames(names, recurse=True)]
    while pending:
        suite = pending.pop()
        try:
            pending += reversed(list(suite))
        except TypeError:  # a test: nothing to go through
            yield suite


class Recorder(VerboseTextReporter):
    """Trial's reporter with a word on every test, which writes records too.

    Attributes:
        records: where to.
    """

    records: TextIO

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._began = 0.0
        self._outcomes: list[str] | None = None

    def _record(self, **record: object) -> None:
        self.records.write(json.dumps(record) + "\n")
        self.records.flush()

    def _judge(self, test: Any, outcome: str) -> None:
        if self._outcomes is None:  # outside of tests, such as an error in the log after the last
            self._record(end=test.id(), outcome=outcome, seconds=0.0)
        else:
            self._outcomes.append(outcome)

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self._began, self._outcomes = time.monotonic(), []
        self._record(begin=test.id())

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        seconds = time.monotonic() - self._began
        self._record(end=test.id(), outcome=max(self._outcomes or ["failed"], key=OUTCOMES.index), seconds=seconds)
        self._outcomes = None

    def addSuccess(self, test: Any) -> None:
        super().addSuccess(test)
        self._judge(test, "passed")

    def addError(self, test: Any, error: Any) -> None:
        super().addError(test, error)
        self._judge(test, "failed")
        kind = error.type if isinstance(error, Failure) else error[0]
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.stop()  # Trial would go on with the next test

    def addFailure(self, test: Any, fail: Any) -> None:
        super().addFailure(test, fail)
        self._judge(test, "failed")

    def addUnexpectedSuccess(self, test: Any, todo: Any = None) -> None:
        super().addUnexpectedSuccess(test, todo)
        self._judge(test, "failed")

    def addExpectedFailure(self, test: Any, error: Any, todo: Any = None) -> None:
        super().addExpectedFailure(test, error, todo)
        self._judge(test, "skipped")

    def addSkip(self, test: Any, reason: Any) -> None:
        super().addSkip(test, reason)
        self._judge(test, "skipped")


def main() -> None:
    """Run them; the exit status says nothing about their outcomes."""
    records, folder, *modules = sys.argv[1:]
    wanted = set(sys.stdin.read().splitlines())
    suite = TestLoader().suiteFactory([case for case in cases(modules) if case.id() in wanted])
    with open(records, "w", encoding="utf-8") as Recorder.records:
        TrialRunner(Recorder, stream=sys.stdout, workingDirectory=folder, realTimeErrors=True).run(suite)
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        Recorder.records.write(json.dumps({"cpu": sum(each.ru_utime + each.ru_stime for each in used)}) + "\n")


if __name__ == "__main__":
    main()
