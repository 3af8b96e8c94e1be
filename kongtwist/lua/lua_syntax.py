"""Whether code compiles, for the rules of fields: nothing is run, and no setting is asked for."""

from __future__ import annotations

from functools import cache

from .lua_calls import LuaFailure
from .lua_engine import Engine
from .python_functions import PREFIX, fault_of_name

__all__ = ["fault_of_code"]


@cache
def _engine() -> Engine:
    return Engine({})


def fault_of_code(code: str, mode: str = "chunk", name: str | None = None) -> str | None:
    """What is wrong with code, in Lua's words; None: nothing.

    Args:
        code: text of Lua, or ``python:module.function``.
        mode, name: as for `Engine.compile`.
    """
    if code.startswith(PREFIX):
        return fault_of_name(code)
    try:
        _engine().compile(code, mode=mode, name=name)
    except LuaFailure as failure:
        return failure.text
    return None
