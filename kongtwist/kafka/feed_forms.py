"""How the events of a feed are written: as Server-Sent Events (WHATWG HTML 9.2), or as messages of a WebSocket (RFC 6455 5).

An event is made once for all clients: its body by whoever reads the record, its id where the feed stands then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Protocol

from ..core.chain.host_reading import EVENTS, MESSAGES
from .event_window import Event

__all__ = ["EventForm", "ServerSentEvents", "SocketMessages", "form_of", "text_frame"]

_TEXT = 0x81  # the only frame of a text message


class EventForm(Protocol):
    """A way to write events.

    Attributes:
        place: the body of an event that only tells its id.
        opening: what a client gets first that is read records which it never had.
        alive: what it gets while it waits for the first of them.
    """

    place: bytes
    opening: bytes
    alive: bytes

    def event(self, position: bytes, body: bytes) -> bytes:
        """A whole event.

        Args:
            position: its id.
            body: what the encoder gave, or `resync`, or `place`.
        """
        ...

    def joined(self, events: Iterable[Event]) -> bytes:
        """Events, as they are sent to all who are up to date."""
        ...

    def resync(self, reason: str, detail: str) -> bytes:
        """The body of an event that tells that events are missing before those that follow.

        Args:
            reason: one word.
            detail: which, and why.
        """
        ...

    def chunk(self, data: bytes) -> bytes:
        """``data`` with the framing that most clients need around it, for their short way; see `AnswerWriter.write`."""
        ...


class ServerSentEvents:
    """Bodies are the lines behind ``id:``, with the empty one at the end."""

    place = b"\n"
    opening = alive = b":\n\n"

    def event(self, position: bytes, body: bytes) -> bytes:
        """See `EventForm`."""
        return b"id: %b\n%b" % (position, body)

    def joined(self, events: Iterable[Event]) -> bytes:
        """See `EventForm`."""
        return b"".join([b"id: %b\n%b" % (each.position, each.body) for each in events])

    def resync(self, reason: str, detail: str) -> bytes:
        """See `EventForm`."""
        return b'event: resync\ndata: {"reason":"%b","detail":"%b"}\n\n' % (reason.encode(), detail.encode())

    def chunk(self, data: bytes) -> bytes:
        """A chunk of HTTP/1.1 (RFC 9112 7.1)."""
        return b"%x\r\n%b\r\n" % (len(data), data)


class SocketMessages:
    """Each event is a text message with a JSON object, whose first member is ``id``. Bodies are what follows it, ``}`` included."""

    place = b'"event":"position"}'
    opening = b""
    alive = b"\x89\x00"  # a Ping frame: there is no id to tell

    def event(self, position: bytes, body: bytes) -> bytes:
        """See `EventForm`."""
        return text_frame(b'{"id":"%b",%b' % (position, body))

    def joined(self, events: Iterable[Event]) -> bytes:
        """See `EventForm`."""
        return b"".join([self.event(each.position, each.body) for each in events])

    def resync(self, reason: str, detail: str) -> bytes:
        """See `EventForm`."""
        return b'"event":"resync","reason":%b,"detail":%b}' % (
            json.dumps(reason).encode(),
            json.dumps(detail).encode(),
        )

    def chunk(self, data: bytes) -> bytes:
        """The frames, as they are."""
        return data


def text_frame(payload: bytes) -> bytes:
    """A text message of a server, in one frame (RFC 6455 5.2)."""
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (_TEXT, size, payload)
    if size < 65536:
        return b"%c\x7e%b%b" % (_TEXT, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (_TEXT, size.to_bytes(8, "big"), payload)


_FORMS: dict[str, EventForm] = {EVENTS: ServerSentEvents(), MESSAGES: SocketMessages()}


def form_of(name: str) -> EventForm:
    """The form that `FeedSettings.form` names."""
    return _FORMS[name]
