"""The error log, in nginx's and Kong's format: what happens in Twisted's log, a line for each event.

No credential is written: see `masking`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, eventAsText
from zope.interface import implementer

from .log_file import LogFile
from .masking import SecretMask, escape_text

__all__ = ["LEVELS", "ErrorLog", "level_of", "notice"]

LEVELS = ("debug", "info", "notice", "warn", "error", "crit", "alert", "emerg")
"""Kong's levels of ``log_level``, from the least to the most severe (Kong 3.9, kong.conf)."""

_SEVERITY = {name: place for place, name in enumerate(LEVELS)}
_OF_TWISTED = {
    LogLevel.debug: "debug", LogLevel.info: "info", LogLevel.warn: "warn", LogLevel.error: "error",
    LogLevel.critical: "crit",
}  # fmt: skip


def _is_twisted(event: LogEvent) -> bool:
    """Whether Twisted itself tells it, not a program on Twisted."""
    namespace = str(event.get("log_namespace"))
    return namespace.startswith("twisted.") or namespace == "log_legacy"


def level_of(event: LogEvent, least: str) -> str | None:
    """Kong's name of an event's level; None when it is below ``least``."""
    level = event.get("kong_level") or _OF_TWISTED.get(event.get("log_level"), "info")
    if level == "info" and _is_twisted(event):
        level = "debug"  # "Site starting on 8001", "reactor class: ...": for who looks for faults in Twisted
    return None if _SEVERITY.get(level, 0) < _SEVERITY[least] else level


def notice(log: Logger, format: str, **values: Any) -> None:
    """Log at Kong's level ``notice``, which Twisted lacks: what an operator sees in the ordinary course of things."""
    log.info(format, kong_level="notice", **values)


@implementer(ILogObserver)
class ErrorLog:
    """Writes Twisted's log events as nginx and Kong write their error log.

    One event is one line, ``2026/01/31 12:00:00 [error] 4242#0: [namespace] text``; lines that belong to it, a
    traceback's among them, follow indented. An event may name its level with ``kong_level`` (see `notice`). What Twisted
    tells of itself at level info counts as debug.

    Args:
        destination: as ``proxy_error_log``: a path or ``/dev/stderr``.
        level: ``log_level``: one of `LEVELS`; less severe events are left out.
        prefix: directory that relative paths start from.
        secret_names: query arguments whose values must not be written, beside the usual ones.
        fixed: the level is this log's own, and stays when `level` is set.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self,
        destination: str,
        level: str = "notice",
        *,
        prefix: str = ".",
        secret_names: Iterable[str] = (),
        fixed: bool = False,
    ) -> None:
        self._file = LogFile(destination, prefix)
        self._mask = SecretMask(secret_names)
        self._others: dict[str, ErrorLog] = {}
        self._threshold = _SEVERITY[level]
        self._fixed = fixed

    def divert(self, namespace: str, log: ErrorLog) -> None:
        """Have events of one namespace go to another log, which is reopened and closed with this one."""
        self._others[namespace] = log

    def become(self, other: ErrorLog) -> None:
        """Go on as another log, which is this one's from now on: in its files, at its levels."""
        self.close()
        self._file, self._mask, self._others = other._file, other._mask, other._others
        self._threshold, self._fixed = other._threshold, other._fixed

    @property
    def level(self) -> str:
        """The least severe level that is written; may be set while running."""
        return LEVELS[self._threshold]

    @level.setter
    def level(self, level: str) -> None:
        if not self._fixed:
            self._threshold = _SEVERITY[level]
        for each in self._others.values():
            each.level = level

    @property
    def path(self) -> str:
        return self._file.path

    def __call__(self, event: LogEvent) -> None:
        if self._others:
            other = self._others.get(str(event.get("log_namespace")))
            if other is not None:
                other(event)
                return
        level = self.level_of(event)
        if level is None:
            return
        data = self.format(event, level).encode("utf-8", "backslashreplace")
        try:
            self._file.write(data)
        except OSError:
            # There is no place left to complain to; the gateway's traffic must not suffer from it.
            return

    def level_of(self, event: LogEvent) -> str | None:
        """Kong's name of an event's level; None when it is below the level that is written."""
        return level_of(event, self.level)

    def text_of(self, event: LogEvent) -> str:
        """An event's text without credentials and control characters, several lines where it has some."""
        text = eventAsText(event, includeTraceback=True, includeTimestamp=False, includeSystem=False)
        return escape_text(self._mask.text(text.strip("\n").replace("\r\n", "\n"))) or "(no text)"

    def format(self, event: LogEvent, level: str) -> str:
        """The event's line and those that belong to it, the last line feed included."""
        stamp = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(event.get("log_time")))
        namespace = event.get("log_namespace") or "-"
        if namespace == "log_legacy":  # twisted.python.log: its "system" tells more
            namespace = event.get("log_system") or "-"
        lines = self.text_of(event).split("\n")
        head = f"{stamp} [{level}] {os.getpid()}#0: [{escape_text(str(namespace))}] {lines[0]}"
        return "\n    ".join([head, *lines[1:]]) + "\n"

    def reopen(self) -> None:
        """Go on in the file that now has our name (after a rotation).

        Raises:
            OSError: it cannot be opened; the old file is kept.
        """
        self._file.reopen()
        for each in self._others.values():
            each.reopen()

    def close(self) -> None:
        self._file.close()
        for each in self._others.values():
            each.close()
