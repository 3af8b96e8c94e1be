"""Pairs of sockets between a process that serves and the one that takes its place, for streams that move (stream_mover.py).

The process that leaves keeps one end. The other goes to the new process with the listening sockets, or to a new worker when that is
started. With other numbers of workers than before a process may have several, or none: then its predecessor's streams do not move.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from twisted.internet.protocol import Factory
from twisted.logger import Logger

from ..net.descriptor_link import DescriptorLink
from ..observability.error_log import notice
from .data_plane import DataPlane
from .stream_mover import StreamReceiver, move_streams

__all__ = ["mover", "receive", "shared_out"]

_log = Logger(namespace="kongtwist.node")


def _adopt(reactor: Any, end: socket.socket, link: DescriptorLink) -> None:
    factory = Factory.forProtocol(lambda: link)
    factory.noisy = False
    end.setblocking(False)
    reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, factory)
    end.close()


def receive(reactor: Any, plane: DataPlane, ends: Iterable[socket.socket]) -> None:
    """Take up the streams that come on these ends, which are closed with the processes at the other ends."""
    receiver = StreamReceiver(plane)
    for end in ends:
        _adopt(reactor, end, receiver.connected())


def mover(
    reactor: Any, planes: Sequence[DataPlane], end: socket.socket | None
) -> Callable[[float], Awaitable[object]] | None:
    """What moves data paths' streams to whoever has the other end; None where nobody has."""
    if end is None:
        return None
    ours = end

    async def move(seconds: float) -> None:
        link = DescriptorLink(lambda message, fds: link.abort(), lambda: None)
        _adopt(reactor, ours, link)
        late = reactor.seconds() + seconds
        moved = left = 0
        try:
            for plane in planes:
                its = await move_streams(plane, link, max(late - reactor.seconds(), 0.0))
                moved, left = moved + its.moved, left + its.left
        finally:
            link.close()
        if moved:
            notice(_log, "{moved} streams go on in the new process; {left} cannot", moved=moved, left=left)

    return move


def shared_out(ends: list[socket.socket], rows: int) -> list[list[socket.socket]]:
    """The ends that each of ``rows`` workers gets."""
    return [ends[row::rows] for row in range(rows)]
