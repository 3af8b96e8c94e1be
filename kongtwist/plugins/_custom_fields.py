"""Kong's ``custom_fields_by_lua``, which every log plugin has: members of the record that Lua makes (Kong 3.9.3,
``kong/plugins/http-log/handler.lua``).

A value is a chunk, as in Kong, or, which is ours, an expression without ``return``. It is compiled once for each configuration.
"""

from __future__ import annotations

from typing import Any

from ..core.chain.host import Scope
from ..core.exchange import Exchange, Row
from ..entities.schema import Map, String
from ..lua.lua_calls import LuaFailure
from ..lua.lua_syntax import fault_of_code
from ..lua.pdk.pdk_call import LuaCall

__all__ = ["CustomFields", "custom_fields_by_lua"]


def _compiles(code: str) -> str | None:
    fault = fault_of_code(code, "value")
    return None if fault is None else f"Error parsing function: {fault}"


def custom_fields_by_lua() -> Map:
    """The field."""
    return Map(
        String(len_min=1), String(len_min=1, checks=(_compiles,)),
        text="Members of the record, made by Lua: a chunk that returns the value, or an expression; see docs/lua.md.",
    )  # fmt: skip


class CustomFields:
    """Members of the records of one configuration.

    Args:
        row: the plugin's.
        host: what it was opened with.

    Raises:
        LuaFailure: a chunk does not compile, or there is no Lua.
    """

    __slots__ = ("_fields", "_host", "_plugin", "_row")

    def __init__(self, row: Row, host: Scope) -> None:
        self._row, self._host = row, host
        self._plugin: str = row["name"]
        fields: dict[str, str] = row["config"].get("custom_fields_by_lua") or {}
        self._fields = [(name, host.lua.compile(code, mode="value")) for name, code in fields.items()]

    def put(self, exchange: Exchange) -> bool:
        """Put them into the record of a request; whether that succeeded. If not, the log says why, and as in Kong nothing is to be sent."""
        if not self._fields:
            return True
        call = LuaCall(exchange, "log", plugin_id=self._row["id"])
        name = ""
        try:
            for name, program in self._fields:
                results: list[Any] = program.run(call)
                exchange.set_log_value(name, results[0] if results else None)
        except LuaFailure as failure:
            what = f"plugin {self._plugin} sends no record: custom_fields_by_lua.{name} failed: {failure}"
            exchange.report(what, "correct it in the plugin's configuration")
            return False
        return True
