"""How long work shares a process with the traffic it serves: in slices, or beside the reactor.

The parts that have such work (the Admin API, storage) are given one of these. `AtOnce` is for where there is no traffic:
tools and tests; `kongtwist.node.background_work.BackgroundWork` for a gateway.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeVar

__all__ = ["AtOnce", "Breather", "LongWork", "stepped"]

T = TypeVar("T")


class Breather(Protocol):
    """A piece of long work's way to let others have their turns."""

    def breathe(self) -> Awaitable[None]:
        """Let them, if this slice has lasted long enough."""
        ...


class LongWork(Protocol):
    """Ways to do long work."""

    def aside(self, work: Callable[..., T], *args: Any) -> Awaitable[T]:
        """Do work that only computes beside the reactor; its result, or what it raised."""
        ...

    def slices(self) -> Breather:
        """For work that is done in the reactor, in slices: one for each piece of work."""
        ...


class AtOnce:
    """Everything in one piece, here and now."""

    async def aside(self, work: Callable[..., T], *args: Any) -> T:
        """Do it."""
        return work(*args)

    def slices(self) -> AtOnce:
        """One slice."""
        return self

    async def breathe(self) -> None:
        """Go on."""


async def stepped(steps: Iterable[object], breather: Breather, every: int = 1) -> None:
    """Take all steps, with a look at the time after ``every`` of them."""
    for number, _ in enumerate(steps, 1):
        if number % every == 0:
            await breather.breathe()
