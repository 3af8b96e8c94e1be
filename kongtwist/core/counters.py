"""The contract of a node's counters: connection counters as of nginx's stub status, and rate-limit windows.

A node may run several workers. Each has a row of cells and writes only its own row, so no lock is needed; who wants a
node's figure sums the rows. In the data path a counter is one line: ``cells[REQUESTS] += 1``.

Rate-limit windows are fixed windows (Kong's ``rate-limiting``, policy ``local``), counted per node. `Windows.take`
reads the sum of all rows and then counts in its own row without a lock, so N workers deciding at the same instant may
let at most N - 1 requests too many through a window; with one worker the count is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = [
    "ACCEPTED", "ACTIVE", "CELLS", "CELL_NAMES", "EVENT_STREAMS", "GAUGES", "HANDLED", "MOST_AT_ONCE", "READING", "REQUESTS", "SESSIONS",
    "TCP_SESSIONS", "UDP_SESSIONS", "WAITING", "WEBSOCKETS", "WRITING", "Cells", "Counters", "RateWindow", "Windows",
]  # fmt: skip

ACCEPTED = 0
"""Client connections accepted since the start (total)."""
HANDLED = 1
"""Client connections served; as ``ACCEPTED`` unless a limit closed some at once (total)."""
REQUESTS = 2
"""Requests received (total)."""
ACTIVE = 3
"""Client connections open now, waiting ones included (gauge)."""
READING = 4
"""Connections on which a request head is being read (gauge)."""
WRITING = 5
"""Connections with a request being served, WebSocket and SSE streams included (gauge)."""
WAITING = 6
"""Idle keep-alive connections (gauge)."""
WEBSOCKETS = 7
"""Open WebSockets (gauge)."""
EVENT_STREAMS = 8
"""Open event streams, SSE (gauge)."""

SESSIONS = 9
"""Sessions of stream routes since the start (total)."""
TCP_SESSIONS = 10
"""Open sessions of TCP and TLS that are relayed (gauge)."""
UDP_SESSIONS = 11
"""Open sessions of UDP (gauge)."""

CELL_NAMES = (
    "accepted", "handled", "requests", "active", "reading", "writing", "waiting", "websocket", "sse", "sessions", "tcp", "udp",
)  # fmt: skip
"""Names of the cells by index, as ``/status`` shows them."""
GAUGES = (ACTIVE, READING, WRITING, WAITING, WEBSOCKETS, EVENT_STREAMS, TCP_SESSIONS, UDP_SESSIONS)
"""Cells that tell a state, not a sum: they go back to nought when their worker dies."""
CELLS = 16
"""Cells in a row: two cache lines, with room to spare."""


MOST_AT_ONCE = 1 << 40
"""The largest amount that is counted at once: sums of it fit into a cell of 64 bits for as long as a window lasts."""


class RateWindow(NamedTuple):
    """One fixed window of a rate limit: which one it is, when it is over, how much fits."""

    window: int
    """Number of the window; different for every period and start, the same in all workers."""
    expires: float
    """Epoch seconds after which its count is of no use."""
    limit: float
    """Requests let through in the window."""


class Windows(Protocol):
    """Counts of requests in fixed windows, shared by the workers of a node."""

    def take(self, key: str, frames: Sequence[RateWindow], now: float) -> list[int]:
        """Count one request of ``key`` in all ``frames``, unless one of them is full already: then in none.

        Args:
            key: who is counted, scope included.
            frames: the windows running now.
            now: epoch seconds; used to drop windows that are over.

        Returns:
            for each frame the requests counted before this one; the request fits if each is below its limit.
        """
        ...

    def read(self, key: str, frames: Sequence[RateWindow]) -> list[int]:
        """What was counted of ``key`` in each of ``frames``; nothing is counted by it."""
        ...

    def add(self, key: str, frames: Sequence[RateWindow], amount: int, now: float) -> None:
        """Count ``amount`` of ``key`` in all ``frames``, whether it fits or not.

        Args:
            key: who is counted, scope included.
            frames: the windows running now.
            amount: 1 to `MOST_AT_ONCE`.
            now: epoch seconds, as for `take`.
        """
        ...


class Cells(Protocol):
    """A row of counters; a list, or a view of shared memory."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


class Counters(Protocol):
    """A node's counters as one worker sees them."""

    @property
    def cells(self) -> Cells:
        """This worker's own row; the only one it writes."""
        ...

    @property
    def windows(self) -> Windows: ...

    def totals(self) -> dict[str, int]:
        """The node's figures by `CELL_NAMES`, over all workers; never negative."""
        ...
