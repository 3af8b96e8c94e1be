"""Counts the events of an event stream as they pass (WHATWG HTML 9.2.5): blocks of lines that have data and an empty line behind them,
however reads cut them. Comments, and what only names an id or a time to come again, are no events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.http.chunks import ChunkScanner

__all__ = ["EventCounter"]

_HELD = len(b"data:")
"""Bytes of a line that is not complete which are kept: by these its field is known."""


class EventCounter:
    """The events of one stream.

    Args:
        raw: pieces come with the framing of their chunks.
    """

    __slots__ = ("_after_cr", "_chunks", "_data", "_held")

    def __init__(self, raw: bool) -> None:
        self._chunks = ChunkScanner(upstream=True) if raw else None
        self._held = b""  # the beginning of a line
        self._data = False  # the event under way has data
        self._after_cr = False  # a line feed that comes first belongs to the line before

    def written(self) -> list[Any]:
        """Where it is, as JSON can say it."""
        chunks = None if self._chunks is None or self._chunks.done else self._chunks.written()
        return [chunks, self._held.hex(), self._data, self._after_cr]

    def resume(self, written: Sequence[Any]) -> None:
        """Go on where another was, which has `written` it."""
        chunks, held, self._data, self._after_cr = written
        self._held = bytes.fromhex(held)
        if chunks is not None and self._chunks is not None:
            self._chunks.resume(chunks)

    def feed(self, piece: bytes) -> int:
        """How many events end in a piece."""
        if self._chunks is None:
            return self._ends(piece) if piece else 0
        payload: list[bytes] = []
        self._chunks.feed(piece, payload)
        return self._ends(b"".join(payload)) if payload else 0

    def _ends(self, text: bytes) -> int:
        if self._after_cr or b"\r" in text:
            first = 1 if self._after_cr and text[:1] == b"\n" else 0
            self._after_cr = text.endswith(b"\r")
            text = text[first:].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = (self._held + text).split(b"\n")
        self._held = lines.pop()[:_HELD]
        events = 0
        for line in lines:
            if not line:
                if self._data:
                    self._data = False
                    events += 1
            elif line.startswith(b"data:") or line == b"data":
                self._data = True
        return events
