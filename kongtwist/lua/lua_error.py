"""What functions that are offered to Lua raise."""

from __future__ import annotations

__all__ = ["LuaError", "LuaExit"]


class LuaError(Exception):
    """An error in Lua: ``error(text)`` at the place of the call."""


class LuaExit(Exception):
    """The script ends here, and so does the phase, without an error; ``pcall`` does not catch it. What is answered stands in the
    call (`kongtwist.lua.pdk.pdk_call.LuaCall.answer`)."""
