"""Values on their way between Lua and Python: copies, bounded in depth and number; no object of Python ever goes in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .lua_calls import FUNCTION
from .lua_error import LuaError
from .pdk.pdk_tables import HeaderTable

__all__ = ["DEPTH", "ENTRIES", "Values"]

DEPTH = 32
"""Tables within tables."""

ENTRIES = 10_000
"""Members of all tables of one value."""


class Values:
    """Converts.

    Args:
        lua: the module of lupa that the runtime is of.
        runtime: where tables are made.
        largest: bytes of the longest text that goes into Lua.

    Attributes:
        largest: bytes of the longest text that goes into Lua.
        head: makes a table of Lua one of fields, whose names are found in any case.
    """

    def __init__(self, lua: Any, runtime: Any, largest: int) -> None:
        self._type: Callable[[Any], str | None] = lua.lua_type
        self._table_from: Callable[..., Any] = runtime.table_from
        self.largest = largest
        self.head: Callable[[Any], Any] = lambda table: table

    # -- into Lua ------------------------------------------------------------------------------------------------------

    def to_lua(self, value: Any) -> Any:
        """A value as the runtime takes it. Raises LuaError: there is none like it in Lua, or it is too large."""
        kind = type(value)
        if value is None or kind is bool or kind is float:
            return value
        if kind is int:
            return float(value) if -(2**1000) < value < 2**1000 else None
        if kind is str:
            return self._text(value.encode("utf-8", "surrogateescape"))
        if kind is bytes:
            return self._text(value)
        table = self._table_from(self._table(value, DEPTH, [ENTRIES, self.largest]), recursive=True)
        return self.head(table) if kind is HeaderTable else table

    def _text(self, value: bytes) -> bytes:
        if len(value) > self.largest:
            raise LuaError(f"a text of {len(value)} bytes is too long for Lua, which may hold {self.largest}")
        return value

    def _table(self, value: Any, depth: int, left: list[int]) -> Any:
        if isinstance(value, list | tuple):
            pairs: Any = enumerate(value, 1)
        elif isinstance(value, Mapping):
            pairs = value.items()
        else:
            raise LuaError(f"a value of type {type(value).__name__} cannot be told to Lua")
        left[0] -= len(value)
        if depth == 0 or left[0] < 0:
            raise LuaError("a table is too large for Lua")
        return {
            self._member(name, depth, left): self._member(one, depth, left) for name, one in pairs if one is not None
        }

    def _member(self, value: Any, depth: int, left: list[int]) -> Any:
        kind = type(value)
        if kind is bool or kind is float:
            return value
        if kind is int:
            return float(value) if -(2**1000) < value < 2**1000 else None
        if kind is str:
            value = value.encode("utf-8", "surrogateescape")
        if type(value) is not bytes:
            return self._table(value, depth - 1, left)
        left[1] -= len(value)
        if left[1] < 0:
            raise LuaError("a table is too large for Lua")
        return value

    # -- out of Lua ----------------------------------------------------------------------------------------------------

    def to_python(self, value: Any) -> Any:
        """A value of Lua. A table is a list where it has members 1 to n alone, else a dict of texts. Raises LuaError: a function,
        or a table that is too large or within itself."""
        kind = type(value)
        if value is None or kind is bool or kind is int or kind is float:
            return value
        if kind is bytes:
            return value.decode("utf-8", "surrogateescape")
        return self._out(value, DEPTH, [ENTRIES])

    def argument(self, value: Any) -> Any:
        """`to_python`, but a function is `FUNCTION`."""
        kind = type(value)
        if kind is bytes:
            return value.decode("utf-8", "surrogateescape")
        if value is None or kind is bool or kind is int or kind is float:
            return value
        return FUNCTION if self._type(value) == "function" else self._out(value, DEPTH, [ENTRIES])

    def _out(self, value: Any, depth: int, left: list[int]) -> Any:
        kind = self._type(value)
        if kind == "userdata":
            return None  # ngx.null: there is no other
        if kind != "table":
            raise LuaError(f"a {kind or 'value'} cannot be passed on")
        if depth == 0:
            raise LuaError("a table is within itself, or nested too deeply")
        found: dict[Any, Any] = {}
        for name, one in value.items():
            left[0] -= 1
            if left[0] < 0:
                raise LuaError(f"a table has more than {ENTRIES} members")
            plain = type(one)
            if plain is bytes:
                one = one.decode("utf-8", "surrogateescape")
            elif plain is not bool and plain is not int and plain is not float:
                one = self._out(one, depth - 1, left)
            found[name] = one
        if found and all(number in found for number in range(1, len(found) + 1)):
            return [found[number] for number in range(1, len(found) + 1)]
        return {_name(name): one for name, one in found.items()}


def _name(name: Any) -> str:
    if type(name) is bytes:
        return name.decode("utf-8", "surrogateescape")
    if type(name) is bool or type(name) not in (int, float):
        raise LuaError("a table has a member whose name is neither a text nor a number")
    return str(name)
