"""Rows of sessions: read from what the process knows, written through the node (``config.storage`` kong)."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from ...core.chain.credentials import expired
from ...core.chain.host import Rows
from ...core.rows import Row
from .client_session import Write

__all__ = ["SessionRows"]

_MOST_WAITING = 4096


class SessionRows:
    """The rows of one configuration.

    Args:
        rows: those of the host.
    """

    __slots__ = ("_ended", "_rows", "_waiting")

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        # What is being written counts from the start: the client may come back before the database has answered.
        self._waiting: dict[str, str] = {}
        # Ended before they were written: their rows go as soon as they are there.
        self._ended: set[str] = set()

    def load(self, session_id: str, now: float) -> str | None:
        """The data of the session with this id, unless it is over."""
        waiting = self._waiting.get(session_id)
        if waiting is not None:
            return waiting
        if session_id in self._ended:  # its row is there, and about to go
            return None
        row: Row | None = self._rows.by("sessions", "session_id", session_id)
        return None if row is None or expired(row, now) else row["data"]

    def announce(self, writes: Iterable[Write]) -> None:
        """Let what is going to be written be found from now on."""
        for each in writes:
            if each.what == "insert" and len(self._waiting) < _MOST_WAITING:
                self._waiting[each.session_id] = each.data

    async def make(self, writes: Iterable[Write]) -> None:
        """Make these changes, in order.

        Raises:
            Exception: what the host raises where a row cannot be written; those before it are.
        """
        writes = list(writes)
        try:
            for each in writes:
                await self._make(each)
        finally:
            for each in writes:
                self._waiting.pop(each.session_id, None)
                if each.what == "insert":
                    self._ended.discard(each.session_id)

    async def _make(self, write: Write) -> None:
        if write.what == "insert":
            # The cookie says to the second when it is over, whole seconds counted; the row must be there until then.
            row = {
                "session_id": write.session_id, "data": write.data, "expires": int(write.now + write.ttl),
                "ttl": max(1, ceil(write.ttl)) + 1,
            }  # fmt: skip
            made = await self._rows.insert("sessions", row)
            if write.session_id in self._ended:
                await self._rows.delete("sessions", made["id"])
            return
        found: Row | None = self._rows.by("sessions", "session_id", write.session_id)
        if found is None:
            if write.what == "delete" and write.session_id in self._waiting:
                self._ended.add(write.session_id)
            return
        if write.what == "delete" or write.ttl <= 0:
            await self._rows.delete("sessions", found["id"])
            return
        ends = found.get("expires_at")
        if ends is None or ends > write.now + write.ttl:  # else every use of what was replaced would prolong it
            values = {"expires": int(write.now + write.ttl), "ttl": ceil(write.ttl)}
            await self._rows.update("sessions", found["id"], values)
