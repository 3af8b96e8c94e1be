"""What the engine and the functions it offers to Lua say to each other.

Functions are offered by dotted name, in one mapping:

    {"kong.request.get_header": get_header, "kong.version": "3.9.3", "ngx.var": Members(get, set_)}

A function is called with the `LuaCall` that runs and with the script's arguments, as plain values: None, bool, int, float, str, list,
dict. It returns such values, too; bytes as well, and a tuple for several results. Text is UTF-8 on its way in and out; bytes that are
no UTF-8 stand in it as lone surrogates (``surrogateescape``), so nothing is lost. A function of Lua comes as `FUNCTION`. What is nested
or large beyond the bounds never comes: the script fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .lua_error import LuaError

if TYPE_CHECKING:
    from .pdk.pdk_call import LuaCall

__all__ = ["FUNCTION", "LuaFailure", "Members"]


class LuaFailure(Exception):
    """A chunk that does not compile, or a run that failed or exceeded a limit; the text is Lua's or the engine's."""

    @property
    def text(self) -> str:
        """What is wrong: ``[string "..."]:1: attempt to index ...``."""
        return str(self)


class Members(NamedTuple):
    """A table whose members are asked for and set one by one, such as ``ngx.var``. Both raise `LuaError`."""

    get: Callable[[LuaCall, Any], Any]
    """Takes the call and the member's name."""
    set: Callable[[LuaCall, Any, Any], None] | None = None
    """Takes the call, the name and the value; None: the table is read-only."""


def FUNCTION(*_args: Any) -> Any:
    """Stands for a function of Lua among the arguments. It cannot be called."""
    raise LuaError("a function cannot be passed on")
