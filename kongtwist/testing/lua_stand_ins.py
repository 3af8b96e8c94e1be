"""Lua for plugins under test: the real engine."""

from __future__ import annotations

from ..lua.lua_engine import Engine, LuaSettings
from ..lua.offered import offered_names

__all__ = ["stand_in_lua"]


def stand_in_lua(lines: list[tuple[str, str]]) -> Engine:
    """An engine bounded in instructions and memory, not in time: tests run on slow machines.

    Args:
        lines: gets (level, line) of what scripts write into the log.
    """
    return Engine(offered_names(lambda *line: lines.append(line)), LuaSettings(seconds=3600.0))
