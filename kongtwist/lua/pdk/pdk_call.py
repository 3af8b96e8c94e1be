"""A running call of Lua, as the functions of the kit see it, and what they have in common.

A function of the kit takes the call and then what Lua gave it: None, bool, int, float, text (``str`` or ``bytes``), and tables as
``list`` or ``dict``. It gives such values back, a tuple for several, and raises `LuaError` with Kong's texts (Kong 3.9.3,
``kong/pdk``). Text comes back as bytes: what a client sends need not be UTF-8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..lua_error import LuaError

if TYPE_CHECKING:
    from ...core.answers import Answer
    from ...core.chain.phases import ClientHello
    from ...core.exchange import Exchange
    from ...core.gateway_facts import GatewayFacts

__all__ = [
    "REQUEST_PHASES", "Functions", "LuaCall", "check_most", "exchange_of", "forbid_phase", "is_number", "is_text", "is_whole", "phases",
    "raw", "text", "type_name",
]  # fmt: skip

Functions = Mapping[str, Callable[..., Any]]
"""Dotted name -> function: ``kong.request.get_path`` -> ``get_path(call)``."""

_ORDER = (
    "init_worker", "certificate", "client_hello", "rewrite", "access", "balancer", "response", "cluster_listener", "header_filter",
    "body_filter", "log", "preread", "error", "admin_api",
)  # fmt: skip
"""Phases as Kong names them in an error, in that order."""


class LuaCall:
    """One run of Lua.

    Attributes:
        exchange: the request; None where there is none (certificate).
        phase: Kong's name: certificate, rewrite, access, header_filter, body_filter, log, response.
        plugin_ctx: ``kong.ctx.plugin``.
        shared: ``kong.ctx.shared``.
        plugin_id: id of the plugin's row; "" for none.
        gateway: facts of the node; of the exchange where there is one.
        hello: the client that begins TLS, in the certificate phase.
        body: the request's body, where it has been read; None: it has not.
        body_error: why there is none, where it was asked for.
        answer: what ends the request (``kong.response.exit``).
        chunk: a piece of the answer's body (``ngx.arg[1]``), in body_filter; None: nothing is sent for it.
        last: it is the last (``ngx.arg[2]``).
        held: pieces that wait for the last one (``kong.response.get_raw_body``).
    """

    __slots__ = (
        "answer", "body", "body_error", "chunk", "exchange", "gateway", "held", "hello", "last", "phase", "plugin_ctx", "plugin_id",
        "shared",
    )  # fmt: skip

    def __init__(
        self,
        exchange: Exchange | None,
        phase: str,
        plugin_ctx: dict[Any, Any] | None = None,
        shared: dict[Any, Any] | None = None,
        plugin_id: str = "",
    ) -> None:
        self.exchange = exchange
        self.phase = phase
        self.plugin_ctx = {} if plugin_ctx is None else plugin_ctx
        self.shared = {} if shared is None else shared
        self.plugin_id = plugin_id
        self.gateway: GatewayFacts | None = None if exchange is None else exchange.gateway
        self.hello: ClientHello | None = None
        self.body: bytes | None = None
        self.body_error: str | None = None
        self.answer: Answer | None = None
        self.chunk: bytes | None = None
        self.last = False
        self.held: bytearray | None = None


class phases(frozenset[str]):
    """Phases in which a function may be called; `check` says so where it is another."""

    def __new__(cls, *names: str) -> phases:
        return super().__new__(cls, names)

    def check(self, call: LuaCall) -> None:
        """Raises LuaError in any other phase."""
        if call.phase not in self:
            raise LuaError(f"function cannot be called in {call.phase} phase (only in: {_listed(self)})")


def _listed(names: frozenset[str]) -> str:
    return ", ".join(name for name in _ORDER if name in names)


def forbid_phase(call: LuaCall, *names: str) -> None:
    """Raises LuaError in one of these phases."""
    if call.phase in names:
        raise LuaError(
            f"function cannot be called in {call.phase} phase (can be called in any phases except:"
            f" {_listed(frozenset(names))})"
        )


REQUEST_PHASES = phases(
    "rewrite", "access", "balancer", "response", "header_filter", "body_filter", "log", "error", "admin_api", "cluster_listener",
)  # fmt: skip
"""Phases of a request."""


def exchange_of(call: LuaCall, allowed: phases) -> Exchange:
    """The call's request. Raises LuaError in a phase that is not allowed, or without a request."""
    if call.phase not in allowed:
        allowed.check(call)
    exchange = call.exchange
    if exchange is None:
        raise LuaError("no request found")
    return exchange


def is_text(value: Any) -> bool:
    """Whether Lua's type is string."""
    return isinstance(value, str | bytes)


def is_number(value: Any) -> bool:
    """Whether Lua's type is number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Whether it is a number without fraction."""
    return is_number(value) and value == value // 1


def type_name(value: Any) -> str:
    """Lua's name of the type of a value."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "boolean"
    if is_text(value):
        return "string"
    if is_number(value):
        return "number"
    if isinstance(value, list | dict | tuple):
        return "table"
    return "function" if callable(value) else "userdata"


def raw(value: str | bytes) -> bytes:
    """Text as bytes."""
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


def text(value: str | bytes) -> str:
    """Text as str; bytes that are no UTF-8 come back as they were by `raw`."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def check_most(value: Any, name: str, most: int = 1000) -> None:
    """The argument of how many are wanted. Raises LuaError where it is no number from 1 to ``most``."""
    if not is_number(value):
        raise LuaError(f"{name} must be a number")
    if value < 1:
        raise LuaError(f"{name} must be >= 1")
    if value > most:
        raise LuaError(f"{name} must be <= {most}")
