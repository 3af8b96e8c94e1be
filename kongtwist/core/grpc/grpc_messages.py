"""Messages of gRPC in a body: each has a prefix of five bytes, a flag and its length (PROTOCOL-HTTP2.md)."""

from __future__ import annotations

from struct import Struct

__all__ = ["PREFIX", "MessageCounter", "MessageError", "MessageReader", "MessageTooLarge", "framed"]

_PREFIX = Struct(">BI")

PREFIX = 5
"""Bytes before each message."""


class MessageError(ValueError):
    """A body that holds no messages, or one that cannot be read."""


class MessageTooLarge(MessageError):
    """A message is larger than the limit."""


def framed(message: bytes, flags: int = 0) -> bytes:
    """A message with its prefix."""
    return _PREFIX.pack(flags, len(message)) + message


class MessageCounter:
    """Counts the messages of a body that passes in pieces; of a message only the length is looked at.

    Attributes:
        count: messages that have begun.
    """

    __slots__ = ("_left", "_prefix", "count")

    def __init__(self) -> None:
        self.count = 0
        self._left = 0
        self._prefix = b""

    def feed(self, data: bytes | memoryview) -> None:
        """Look at the next piece."""
        size = len(data)
        at = self._left
        if at >= size:  # in the middle of a message: nothing to be seen
            self._left = at - size
            return
        if self._prefix:
            need = PREFIX - len(self._prefix)
            prefix = self._prefix + bytes(data[:need])
            if len(prefix) < PREFIX:
                self._prefix = prefix
                return
            self._prefix = b""
            self.count += 1
            at = need + int.from_bytes(prefix[1:], "big")
        unpack = _PREFIX.unpack_from
        while at + PREFIX <= size:
            self.count += 1
            at += PREFIX + unpack(data, at)[1]
        if at < size:
            self._prefix = bytes(data[at:])
            self._left = 0
        else:
            self._left = at - size

    @property
    def between(self) -> bool:
        """No message is in the middle."""
        return not self._left and not self._prefix


class MessageReader:
    """Takes messages out of a body that comes in pieces.

    Args:
        limit: bytes of the largest message taken; 0: no limit.
        known: flags that a message may have; the bits of others make it malformed.
    """

    __slots__ = ("_known", "_limit", "_need", "_pieces", "_size")

    def __init__(self, limit: int = 0, known: int = 1) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._need = PREFIX  # bytes that must be here before anything can be told
        self._limit = limit
        self._known = known

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The messages that are whole with the next piece: flags and content.

        Raises:
            MessageTooLarge: one is larger than the limit.
            MessageError: one has flags that nobody knows.
        """
        pieces = self._pieces
        pieces.append(data)
        self._size += len(data)
        if self._size < self._need:
            return []
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        out: list[tuple[int, bytes]] = []
        at, size = 0, len(data)
        need = PREFIX
        while at + PREFIX <= size:
            flags, length = _PREFIX.unpack_from(data, at)
            if flags & ~self._known:
                raise MessageError(f"a message has the flags {flags:#04x}")
            if self._limit and length > self._limit:
                raise MessageTooLarge(f"a message of {length} bytes; {self._limit} are allowed")
            end = at + PREFIX + length
            if end > size:
                need = PREFIX + length
                break
            out.append((flags, data[at + PREFIX : end]))
            at = end
        self._pieces = [data[at:]] if at < size else []
        self._size = size - at
        self._need = need
        return out

    @property
    def between(self) -> bool:
        """No message is in the middle: the body may end here."""
        return not self._size
