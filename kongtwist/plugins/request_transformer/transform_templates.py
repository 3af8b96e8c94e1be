"""request-transformer's templates: ``$(...)`` in values, with an expression of Lua between the brackets (Kong 3.9.3, Penlight's
``pl.template``).

An expression that only looks something up, such as ``headers.x_user`` or ``query_params["a"]``, is looked up without Lua; that gives the
same and costs a fraction. What expressions find is read once for each request, when it is first asked for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ...core.exchange import Exchange
from ...lua.lua_calls import LuaFailure
from ...lua.lua_error import LuaExit
from ...lua.lua_syntax import fault_of_code
from ...lua.pdk.pdk_call import LuaCall, raw
from ...lua.pdk.pdk_request import FIELDS_MOST, sent_fields
from ...lua.pdk.pdk_tables import HeaderTable, arguments_table, field_table, number_text

__all__ = ["Template", "TemplateFailed", "TemplateValues", "fault_of_template", "is_template"]

_NAME = '[string "TMP"]'
"""What errors call the chunk."""

_LOOK_UP = re.compile(
    r"""\s*(headers|query_params|uri_captures|shared)\s*
    (?:\.\s*([A-Za-z_][A-Za-z0-9_]*)|\[\s*(?:"([^"\\\n]*)"|'([^'\\\n]*)'|([0-9]{1,4}))\s*\])\s*""",
    re.VERBOSE,
)
_KEYWORDS = frozenset((
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local", "nil", "not", "or", "repeat",
    "return", "then", "true", "until", "while",
))  # fmt: skip

_HIDDEN = (
    "_VERSION", "assert", "bit", "coroutine", "error", "io", "ipairs", "jit", "kong", "math", "next", "ngx", "os", "pairs", "pcall",
    "print", "select", "string", "table", "tonumber", "tostring", "unpack", "xpcall",
)  # fmt: skip
"""What scripts find and templates do not, as in Kong, but for what ``untrusted_lua_sandbox_environment`` names."""

_AS_LOCAL = re.compile(rf"(?:local|upvalue) '({'|'.join(_HIDDEN)})'")
"""What Lua calls such a name."""

_Part = bytes | tuple[str, bytes | int]
"""A text, or (table, member)."""


class TemplateFailed(Exception):
    """A template cannot be rendered; the text says which, and why."""


def _pieces(text: str) -> list[tuple[bool, str]]:
    """(whether it is an expression, text)."""
    found: list[tuple[bool, str]] = []
    done = at = 0
    while (at := text.find("$(", at)) >= 0:
        end = _closing(text, at + 1)
        if end is None:
            at += 1
            continue
        found += [(False, text[done:at]), (True, text[at + 2 : end])]
        done = at = end + 1
    return [*found, (False, text[done:])]


def _closing(text: str, at: int) -> int | None:
    """Where the bracket at ``at`` ends."""
    depth = 0
    for end in range(at, len(text)):
        depth += (text[end] == "(") - (text[end] == ")")
        if not depth:
            return end
    return None


def is_template(text: str) -> bool:
    """Whether there is an expression in it."""
    return len(_pieces(text)) > 1


def _code(text: str, shown: Collection[str] = _HIDDEN) -> str:
    """A function of Lua that renders it.

    Args:
        text: the template.
        shown: names that expressions see although templates do not know them.
    """
    parts = [f"__tostring(({piece}) or '')" if is_code else _quoted(piece) for is_code, piece in _pieces(text)]
    hidden = ", ".join(name for name in _HIDDEN if name not in shown)
    return (
        "local headers, query_params, uri_captures = ... local shared, __tostring = kong.ctx.shared, tostring "
        f"{f'local {hidden} ' if hidden else ''}return {'..'.join(parts)}"
    )


def _quoted(text: str) -> str:
    """Lua's ``%q``."""
    escaped = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\0")
    )
    return f'"{escaped}"'


def fault_of_template(text: str) -> str | None:
    """Why it is none that can be rendered, in Lua's words; None: it can, or there is no expression in it."""
    return fault_of_code(_code(text), name=_NAME) if is_template(text) else None


class TemplateValues:
    """What expressions find of one request."""

    __slots__ = ("_known", "call")

    def __init__(self, exchange: Exchange, plugin_id: str) -> None:
        self.call = LuaCall(exchange, "access", {}, exchange.ctx, plugin_id)
        self._known: dict[str, Mapping[Any, Any]] = {}

    def table(self, name: str) -> Mapping[Any, Any]:
        """``headers``, ``query_params``, ``uri_captures`` or ``shared``."""
        known = self._known.get(name)
        if known is None:
            exchange = self.call.exchange
            assert exchange is not None
            known = self._known[name] = _TABLES[name](exchange)
        return known


def _headers(exchange: Exchange) -> Mapping[Any, Any]:
    table = field_table(sent_fields(exchange), FIELDS_MOST)
    found: HeaderTable = table[0] if isinstance(table, tuple) else table
    return found


def _arguments(exchange: Exchange) -> Mapping[Any, Any]:
    table = arguments_table(exchange.raw_query, FIELDS_MOST)
    found: dict[bytes, Any] = table[0] if isinstance(table, tuple) else table
    return found


def _captures(exchange: Exchange) -> Mapping[Any, Any]:
    captures = (exchange.match.captures if exchange.match is not None else None) or {}
    return {
        int(name) if name.isdigit() else name.encode(): value for name, value in captures.items() if value is not None
    }


def _shared(exchange: Exchange) -> Mapping[Any, Any]:
    return {name.encode(): value for name, value in exchange.ctx.items() if isinstance(name, str)}


_TABLES = {"headers": _headers, "query_params": _arguments, "uri_captures": _captures, "shared": _shared}


class Template:
    """A value with expressions, compiled.

    Args:
        text: as it is configured.
        lua: the engine.

    Raises:
        LuaFailure: it does not compile, or Lua is off.
    """

    __slots__ = ("_names", "_parts", "_program", "_text")

    def __init__(self, text: str, lua: Any) -> None:
        self._text = text
        settings = lua.settings
        shown = _HIDDEN if settings.trust == "on" else [name.partition(".")[0] for name in settings.environment]
        self._program = lua.compile(_code(text, shown), name=_NAME)
        self._names = tuple(name if re.search(rf"\b{name}\b", text) else None for name in _TABLES if name != "shared")
        parts = [_look_up(piece) if is_code else raw(piece) for is_code, piece in _pieces(text)]
        self._parts: list[_Part] | None = [each for each in parts if each is not None] if None not in parts else None

    def render(self, values: TemplateValues) -> bytes:
        """The value for a request.

        Raises:
            TemplateFailed: it failed.
        """
        if self._parts is not None:
            found = [part if isinstance(part, bytes) else _value(values, *part) for part in self._parts]
            if None not in found:
                return b"".join(each for each in found if each is not None)
        try:
            given = [None if name is None else values.table(name) for name in self._names]
            results = self._program.run(values.call, *given)
        except (LuaFailure, LuaExit) as failure:
            why = _AS_LOCAL.sub("global '\\1'", str(failure))
            raise TemplateFailed(
                f"[request-transformer] failed to render the template {self._text}, error:{why}"
            ) from None
        return raw(results[0])


def _look_up(code: str) -> tuple[str, bytes | int] | None:
    """What an expression looks up; None: it is another one."""
    found = _LOOK_UP.fullmatch(code)
    if found is None or found[2] in _KEYWORDS:
        return None
    if found[5] is not None:
        return found[1], int(found[5])
    name = next(each for each in found.group(2, 3, 4) if each is not None)
    return found[1], raw(name)


def _value(values: TemplateValues, table: str, name: bytes | int) -> bytes | None:
    """A member as text; None: only Lua knows how it is written."""
    known = values.table(table)
    value = known.get(name)
    if value is None and table == "headers" and isinstance(name, bytes):
        value = known.get(name.lower().replace(b"_", b"-"))
    if isinstance(value, bytes):
        return value
    if value is None and table == "shared":
        return None  # Lua may hold it
    if value is None or value is False:
        return b""
    if value is True:
        return b"true"
    if isinstance(value, str):
        return raw(value)
    return number_text(value) if isinstance(value, int | float) else None
