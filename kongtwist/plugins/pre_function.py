"""pre-function: Lua that runs before all other plugins. Kong 3.9 `pre-function`."""

from __future__ import annotations

from ._lua_functions import LuaFunctions, function_fields

__all__ = ["PreFunction"]


class PreFunction(LuaFunctions):
    """Run Lua before all other plugins."""

    name = "pre-function"
    priority = 1000000
    example = {"access": ['kong.service.request.set_header("x-seen", kong.request.get_path())']}
    config = function_fields(name)
