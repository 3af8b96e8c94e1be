"""Functions of Python in place of Lua: ``python:package.module.function``. Kong has nothing like it.

Whoever may write configurations names what runs in the gateway, without a sandbox and without limits, so a module has to be allowed in the
configuration file (``plugin_python_modules``). A function is called with the `LuaCall` and the program's arguments, and must not wait; a
tuple is several results. What it raises fails the run, as an error in Lua does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any

from .lua_calls import LuaFailure
from .lua_error import LuaExit
from .pdk.pdk_call import LuaCall

__all__ = ["PREFIX", "PythonProgram", "fault_of_name"]

PREFIX = "python:"


def fault_of_name(code: str) -> str | None:
    """What is wrong with ``python:module.function`` as it is written; None: nothing."""
    parts = code.removeprefix(PREFIX).strip().split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        return f"'{code[:200]}' is not of the form {PREFIX}module.function"
    return None


class PythonProgram:
    """A function of Python, run as programs of Lua are.

    Args:
        code: ``python:module.function``.
        modules: names of the modules that are allowed.

    Raises:
        LuaFailure: it is not allowed, or there is none.
    """

    def __init__(self, code: str, modules: Collection[str]) -> None:
        fault = fault_of_name(code)
        if fault is not None:
            raise LuaFailure(fault)
        self.name = code.removeprefix(PREFIX).strip()
        module, _, function = self.name.rpartition(".")
        if module not in modules:
            raise LuaFailure(
                f"Python module {module} is not allowed; the property plugin_python_modules of the configuration file names those that are"
            )
        try:
            found = getattr(import_module(module), function, None)
        except Exception as error:
            raise LuaFailure(f"cannot import Python module {module}: {type(error).__name__}: {error}") from error
        if not callable(found):
            raise LuaFailure(f"Python module {module} has no function {function}")
        self._function: Callable[..., Any] = found

    def run(self, call: LuaCall, *args: Any) -> list[Any]:
        """See `kongtwist.lua.lua_engine.Program.run`."""
        try:
            result = self._function(call, *args)
        except (LuaFailure, LuaExit):
            raise
        except Exception as error:
            raise LuaFailure(f"{self.name}: {type(error).__name__}: {error}") from error
        return list(result) if type(result) is tuple else [result]
