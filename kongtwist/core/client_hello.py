"""The first message of TLS, read without taking part in it: which server a client asks for (RFC 8446 4.1.2, RFC 6066 3).

Strict: what is not exactly a ClientHello is none. Nothing is kept between calls; who reads from a socket gives all that has come so
far, and bounds it.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Hello", "NoHello", "read_hello"]

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_ALPN = 16
_LARGEST_RECORD = 1 << 14
"""Bytes of a record's payload (RFC 8446 5.1)."""
_LONGEST_NAME = 255


class NoHello(ValueError):
    """What a client sends is no ClientHello. Its text says what is wrong."""


class Hello(NamedTuple):
    """What a ClientHello tells."""

    sni: str | None  #: the server it asks for, in lower case, without a dot at its end; None where it names none
    alpn: tuple[bytes, ...] = ()  #: protocols it offers, the one it likes best first


class _Bytes:
    """Reads from a text of bytes that is there as a whole."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self._data, self._at, self._end = data, at, len(data) if end is None else end

    @property
    def empty(self) -> bool:
        return self._at == self._end

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > self._end:
            raise NoHello("a length goes beyond the message")
        found = self._data[self._at : end]
        self._at = end
        return found

    def vector(self, size: int, least: int = 0, most: int = 1 << 16) -> _Bytes:
        """What stands behind its length, a number of ``size`` bytes."""
        length = self.number(size)
        if not least <= length <= most:
            raise NoHello(f"a length is {length} where {least} to {most} are allowed")
        begin, end = self._at, self._at + length
        if end > self._end:
            raise NoHello("a length goes beyond the message")
        self._at = end
        return _Bytes(self._data, begin, end)

    def rest(self) -> bytes:
        return self.take(self._end - self._at)


def read_hello(data: bytes) -> Hello | None:
    """Read what a client has sent so far.

    Args:
        data: from its first byte on.

    Returns:
        what the ClientHello tells, or None while it is not whole.

    Raises:
        NoHello: it will never be one.
    """
    message = _message(data)
    return None if message is None else _hello(message)


def _message(data: bytes) -> bytes | None:
    """The first message of the handshake, which may come in several records; None while it is not whole."""
    pieces: list[bytes] = []
    had, at, size = 0, 0, -1
    while True:
        head = data[at : at + 5]
        if head[:1] and head[0] != _HANDSHAKE:
            raise NoHello("it begins with no record of a handshake")
        if head[1:2] and head[1] != 3:
            raise NoHello("its record is of no known version of TLS")
        if len(head) < 5:
            return None
        length = int.from_bytes(head[3:5])
        if not 1 <= length <= _LARGEST_RECORD:
            raise NoHello(f"a record of {length} bytes")
        piece = data[at + 5 : at + 5 + length]
        pieces.append(piece)
        had += len(piece)
        if size < 0 and had:
            begin = b"".join(pieces)[:4]
            if begin[0] != _CLIENT_HELLO:
                raise NoHello("its first message is no ClientHello")
            if len(begin) == 4:
                size = int.from_bytes(begin[1:4])
        if 0 <= size <= had - 4:
            return b"".join(pieces)[4 : 4 + size]
        if len(piece) < length:
            return None
        at += 5 + length


def _hello(message: bytes) -> Hello:
    body = _Bytes(message)
    if body.number(2) >> 8 != 3:
        raise NoHello("its version is none of TLS")
    body.take(32)
    body.vector(1, most=32)
    ciphers = body.vector(2, least=2, most=65534)
    if len(ciphers.rest()) % 2:
        raise NoHello("its ciphers are no pairs of bytes")
    body.vector(1, least=1, most=255)
    if body.empty:
        return Hello(None)
    extensions = body.vector(2, most=65535)
    if not body.empty:
        raise NoHello("something stands behind its extensions")
    sni: str | None = None
    alpn: tuple[bytes, ...] = ()
    seen: set[int] = set()
    while not extensions.empty:
        kind = extensions.number(2)
        inner = extensions.vector(2, most=65535)
        if kind in seen:
            raise NoHello(f"extension {kind} stands there twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            sni = _server_name(inner)
        elif kind == _ALPN:
            alpn = _protocols(inner)
    return Hello(sni, alpn)


def _server_name(inner: _Bytes) -> str | None:
    names = inner.vector(2, least=1, most=65535)
    if not inner.empty:
        raise NoHello("something stands behind its server names")
    found: str | None = None
    while not names.empty:
        kind = names.number(1)
        name = names.vector(2, least=1, most=65535).rest()
        if kind:
            continue
        if found is not None:
            raise NoHello("it names two servers")
        if len(name) > _LONGEST_NAME or not all(0x21 <= each <= 0x7E for each in name):
            raise NoHello("the server's name is no host name")
        found = name.decode("ascii").lower().rstrip(".")
    return found or None


def _protocols(inner: _Bytes) -> tuple[bytes, ...]:
    listed = inner.vector(2, least=2, most=65535)
    if not inner.empty:
        raise NoHello("something stands behind its protocols")
    found = []
    while not listed.empty:
        found.append(listed.vector(1, least=1, most=255).rest())
    return tuple(found)
