"""Normalisation of request paths (Kong 3.9 ``kong.tools.uri``; RFC 3986 2.3, 5.2.4), for routes' rules and for routing."""

from __future__ import annotations

import re

__all__ = ["normalise"]

_RESERVED = frozenset(b"!*'();:@&=+$,/?%#[]")
"""Bytes whose percent-encoding means something else than the byte itself; kept encoded (RFC 3986 2.2, and ``%``)."""

_DECODED = {
    f"{value:02x}".encode(): b"%%%02X" % value if value in _RESERVED else bytes((value,)) for value in range(256)
}
"""What ``%XX`` becomes, by its two digits in lower case."""

_TRIPLET = re.compile(rb"%([0-9A-Fa-f]{2})")
_SLASHES = re.compile(rb"//+")
_DOT_SEGMENT = re.compile(rb"(?:^|/)\.\.?(?:/|$)")


def _decode(found: re.Match[bytes]) -> bytes:
    return _DECODED[found[1].lower()]


def normalise(path: bytes) -> bytes:
    """The path as the router sees it.

    Percent-encoded bytes are decoded unless reserved (those keep their encoding, in upper case), ``//`` is merged and
    ``.`` and ``..`` segments are removed. A trailing slash stays as it is.
    """
    if b"%" in path:
        path = _TRIPLET.sub(_decode, path)
    if b"//" in path:
        path = _SLASHES.sub(b"/", path)
    if b"." in path and _DOT_SEGMENT.search(path):
        path = _without_dots(path)
    return path


def _without_dots(path: bytes) -> bytes:
    """Remove dot segments (RFC 3986 5.2.4)."""
    rooted = path.startswith(b"/")
    segments = path.split(b"/")
    kept: list[bytes] = []
    for segment in segments[1:] if rooted else segments:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b"..") and kept:
        kept.append(b"")
    return (b"/" if rooted else b"") + b"/".join(kept)
