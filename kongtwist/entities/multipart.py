"""Bodies of type multipart/form-data (RFC 7578), cut into their parts in one pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["HEAD", "Part", "parts"]

HEAD = 8192
"""Bytes of the longest head of a part."""

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,200})"|([^;\s"]{1,200}))', re.IGNORECASE)
_NAME = re.compile(rb';[ \t]*name=(?:"((?:[^"\\]|\\.)*)"|([^;\s"]+))', re.IGNORECASE)


class Part(NamedTuple):
    """One part of a body."""

    name: str | None
    """Of its field; None for a part without one."""
    kind: str
    """Its media type, lower case, without parameters; empty where it has none."""
    data: bytes


def parts(content_type: str, raw: bytes) -> Iterator[Part]:
    """The parts of a body, each when it is asked for; what a part holds is not looked into.

    Args:
        content_type: the header, with the boundary.
        raw: the body.

    Raises:
        ValueError: there is no boundary, a part's head is too long or no text, or the end is missing.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise ValueError("there is no boundary")
    line = b"\r\n--" + (found[1] or found[2]).encode("latin-1")
    at = len(line) - 2 if raw.startswith(line[2:]) else _boundary(raw, line, 0) + len(line)
    while not raw.startswith(b"--", at):
        head_end = at if raw.startswith(b"\r\n\r\n", at) else raw.find(b"\r\n\r\n", at + 2, at + HEAD)
        if head_end < 0:
            raise ValueError("the head of a part does not end")
        end = _boundary(raw, line, head_end + 2)
        yield _part(raw[at + 2 : head_end], raw[head_end + 4 : end])
        at = end + len(line)


def _boundary(raw: bytes, line: bytes, at: int) -> int:
    """Where the next boundary stands; what only begins like one is data."""
    while (at := raw.find(line, at)) >= 0:
        if raw[at + len(line) : at + len(line) + 2] in (b"\r\n", b"--"):
            return at
        at += 1
    raise ValueError("a boundary is missing")


def _part(head: bytes, data: bytes) -> Part:
    name, kind = None, ""
    for each in head.split(b"\r\n"):
        field, _, value = each.partition(b":")
        field = field.strip().lower()
        if field == b"content-type":
            kind = value.partition(b";")[0].strip().lower().decode("latin-1")
        elif field == b"content-disposition" and (found := _NAME.search(value)) is not None:
            quoted, bare = found[1], found[2]
            name = (bare if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted)).decode("utf-8")
    return Part(name, kind, data)
