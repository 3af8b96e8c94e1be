"""What a part of the gateway writes into the log, collected for a test."""

from __future__ import annotations

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface import implementer

__all__ = ["LogLines"]


@implementer(ILogObserver)
class LogLines:
    """The lines of a namespace, ``level text``, until the test ends.

    Args:
        case: the test.
        namespace: whose lines.
        debug: those of level debug, too.
    """

    def __init__(self, case: TestCase, namespace: str, *, debug: bool = False) -> None:
        self._lines: list[str] = []
        self._namespace = namespace
        self._debug = debug
        globalLogPublisher.addObserver(self)
        case.addCleanup(globalLogPublisher.removeObserver, self)

    def __call__(self, event: LogEvent) -> None:
        if event["log_namespace"] == self._namespace and (self._debug or event["log_level"].name != "debug"):
            self._lines.append(f"{event['log_level'].name} {formatEvent(event)}")

    def taken(self) -> list[str]:
        """The lines since this was last asked."""
        lines, self._lines = self._lines, []
        return lines
