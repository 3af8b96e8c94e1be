"""Moving bytes from socket to socket without having them: splice(2) through a pipe.

For payload that nobody looks at (the middle of a large WebSocket frame) the kernel hands pages on instead of copying them
to us and back. One pipe serves all streams of a gateway: it is empty again before anybody else runs.
"""

from __future__ import annotations

import fcntl
import os

__all__ = ["Pipe"]

_CAPACITY = 1 << 20
"""Bytes asked for of the pipe: what Linux gives without privileges (pipe-max-size)."""
_FLAGS = getattr(os, "SPLICE_F_MOVE", 1) | getattr(os, "SPLICE_F_NONBLOCK", 2)


class Pipe:
    """A pipe for moves.

    Raises:
        OSError: there are no descriptors left, or the system has no splice.
    """

    __slots__ = ("_in", "_out")

    def __init__(self) -> None:
        if not hasattr(os, "splice"):
            raise OSError("no splice(2) here")
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _CAPACITY)
        except OSError:
            pass  # a smaller one moves less at a time

    def move(self, source: int, sink: int, most: int) -> tuple[int, bytes | None]:
        """Move up to ``most`` bytes.

        Args:
            source: descriptor of the socket they come from.
            sink: descriptor of the socket they go to.
            most: how many at most.

        Returns:
            how many left the source (nought at its end), and those of them the sink did not take; None instead when the
            sink is broken, and what it did not take is lost.

        Raises:
            BlockingIOError: there is nothing to read.
            OSError: the source is broken, or is nothing that can be spliced.
        """
        moved = rest = os.splice(source, self._in, most, flags=_FLAGS)
        try:
            while rest:
                rest -= os.splice(self._out, sink, rest, flags=_FLAGS)
        except BlockingIOError:
            return moved, self._take(rest)
        except OSError:
            self._take(rest)
            return moved, None
        return moved, b""

    def _take(self, size: int) -> bytes:
        """Empty the pipe."""
        pieces = []
        while size:
            piece = os.read(self._out, size)
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._in)
        os.close(self._out)
