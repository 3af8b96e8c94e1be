"""Streams that go to another process of the node: written down in one, taken up in the other (proxy/adopted_streams.py), with their
sockets.

A WebSocket or an event stream whose bytes pass unseen over plain TCP is two sockets and a few numbers. Whoever has these goes on with
it, and neither end notices: no byte is read between the moment when one process stops and the moment when the other begins.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..core.stream_registry import StreamRecord

__all__ = ["VERSION", "Parcel", "check", "is_movable", "pack"]

VERSION = 1
"""Of the form of `Parcel.state`."""

KINDS = ("websocket", "sse")


class Parcel(NamedTuple):
    """A stream between two processes.

    Attributes:
        state: what JSON can say; its ``version`` is `VERSION`.
        sockets: descriptors, the client's and the upstream's. They are the parcel's until it is sent or adopted.
    """

    state: dict[str, Any]
    sockets: tuple[int, ...]

    def close(self) -> None:
        """Close the descriptors: for this process the stream is over. Another process that has them goes on."""
        for each in self.sockets:
            os.close(each)


def is_movable(record: StreamRecord) -> bool:
    """Whether ``record`` is open, in no handshake and no end, and its bytes pass unseen over plain TCP on both sides. Some of these
    cannot be written down all the same: `pack` says so."""
    return record.movable


def pack(record: StreamRecord) -> Parcel:
    """Stop a stream that `is_movable` here: its sockets leave the reactor and stay open, what it counted on is given back, and
    nothing is logged: the process that adopts it writes the one record of its request.

    Raises:
        core.packed_values.Unpackable: plugins keep something of its request that cannot be written down, or it has a route of its own;
            nothing has changed.
    """
    state, sockets = record.pack()
    return Parcel({"version": VERSION, "kind": record.kind, **state}, sockets)


def check(parcel: Parcel) -> None:
    """See whether a parcel that has come can be one.

    Raises:
        ValueError: it is of another version, or malformed.
    """
    state = parcel.state
    if state.get("version") != VERSION:
        raise ValueError(f"a stream is written down in version {state.get('version')} here, not {VERSION}")
    if state.get("kind") not in KINDS or not isinstance(state.get("request"), dict):
        raise ValueError("a stream is malformed")
    if len(parcel.sockets) != 2:
        raise ValueError(f"a stream has two sockets, not {len(parcel.sockets)}")
