"""What the modules ``cjson`` and ``cjson.safe`` are made of (OpenResty's lua-cjson 2.1)."""

from __future__ import annotations

import json
from typing import Any

from .pdk.pdk_call import LuaCall, is_text, raw, type_name

__all__ = ["JSON_FUNCTIONS"]

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _encoded(_call: LuaCall, value: Any = None, *_: Any) -> tuple[bool, Any]:
    try:
        return True, _encode(value).encode("utf-8", "surrogateescape")
    except ValueError:
        return False, "Cannot serialise number: must not be NaN or Inf"
    except TypeError:
        return False, "Cannot serialise function: type not supported"


def _decoded(_call: LuaCall, value: Any = None, *_: Any) -> tuple[bool, Any]:
    if not is_text(value):
        return False, f"bad argument #1 to 'decode' (string expected, got {type_name(value)})"
    try:
        return True, json.loads(raw(value))
    except (ValueError, RecursionError):
        return False, "Expected value but found invalid token"


JSON_FUNCTIONS: dict[str, Any] = {"@json.encode": _encoded, "@json.decode": _decoded}
"""(true, result) or (false, error); names with ``@`` are not scripts' own. JSON's null is nil in what is decoded."""
