"""Cookies as clients send and get them (RFC 6265), and values larger than one cookie.

A value that is longer than `LARGEST` goes on in the cookies ``name2`` to ``name9``; its first character says how many there
are.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["LARGEST", "MOST", "expired_line", "joined", "split"]

LARGEST = 4096
"""Bytes of a cookie, its name included: what browsers take at least (RFC 6265 6.1)."""
MOST = 9
"""Cookies of one value."""

_OVER = b"; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0"


def split(name: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    """A value as cookies: their names and values.

    Raises:
        ValueError: it needs more than `MOST` cookies.
    """
    room = LARGEST - len(name) - 2
    pieces = [
        value[at : at + room] for at in range(0, len(value), room)
    ]  # a digit before the value, or behind the name
    if len(pieces) > MOST:
        raise ValueError(f"a session of {len(value)} bytes does not fit into {MOST} cookies")
    pieces[0] = b"%d%b" % (len(pieces), pieces[0])
    return [(name if not at else b"%b%d" % (name, at + 1), piece) for at, piece in enumerate(pieces)]


def joined(name: bytes, cookies: Mapping[bytes, bytes]) -> tuple[bytes, int] | None:
    """The value that `split` took apart, and in how many cookies it came; None where it is not whole."""
    first = cookies.get(name, b"")
    count = first[0] - 0x30 if first else 0
    if not 1 <= count <= MOST:
        return None
    rest = [cookies.get(b"%b%d" % (name, at)) for at in range(2, count + 1)]
    return None if None in rest else (first[1:] + b"".join(each or b"" for each in rest), count)


def expired_line(name: bytes, attributes: bytes) -> bytes:
    """A ``Set-Cookie`` that takes a cookie from the client."""
    return name + b"=" + attributes + _OVER
