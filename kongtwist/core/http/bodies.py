"""Request bodies that plugins look into: forms, JSON and multipart forms, decoded and with a field taken out.

Only whole, bounded bodies come here (`Exchange.read_body`); what is relayed never does.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ...entities.json_text import parse_json
from .query import parse_query, without_argument

__all__ = ["RequestBody", "decode_body"]

_BOUNDARY = re.compile(rb'boundary="?([^";,\s]{1,70})"?', re.IGNORECASE)
"""RFC 2046 5.1.1: at most 70 characters."""
_PART_NAME = re.compile(rb'^content-disposition:[^\r\n]*?;\s*name="([^"\r\n]*)"', re.IGNORECASE | re.MULTILINE)


class RequestBody:
    """A decoded body: ``args`` are its fields by name.

    A field that comes once is what it is (text in forms, any JSON value in JSON), one that comes several times in a
    form is a list.
    """

    def __init__(self, args: dict[str, Any]) -> None:
        self.args = args

    def without(self, name: str) -> bytes:
        """The body again, in its own encoding, without field ``name``."""
        raise NotImplementedError


class _Json(RequestBody):
    def without(self, name: str) -> bytes:
        left = {key: value for key, value in self.args.items() if key != name}
        return json.dumps(left, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


class _Form(RequestBody):
    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        super().__init__(_flat(parse_query(raw)))

    def without(self, name: str) -> bytes:
        return without_argument(self._raw, name)


class _Multipart(RequestBody):
    """multipart/form-data (RFC 7578). Parts that stay are kept byte for byte."""

    def __init__(self, raw: bytes, boundary: bytes) -> None:
        self._delimiter = b"--" + boundary
        # A delimiter is at the start of a line (RFC 2046 5.1.1); the first may be the very beginning.
        self._pieces = (b"\r\n" + raw).split(b"\r\n" + self._delimiter)
        values: dict[str, list[str]] = {}
        for piece in self._pieces[1:]:
            name = self._name(piece)
            if name is not None:
                content = piece.partition(b"\r\n\r\n")[2]
                values.setdefault(name, []).append(content.decode("utf-8", "surrogateescape"))
        super().__init__(_flat(values))

    @staticmethod
    def _name(piece: bytes) -> str | None:
        head, separator, _ = piece.partition(b"\r\n\r\n")
        found = _PART_NAME.search(head) if separator else None
        return found[1].decode("utf-8", "surrogateescape") if found else None

    def without(self, name: str) -> bytes:
        first, *pieces = self._pieces
        kept = [first, *(piece for piece in pieces if self._name(piece) != name)]
        return (b"\r\n" + self._delimiter).join(kept)[2:]


def _flat(values: dict[str, list[str]]) -> dict[str, Any]:
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


def decode_body(content_type: bytes | None, raw: bytes) -> RequestBody | None:
    """Decode by content type, as Kong's ``kong.request.get_body`` does.

    Returns:
        None for other content types and for bodies that are not what they say: such a body has no fields.
    """
    kind = (content_type or b"").partition(b";")[0].strip().lower()
    if kind == b"application/x-www-form-urlencoded":
        return _Form(raw)
    if kind == b"application/json":
        try:
            value = parse_json(raw)
        except ValueError:
            return None
        return _Json(value) if isinstance(value, dict) else None
    if kind == b"multipart/form-data":
        found = _BOUNDARY.search(content_type or b"")
        return _Multipart(raw, found[1]) if found else None
    return None
