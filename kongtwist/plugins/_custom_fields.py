"""Kong's ``custom_fields_by_lua``, which every log plugin has: members of the record that Lua makes (Kong 3.9.3,
``kong/plugins/http-log/handler.lua``).

A value is a chunk, as in Kong, or, which is ours, an expression without ``return``. It is compiled once for each configuration.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from ..core.chain.host import Host, Scope
from ..core.chain.plugin import Plugin
from ..core.exchange import Exchange, Row
from ..core.log_values import LogValue
from ..entities.errors import EntityError
from ..entities.schema import Map, String
from ..lua.lua_calls import LuaFailure
from ..lua.lua_syntax import fault_of_code
from ..lua.pdk.pdk_call import LuaCall

__all__ = ["CustomFields", "LogPlugin", "custom_fields_by_lua"]


def _compiles(code: str) -> str | None:
    fault = fault_of_code(code, "value")
    return None if fault is None else f"Error parsing function: {fault}"


def custom_fields_by_lua() -> Map:
    """The field."""
    return Map(
        String(len_min=1), String(len_min=1, checks=(_compiles,)),
        text="Members of the record, made by Lua: a chunk that returns the value, or an expression; see docs/lua.md.",
    )  # fmt: skip


class LogPlugin(Plugin):
    """A plugin whose records have such members."""

    logs_in_batches = True

    def examine(self, conf: Row, host: Host) -> None:
        fields = conf.get("custom_fields_by_lua")
        if not isinstance(fields, dict):
            return
        for code in fields.values():
            if not isinstance(code, str) or not code or fault_of_code(code, "value"):
                continue  # the field's rules say it
            try:
                host.lua.compile(code, mode="value")
            except LuaFailure as failure:
                fault = f"Error parsing function: {failure}"
                raise EntityError.schema_violation({"config": {"custom_fields_by_lua": fault}}) from None


_WITH_NUMBERS = (float, list, dict)


def _is_sayable(value: Any) -> bool:
    """Whether JSON can say all numbers in a value."""
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, list | dict):
        return all(map(_is_sayable, value.values() if isinstance(value, dict) else value))
    return True


class _Broken:
    """Stands for a field that cannot be: Lua is off by now, or a module of Python is not allowed any more."""

    def __init__(self, failure: LuaFailure) -> None:
        self._failure = failure

    def run(self, call: LuaCall) -> list[Any]:
        """Raises LuaFailure."""
        raise self._failure


def _program(code: str, host: Scope) -> Any:
    try:
        return host.lua.compile(code, mode="value")
    except LuaFailure as failure:
        return _Broken(failure)


class CustomFields:
    """Members of the records of one configuration.

    Args:
        row: the plugin's.
        host: what it was opened with.
    """

    __slots__ = ("_fields", "_plugin", "_row")

    def __init__(self, row: Row, host: Scope) -> None:
        self._row = row
        self._plugin: str = row["name"]
        fields: dict[str, str] = row["config"].get("custom_fields_by_lua") or {}
        self._fields = [(tuple(name.split(".")), _program(code, host)) for name, code in fields.items()]

    def put(self, exchange: Exchange) -> bool:
        """Put them into the record of a request; whether that succeeded. If not, the log says why, and as in Kong nothing is to be sent."""
        if not self._fields:
            return True
        call = LuaCall(exchange, "log", plugin_id=self._row["id"])
        values = exchange.log_values
        if values is None:
            values = exchange.log_values = []
        path: tuple[str, ...] = ()
        try:
            for path, program in self._fields:
                results: list[Any] = program.run(call)
                value = results[0] if results else None
                if type(value) in _WITH_NUMBERS and not _is_sayable(value):
                    raise LuaFailure("Cannot serialise number: must not be NaN or Inf")
                values.append(LogValue(path, value, "set"))
        except LuaFailure as failure:
            what = f"plugin {self._plugin} sends no record: custom_fields_by_lua.{'.'.join(path)} failed: {failure}"
            exchange.report(what, "correct it in the plugin's configuration")
            return False
        return True
