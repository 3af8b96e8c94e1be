"""Fields, arguments and bodies as the tables that Lua gets of them (lua-nginx-module ``ngx.req.get_headers``, ``ngx.decode_args``)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from ..lua_error import LuaError
from .pdk_call import is_text, raw, type_name

__all__ = ["HeaderTable", "arguments_table", "decoded_body", "encoded_arguments", "field_table", "media_type"]

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MULTIPART = "multipart/form-data"

_BOUNDARY = re.compile(rb'boundary="?([^";,\s]{1,70})"?', re.IGNORECASE)
"""RFC 2046 5.1.1: at most 70 characters."""
_PART_NAME = re.compile(rb'^content-disposition:[^\r\n]*?;\s*name="?([^"\r\n;]*)"?', re.IGNORECASE | re.MULTILINE)


class HeaderTable(dict[bytes, Any]):
    """Fields, names in lower case. In Lua a name is found in any case, and with ``_`` for ``-``."""


def field_table(fields: Iterable[tuple[bytes, bytes]], most: int) -> Any:
    """Fields as a table; a second value, ``truncated``, where there are more.

    Args:
        fields: (name, value), names in any case.
        most: fields that are taken.
    """
    table = HeaderTable()
    for count, (name, value) in enumerate(fields):
        if count >= most:
            return table, b"truncated"
        _put(table, name.lower(), value)
    return table


def arguments_table(query: bytes, most: int) -> Any:
    """The arguments of a query or a form as a table: true for one without ``=``, a list for one that comes several times; a second
    value, ``truncated``, where there are more than ``most``. Arguments without a name are left out."""
    table: dict[bytes, Any] = {}
    count = 0
    for part in query.replace(b"+", b" ").split(b"&") if query else ():
        name, equals, value = part.partition(b"=")
        if not name:
            continue
        if count >= most:
            return table, b"truncated"
        count += 1
        _put(table, unquote_to_bytes(name), unquote_to_bytes(value) if equals else True)
    return table


def _put(table: dict[bytes, Any], name: bytes, value: Any) -> None:
    before = table.get(name)
    if before is None:
        table[name] = value
    elif isinstance(before, list):
        before.append(value)
    else:
        table[name] = [before, value]


# -- what Lua gives ------------------------------------------------------------------------------------------------------


def encoded_arguments(arguments: Any) -> bytes:
    """A table as query string (``ngx.encode_args``), arguments by their encoded form, as Kong sorts them.

    Raises:
        LuaError: a name that is no string, a value that is no string, number, boolean or list of these.
    """
    made: list[bytes] = []
    for name, value in _pairs(arguments):
        if not is_text(name):
            raise LuaError("arg keys must be strings")
        each = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
        parts = [_argument(raw(name), one) for one in each]
        if given := [part for part in parts if part is not None]:
            made.append(b"&".join(given))
    return b"&".join(sorted(made))


def _pairs(table: Any) -> Iterable[tuple[Any, Any]]:
    return table.items() if isinstance(table, Mapping) else enumerate(table, 1)


def _argument(name: bytes, value: Any) -> bytes | None:
    key = _escaped(name)
    if value is True:
        return key
    if value is False or value is None:
        return None
    if isinstance(value, list | dict):
        raise LuaError("attempt to use table as query arg value")
    if not is_text(value) and not isinstance(value, int | float):
        raise LuaError(f"attempt to use {type_name(value)} as query arg value")
    return key + b"=" + _escaped(raw(value) if is_text(value) else number_text(value))


def _escaped(value: bytes) -> bytes:
    return quote(value, safe="!'()*").encode("ascii")


def number_text(value: float) -> bytes:
    """A number as Lua writes it (``%.14g``)."""
    return b"%d" % value if value == value // 1 and abs(value) < 1e15 else b"%.14g" % value


# -- bodies ----------------------------------------------------------------------------------------------------------------


def media_type(content_type: str) -> str:
    """A Content-Type without parameters, in lower case."""
    return content_type.lower().partition(";")[0]


def decoded_body(body: bytes, content_type: str, most: int) -> tuple[Any, ...]:
    """A body as a table: (table, None, kind), or (None, error, kind)."""
    kind = media_type(content_type)
    if kind.startswith(FORM):
        table = arguments_table(body, most)
        return (table[0] if isinstance(table, tuple) else table, None, FORM)
    if kind.startswith(JSON):
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict | list):
            return None, "invalid json body", JSON
        return value, None, JSON
    if kind.startswith(MULTIPART):
        found = _BOUNDARY.search(raw(content_type))
        if found is None:
            return None, "unable to decode multipart body", MULTIPART
        return _parts(body, found[1]), None, MULTIPART
    return None, f"unsupported content type '{content_type}'", kind


def _parts(body: bytes, boundary: bytes) -> dict[bytes, Any]:
    """Values of a multipart form (RFC 7578) by name."""
    table: dict[bytes, Any] = {}
    # A delimiter is at the start of a line (RFC 2046 5.1.1); the first may be the very beginning.
    for piece in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:]:
        head, separator, content = piece.partition(b"\r\n\r\n")
        found = _PART_NAME.search(head) if separator else None
        if found:
            _put(table, found[1], content)
    return table
