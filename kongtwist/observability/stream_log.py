"""The log of long streams (``stream_log_interval``): a line of JSON when one opens, every so often, and when it closes.

docs/logs.md lists the members. Bytes and messages are counted from the beginning, times are seconds. A call of gRPC is a long stream
once it has lasted for `LONG_CALL` seconds: nobody can tell before whether it is one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from ..core.error_lines import row_name
from ..core.message_spans import MessageSpans
from ..core.message_times import EGRESS, INGRESS
from ..core.stream_counts import MeasuredStream
from .access_log import AccessLog
from .log_formats import Times

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from ..core.stream_registry import StreamRecord

__all__ = ["LONG_CALL", "LoggedStream", "StreamLog"]

LONG_CALL = 1.0
"""Seconds after which a call of gRPC is logged as a stream."""

_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Timers(Protocol):
    """Deadlines (`net.deadlines.Deadlines`)."""

    def set(self, item: Any, when: float) -> None: ...

    def drop(self, item: Any) -> None: ...


class Stream(MeasuredStream, Protocol):
    """What lines tell of a stream."""

    id: bytes
    client_ip: str
    consumer_id: str | None
    started: float


class StreamLog(AccessLog):
    """Writes the lines, in batches as the access log's are.

    Args:
        destination: as ``stream_access_log``.
        reactor: for the delayed write.
        interval: seconds between two lines of a stream.
        timers: of the data path.
        monotonic: seconds, the clock of ``timers``.
        prefix: directory that relative paths start from.
        wall: epoch seconds.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self,
        destination: str,
        reactor: IReactorTime,
        interval: float,
        timers: Timers,
        monotonic: Callable[[], float],
        *,
        prefix: str = ".",
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(destination, reactor, prefix=prefix, wall=wall)
        self.interval, self.timers, self.monotonic = interval, timers, monotonic
        self._times = Times(wall)

    def opened(self, record: StreamRecord) -> LoggedStream:
        """A stream has begun."""
        spans = MessageSpans()
        record.time_messages(spans)
        logged = LoggedStream(self, record, spans)
        logged.begin()
        return logged

    def taken_up(self, record: StreamRecord, due: float | None) -> LoggedStream:
        """A stream goes on that another process has logged so far; its next line is ``due`` (monotonic seconds)."""
        spans = MessageSpans()
        record.time_messages(spans)
        logged = LoggedStream(self, record, spans)
        logged.go_on(due)
        return logged

    def call(self, stream: Stream) -> LoggedStream:
        """A call of gRPC has begun."""
        logged = LoggedStream(self, stream, None)
        self.timers.set(logged, self.monotonic() + LONG_CALL)
        return logged

    def tell(self, facts: dict[str, Any]) -> None:
        """Write a line."""
        self._times.now()
        if self.enabled:
            line = _json({"time": self._times.iso.decode(), **facts}).encode("utf-8", "replace") + b"\n"
            self._append(line)

    def lasted(self, stream: Stream) -> float:
        """Seconds since a stream began."""
        self._times.now()
        return max(0.0, round(self._times.at - stream.started, 3))


class LoggedStream:
    """One stream that is logged.

    Attributes:
        summary: what its last line told, for the log record of its request; None: nothing was told.
    """

    __slots__ = ("_begun", "_log", "_spans", "_stream", "deadline", "summary", "wake")

    def __init__(self, log: StreamLog, stream: Stream, spans: MessageSpans | None) -> None:
        self._log, self._stream, self._spans = log, stream, spans
        self._begun = False
        self.deadline = self.wake = inf
        self.summary: dict[str, Any] | None = None

    def begin(self) -> None:
        """It has opened, or lasted long enough to be told of."""
        self._begun = True
        self._tell("open")
        self._again()

    def go_on(self, due: float | None) -> None:
        """It has been told of before, elsewhere."""
        self._begun = True
        self._log.timers.set(self, self._log.monotonic() + self._log.interval if due is None else due)

    def left(self) -> None:
        """Another process goes on with it."""
        self._log.timers.drop(self)

    def expire(self, now: float) -> None:
        """It is time for a line."""
        if not self._begun:
            self.begin()
            return
        self._tell("interval")
        self._again()

    def closed(self) -> None:
        """It is over. Nothing is told of a call that was too short."""
        self._log.timers.drop(self)
        if self._begun:
            cause, code = self._stream.end
            self._tell("close", cause=cause, close_code=code or None)

    def _again(self) -> None:
        self._log.timers.set(self, self._log.monotonic() + self._log.interval)

    def _tell(self, event: str, **more: Any) -> None:
        stream, spans = self._stream, self._spans
        route = stream.route
        figures: dict[str, Any] = {
            "event": event,
            "protocol": stream.kind,
            "duration": self._log.lasted(stream),
            "bytes_in": stream.bytes_in,
            "bytes_out": stream.bytes_out,
            "messages_in": stream.messages_in,
            "messages_out": stream.messages_out,
        }
        for name, direction in (("in", INGRESS), ("out", EGRESS)):
            first = -1.0 if spans is None else spans.first[direction]
            figures[f"first_message_{name}"] = round(first, 3) if first >= 0.0 else None
            figures[f"longest_gap_{name}"] = (
                None if spans is None or first < 0.0 else round(spans.longest[direction], 3)
            )
        self.summary = {**figures, **more}
        self._log.tell({
            "request_id": stream.id.decode("ascii", "replace"),
            "route": "" if route is None else row_name(route.row),
            "service": "" if route is None else row_name(route.service),
            "consumer_id": stream.consumer_id,
            "client_ip": stream.client_ip,
            **self.summary,
        })  # fmt: skip
