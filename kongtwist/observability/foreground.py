"""What a node in the foreground shows: the lines of its error log, made for eyes.

``12:00:00 [notice] text`` on a terminal, the level in colour; with the date before the time where the output goes to a
file or to another program. The level is the error log's, and so is what is masked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from .error_log import ErrorLog
from .log_file import STANDARD_STREAMS, LogFile

__all__ = ["Console", "console_for"]

_COLOURS = {"debug": "2", "info": "2", "notice": "36", "warn": "33"}
_SEVERE = "31"


@implementer(ILogObserver)
class Console:
    """Writes log events to standard output.

    Args:
        log: the error log; says which events are shown, and shows texts without credentials.
        terminal: standard output is one: short times.
        colour: the level in colour.
    """

    def __init__(self, log: ErrorLog, *, terminal: bool = False, colour: bool = False) -> None:
        self._log = log
        self._file = LogFile("/dev/stdout")
        self._stamp = "%H:%M:%S" if terminal else "%Y/%m/%d %H:%M:%S"
        self._colour = colour

    def __call__(self, event: LogEvent) -> None:
        level = self._log.level_of(event)
        if level is None:
            return
        stamp = time.strftime(self._stamp, time.localtime(event.get("log_time")))
        text = self._log.text_of(event).replace("\n", "\n    ")
        try:
            self._file.write(f"{stamp} {self._shown(level)} {text}\n".encode("utf-8", "backslashreplace"))
        except OSError:
            return  # whoever looked has gone; the error log has it

    def _shown(self, level: str) -> str:
        return f"\x1b[{_COLOURS.get(level, _SEVERE)}m[{level}]\x1b[0m" if self._colour else f"[{level}]"


def console_for(log: ErrorLog, environ: Mapping[str, str]) -> Console | None:
    """The console of this process; None where the error log itself goes to a standard stream.

    Args:
        log: the error log.
        environ: environment variables; ``NO_COLOR`` and ``TERM=dumb`` mean no colour.
    """
    if log.path in STANDARD_STREAMS:
        return None
    terminal = os.isatty(1)
    colour = terminal and not environ.get("NO_COLOR") and environ.get("TERM") not in (None, "dumb")
    return Console(log, terminal=terminal, colour=colour)
