"""Properties of Lua in configurations of plugins, and of Python functions in its place."""

from __future__ import annotations

from .kinds import ARRAY, INTEGER, SIZE, STRING, Property, enum

__all__ = ["Lua"]


class Lua:
    """Lua in configurations of plugins."""

    untrusted_lua = Property(
        enum("on", "off", "sandbox"),
        "sandbox",
        "What Lua in the configurations of plugins finds: sandbox: a few libraries, kong and ngx; on: all of Lua's libraries, those that"
        " reach files and start processes too; off: there is no Lua, and configurations with it are refused.",
    )
    untrusted_lua_sandbox_requires = Property(
        ARRAY,
        None,
        "Modules that require may load in the sandbox: files of lua_package_path, which run outside of it, what LuaJIT brings (bit,"
        " table.new), and cjson, cjson.safe.",
    )
    lua_package_path = Property(
        STRING,
        "./?.lua;./?/init.lua;",
        "Where modules in Lua are: patterns separated by semicolons, in which ? stands for the module's name.",
    )
    untrusted_lua_sandbox_environment = Property(
        ARRAY, None, "Further names of Lua that the sandbox has, dotted (string.dump), to be read and not changed."
    )
    plugin_lua_max_instructions = Property(
        INTEGER.within(1000),
        "10000000",
        "Instructions of Lua's machine that one run of a chunk or function may take, the work of library functions counted in; it fails"
        " beyond that.",
    )
    plugin_lua_max_time = Property(
        INTEGER.within(1), "250", "Milliseconds of processor time that one run may take; it fails beyond that."
    )
    plugin_lua_max_memory = Property(
        SIZE.within(2097152, 1073741824), "16m", "Bytes that all Lua of a worker may hold; a run that needs more fails."
    )
    plugin_python_modules = Property(
        ARRAY,
        None,
        "Python modules whose functions may stand in place of Lua, as python:module.function; none by default.",
    )
