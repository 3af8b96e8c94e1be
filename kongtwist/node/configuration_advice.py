"""What operators are told in the log of a configuration that is right in itself: once, and of bulk changes together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

if TYPE_CHECKING:
    from ..core.snapshot.notes import Notes

__all__ = ["Advice"]

PAUSE = 5.0
"""Seconds between two warnings; what comes meanwhile is told together."""


class Advice:
    """Tells the log of a snapshot's notes.

    Args:
        reactor: the clock.
        log: where to tell.
        silent: kinds of notes that the operator does not need: he has said that he knows. May be set later.
    """

    def __init__(self, reactor: IReactorTime, log: Any = None, silent: frozenset[str] = frozenset()) -> None:
        self._reactor = reactor
        self._log = log or Logger(namespace="kongtwist.node")
        self.silent = silent
        self._notes: Notes | None = None
        self._told: frozenset[tuple[str, str]] = frozenset()
        self._later: IDelayedCall | None = None

    def tell(self, notes: Notes) -> None:
        """Take the notes of what serves now. What was told before is not told again."""
        if notes is not self._notes:
            self._notes = notes
            if self._later is None:
                self._say()

    def stop(self) -> None:
        """Leave no timer behind."""
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _say(self) -> None:
        self._later = None
        assert self._notes is not None
        found = frozenset(each for each in self._notes.concerned() if each[0] not in self.silent)
        kinds = {kind for kind, _ in found - self._told}
        self._told = found
        if kinds:
            for sentence in self._notes.sentences(kinds):
                self._log.warn("{sentence}", sentence=sentence)
            self._later = self._reactor.callLater(PAUSE, self._say)
