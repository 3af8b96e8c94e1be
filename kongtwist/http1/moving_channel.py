"""A client's connection goes on under another configuration, between two requests: what a reload does with those that are open."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from ..core.counters import WAITING
from .request_body import HEAD

if TYPE_CHECKING:
    from .http1_context import HTTP1Context, Tree

__all__ = ["MovingChannel"]

_REMEMBERED = (
    "_block", "_raw", "_line", "_whole", "_parsed", "_client", "forwarded", "forwarded_for", "opened", "answered",
)  # fmt: skip
"""What a channel remembers of its last request for the next one, as attributes that a class has too."""


class MovingChannel:
    """Part of `channel.HTTP1Channel`."""

    tree: Tree
    context: HTTP1Context
    transport: Any
    exchange: Any
    trusted: bool
    cell: int
    deadline: float
    wake: float
    peer_ip: str
    answered: Any
    _state: int
    _stopped: int
    _served: int
    _blocked: bool
    _fd: int

    def expire(self, now: float) -> None:
        """See `deadlines.Expiring`."""
        raise NotImplementedError

    def peer_gone(self, reset: bool) -> None:
        """See `hangups.Watched`."""
        raise NotImplementedError

    def move(self) -> None:
        """Another configuration has taken the place of this one: be a connection of its, from the next request on."""
        if self.exchange is not None:
            self.answered = self._answered_last
        elif self._state == HEAD:
            self._moved()

    def forget(self) -> None:
        """Remember nothing of the last request: it would stay as long as a stream, kilobytes, by the thousand; or it was found
        out by other limits."""
        for name in _REMEMBERED:
            self.__dict__.pop(name, None)

    def _answered_last(self, keep: bool, body_complete: bool, until_close: bool) -> None:
        """The answer to the last request by the old configuration is complete."""
        self._moved()
        self.answered(keep, body_complete, until_close)

    def _moved(self) -> None:
        old, fd, when = self.context, self._fd, self.deadline
        assert old.successor is not None
        self.tree, self.context = old.successor
        context, limits = self.context, self.context.limits
        old.deadlines.drop(self)
        old.connections.discard(self)
        context.connections.add(self)
        if self._stopped:
            old.hangups.unwatch(fd, self)
            context.hangups.watch(fd, self)
        self.trusted = context.real_ip.trusts(self.peer_ip)
        if self.transport is not None:
            self.transport.bufferSize = limits.high_water
        self.forget()
        if self._served and self.exchange is None and self.cell == WAITING and not self._blocked:
            when = context.monotonic() + limits.keepalive_timeout
        if when < inf:
            context.deadlines.set(self, when)
