"""All functions of Kong's plugin development kit that are offered to Lua, by dotted name."""

from __future__ import annotations

from .pdk_call import Functions
from .pdk_request import REQUEST_FUNCTIONS
from .pdk_rows import CLIENT_FUNCTIONS, ROUTER_FUNCTIONS

__all__ = ["PDK_FUNCTIONS"]

PDK_FUNCTIONS: Functions = {**REQUEST_FUNCTIONS, **CLIENT_FUNCTIONS, **ROUTER_FUNCTIONS}
"""Each takes the call (`kongtwist.lua.pdk.pdk_call.LuaCall`) and Lua's arguments."""
