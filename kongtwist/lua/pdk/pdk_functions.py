"""All functions of Kong's plugin development kit that are offered to Lua, by dotted name."""

from __future__ import annotations

from .pdk_call import Functions
from .pdk_node import NODE_FUNCTIONS, PDK_VALUES
from .pdk_request import REQUEST_FUNCTIONS
from .pdk_response import RESPONSE_FUNCTIONS
from .pdk_rows import CLIENT_FUNCTIONS, ROUTER_FUNCTIONS
from .pdk_service import SERVICE_FUNCTIONS, SERVICE_RESPONSE_FUNCTIONS
from .pdk_service_request import SERVICE_REQUEST_FUNCTIONS

__all__ = ["PDK_FUNCTIONS", "PDK_VALUES"]

PDK_FUNCTIONS: Functions = {
    **REQUEST_FUNCTIONS, **CLIENT_FUNCTIONS, **ROUTER_FUNCTIONS, **RESPONSE_FUNCTIONS, **SERVICE_FUNCTIONS,
    **SERVICE_REQUEST_FUNCTIONS, **SERVICE_RESPONSE_FUNCTIONS, **NODE_FUNCTIONS,
}  # fmt: skip
"""Each takes the call (`kongtwist.lua.pdk.pdk_call.LuaCall`) and Lua's arguments."""
