"""Request bodies of the Admin API: JSON, forms and multipart, decoded to one tree (Kong 3.9, ``kong/api/arguments.lua``).

What is read becomes a row, so it has the limits of one (entities/size.py). A body that takes long is decoded beside the
reactor; how long it takes is estimated from its bytes.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any
from urllib.parse import unquote_plus

from ..entities import Entity
from ..entities.forms import MAX_ARGUMENTS, TooManyArguments, decode_form
from ..entities.json_text import check_nesting, parse_finite
from ..entities.multipart import parts
from ..entities.schema import Row
from ..entities.size import HEAVY_BYTES, HEAVY_VALUES, MAX_BYTES, MAX_VALUES, size_error
from .json_resource import Call
from .replies import Reply

__all__ = ["BadBody", "read_body"]

_PAGE = (
    "<html>\r\n<head><title>415 Unsupported Media Type</title></head>\r\n<body>\r\n"
    "<center><h1>415 Unsupported Media Type</h1></center>\r\n</body>\r\n</html>\r\n"
)

QUICK = 256 * 1024
"""Bytes of a body with few values that is decoded at once."""

_SIGNS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[,\[{]', re.DOTALL)
"""In a JSON text: a string, or what stands before a value."""


class BadBody(Exception):
    """A body that cannot be used; carries the answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


async def read_body(call: Call, entity: Entity | None = None, stored: Row | None = None) -> dict[str, Any]:
    """The body as a tree.

    Args:
        call: the request.
        entity: whose schema gives form values their types.
        stored: the row that is changed, for forms that leave out what chooses a subschema.

    Raises:
        BadBody: of an unknown type, too large, or not what it says it is.
    """
    kinds = call.headers("content-type")
    if len(kinds) > 1:
        raise BadBody(Reply(400, b"Multiple Content-Type headers not allowed", content_type="text/plain"))
    assert call.request.content is not None
    call.request.content.seek(0)
    raw = call.request.content.read()
    kind = kinds[0] if kinds else ""
    if len(raw) > MAX_BYTES:
        raise BadBody(Reply(413, {"message": f"Payload too large: a row has at most {MAX_BYTES} bytes"}))
    if _is_quick(raw, kind):
        return decoded(kind, raw, entity, stored)
    return await call.long_work.aside(decoded, kind, raw, entity, stored)


def _is_quick(raw: bytes, kind: str) -> bool:
    """Whether a body is decoded in a millisecond or two. Long texts take long in forms alone, where they are escaped."""
    most = HEAVY_BYTES if "urlencoded" in kind.lower() else QUICK
    return len(raw) <= most and raw.count(b",") + raw.count(b"&") + raw.count(b"\r\n--") <= HEAVY_VALUES


def decoded(content_type: str, raw: bytes, entity: Entity | None, stored: Row | None) -> dict[str, Any]:
    """What a body of a type holds. Arguments and errors as `read_body`."""
    kind = content_type.partition(";")[0].strip().lower()
    if not raw and (not kind or kind != "application/json"):
        return {}
    if kind == "application/json":
        return _json(raw)
    try:
        if kind == "application/x-www-form-urlencoded":
            return _fitting(_typed(_pairs(raw), entity, stored))
        if kind == "multipart/form-data":
            return _fitting(_multipart(content_type, raw, entity, stored))
    except TooManyArguments as error:
        raise BadBody(Reply(400, {"message": str(error)})) from error
    except (ValueError, RecursionError):
        raise BadBody(Reply(400, {"message": "Cannot parse the form"})) from None
    raise BadBody(Reply(415, _PAGE.encode(), content_type="text/html; charset=UTF-8"))


def _json(raw: bytes) -> dict[str, Any]:
    if _has_many_values(raw):
        raise BadBody(Reply(400, {"message": f"Too many values: at most {MAX_VALUES} make a row"}))
    try:
        found = _value(raw)
    except (ValueError, RecursionError):
        raise BadBody(Reply(400, {"message": "Cannot parse JSON body"})) from None
    if not isinstance(found, dict):
        raise BadBody(Reply(400, {"message": "Cannot parse JSON body"}))
    return _fitting(found)


def _fitting(found: dict[str, Any]) -> dict[str, Any]:
    """A tree that may become a row."""
    wrong = size_error(found)
    if wrong is not None:
        raise BadBody(Reply(400, {"message": wrong[0].upper() + wrong[1:]}))
    return found


def _has_many_values(raw: bytes) -> bool:
    """Whether a JSON text has more than `MAX_VALUES` values. Only where its signs do not rule it out are they told from those
    inside strings."""
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") < MAX_VALUES:
        return False
    signs = (found for found in _SIGNS.finditer(raw) if found.end() - found.start() == 1)
    return next(islice(signs, MAX_VALUES - 1, None), None) is not None


def _value(raw: bytes) -> Any:
    """What a JSON text stands for (RFC 8259): UTF-8, whole characters, finite numbers, so that it can be answered again.

    Raises:
        ValueError, RecursionError: it is no such text.
    """
    text = raw.decode("utf-8")
    found = parse_finite(text)
    if "\\ud" in text or "\\uD" in text:
        json.dumps(found, ensure_ascii=False).encode("utf-8")  # half a surrogate pair cannot be encoded
    return found


def _pairs(raw: bytes) -> list[tuple[str, str | None]]:
    """Names and values; a value without a name is none (as OpenResty takes them)."""
    if raw.count(b"&") > 2 * MAX_ARGUMENTS:  # with room for some that are empty
        raise TooManyArguments("Too many arguments")
    found: list[tuple[str, str | None]] = []
    for part in raw.decode("utf-8").split("&"):
        name, sign, value = part.partition("=")
        if name:
            found.append((unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict") if sign else None))
    return found


def _typed(pairs: list[tuple[str, str | None]], entity: Entity | None, stored: Row | None) -> dict[str, Any]:
    if entity is None:
        return {name: True if value is None else value for name, value in pairs}
    found = decode_form(pairs, entity, stored=stored)
    check_nesting(found)
    return found


def _multipart(content_type: str, raw: bytes, entity: Entity | None, stored: Row | None) -> dict[str, Any]:
    pairs: list[tuple[str, str | None]] = []
    whole: dict[str, Any] = {}
    for number, part in enumerate(parts(content_type, raw), 1):
        if number > MAX_ARGUMENTS:
            raise TooManyArguments("Too many arguments")
        if part.name is None:
            continue
        if part.kind == "application/json":
            if _has_many_values(part.data):
                raise ValueError("too many values")
            whole[part.name] = _value(part.data)
        else:
            pairs.append((part.name, part.data.decode("utf-8")))
    return _typed(pairs, entity, stored) | whole
