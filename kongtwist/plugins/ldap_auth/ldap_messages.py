"""The few LDAP messages that a login takes (RFC 4511), in BER as section 5.1 restricts it: simple binds, StartTLS, their answers."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "BIND",
    "EXTENDED",
    "MOST",
    "Malformed",
    "Result",
    "bind_request",
    "escaped",
    "result_of",
    "start_tls_request",
    "unbind_request",
    "whole",
]

MOST = 65536
"""Bytes of the longest answer that is read: a result and some words about it."""

BIND = 1
"""Tags of answers: [APPLICATION 1] and [APPLICATION 24] (RFC 4511 4.2.2, 4.12)."""
EXTENDED = 24

_STARTTLS = b"1.3.6.1.4.1.1466.20037"  # RFC 4511 4.14.1
_SPECIAL = frozenset(',+"\\<>;=#')
_SEQUENCE, _INTEGER, _OCTETS, _ENUMERATED = 0x30, 0x02, 0x04, 0x0A


class Malformed(Exception):
    """What came is no LDAP message of the kind that was waited for."""


class Result(NamedTuple):
    """The answer to a request (RFC 4511 4.1.9)."""

    message_id: int
    operation: int  #: `BIND` or `EXTENDED`
    code: int  #: 0: it was done
    text: str  #: what the server says about it


def escaped(value: str) -> str:
    """Text as the value of an attribute in a distinguished name: nothing in it ends the value (RFC 4514 2.4)."""
    if not value:
        return value
    last = len(value) - 1
    out = []
    for at, each in enumerate(value):
        if each == "\0":
            out.append("\\00")
        elif each in _SPECIAL or (each == " " and at in (0, last)):
            out.append(f"\\{each}")
        else:
            out.append(each)
    return "".join(out)


def bind_request(message_id: int, name: str, password: bytes) -> bytes:
    """A simple bind (RFC 4511 4.2).

    Raises:
        ValueError: no password: servers take that for nobody in particular, and agree (RFC 4513 5.1.2).
    """
    if not password:
        raise ValueError("a bind without a password says nothing of who it is")
    inner = _tlv(_INTEGER, b"\x03") + _tlv(_OCTETS, name.encode("utf-8", "surrogateescape")) + _tlv(0x80, password)
    return _message(message_id, _tlv(0x60, inner))


def start_tls_request(message_id: int) -> bytes:
    """Ask for TLS on this connection (RFC 4511 4.14)."""
    return _message(message_id, _tlv(0x77, _tlv(0x80, _STARTTLS)))


def unbind_request(message_id: int) -> bytes:
    """Say good-bye (RFC 4511 4.3)."""
    return _message(message_id, _tlv(0x42, b""))


def whole(data: bytes) -> int | None:
    """How many bytes the first message of ``data`` has; None: it is not all there yet.

    Raises:
        Malformed: it is none, or longer than `MOST`.
    """
    if data and data[0] != _SEQUENCE:
        raise Malformed("not an LDAP message")
    if len(data) < 2:
        return None
    size, at = _length(data, 1)
    if size is None:
        return None
    if at + size > MOST:
        raise Malformed(f"an answer of {at + size} bytes")
    return at + size if len(data) >= at + size else None


def result_of(message: bytes) -> Result:
    """A whole message as a result.

    Raises:
        Malformed: it is none.
    """
    inner = _Reader(_Reader(message).take(_SEQUENCE))
    message_id = int.from_bytes(inner.take(_INTEGER), "big", signed=True)
    tag, content = inner.take_any()
    if tag & 0xE0 != 0x60:
        raise Malformed("not an answer")
    parts = _Reader(content)
    code = int.from_bytes(parts.take(_ENUMERATED), "big", signed=True)
    parts.take(_OCTETS)  # matchedDN
    text = parts.take(_OCTETS).decode("utf-8", "replace")
    return Result(message_id, tag & 0x1F, code, text)


class _Reader:
    """Reads elements one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take_any(self) -> tuple[int, bytes]:
        data, at = self._data, self._at
        if at >= len(data):
            raise Malformed("an answer ends too early")
        size, begin = _length(data, at + 1)
        if size is None or begin + size > len(data):
            raise Malformed("an answer ends too early")
        self._at = begin + size
        return data[at], data[begin : begin + size]

    def take(self, tag: int) -> bytes:
        found, content = self.take_any()
        if found != tag:
            raise Malformed(f"an answer has {found:#x} where {tag:#x} belongs")
        return content


def _length(data: bytes, at: int) -> tuple[int | None, int]:
    """A length, and where what it measures begins (X.690 8.1.3); None: it is not all there."""
    if at >= len(data):
        return None, at
    first = data[at]
    if first < 0x80:
        return first, at + 1
    count = first & 0x7F
    if not 1 <= count <= 4:  # RFC 4511 5.1: definite lengths only
        raise Malformed("an answer of no definite length")
    if at + 1 + count > len(data):
        return None, at
    return int.from_bytes(data[at + 1 : at + 1 + count], "big"), at + 1 + count


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _message(message_id: int, operation: bytes) -> bytes:
    number = message_id.to_bytes(message_id.bit_length() // 8 + 1, "big")
    return _tlv(_SEQUENCE, _tlv(_INTEGER, number) + operation)
