"""Lines of the error log for who sends them elsewhere (`Host.log_lines`): those of requests are kept until their request is over.

Nothing is kept, and nothing is looked at, while nobody asks. Credentials are masked as in the error log.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from threading import get_ident
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogPublisher, eventAsText, globalLogPublisher
from zope.interface import implementer

from ..core.chain.host_lines import LogLine, LogLines
from .error_log import level_of
from .masking import SecretMask, escape_text

__all__ = ["MOST_LINES", "MOST_REQUESTS", "LineKeeper"]

MOST_REQUESTS = 1000
"""Requests whose lines are kept; for more the oldest go (a line may come of a request that nobody asks for)."""

MOST_LINES = 1000
"""Lines of one request; further ones are left out (Kong's)."""

_REQUEST_ID = re.compile(r'request_id: "([0-9a-f]{32})"')
_OWN = re.compile(r"\[opentelemetry plugin |plugin opentelemetry ")
"""Lines about the sending of lines: they are not sent, or each would make another."""


class _Taken:
    """What one who asked is given."""

    def __init__(self, keeper: LineKeeper, take: Callable[[LogLine], None]) -> None:
        self.take = take
        self._keeper = keeper

    def of_request(self, request_id: bytes) -> list[LogLine]:
        """See `LogLines`."""
        return self._keeper.of_request(request_id)

    def release(self) -> None:
        """See `LogLines`."""
        self._keeper.left(self)


@implementer(ILogObserver)
class LineKeeper:
    """Keeps lines of a process.

    Args:
        level: ``log_level``: less severe lines are left out.
        in_reactor: runs a call in the reactor's thread.
        publisher: where events come from.
    """

    def __init__(
        self, level: str, in_reactor: Callable[..., Any], publisher: LogPublisher = globalLogPublisher
    ) -> None:
        self._level = level
        self._in_reactor = in_reactor
        self._publisher = publisher
        self._thread = get_ident()
        self._mask = SecretMask(())
        self._holders: list[_Taken] = []
        self._requests: OrderedDict[bytes, list[LogLine]] = OrderedDict()

    def lines(self, take: Callable[[LogLine], None]) -> LogLines:
        """See `Host.log_lines`."""
        holder = _Taken(self, take)
        if not self._holders:
            self._publisher.addObserver(self)
        self._holders.append(holder)
        return holder

    def left(self, holder: _Taken) -> None:
        """One wants no more."""
        if holder in self._holders:
            self._holders.remove(holder)
            if not self._holders:
                self._publisher.removeObserver(self)
                self._requests.clear()

    def of_request(self, request_id: bytes) -> list[LogLine]:
        """The lines of a request, which are kept no longer."""
        return self._requests.pop(request_id, [])

    def __call__(self, event: LogEvent) -> None:
        level = level_of(event, self._level)
        if level is None:
            return
        namespace = str(event.get("log_namespace") or "-")
        if level == "debug" and (namespace.startswith("twisted.") or namespace == "log_legacy"):
            return  # of connections, among them those to the collector
        text = eventAsText(event, includeTraceback=True, includeTimestamp=False, includeSystem=False)
        text = escape_text(self._mask.text(text.strip("\n").replace("\r\n", "\n"))) or "(no text)"
        if _OWN.match(text):
            return
        found = _REQUEST_ID.search(text)
        request_id = found[1].encode() if found else b""
        line = LogLine(float(event.get("log_time") or 0), level, text, namespace, request_id)
        if get_ident() == self._thread:
            self._taken(line)
        else:
            self._in_reactor(self._taken, line)

    def _taken(self, line: LogLine) -> None:
        if not line.request_id:
            for holder in list(self._holders):
                holder.take(line)
            return
        if not self._holders:
            return
        lines = self._requests.get(line.request_id)
        if lines is None:
            lines = self._requests[line.request_id] = []
            if len(self._requests) > MOST_REQUESTS:
                self._requests.popitem(last=False)
        if len(lines) < MOST_LINES:
            lines.append(line)
