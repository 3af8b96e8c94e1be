"""What the engine and the functions it offers to Lua say to each other.

Functions are offered by dotted name, in one mapping:

    {"kong.request.get_header": get_header, "kong.version": "3.9.3", "ngx.var": Members(get, set_)}

A function is called with the `Call` that runs and with the script's arguments, as plain values: None, bool, int, float, str, list,
dict. It returns such values, too; bytes as well, and a tuple for several results. Text is UTF-8 on its way in and out; bytes that are
no UTF-8 stand in it as lone surrogates (``surrogateescape``), so nothing is lost. An argument that is a function of Lua, or that is
nested or large beyond the bounds, never comes: the script fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..core.exchange import Exchange
    from ..core.rows import Row

__all__ = ["Call", "LuaError", "LuaExit", "LuaFailure", "Members"]


class LuaError(Exception):
    """Raised by a function that is offered to Lua: an error in the script, which it may catch, with this text."""


class LuaExit(Exception):
    """Raised by a function that is offered to Lua: ends the script at once, past its ``pcall``. Whoever runs the program gets it.

    Attributes:
        value: what is to become of the request: an `Answer`, for example.
    """

    def __init__(self, value: Any = None) -> None:
        super().__init__(value)
        self.value = value


class LuaFailure(Exception):
    """A chunk that does not compile, or a run that failed or exceeded a limit; the text is Lua's or the engine's."""

    @property
    def text(self) -> str:
        """What is wrong: ``[string "..."]:1: attempt to index ...``."""
        return str(self)


@dataclass(slots=True)
class Call:
    """One run of a program."""

    exchange: Exchange | None  #: the request; None where there is none
    phase: str  #: Kong's name: access, log...
    plugin: Row | None = None  #: row of the plugin that runs it
    host: Any = None  #: the plugin's `Scope`; None where there is none

    @property
    def shared(self) -> dict[str, Any]:
        """``kong.ctx.shared``."""
        return {} if self.exchange is None else self.exchange.ctx


class Members(NamedTuple):
    """A table whose members are asked for and set one by one, such as ``ngx.var``. Both raise `LuaError`."""

    get: Callable[[Call, Any], Any]
    """Takes the call and the member's name."""
    set: Callable[[Call, Any, Any], None] | None = None
    """Takes the call, the name and the value; None: the table is read-only."""
