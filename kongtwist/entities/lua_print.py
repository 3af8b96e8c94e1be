"""Values printed as Lua tables, as they stand in Kong's messages (Penlight's ``pretty.write``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["lua_table", "lua_text", "pretty"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KEYWORDS = frozenset(
    [
        "and",
        "break",
        "do",
        "else",
        "elseif",
        "end",
        "false",
        "for",
        "function",
        "if",
        "in",
        "local",
        "nil",
        "not",
        "or",
        "repeat",
        "return",
        "then",
        "true",
        "until",
        "while",
    ]
)
_BRACKETS = re.compile(r"([\[\]])(=*)(?=\1)")
_ESCAPED = re.compile(r'["\\\n]|([\x00-\x1f\x7f])(?=([0-9])?)')


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:.14g}"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    """Text as a Lua string: between long brackets where it has line ends or brackets that look like them."""
    levels = [len(found[2]) for found in _BRACKETS.finditer(text + "]")]
    if ("\n" in text or levels) and "\r" not in text:
        signs = "=" * (max(levels, default=-1) + 1)
        first = "\n" if text.startswith("\n") else ""
        return f"[{signs}[{first}{text}]{signs}]"
    return '"' + _ESCAPED.sub(_escape, text) + '"'


def _escape(found: re.Match[str]) -> str:
    if found[1] is None:
        return "\\" + found[0]
    return f"\\{ord(found[1]):03}" if found[2] else f"\\{ord(found[1])}"


def _key(name: Any) -> str:
    text = str(name)
    return text if _NAME.match(text) and text not in _KEYWORDS else f"[{_quoted(text)}]"


def _items(value: Any) -> list[tuple[str, Any]]:
    """(key with its equals sign or nothing, value) in printing order."""
    if isinstance(value, Mapping):
        return [(_key(name), each) for name, each in sorted(value.items(), key=lambda item: str(item[0]))]
    found, gap = [], False
    for at, each in enumerate(value, 1):
        if each is None:
            gap = True  # what comes after it has its position written out
        else:
            found.append((f"[{at}]" if gap else "", each))
    return found


def lua_table(value: Any) -> str:
    """On one line without spaces: ``{id="x",service={id="y"}}``."""
    if not isinstance(value, Mapping | list | tuple):
        return _scalar(value)
    return "{" + ",".join(f"{key}={lua_table(each)}" if key else lua_table(each) for key, each in _items(value)) + "}"


def lua_text(value: Any) -> str:
    """As Lua's ``tostring``; a table is written out, where Lua gives its address."""
    return value if isinstance(value, str) else lua_table(value)


def pretty(value: Any, depth: int = 0) -> str:
    """Over several lines, two spaces a level."""
    if not isinstance(value, Mapping | list | tuple):
        return _scalar(value)
    inside = "  " * (depth + 1)
    rows = [
        f"{inside}{key} = {pretty(each, depth + 1)}" if key else inside + pretty(each, depth + 1)
        for key, each in _items(value)
    ]
    return "{\n" + ",\n".join(rows) + "\n" + "  " * depth + "}"
