"""Streams that go to another process of the node: written down in one, taken up in the other, with their sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..core.stream_registry import StreamRecord

__all__ = ["VERSION", "Parcel", "adopt", "is_movable", "pack"]

VERSION = 1
"""Of the form of `Parcel.state`."""


class Parcel(NamedTuple):
    """A stream between two processes.

    Attributes:
        state: what JSON can say; its ``version`` is `VERSION`.
        sockets: descriptors, the client's and the upstream's. They are the parcel's until it is sent or adopted.
    """

    state: dict[str, Any]
    sockets: tuple[int, ...]


def is_movable(record: StreamRecord) -> bool:
    """Whether ``record`` can be packed now: open, and relayed byte for byte over plain TCP on both sides."""
    raise NotImplementedError


def pack(record: StreamRecord) -> Parcel:
    """Stop a stream that `is_movable` here: its sockets leave the reactor and stay open, what it counted on is given back, and
    nothing is logged: the process that adopts it writes the one record of the request."""
    raise NotImplementedError


def adopt(plane_context: Any, parcel: Parcel) -> StreamRecord:
    """Take a stream up. What its route or service was and is no more ends it politely.

    Raises:
        ValueError: the state is of another version, or malformed; the parcel still has its sockets.
    """
    raise NotImplementedError
