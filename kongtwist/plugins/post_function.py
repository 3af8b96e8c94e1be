"""post-function: Lua that runs behind all other plugins. Kong 3.9 `post-function`."""

from __future__ import annotations

from ._lua_functions import LuaFunctions, function_fields

__all__ = ["PostFunction"]


class PostFunction(LuaFunctions):
    """Run Lua behind all other plugins."""

    name = "post-function"
    priority = -1000
    example = {"header_filter": ['kong.response.set_header("x-route", kong.router.get_route().name)']}
    config = function_fields(name)
