"""Long work on the reactor's thread in slices, so that streams and requests go on in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from gc import disable, enable, freeze, isenabled
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

__all__ = ["Slices", "uncollected"]

T = TypeVar("T")


class Slices:
    """Takes turns with everything else the reactor does.

    Args:
        reactor: for time and for the next turn.
        longest: seconds of a slice.
    """

    def __init__(self, reactor: Any, longest: float = 0.004) -> None:
        self._reactor, self._longest = reactor, longest
        self._began: float = reactor.seconds()

    async def breathe(self) -> None:
        """Let the others have a turn if this slice has lasted long enough."""
        if self._reactor.seconds() - self._began >= self._longest:
            turn: Deferred[None] = Deferred()
            self._reactor.callLater(0, turn.callback, None)
            await turn
            self._began = self._reactor.seconds()

    async def all(self, pieces: Iterable[T]) -> list[T]:
        """What an iterable gives, with a look at the time after each piece."""
        found: list[T] = []
        for piece in pieces:
            found.append(piece)
            await self.breathe()
        return found


@contextmanager
def uncollected() -> Iterator[None]:
    """While many rows are made that stay: the garbage collector does not go through them again and again (50 ms each time
    with 20,000 rows), and takes them for permanent afterwards."""
    was = isenabled()
    disable()
    try:
        yield
    finally:
        freeze()
        if was:
            enable()
