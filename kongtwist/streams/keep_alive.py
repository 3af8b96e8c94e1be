"""Signs of life of streams that are silent: pings to the peers of WebSockets (RFC 6455 5.5.2), comments in event streams (WHATWG HTML
9.2.6). Middle boxes forget connections on which nothing passes, and a host that has vanished says nothing of it.

A peer that has said nothing for an interval is asked; one that has not said anything for another is gone. Streams without these cost
nothing, and those with them a look per interval.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from .websocket_frames import encode_ping

if TYPE_CHECKING:
    from ..net.deadlines import Deadlines
    from .stream_end import StreamEnd

__all__ = ["EventComments", "PeerPings", "PingedPeer", "RelayedPeer", "ServedPeer"]


class PingedPeer(Protocol):
    """One who can be asked whether he is there."""

    def heard(self) -> int:
        """Grows with whatever comes from him."""

    def ping(self) -> bool:
        """Ask him. False: not now; what he has still to take is bounded in time by others."""

    def vanished(self) -> None:
        """He has not answered: end the stream."""


class RelayedPeer:
    """The host behind one end of a relayed WebSocket.

    Its pong passes on to the other end, which takes no notice of a pong it did not ask for (RFC 6455 5.5.3).

    Args:
        end: its end.
        mask: four bytes, where what we send it is masked (RFC 6455 5.3: to an upstream); else none.
        vanished: ends the stream.
    """

    __slots__ = ("_end", "_frame", "vanished")

    def __init__(self, end: StreamEnd, mask: bytes, vanished: Callable[[], None]) -> None:
        self._end = end
        self._frame = encode_ping(mask)
        self.vanished = vanished

    def heard(self) -> int:
        """Bytes that have come."""
        return self._end.received

    def ping(self) -> bool:
        """See `PingedPeer`. Between two frames of the other end only, and never behind its Close frame."""
        end = self._end
        other = end.peer
        sent = other.tracker
        if end.dead or end.held or other.ended or sent.closed or not sent.at_boundary:
            return False
        if not end.put(self._frame):
            other.pause()
        return True


class ServedPeer:
    """The client of a WebSocket that the gateway itself serves.

    Args:
        protocol: counts what comes, and sends pings.
        vanished: ends the stream.
    """

    __slots__ = ("_protocol", "vanished")

    def __init__(self, protocol: Any, vanished: Callable[[], None]) -> None:
        self._protocol = protocol
        self.vanished = vanished

    def heard(self) -> int:
        """Frames and pieces of them that have come."""
        return int(self._protocol.heard)

    def ping(self) -> bool:
        """See `PingedPeer`."""
        if not self._protocol.usable:
            return False
        self._protocol.sendPing()
        return True


class PeerPings:
    """Asks the peers of one stream.

    Args:
        deadlines: of the process.
        monotonic: seconds.
        seconds: the interval.
        peers: who is asked.
    """

    __slots__ = ("_asked", "_deadlines", "_heard", "_peers", "_seconds", "deadline", "wake")

    def __init__(
        self, deadlines: Deadlines, monotonic: Callable[[], float], seconds: float, peers: list[PingedPeer]
    ) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._peers = peers
        self._heard = [each.heard() for each in peers]
        self._asked = [False] * len(peers)
        self.deadline = self.wake = inf
        deadlines.set(self, monotonic() + seconds)

    def expire(self, now: float) -> None:
        """Look who has said something since the last look, ask who has not, and give up who has not answered."""
        for at, peer in enumerate(self._peers):
            heard = peer.heard()
            if heard != self._heard[at]:
                self._heard[at] = heard
                self._asked[at] = False
            elif self._asked[at]:
                self.stop()
                peer.vanished()
                return
            else:
                self._asked[at] = peer.ping()
                if not self._peers:
                    return  # writing to it found out that it is gone
        self._deadlines.set(self, now + self._seconds)

    def stop(self) -> None:
        """The stream ends."""
        self._peers = []
        self._deadlines.drop(self)


class EventComments:
    """Puts comments into one event stream while no event comes.

    Args:
        deadlines: of the process.
        monotonic: seconds.
        seconds: the interval.
        passed: bytes of the stream so far.
        comment: sends one, where an event has ended.
    """

    __slots__ = ("_comment", "_deadlines", "_over", "_passed", "_seconds", "_seen", "deadline", "wake")

    def __init__(
        self,
        deadlines: Deadlines,
        monotonic: Callable[[], float],
        seconds: float,
        passed: Callable[[], int],
        comment: Callable[[], None],
    ) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._passed = passed
        self._comment = comment
        self._seen = passed()
        self._over = False
        self.deadline = self.wake = inf
        deadlines.set(self, monotonic() + seconds)

    def expire(self, now: float) -> None:
        """Send a comment if nothing has passed since the last look."""
        if self._passed() == self._seen:
            self._comment()
        if not self._over:
            self._seen = self._passed()
            self._deadlines.set(self, now + self._seconds)

    def stop(self) -> None:
        """The stream ends."""
        self._over = True
        self._deadlines.drop(self)
