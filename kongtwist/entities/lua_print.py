"""Values printed as Lua tables, as they stand in Kong's messages (Penlight's ``pretty.write``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["lua_table", "pretty"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:.14g}"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _key(name: Any) -> str:
    text = str(name)
    return text if _NAME.match(text) else f'["{text}"]'


def _items(value: Any) -> list[tuple[str, Any]]:
    """(key with its equals sign or nothing, value) in printing order."""
    if isinstance(value, Mapping):
        return sorted(((_key(name), each) for name, each in value.items()), key=lambda item: item[0])
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
