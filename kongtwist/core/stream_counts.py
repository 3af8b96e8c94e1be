"""What is counted of streams, by protocol, Service and Route.

Streams count their own bytes and messages while they pass. When figures are told, those of the open streams are summed up and compared
with what was told before; so a byte that passes costs nothing more. Labels are names of what is configured and fixed words: clients
cannot make new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .views import RouteView

__all__ = ["MeasuredStream", "StreamCounts", "StreamTally", "code_label"]

_AT_ONCE = 1000
"""Open streams that are summed up before others have a turn."""


class Figures(Protocol):
    """Takes figures (`observability.plugin_metrics.Metrics`)."""

    def count(self, name: str, amount: float = 1, labels: Mapping[str, str] = {}) -> None: ...

    def gauge(self, name: str, value: float, labels: Mapping[str, str] = {}) -> None: ...


class MeasuredStream(Protocol):
    """What has passed on a stream, and how it ended: of a `stream_registry.StreamRecord`, or a call of gRPC."""

    kind: str

    @property
    def route(self) -> RouteView | None: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def bytes_out(self) -> int: ...
    @property
    def messages_in(self) -> int: ...
    @property
    def messages_out(self) -> int: ...
    @property
    def end(self) -> tuple[str, int]: ...


class CountedStream(MeasuredStream, Protocol):
    """A stream, see `stream_registry.StreamRecord`."""

    tally: StreamTally | None

    @property
    def held(self) -> int: ...


class StreamTally:
    """Counts of the streams of one protocol and Route.

    Attributes:
        labels: of its figures.
        open: streams that are open.
        opened, resumed: streams since figures were last told; ``resumed`` are event streams whose client said where it had stopped.
        ended: cause and close code -> streams, since figures were last told.
        gone: bytes and messages of streams that have ended: in, out, in, out.
    """

    __slots__ = ("_told", "ended", "gone", "held", "labels", "open", "opened", "resumed", "seen")

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels
        self.open = self.opened = self.resumed = self.held = 0
        self.ended: dict[tuple[str, str], int] = {}
        self.gone = [0, 0, 0, 0]
        self.seen = [0, 0, 0, 0]  #: of all, while they are summed up
        self._told = [0, 0, 0, 0]

    def tell(self, figures: Figures) -> None:
        """Tell what has changed. ``seen`` and ``held`` are of now."""
        labels = self.labels
        if self.opened:
            figures.count("kongtwist_streams_opened_total", self.opened, labels)
        if self.resumed:
            figures.count("kongtwist_stream_resumed_total", self.resumed, labels)
        for (cause, code), count in self.ended.items():
            figures.count("kongtwist_streams_closed_total", count, {**labels, "cause": cause, "code": code})
        self.opened = self.resumed = 0
        self.ended.clear()
        figures.gauge("kongtwist_stream_open", self.open, labels)
        figures.gauge("kongtwist_stream_held_bytes", self.held, labels)
        for name, at in (("kongtwist_stream_bytes_total", 0), ("kongtwist_stream_messages_total", 2)):
            for place, direction in ((at, "ingress"), (at + 1, "egress")):
                grown = self.seen[place] - self._told[place]
                if grown > 0:
                    figures.count(name, grown, {**labels, "direction": direction})
                    self._told[place] = self.seen[place]


class StreamCounts:
    """Of a process.

    Args:
        open: the open streams.
    """

    def __init__(self, open: Iterable[CountedStream]) -> None:
        self._open = open
        self._tallies: dict[tuple[str, str, str], StreamTally] = {}
        self._unseen: dict[CountedStream, None] | None = None

    def opened(self, record: CountedStream) -> None:
        """A stream has begun."""
        tally = record.tally = self._of(record.kind, record.route)
        tally.open += 1
        tally.opened += 1

    def closed(self, record: CountedStream) -> None:
        """A stream is over."""
        if record.tally is not None:
            cause, code = record.end
            key = (cause, code_label(code))
            record.tally.ended[key] = record.tally.ended.get(key, 0) + 1
            self.left(record)

    def taken_up(self, record: CountedStream) -> None:
        """A stream goes on here that another process has counted so far."""
        tally = record.tally = self._of(record.kind, record.route)
        tally.open += 1
        _add(tally.gone, tuple(-figure for figure in _figures(record)))

    def left(self, record: CountedStream) -> None:
        """A stream is over, or goes on in another process."""
        tally = record.tally
        if tally is None:
            return
        tally.open -= 1
        figures = _figures(record)
        _add(tally.gone, figures)
        if self._unseen is not None and self._unseen.pop(record, self) is None:
            _add(tally.seen, figures)

    def _of(self, kind: str, route: RouteView | None) -> StreamTally:
        service = None if route is None else route.service
        names = (
            "" if service is None else str(service.get("name") or service.get("host") or ""),
            "" if route is None else str(route.row.get("name") or route.row["id"]),
        )
        key = (kind, *names)
        tally = self._tallies.get(key)
        if tally is None:
            labels = {"protocol": kind, "service": names[0], "route": names[1]}
            tally = self._tallies[key] = StreamTally(labels)
        return tally

    def tell(self, figures: Figures) -> Iterator[None]:
        """Sum up the open streams, with pauses, and tell what has changed since the last time. Nothing while that is done already."""
        if self._unseen is not None:
            return
        tallies = list(self._tallies.items())
        for _, tally in tallies:
            tally.seen, tally.held = list(tally.gone), 0
        unseen = self._unseen = dict.fromkeys(self._open)
        try:
            while unseen:
                for _ in range(min(_AT_ONCE, len(unseen))):
                    record, _ = unseen.popitem()
                    if record.tally is not None:
                        _add(record.tally.seen, _figures(record))
                        record.tally.held += record.held
                yield
            for key, tally in tallies:
                tally.tell(figures)
                if not tally.open and not tally.opened and tally.gone == tally.seen:
                    del self._tallies[key]
        finally:
            self._unseen = None


def _figures(record: CountedStream) -> tuple[int, int, int, int]:
    return record.bytes_in, record.bytes_out, record.messages_in, record.messages_out


def _add(sums: list[int], figures: Iterable[int]) -> None:
    for place, figure in enumerate(figures):
        sums[place] += figure


def code_label(code: int) -> str:
    """A close code as a label: those that are registered by themselves (RFC 6455 7.4.1), others by their range."""
    if not code:
        return "none"
    if 1000 <= code <= 1015:
        return str(code)
    return "3xxx" if 3000 <= code <= 3999 else "4xxx" if 4000 <= code <= 4999 else "other"
