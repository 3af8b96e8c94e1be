"""Sending one piece to many clients, to some of them in each turn of the reactor: system calls for thousands in a row would have
everybody else wait."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from .feed_client import FeedClient

__all__ = ["FanOut"]

_AT_ONCE = 250
"""Clients of one turn: each costs a system call."""
_BYTES = 1 << 20
"""Bytes that are given to sockets in one turn; one client is always served."""


class FanOut:
    """The clients that get what comes as it comes.

    While a piece is under way some have it and others are due, and nothing else is begun.

    Args:
        reactor: for turns.
        done: called when all have got a piece, maybe before `send` returns.
        framed: see `EventForm.chunk`.

    Attributes:
        is_sending: a piece is under way.
    """

    def __init__(
        self, reactor: Any, done: Callable[[], None], framed: Callable[[bytes], bytes | None]
    ) -> None:  # fmt: skip
        self._reactor = reactor
        self._framed = framed
        self._done = done
        self.is_sending = False
        self._served: OrderedDict[FeedClient, None] = OrderedDict()
        self._due: OrderedDict[FeedClient, None] = OrderedDict()
        self._others: deque[FeedClient] = deque()
        self._visit: Callable[[FeedClient], None] | None = None
        self._data = b""
        self._chunk: bytes | None = None
        self._before = (0, b"")
        self._turn: IDelayedCall | None = None

    def add(self, client: FeedClient) -> None:
        """It has got everything, the piece that is under way too."""
        self._served[client] = None

    def discard(self, client: FeedClient) -> None:
        """It gets nothing more from here."""
        self._served.pop(client, None)
        self._due.pop(client, None)

    def __len__(self) -> int:
        return len(self._served) + len(self._due)

    def clients(self) -> list[FeedClient]:
        """All."""
        return [*self._served, *self._due]

    def standing(self, client: FeedClient, number: int, place: bytes) -> tuple[int, bytes] | None:
        """Where a client stands; None: it is not one of these.

        Args:
            client: whose place is asked for.
            number, place: of who has got everything.
        """
        if client in self._due:
            return self._before
        return (number, place) if client in self._served else None

    def send(
        self,
        data: bytes,
        number: int,
        place: bytes,
        others: Iterable[FeedClient] = (),
        visit: Callable[[FeedClient], None] | None = None,
    ) -> None:
        """Send a piece to all; nothing may be under way.

        Args:
            data: whole events.
            number, place: where a client stands that has not got it.
            others: clients that are looked after behind these, a bounded number in each turn too.
            visit: called for each of them.
        """
        self.is_sending = True
        self._data, self._chunk = data, self._framed(data)
        self._before = (number, place)
        self._due, self._served = self._served, self._due
        self._others, self._visit = deque(others), visit
        self._go_on()

    def _go_on(self) -> None:
        self._turn = None
        left = max(1, min(_AT_ONCE, _BYTES // (len(self._data) or 1)))
        try:
            while self._due and left:
                left -= 1
                client, _ = self._due.popitem(last=False)
                self._served[client] = None  # first: while it is written to, it may say that it is slow
                client.writer.write(self._data, self._chunk)
            while self._others and left:
                left -= 1
                if self._visit is not None:
                    self._visit(self._others.popleft())
        finally:
            if self.is_sending and (self._due or self._others):
                self._turn = self._reactor.callLater(0, self._go_on)
        if self.is_sending and self._turn is None:
            self.is_sending = False
            self._data, self._chunk = b"", None
            self._done()

    def stop(self) -> None:
        """Forget what is under way."""
        self.is_sending = False
        self._others.clear()
        self._data, self._chunk = b"", None
        self._served.update(self._due)
        self._due.clear()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
