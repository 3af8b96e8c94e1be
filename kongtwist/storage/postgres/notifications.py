"""The connection on which a node hears of other nodes' changes, and the pauses between tries to get it back."""

from __future__ import annotations

from collections.abc import Callable
from random import random
from typing import Any

import psycopg
from twisted.python.failure import Failure

from .sql_connections import Connection, reason

__all__ = ["LONGEST_PAUSE", "BackOff", "Listening"]

LONGEST_PAUSE = 5.0
"""Seconds between two tries to reach the database at the most."""

FIRST_PAUSE = 0.1
"""Seconds before the second try; each further pause is twice as long."""

FORGIVEN = 2 * LONGEST_PAUSE
"""Seconds without a try after which the first is made at once again."""


class BackOff:
    """Pauses that grow: none, then 0.1 s, 0.2 s ... 5 s, each shortened by up to a half at random.

    The randomness keeps the nodes of a cluster from coming back to their database all at the same moment.

    Args:
        seconds: a monotonic clock.
        chance: a random number from 0 to 1.
    """

    def __init__(self, seconds: Callable[[], float], chance: Callable[[], float] = random) -> None:
        self._seconds, self._chance = seconds, chance
        self._tries = 0
        self._last = float("-inf")

    def next(self) -> float:
        """Seconds to wait before the next try."""
        now = self._seconds()
        if now - self._last > FORGIVEN:
            self._tries = 0
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._tries - 1, 16)) if self._tries else 0.0
        self._tries += 1
        self._last = now + pause
        return pause * (1 - self._chance() / 2)


class Listening:
    """A connection that LISTENs, watched by the reactor; it costs no thread while nothing comes.

    Args:
        reactor: watches the socket.
        connection: established, and used by nobody else.
        heard: told the payload of each notification.
        lost: told once why the connection ended, unless `close` ended it.
    """

    def __init__(
        self, reactor: Any, connection: Connection, heard: Callable[[str], None], lost: Callable[[str], None]
    ) -> None:
        self._reactor, self._connection, self._heard, self._lost = reactor, connection, heard, lost
        self._closed = False
        reactor.addReader(self)
        self.doRead()  # what came while nobody watched

    # -- what the reactor asks of a selectable ---------------------------------------------------------------------------

    def fileno(self) -> int:
        """A number for the socket that stays ours when the driver closes its own; -1 once both are closed."""
        return -1 if self._closed else self._connection.handle.fileno()

    def logPrefix(self) -> str:
        return "postgres"

    def doRead(self) -> None:
        """Something came: notifications, or the end."""
        if self._closed:
            return
        session = self._connection.session.pgconn
        try:
            session.consume_input()  # reads what is there and does not wait
            found = []
            while (each := session.notifies()) is not None:
                found.append(each.extra.decode("utf-8", "replace"))
        except psycopg.Error as error:
            self._end(reason(error))
            return
        for payload in found:
            self._heard(payload)

    def connectionLost(self, why: Failure) -> None:
        """The reactor found the socket ended, or is stopping."""
        self._end(why.getErrorMessage())

    def _end(self, why: str) -> None:
        if not self._closed:
            self.close()
            self._lost(why)

    def close(self) -> None:
        """Stop listening."""
        if not self._closed:
            self._reactor.removeReader(self)
            self._closed = True
            self._connection.close()
