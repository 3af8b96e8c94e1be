"""Streams that are open now: what each is, whose it is, what went through it, and how to end it politely.

A WebSocket or an event stream may last for days. Its `StreamRecord` is how the rest of the gateway reaches it: a stop
ends all streams, a change of configuration may end those of one credential. A record is the stream itself
(streams/splice.py, streams/server_sent_events.py), so keeping it costs no further object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from .counters import EVENT_STREAMS, TCP_SESSIONS, UDP_SESSIONS, WEBSOCKETS
from .stream_counts import StreamCounts, StreamTally

if TYPE_CHECKING:
    from .counters import Cells
    from .exchange import Exchange
    from .message_times import MessageTimes
    from .rows import Row
    from .views import RouteView

__all__ = ["GOING_AWAY", "SERVICE_RESTART", "StreamRecord", "StreamRegistry"]

GOING_AWAY = 1001
"""WebSocket close code of a server that goes down (RFC 6455 7.4.1)."""

SERVICE_RESTART = 1012
"""WebSocket close code that has the client come again (IANA's registry of RFC 6455 11.7)."""

_GAUGES = {
    "websocket": WEBSOCKETS, "sse": EVENT_STREAMS, "tcp": TCP_SESSIONS, "tls": TCP_SESSIONS, "tls_passthrough": TCP_SESSIONS,
    "udp": UDP_SESSIONS,
}  # fmt: skip


class LoggedStream(Protocol):
    """What writes lines about one stream (`observability.stream_log.LoggedStream`)."""

    @property
    def summary(self) -> dict[str, Any] | None: ...

    @property
    def deadline(self) -> float: ...

    def closed(self) -> None: ...

    def left(self) -> None: ...


class StreamLogging(Protocol):
    """What writes lines about streams (`observability.stream_log.StreamLog`)."""

    def opened(self, record: StreamRecord, /) -> LoggedStream: ...

    def taken_up(self, record: StreamRecord, due: float | None, /) -> LoggedStream: ...

    def call(self, stream: Any, /) -> LoggedStream: ...


class StreamRecord:
    """One open stream.

    Attributes:
        id: the id of the request that began it, 32 hex digits.
        kind: ``websocket``, ``sse``, or the protocol of a session: ``tcp``, ``tls``, ``tls_passthrough``, ``udp``.
        route_id, service_id, consumer_id, credential_id: ids of the entities it belongs to, or None.
        client_ip: the client's address.
        peer: the target it runs on, where a balancer chose one.
        started: epoch seconds.
        route: the route it was opened by, or None.
        tally: counts streams like this one, while it is registered.
        logged: writes lines about it; None where `stream_log_interval` is not set.
    """

    __slots__ = (
        "client_ip", "consumer_id", "credential_id", "id", "kind", "logged", "peer", "route", "route_id", "service_id", "started", "tally",
    )  # fmt: skip

    def __init__(self, kind: str, exchange: Exchange) -> None:
        route = exchange.route
        self.route: RouteView | None = route
        self.kind = kind
        self.id = exchange.request_id
        self.started = exchange.wall_started
        self.client_ip = exchange.client_ip
        self.peer = exchange.upstream_peer
        self.route_id: str | None = route.row["id"] if route is not None else None
        self.service_id: str | None = _id(route.service) if route is not None else None
        self.consumer_id = _id(exchange.consumer)
        self.credential_id = _id(exchange.credential)
        self.tally: StreamTally | None = None
        self.logged: LoggedStream | None = None

    @property
    def bytes_in(self) -> int:
        """Bytes that came from the client since the stream began."""
        raise NotImplementedError

    @property
    def bytes_out(self) -> int:
        """Bytes that came from the upstream since the stream began."""
        raise NotImplementedError

    @property
    def messages_in(self) -> int:
        """Messages from the client; nought where nobody counts them (SSE)."""
        raise NotImplementedError

    @property
    def messages_out(self) -> int:
        """Messages from the upstream; nought where nobody counts them (SSE)."""
        raise NotImplementedError

    @property
    def held(self) -> int:
        """Bytes that the other side has not taken yet, in both directions."""
        return 0

    @property
    def end(self) -> tuple[str, int]:
        """Once it is over: why, in one of a few words, and the WebSocket's close code; 0 where there was none, or nobody saw it."""
        return "closed", 0

    def tell_record(self, exchange: Exchange) -> None:
        """Once it is over: have the log record of its request tell what its last line did, as ``stream``."""
        logged = self.logged
        if logged is not None and logged.summary is not None:
            exchange.set_log_value("stream", logged.summary)

    @property
    def movable(self) -> bool:
        """Whether its connections are in a state in which it can go to another process."""
        return False

    def pack(self) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Stop it here, without an end and without a line in a log: another process goes on with it. Only where it is `movable`.

        Returns:
            what is to be known of it, as JSON can say it; descriptors of the client's and the upstream's socket.

        Raises:
            core.packed_values.Unpackable: it cannot be written down; it goes on here.
        """
        raise NotImplementedError

    def time_messages(self, times: MessageTimes) -> None:
        """See `core.chain.stream_watch.StreamInfo`."""

    def keep_alive(self, seconds: float, client: bool = True, upstream: bool = True) -> None:
        """See `StreamInfo.keep_alive`."""
        raise NotImplementedError

    def close(self, code: int, reason: str, retry: int | None = None) -> None:
        """End the stream where its protocol lets it end, and tell both sides why; cut it when that takes too long.

        Args:
            code: WebSocket close code; other kinds have no use for it.
            reason: for the peers, where their protocol has a place for it.
            retry: milliseconds after which the client of an event stream may come again; None: it knows itself.
        """
        raise NotImplementedError

    def cut(self) -> None:
        """End the stream at once."""
        raise NotImplementedError


def _id(row: Row | None) -> str | None:
    return row["id"] if row is not None else None


def _each(records: list[StreamRecord], end: Callable[[StreamRecord], None]) -> None:
    """End all of ``records``; what ending one of them raises is raised when all have had their turn."""
    failed: Exception | None = None
    for record in records:
        try:
            end(record)
        except Exception as error:  # noqa: BLE001 - raised below
            failed = failed or error
    if failed is not None:
        raise failed


class StreamRegistry:
    """All open streams of one gateway in one process.

    Args:
        cells: this process's row of counters, which shows how many of each kind are open; None: nobody counts.

    Attributes:
        counts: of streams by route.
        log: writes lines about streams that begin from now on; None: nobody does.
    """

    __slots__ = ("_cells", "_records", "counts", "log")

    def __init__(self, cells: Cells | None = None) -> None:
        self._cells = cells
        self._records: dict[StreamRecord, None] = {}
        self.counts = StreamCounts(self._records)
        self.log: StreamLogging | None = None

    def count_with(self, other: StreamRegistry) -> None:
        """Have streams from now on counted together with those of ``other``."""
        self.counts = other.counts
        self.counts.open.append(self._records)

    def leave_counts(self) -> None:
        """No stream is open here any more, nor will one be: those that count with this one count without it."""
        self.counts.open[:] = [each for each in self.counts.open if each is not self._records]

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, record: object) -> bool:
        return record in self._records

    def __iter__(self) -> Iterator[StreamRecord]:
        """The open streams, oldest first; they may end while one looks at them."""
        return iter(list(self._records))

    def add(self, record: StreamRecord) -> None:
        """A stream has begun."""
        if record not in self._records:
            self._count(record, 1)
            self.counts.opened(record)
            if self.log is not None:
                record.logged = self.log.opened(record)
        self._records[record] = None

    def remove(self, record: StreamRecord) -> None:
        """A stream is over; no harm if it was over before."""
        if self._records.pop(record, self) is not None:
            return
        self._count(record, -1)
        self.counts.closed(record)
        if record.logged is not None:
            record.logged.closed()

    def take_up(self, record: StreamRecord, due: float | None) -> None:
        """A stream goes on here that began in another process.

        Args:
            record: the stream.
            due: monotonic seconds of its next line in the log of streams, if the other process wrote such lines.
        """
        self._count(record, 1)
        self.counts.taken_up(record)
        if self.log is not None:
            record.logged = self.log.taken_up(record, due)
        self._records[record] = None

    def leave(self, record: StreamRecord) -> None:
        """A stream goes on in another process."""
        if self._records.pop(record, self) is not None:
            return
        self._count(record, -1)
        self.counts.left(record)
        if record.logged is not None:
            record.logged.left()

    def _count(self, record: StreamRecord, step: int) -> None:
        if self._cells is not None:
            self._cells[_GAUGES[record.kind]] += step

    def close_all(
        self, code: int = GOING_AWAY, reason: str = "", which: Callable[[StreamRecord], bool] | None = None
    ) -> int:
        """End streams politely.

        Args:
            code: see `StreamRecord.close`.
            reason: see `StreamRecord.close`.
            which: chooses them; None for all.

        Returns:
            how many were told to end.
        """
        chosen = [record for record in self._records if which is None or which(record)]
        _each(chosen, lambda record: record.close(code, reason))
        return len(chosen)

    def cut_all(self) -> None:
        """End all streams at once."""
        _each(list(self._records), lambda record: record.cut())
