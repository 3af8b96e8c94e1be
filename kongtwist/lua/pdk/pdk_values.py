"""Headers and other values that Lua gives, checked with Kong's texts and made into bytes (Kong 3.9.3, ``kong/pdk/private/checks.lua``)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from ..lua_error import LuaError
from .pdk_call import is_number, is_text, raw, text, type_name
from .pdk_tables import number_text

__all__ = ["check_header", "field_name", "field_values", "header_pairs", "is_table", "json_of", "plain"]

_UNSAFE_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_UNSAFE_NAME = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")


def is_table(value: Any) -> bool:
    """Whether Lua's type is table."""
    return isinstance(value, list | dict)


def _encoded(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % found[0][0]


def field_name(name: str | bytes) -> bytes:
    """A field's name as it may be sent; what cannot stand in one is ``%XX``, as lua-nginx-module writes it."""
    return _UNSAFE_NAME.sub(_encoded, raw(name))


def field_values(value: Any) -> list[bytes]:
    """A checked value as the values that are sent; an empty one is a blank, as Kong has it, and what would end a line is ``%XX``."""
    each = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
    return [_UNSAFE_VALUE.sub(_encoded, _value(one)) for one in each]


def _value(value: Any) -> bytes:
    if is_text(value):
        return raw(value) or b" "
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return number_text(value)


def check_header(name: Any, value: Any, kinds: str = "array of string, string, number or boolean") -> None:
    """Raises LuaError where it is no header.

    Args:
        name: has to be text.
        value: text, a number, a boolean, or a list of texts.
        kinds: how Kong names these here.
    """
    if not is_text(name):
        raise LuaError(f"invalid header name {_quoted(name)}: got {type_name(name)}, expected string")
    if is_text(value) or is_number(value) or isinstance(value, bool):
        return
    if not is_table(value):
        raise LuaError(f"invalid header value for {_quoted(name)}: got {type_name(value)}, expected {kinds}")
    for one in value if isinstance(value, list) else value.values():
        if not is_text(one):
            raise LuaError(f"invalid header value in array {_quoted(name)}: got {type_name(one)}, expected string")


def _quoted(name: Any) -> str:
    """Lua's ``%q``."""
    if is_number(name):
        name = number_text(name)
    if not is_text(name):
        name = str(name).lower()
    escaped = text(name).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\\n")
    return f'"{escaped}"'


def header_pairs(headers: Any) -> list[tuple[bytes, list[bytes]]]:
    """A table of headers as names and values. Raises LuaError where it is none."""
    if not is_table(headers):
        raise LuaError("headers must be a table")
    found: Iterable[tuple[Any, Any]] = headers.items() if isinstance(headers, dict) else enumerate(headers, 1)
    pairs = []
    for name, value in found:
        check_header(name, value, "string, number, boolean or array of strings")
        pairs.append((field_name(name), field_values(value)))
    return pairs


def plain(value: Any) -> Any:
    """A value of Lua as JSON has it: names and texts as ``str``.

    Raises:
        LuaError: there is a function in it, or the like.
    """
    if isinstance(value, dict):
        return {_key(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return text(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise LuaError(f"Cannot serialise {type_name(value)}: type not supported")


def _key(name: Any) -> str:
    if is_text(name):
        return text(name)
    if is_number(name):
        return number_text(name).decode()
    raise LuaError("Cannot serialise table: table key must be a number or string")


def json_of(value: Any) -> bytes:
    """A table as JSON. Raises LuaError where it cannot be said."""
    try:
        made = json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise LuaError(f"Cannot serialise number: {error}" if isinstance(error, ValueError) else str(error)) from None
    return made.encode("utf-8", "surrogateescape")
