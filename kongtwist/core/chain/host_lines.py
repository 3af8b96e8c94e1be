"""Lines of the error log, as plugins are given them (`Host.log_lines`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["LogLine", "LogLines"]


class LogLine(NamedTuple):
    """A line."""

    time: float  #: epoch seconds
    level: str  #: Kong's name: ``debug`` to ``emerg``
    text: str  #: without credentials; several lines where a traceback belongs to it
    namespace: str  #: who wrote it, such as ``kongtwist.proxy``
    request_id: bytes  #: of the request that it is about, 32 hex digits; b"": of none


class LogLines(Protocol):
    """The lines, for one who asked."""

    def of_request(self, request_id: bytes) -> Sequence[LogLine]:
        """The lines about a request so far, in order. They are kept no longer."""
        ...

    def release(self) -> None:
        """No more are wanted."""
        ...
