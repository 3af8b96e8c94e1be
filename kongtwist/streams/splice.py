"""Two connections spliced together: bytes go from socket to socket by the shortest way.

A `RelayedStream` has two ends (streams/socket_end.py, streams/transport_end.py); each reads its own connection and
writes what it read to the other. This module says what becomes of both when one of them ends, falls silent or is told
to.

Ends. A FIN passes as FIN, once everything before it has passed (half-close); where an end cannot be half-closed (TLS:
close_notify ends both directions) it ends both. A reset passes as a reset, unless a Close frame went before it: then
both ends know how it ended, and the survivor gets a FIN. An end that cannot be written any more is still read: what it
said before it went away arrives, and what the other end goes on sending is thrown away, unread bytes in a socket being
what turns a close into a reset. That lasts until its end is read, and for `Limits.lingering_timeout` at most.

Silence. No timer runs for a stream and no clock is read for a chunk. `Deadlines` looks at each stream eight times per
time-out and compares counters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..core.error_lines import seconds_text
from ..core.exchange import Exchange
from ..core.message_spans import together
from ..core.message_times import EGRESS, INGRESS, MessageTimes
from ..core.stream_registry import GOING_AWAY, StreamRecord
from ..net.run_steps import run_steps
from ..net.sending import is_plain
from .keep_alive import PeerPings, RelayedPeer
from .socket_end import SocketEnd
from .stream_end import StreamEnd
from .stream_errors import StreamFault, broken, refused_by_plugin, silent, vanished
from .transport_end import TransportEnd
from .websocket_frames import TimedTracker, encode_close

if TYPE_CHECKING:
    from socket import socket

    from .stream_context import StreamContext

__all__ = ["MovableEnding", "RelayedStream"]

INTERNAL_ERROR = 1011
"""WebSocket close code of a server that met what it did not expect (RFC 6455 7.4.1)."""

_LOOKS = 8
"""Times a stream is looked at per time-out; a silent one ends at most an eighth late."""


class RelayedStream(StreamRecord):
    """A WebSocket being relayed.

    Args:
        context: the gateway's facilities.
        exchange: the request that began it; its route's time-outs hold.
        on_end: called once with this when both connections are closed.

    Attributes:
        client, upstream: the two ends.
        why: how it ended, for the log.
        fault: whose fault the end was; None where nothing broke it (see `stream_errors.fault_of`).
        left_first: the client was the first to send its last byte, or the upstream (False); None: neither has.
    """

    __slots__ = (
        "_closing", "_dying", "_last", "_on_end", "_over", "_pings", "_quiet_since", "_read_timeout", "_service", "_times",
        "_write_timeout", "client", "context", "deadline", "fault", "left_first", "upstream", "wake", "why",
    )  # fmt: skip

    def __init__(self, context: StreamContext, exchange: Exchange, on_end: Callable[[RelayedStream], None]) -> None:
        super().__init__("websocket", exchange)
        self.context = context
        self._read_timeout = context.limits.read_timeout(exchange.route.read_timeout)
        self._write_timeout: float = exchange.route.write_timeout
        self._service = exchange.route.service
        self.fault: StreamFault | None = None
        self.left_first: bool | None = None
        self._on_end = on_end
        self._closing = self._over = False
        self._dying: OSError | None = None
        self._pings: PeerPings | None = None
        self._times: Mapping[str, Any] | None = None
        self._quiet_since = context.monotonic()
        self._last = (0, 0, 0, 0)
        self.deadline = self.wake = inf
        self.why = ""
        self.client: StreamEnd
        self.upstream: StreamEnd

    # -- the record ----------------------------------------------------------------------------------------------------

    @property
    def bytes_in(self) -> int:
        return self.client.received

    @property
    def bytes_out(self) -> int:
        return self.upstream.received

    @property
    def messages_in(self) -> int:
        return self.client.tracker.messages

    @property
    def messages_out(self) -> int:
        return self.upstream.tracker.messages

    @property
    def held(self) -> int:
        return self.client.held + self.upstream.held

    @property
    def end(self) -> tuple[str, int]:
        code = self.client.tracker.code or self.upstream.tracker.code
        if self.why == "timed out":
            return "timed_out", code
        if self.fault is not None:
            return "client_lost" if self.fault.by_client else "upstream_lost", code
        if self.why.startswith("closed by the gateway"):
            return "gateway", code
        return ("cut" if self.why == "cut" else "closed"), code

    @property
    def ended_here(self) -> bool:
        """Whether it was the gateway that ended it: a stop, a credential that is gone."""
        return self.why == "cut" or self.why.startswith("closed by the gateway")

    def time_messages(self, times: MessageTimes) -> None:
        times.begin(self.context.monotonic)
        if self._times is not None:
            times.resume(self._times)
        before = self.client.tracker
        if isinstance(before, TimedTracker):
            times = together(before.times, times)
        for end, direction in ((self.client, INGRESS), (self.upstream, EGRESS)):
            tracker = TimedTracker(times, direction)
            tracker.resume(end.tracker.written())
            end.tracker = tracker

    def keep_alive(self, seconds: float, client: bool = True, upstream: bool = True) -> None:
        peers = [
            RelayedPeer(end, mask, partial(self._vanished, end, seconds))
            for end, mask, wanted in ((self.client, b"", client), (self.upstream, os.urandom(4), upstream))
            if wanted
        ]
        self._pings = PeerPings(self.context.deadlines, self.context.monotonic, seconds, list(peers))

    def _vanished(self, end: StreamEnd, seconds: float) -> None:
        """A peer has not answered a ping."""
        self.fault = vanished(end is self.client, seconds)
        self.close(GOING_AWAY, "a ping was not answered")

    # -- beginning -----------------------------------------------------------------------------------------------------

    def splice(
        self,
        client: Any,
        from_client: bytes,
        upstream: Any,
        from_upstream: bytes,
        admit: Callable[[], bool] | None = None,
    ) -> None:
        """Take both transports and relay from now on.

        Args:
            client: the client's transport; what it holds unsent (the handshake's answer) goes before everything else.
            from_client: bytes of the client that are here already.
            upstream: the upstream's transport.
            from_upstream: bytes of the upstream that are here already.
            admit: called when the stream is registered, before a byte is passed on; False: it is closed at once (RFC 6455
                7.4.1: 1011), and both sides are told.
        """
        ours, theirs = _end_of(self, client), _end_of(self, upstream)
        self.client, self.upstream = ours, theirs
        ours.peer, theirs.peer = theirs, ours
        self.context.streams.add(self)
        self._look_again(self._shortest() / _LOOKS)
        if admit is not None and not admit():
            self.fault = refused_by_plugin()
            self.close(INTERNAL_ERROR, "")
        for end, data in ((ours, from_client), (theirs, from_upstream)):
            if data and self._closing:
                end.tracker.feed(data)
            elif data:
                end.received += len(data)
                end.tracker.feed(data)
                end.peer.put(data)
        for end in (ours, theirs):
            if not self._over:
                end.start()

    # -- to another process --------------------------------------------------------------------------------------------

    @property
    def movable(self) -> bool:
        if self._closing or self._over or self._dying is not None or not isinstance(self._on_end, MovableEnding):
            return False
        return all(isinstance(end, SocketEnd) and end.movable for end in (self.client, self.upstream))

    def pack(self) -> tuple[dict[str, Any], tuple[int, ...]]:
        client, upstream, ending = self.client, self.upstream, self._on_end
        assert isinstance(client, SocketEnd) and isinstance(upstream, SocketEnd) and isinstance(ending, MovableEnding)
        times = client.tracker.times.written() if isinstance(client.tracker, TimedTracker) else self._times
        state = {
            "request": ending.pack(),
            "client": client.written(),
            "upstream": upstream.written(),
            "left_first": self.left_first,
            "quiet_since": self._quiet_since,
            "times": times,
            "line": None if self.logged is None else self.logged.deadline,
        }
        self._over = True
        self.context.streams.leave(self)
        sockets = (client.give_up(), upstream.give_up())
        self._on_end = _nothing
        run_steps(
            partial(self.context.deadlines.drop, self), self._ask_no_more, ending.left, client.release, upstream.release
        )
        return state, sockets

    def take_up(
        self, written: Mapping[str, Any], client: socket, upstream: socket, admit: Callable[[], bool] | None = None
    ) -> None:
        """Go on where another process has stopped (`pack`).

        Args:
            written: what `pack` gave.
            client, upstream: the sockets.
            admit: see `splice`.

        Raises:
            KeyError, TypeError, ValueError: ``written`` is malformed; the sockets are still the caller's.
        """
        reactor = self.context.reactor
        ours = SocketEnd.taken_up(self, client, reactor, written["client"])
        theirs = SocketEnd.taken_up(self, upstream, reactor, written["upstream"])
        ours.peer, theirs.peer = theirs, ours
        self.left_first, self._quiet_since, self._times = (
            written[name] for name in ("left_first", "quiet_since", "times")
        )
        self.client, self.upstream = ours, theirs
        self.context.streams.take_up(self, written["line"])
        self._look_again(self._shortest() / _LOOKS)
        if admit is not None and not admit():
            self.fault = refused_by_plugin()
            self.close(INTERNAL_ERROR, "")
        for end in (ours, theirs):
            if not self._over:
                end.go_on()

    # -- news from the ends -------------------------------------------------------------------------------------------

    def read_all(self, end: StreamEnd) -> None:
        """An end has sent its last byte (its FIN has come)."""
        end.ended = True
        if self.left_first is None:
            self.left_first = end is self.client
        peer = end.peer
        if self._dying is not None and end.dead and not self._over and not self._ended_well(end, self._dying):
            self.lost(end, self._dying)
        elif self._closing:
            self.close_progressed()
        elif end.half_closes and peer.half_closes:
            peer.end_writing()
            self.check_over()
        elif end.tracker.closed and not peer.tracker.closed and not (end.dead or peer.ended):
            # It ended with a Close frame, as browsers do over HTTP/2, and waits for the answer (RFC 6455 7.1.1).
            self._closing = True
            self.why = "closed"
            self._look_again(self.context.limits.lingering_timeout)
        else:
            self._finish("closed")

    def lost(self, end: StreamEnd, error: BaseException | None) -> None:
        """An end was reset, or broke some other way; nothing more comes from it and it takes nothing."""
        if self._over:
            end.abort()
            return
        end.dead = True
        if self._closing or self._ended_well(end, error):
            end.abort()
            self._finish("closed")
        else:
            self.fault = broken(end is self.client, str(error))
            self._end(str(error) or "lost")

    def _ended_well(self, end: StreamEnd, error: BaseException | None) -> bool:
        """Whether both ends know how it ended: by a Close frame, or by a FIN that came before ``end`` was broken."""
        return end.tracker.closed or isinstance(error, BrokenPipeError)

    def dying(self, end: StreamEnd, error: OSError) -> None:
        """An end takes nothing any more. The stream ends when its last words are read, and soon in any case: what the
        other end goes on sending is thrown away, which must not look like life."""
        if self._dying is None:
            self._dying = error
            if not self._closing:
                self._look_again(self.context.limits.lingering_timeout)

    def check_over(self) -> None:
        """End the stream if both ends have sent all they will."""
        if self.client.ended and self.upstream.ended and not self._over:
            self._finish("closed")

    def blocked(self, end: StreamEnd) -> None:
        """An end takes no more bytes for now: from now on its own time-out is watched, too."""
        wait = (self.context.limits.send_timeout if end is self.client else self._write_timeout) / _LOOKS
        if self.context.monotonic() + wait < self.deadline and not self._closing and self._dying is None:
            self._look_again(wait)

    def end_closed(self) -> None:
        """The connection of an end is closed."""
        if self.client.closed and self.upstream.closed and self._on_end is not _nothing:
            self._release()

    # -- ends ----------------------------------------------------------------------------------------------------------

    def close(self, code: int, reason: str, retry: int | None = None) -> None:
        if self._closing or self._over:
            return
        self._closing = True
        self._ask_no_more()
        self.why = self.why or f"closed by the gateway: {code} {reason}"
        self.upstream.divert(encode_close(code, reason))
        if not self._over:  # a client that is gone may be found out by writing to it
            self.client.divert(encode_close(code, reason, os.urandom(4)))
        if not self._over:
            self._look_again(self.context.limits.lingering_timeout)
            self.close_progressed()

    def close_progressed(self) -> None:
        """Closing: once both ends have answered our Close frame, or sent their own before, the connections close."""
        client, upstream = self.client, self.upstream
        if (client.tracker.closed or client.ended) and (upstream.tracker.closed or upstream.ended):
            self._finish("closed")

    def cut(self) -> None:
        self._end(self.why or "cut")

    def expire(self, now: float) -> None:
        """Look whether anything has moved since the last look."""
        if self._closing or self._over or self._dying is not None:
            self._end(self.why or str(self._dying))
            return
        client, upstream = self.client, self.upstream
        state = (client.received, upstream.received, client.held, upstream.held)
        if state != self._last:
            self._last = state
            self._quiet_since = now
        elif now - self._quiet_since >= self._shortest():
            self.fault = silent(bool(client.held), bool(upstream.held), self._shortest(), self._service)
            if client.held or upstream.held:
                self._finish("timed out")  # a Close frame would not arrive
            else:
                self.why = "timed out"
                self.close(GOING_AWAY, f"nothing came for {seconds_text(self._shortest())}")
            return
        shortest = self._shortest()
        self._look_again(min(shortest / _LOOKS, max(self._quiet_since + shortest - now, 0.0)))

    def _shortest(self) -> float:
        """Seconds of silence that are too long in the state the stream is in (nginx: an upgraded connection)."""
        if self.client.held:
            return self.context.limits.send_timeout
        return self._write_timeout if self.upstream.held else self._read_timeout

    def _look_again(self, seconds: float) -> None:
        self.context.deadlines.set(self, self.context.monotonic() + seconds)

    def _finish(self, why: str) -> None:
        """Both ends close, each behind what is held for it; bounded in time."""
        if self._over:
            return
        self._over = True
        self._ask_no_more()
        self.why = self.why or why
        self._look_again(self.context.limits.lingering_timeout)
        run_steps(self.client.close, self.upstream.close)

    def _end(self, why: str) -> None:
        """Both ends are reset."""
        self._over = True
        self._ask_no_more()
        self.why = self.why or why
        run_steps(self.client.abort, self.upstream.abort, self.end_closed)

    def _ask_no_more(self) -> None:
        if self._pings is not None:
            self._pings.stop()
            self._pings = None

    def _release(self) -> None:
        """Nothing is open any more: tell, once."""
        on_end, self._on_end = self._on_end, _nothing
        run_steps(
            partial(self.context.deadlines.drop, self),
            self._ask_no_more,
            partial(self.context.streams.remove, self),
            partial(on_end, self),
            self.client.release,
            self.upstream.release,
        )


@runtime_checkable
class MovableEnding(Protocol):
    """What `RelayedStream` is given as ``on_end`` where the stream may go to another process."""

    def __call__(self, stream: RelayedStream, /) -> None: ...

    def pack(self) -> dict[str, Any]:
        """The stream's request, as JSON can say it. Raises `core.packed_values.Unpackable`."""

    def left(self) -> None:
        """The stream has gone: give back what its request has here, and log nothing."""


def _nothing(stream: RelayedStream) -> None:
    """The end has been told."""


def _end_of(stream: RelayedStream, transport: Any) -> StreamEnd:
    return SocketEnd(stream, transport) if is_plain(transport) else TransportEnd(stream, transport)
