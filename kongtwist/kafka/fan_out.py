"""Sending one piece to many clients, to some of them in each turn of the reactor: system calls for thousands in a row would have
everybody else wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import length_hint
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from twisted.logger import Logger

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from ..core.answers import AnswerWriter

__all__ = ["NO_PIECE", "FanOut"]

_log = Logger(namespace="kongtwist.kafka")

NO_PIECE = -1
"""In place of the number of a client's latest piece: it is not sent what comes."""

_AT_ONCE = 250
"""Clients of one turn: each costs a system call."""
_BYTES = 1 << 20
"""Bytes that are given to sockets in one turn; one client is always served."""


class Receiver(Protocol):
    """What a client is to a `FanOut`.

    Attributes:
        writer: takes what it is sent.
        write_chunk: of the writer.
        piece: number of the latest piece that it has got; the `FanOut`'s own.
    """

    writer: AnswerWriter
    write_chunk: Callable[[bytes], None] | None
    piece: int


_Client = TypeVar("_Client", bound=Receiver)


class FanOut(Generic[_Client]):
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
        self, reactor: Any, done: Callable[[], None], framed: Callable[[bytes], bytes]
    ) -> None:  # fmt: skip
        self._reactor = reactor
        self._framed = framed
        self._done = done
        self.is_sending = False
        self._piece = 0
        self._clients: dict[_Client, None] = {}
        self._due: Iterator[_Client] = iter([])
        self._others: deque[_Client] = deque()
        self._visit: Callable[[_Client], None] | None = None
        self._data = b""
        self._chunk = b""
        self._before = (0, b"")
        self._turn: IDelayedCall | None = None

    def add(self, client: _Client) -> None:
        """It has got everything, the piece that is under way too."""
        self._clients[client] = None
        client.piece = self._piece

    def discard(self, client: _Client) -> None:
        """It gets nothing more from here."""
        self._clients.pop(client, None)
        client.piece = NO_PIECE

    def __len__(self) -> int:
        return len(self._clients)

    def clients(self) -> list[_Client]:
        """All."""
        return list(self._clients)

    def standing(self, client: _Client, number: int, place: bytes) -> tuple[int, bytes] | None:
        """Where a client stands; None: it is not one of these.

        Args:
            client: whose place is asked for.
            number, place: of who has got everything.
        """
        if client.piece == NO_PIECE:
            return None
        return (number, place) if client.piece == self._piece else self._before

    def send(
        self,
        data: bytes,
        number: int,
        place: bytes,
        others: Iterable[_Client] = (),
        visit: Callable[[_Client], None] | None = None,
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
        self._piece += 1
        self._due = iter(list(self._clients))
        self._others, self._visit = deque(others), visit
        self._go_on()

    def _go_on(self) -> None:
        self._turn = None
        most = max(1, min(_AT_ONCE, _BYTES // (len(self._data) or 1)))
        left = max(most - length_hint(self._due), 0)
        self._send_to(islice(self._due, most))
        self._look_after(left)
        # Stopped from within, and maybe at another piece by now.
        if not self.is_sending or self._turn is not None:
            return
        if length_hint(self._due) or self._others:
            self._turn = self._reactor.callLater(0, self._go_on)
        else:
            self.is_sending = False
            self._data = self._chunk = b""
            self._done()

    def _send_to(self, clients: Iterable[_Client]) -> None:
        """Send the piece to those of them that are due. Thousands in a row: what each one costs is in this loop."""
        data, chunk, piece = self._data, self._chunk, self._piece
        before = piece - 1
        for client in clients:
            if client.piece == before:
                client.piece = piece  # first: while it is written to, it may say that it is slow
                write_chunk = client.write_chunk
                try:
                    if write_chunk is not None:
                        write_chunk(chunk)
                    else:
                        client.writer.write(data, chunk)
                except Exception:  # noqa: BLE001 - the others get it all the same, and whoever has read it reads on
                    _log.failure("an event could not be sent to a client")

    def _look_after(self, most: int) -> None:
        """Visit so many of those that are looked after."""
        others = self._others
        for _ in range(min(most, len(others))):
            if others and self._visit is not None:
                try:
                    self._visit(others.popleft())
                except Exception:  # noqa: BLE001 - as above
                    _log.failure("a client that is behind could not be looked after")

    def stop(self) -> None:
        """Forget what is under way; also from within."""
        for client in self._due:
            if client.piece != NO_PIECE:
                client.piece = self._piece
        self.is_sending = False
        self._others.clear()
        self._data = self._chunk = b""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
