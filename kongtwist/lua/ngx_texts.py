"""``ngx``: encodings, digests and times (lua-nginx-module 0.10.26)."""

from __future__ import annotations

import hashlib
import hmac
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from .lua_error import LuaError
from .pdk.pdk_call import Functions, LuaCall, is_number, is_text, raw, type_name
from .pdk.pdk_tables import arguments_table, encoded_arguments, number_text

__all__ = ["TEXT_FUNCTIONS", "TIME_FUNCTIONS", "bytes_of"]


def bytes_of(value: Any, place: int = 1) -> bytes:
    """An argument as text: numbers are, nil is empty where the module takes it so. Raises LuaError for others."""
    if is_text(value):
        return raw(value)
    if is_number(value):
        return number_text(value)
    raise LuaError(f"bad argument #{place} (string expected, got {type_name(value)})")


def _text(call: Callable[[bytes], Any]) -> Callable[..., Any]:
    """A function of one text; nil stands for "" as with lua-nginx-module, other values are told as text."""

    def called(_call: LuaCall, value: Any = None, *_: Any) -> Any:
        if value is None:
            return call(b"")
        return call(b"true" if value is True else b"false" if value is False else bytes_of(value))

    return called


def _encode_base64(_call: LuaCall, value: Any = None, no_padding: Any = None, *_: Any) -> bytes:
    text = b64encode(b"" if value is None else bytes_of(value))
    return text.rstrip(b"=") if no_padding else text


def _decode_base64(_call: LuaCall, value: Any = None, *_: Any) -> bytes | None:
    if not is_text(value):
        raise LuaError("string argument only")
    text = raw(value)
    try:
        return b64decode(text.rstrip(b"=") + b"=" * (-len(text.rstrip(b"=")) % 4), validate=True)
    except ValueError:
        return None


def _escape_uri(_call: LuaCall, value: Any = None, kind: Any = 2, *_: Any) -> bytes:
    # 2, an argument: all but unreserved characters; 0, a URI: separators stay.
    safe = "!'()*" if kind == 2 else "!'()*/:;=@&+$,"
    return quote(b"" if value is None else bytes_of(value), safe=safe).encode("ascii")


def _unescape_uri(value: bytes) -> bytes:
    return unquote_to_bytes(value.replace(b"+", b" "))


def _encode_args(_call: LuaCall, table: Any = None, *_: Any) -> bytes:
    if not isinstance(table, dict | list):
        raise LuaError(f"bad argument #1 to 'encode_args' (table expected, got {type_name(table)})")
    return encoded_arguments(table)


def _decode_args(_call: LuaCall, value: Any = None, most: Any = 100, *_: Any) -> Any:
    limit = int(most) if is_number(most) and most > 0 else 1000
    return arguments_table(bytes_of(value), limit)


def _hmac_sha1(_call: LuaCall, key: Any = None, value: Any = None, *_: Any) -> bytes:
    return hmac.digest(bytes_of(key), bytes_of(value, 2), "sha1")


def _quote_sql(value: bytes) -> bytes:
    for character, escaped in ((b"\\", b"\\\\"), (b"'", b"\\'"), (b'"', b'\\"'), (b"\n", b"\\n"), (b"\r", b"\\r")):
        value = value.replace(character, escaped)
    return b"'" + value.replace(b"\0", b"\\0").replace(b"\x1a", b"\\Z") + b"'"


TEXT_FUNCTIONS: Functions = {
    "ngx.encode_base64": _encode_base64,
    "ngx.decode_base64": _decode_base64,
    "ngx.md5": _text(lambda text: hashlib.md5(text, usedforsecurity=False).hexdigest()),
    "ngx.md5_bin": _text(lambda text: hashlib.md5(text, usedforsecurity=False).digest()),
    "ngx.sha1_bin": _text(lambda text: hashlib.sha1(text, usedforsecurity=False).digest()),
    "ngx.hmac_sha1": _hmac_sha1,
    "ngx.crc32_short": _text(zlib.crc32),
    "ngx.crc32_long": _text(zlib.crc32),
    "ngx.escape_uri": _escape_uri,
    "ngx.unescape_uri": _text(_unescape_uri),
    "ngx.encode_args": _encode_args,
    "ngx.decode_args": _decode_args,
    "ngx.quote_sql_str": _text(_quote_sql),
}
"""Texts in other forms."""


def _now(call: LuaCall) -> float:
    exchange = call.exchange
    if exchange is not None:
        return exchange.gateway.now()
    return datetime.now(UTC).timestamp()


def _start_time(call: LuaCall, *_: Any) -> float:
    exchange = call.exchange
    if exchange is None:
        raise LuaError("no request found")
    return int(exchange.wall_started * 1000) / 1000.0


def _http_time(_call: LuaCall, seconds: Any = None, *_: Any) -> str:
    if not is_number(seconds) or not -(2**37) < seconds < 2**37:
        raise LuaError("number argument only")
    return formatdate(int(seconds), usegmt=True)


def _parse_http_time(_call: LuaCall, value: Any = None, *_: Any) -> int | None:
    if not is_text(value):
        raise LuaError("string argument only")
    try:
        return int(parsedate_to_datetime(raw(value).decode("latin-1")).timestamp())
    except (ValueError, OverflowError):
        return None


TIME_FUNCTIONS: Functions = {
    "ngx.now": lambda call, *_: int(_now(call) * 1000) / 1000.0,
    "ngx.time": lambda call, *_: int(_now(call)),
    "ngx.today": lambda call, *_: f"{datetime.fromtimestamp(_now(call)):%Y-%m-%d}",
    "ngx.localtime": lambda call, *_: f"{datetime.fromtimestamp(_now(call)):%Y-%m-%d %H:%M:%S}",
    "ngx.utctime": lambda call, *_: f"{datetime.fromtimestamp(_now(call), UTC):%Y-%m-%d %H:%M:%S}",
    "ngx.update_time": lambda _call, *_: None,
    "ngx.http_time": _http_time,
    "ngx.parse_http_time": _parse_http_time,
    "ngx.req.start_time": _start_time,
}
"""Times: seconds since the epoch, milliseconds as fraction."""
