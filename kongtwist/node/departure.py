"""The data paths of a process that another one replaces: the one that serves, and those that finish what began before reloads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from .data_plane import DataPlane

__all__ = ["depart"]


async def depart(
    reactor: Any,
    planes: Sequence[DataPlane],
    seconds: float,
    move: Callable[[float], Awaitable[object]] | None = None,
    reason: str = "the gateway restarts",
) -> None:
    """Accept no more; move streams to the other process, and say goodbye to the others. Returns when all requests and streams have
    ended, or ``seconds`` are over; then what is left is cut. Cancel it, and call `DataPlane.resume`, to take it back.

    Args:
        reactor: tells the time.
        planes: the data paths.
        seconds: for all of it.
        move: moves their streams, in so many seconds at most; None: none can move.
        reason: for the peers of the others.
    """
    late = reactor.seconds() + seconds
    for plane in planes:
        await plane.let_go()
    if move is not None:
        await move(seconds / 2)
    left = max(late - reactor.seconds(), 0.0)
    leaving = [Deferred.fromCoroutine(plane.say_goodbye(reason, left)) for plane in planes]
    try:
        for each in leaving:
            await each
    finally:
        for each in leaving:
            each.addErrback(lambda failure: failure.trap(CancelledError)).cancel()
    for plane in planes:
        plane.abort()
