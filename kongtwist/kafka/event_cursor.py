"""Where one client stands in the window of a feed, and what it is sent next."""

from __future__ import annotations

from typing import NamedTuple

from .event_window import Event, EventWindow
from .feed_forms import EventForm
from .positions import Position

__all__ = ["CONFLATE", "DISCONNECT", "DROP", "POLICIES", "WAIT", "EventCursor", "Taken"]

WAIT, DROP, CONFLATE, DISCONNECT = "wait", "drop", "conflate", "disconnect"
POLICIES = (WAIT, DROP, CONFLATE, DISCONNECT)
"""What becomes of a client that reads too slowly: it is sent all, later, from the broker where the window has passed it; it misses what
the window has dropped; it is sent only the newest of each key; it is disconnected, and comes back with its last id."""


class Taken(NamedTuple):
    """What a client is sent next.

    Attributes:
        data: the bytes; may be empty.
        lost: the window has passed the client: what is missing has to be read from the broker.
    """

    data: bytes
    lost: bool = False


class EventCursor:
    """One client's place.

    Args:
        form: how events are written.
        policy: one of `POLICIES`.
        number: of the event that it gets next.
        place: the position of who has got all before that.
        ahead: where it stands, if it has got events of the window already; its ids are its own until the window has reached it.
    """

    __slots__ = ("_form", "ahead", "number", "place", "policy")

    def __init__(
        self, form: EventForm, policy: str, number: int, place: bytes, ahead: Position | None = None
    ) -> None:  # fmt: skip
        self._form = form
        self.policy = policy
        self.number = number
        self.place = place
        self.ahead = ahead

    def is_at_end(self, window: EventWindow) -> bool:
        """Whether it has got all there is, and its ids are its own until others have got it too."""
        return self.number == window.end and self.ahead is not None

    def is_current(self, window: EventWindow) -> bool:
        """Whether it has got all there is, and is sent what all others are."""
        return self.number == window.end and self.ahead is None

    def take(self, window: EventWindow, size: int, reached: Position) -> Taken:
        """What is next, about ``size`` bytes of it.

        Args:
            window: of the feed.
            size: bytes.
            reached: where the feed stands.
        """
        missing = b""
        if self.number < window.start:
            if self.policy != DROP:
                return Taken(b"", True)
            count = window.start - self.number
            self.number = window.start
            self.place = window.before if self.ahead is None else bytes(self.ahead)
            told = self._form.resync("dropped", f"{count} events were dropped for a slow client")
            missing = self._form.event(self.place, told)
        is_conflated = self.policy == CONFLATE and self.ahead is None
        events = window.rest(self.number) if is_conflated else window.since(self.number, size)
        self.number += len(events)
        if self.ahead is None:
            if events:
                self.place = events[-1].position
            return Taken(missing + self._form.joined(newest(events) if is_conflated else events))
        return Taken(missing + self._own(events, self.ahead, reached, self.number == window.end))

    def _own(self, events: list[Event], ahead: Position, reached: Position, is_end: bool) -> bytes:
        """What of the events it has not got, with its own ids."""
        pieces = []
        for event in events:
            known = ahead.next_of(event.topic, event.partition)
            if known is None or event.offset >= known:
                ahead.move(event.topic, event.partition, event.offset + 1)
                pieces.append(self._form.event(bytes(ahead), event.body))
        if is_end and reached.has_reached(ahead):
            self.ahead = None
            ahead = reached
        self.place = bytes(ahead)
        return b"".join(pieces)


def newest(events: list[Event]) -> list[Event]:
    """The last event of each key, in order; those without a key all stay."""
    last = {event.key: number for number, event in enumerate(events) if event.key is not None}
    return [event for number, event in enumerate(events) if event.key is None or last[event.key] == number]
