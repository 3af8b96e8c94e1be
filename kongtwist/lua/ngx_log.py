"""``kong.log`` and ``ngx.log``: lines of scripts in the error log (Kong 3.9.3, ``kong/pdk/log.lua``), and the record's own values."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ..core.error_lines import request_line
from .lua_error import LuaError
from .pdk.pdk_call import LuaCall, is_number, is_text, text, type_name
from .pdk.pdk_tables import number_text

__all__ = ["LEVELS", "Say", "log_names"]

Say = Callable[[str, str], None]
"""Takes a level (`LEVELS`) and a line; writes it where that level is wanted."""

LEVELS = ("stderr", "emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
"""nginx's levels; their numbers are ngx.ERR and its like."""

_LONGEST = 4096
"""Bytes of a line (OpenResty cuts it too)."""


def _shown(value: Any) -> str:
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if is_text(value):
        return text(value)
    return number_text(value).decode("ascii") if is_number(value) else type_name(value)


def _inspected(value: Any) -> str:
    return (
        _shown(value) if not isinstance(value, dict | list) else json.dumps(value, default=_shown, ensure_ascii=False)
    )


def _line(call: LuaCall, name: str, parts: tuple[Any, ...], shown: Callable[[Any], str]) -> str:
    what = f"[{name}] {''.join(map(shown, parts))}".encode("utf-8", "replace").decode("utf-8")[:_LONGEST]
    return what if call.exchange is None else request_line(call.exchange, what)


def _set_serialize_value(call: LuaCall, key: Any = None, value: Any = None, options: Any = None, *_: Any) -> None:
    if not is_text(key):
        raise LuaError("key must be a string")
    mode = options.get("mode", "set") if isinstance(options, dict) else "set"
    if mode not in ("set", "add", "replace"):
        raise LuaError("mode must be 'set', 'add' or 'replace'")
    if call.exchange is None:
        raise LuaError("no request found")
    call.exchange.set_log_value(text(key), value, mode)


def log_names(say: Say) -> dict[str, Any]:
    """``kong.log`` and ``ngx.log``, with nginx's levels as constants.

    Args:
        say: writes lines.
    """

    def at(level: str) -> Callable[..., None]:
        def called(call: LuaCall, *parts: Any) -> None:
            say(level, _line(call, "kong", parts, _shown))

        return called

    def inspect(call: LuaCall, *parts: Any) -> None:
        say("debug", _line(call, "kong", parts, _inspected))

    def ngx_log(call: LuaCall, level: Any = None, *parts: Any) -> None:
        if not is_number(level) or not 0 <= level < len(LEVELS):
            raise LuaError("bad log level")
        say(LEVELS[int(level)], _line(call, "lua", parts, _shown))

    names: dict[str, Any] = {f"kong.log.{level}": at(level) for level in LEVELS[1:]}
    names |= {f"ngx.{level.upper()}": number for number, level in enumerate(LEVELS)}
    names["kong.log."] = at("notice")
    names["kong.log.inspect"] = inspect
    names["kong.log.deprecation"] = at("warn")
    names["kong.log.set_serialize_value"] = _set_serialize_value
    names["ngx.log"] = ngx_log
    return names
