"""The engine for Lua of a process, as the configuration has it."""

from __future__ import annotations

from twisted.logger import Logger, LogLevel

from ..config.load import Conf
from ..config.shown import shown
from ..lua.lua_engine import Engine, LuaSettings
from ..lua.offered import offered_names

__all__ = ["lua_engine"]

_log = Logger(namespace="kongtwist.lua")

_LEVELS = {"debug": LogLevel.debug, "info": LogLevel.info, "notice": LogLevel.info, "warn": LogLevel.warn}
"""Twisted's levels for nginx's; those that are missing are errors."""

_KONG_LEVELS = {"stderr": "emerg", "err": "error"}
"""Names of levels in the error log, where they are not nginx's."""


def _say(level: str, line: str) -> None:
    # Twisted has fewer levels: the event brings its own, or notices would be lost where log_level is notice.
    told = _KONG_LEVELS.get(level, level)
    _log.emit(_LEVELS.get(level, LogLevel.error), "{line}", line=line, kong_level=told)


def lua_engine(conf: Conf) -> Engine:
    """The engine; it takes up nothing until something is compiled."""
    settings = LuaSettings(
        trust=conf.untrusted_lua,
        requires=tuple(conf.untrusted_lua_sandbox_requires or ()),
        environment=tuple(conf.untrusted_lua_sandbox_environment or ()),
        instructions=conf.plugin_lua_max_instructions,
        memory=conf.plugin_lua_max_memory,
        seconds=conf.plugin_lua_max_time / 1000.0,
        path=conf.lua_package_path or "",
        modules=tuple(conf.plugin_python_modules or ()),
    )
    return Engine({**offered_names(_say), "kong.configuration": shown(conf)}, settings)
