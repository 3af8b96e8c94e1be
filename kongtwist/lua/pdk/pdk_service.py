"""``kong.service`` and ``kong.service.response``: who is asked, and what it answered (Kong 3.9.3, ``kong/pdk/service.lua``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.rerouting import set_retries, set_target, set_timeouts, set_tls, set_upstream
from ..lua_error import LuaError
from .pdk_call import Functions, LuaCall, check_most, exchange_of, is_number, is_text, is_whole, phases, raw, text
from .pdk_request import FIELDS_MOST
from .pdk_tables import FORM, decoded_body, field_table, media_type, number_text

if TYPE_CHECKING:
    from ...core.exchange import Exchange

__all__ = ["SERVICE_FUNCTIONS", "SERVICE_RESPONSE_FUNCTIONS"]

_ACCESS = phases("access")
_BEFORE = phases("rewrite", "access", "balancer", "preread")
_ANSWERED = phases("response", "header_filter", "body_filter", "log")

_LONGEST = 2147483646
"""Milliseconds of the longest time-out."""


def _routed(call: LuaCall, allowed: phases) -> Exchange:
    exchange = exchange_of(call, allowed)
    if exchange.route is None:
        raise LuaError("no route has been chosen yet")
    return exchange


def _set_upstream(call: LuaCall, host: Any = None, *_: Any) -> Any:
    exchange = _routed(call, _ACCESS)
    if not is_text(host):
        raise LuaError("host must be a string")
    if not set_upstream(exchange, text(host)):
        return None, f"could not find an Upstream named '{text(host)}'"
    return True


def _set_target(call: LuaCall, host: Any = None, port: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, _BEFORE)
    if not is_text(host):
        raise LuaError("host must be a string")
    _check_whole(port, "port", 0, 65535)
    if exchange.route is not None:  # the route's service takes the place of what was set before routing, as in Kong
        set_target(exchange, text(host), int(port))


def _check_whole(value: Any, name: str, least: int, most: int) -> None:
    if not is_whole(value):
        raise LuaError(f"{name} must be an integer")
    if not least <= value <= most:
        raise LuaError(f"{name} must be an integer between {least} and {most}: given {number_text(value).decode()}")


def _set_target_retry_callback(call: LuaCall, callback: Any = None, *_: Any) -> None:
    exchange_of(call, _ACCESS)
    raise LuaError("kong.service.set_target_retry_callback is not offered: retries are chosen by the balancer")


def _set_retries(call: LuaCall, retries: Any = None, *_: Any) -> None:
    exchange = _routed(call, _ACCESS)
    _check_whole(retries, "retries", 0, 32767)
    set_retries(exchange, int(retries))


def _set_timeouts(call: LuaCall, connect: Any = None, write: Any = None, read: Any = None, *_: Any) -> None:
    exchange = _routed(call, _ACCESS)
    for value, name in ((connect, "connect_timeout"), (write, "write_timeout"), (read, "read_timeout")):
        _check_whole(value, name, 1, _LONGEST)
    set_timeouts(exchange, int(connect), int(write), int(read))


def _set_tls_cert_key(call: LuaCall, *_: Any) -> None:
    exchange_of(call, _BEFORE)
    raise LuaError("chain must be a parsed cdata object")


def _set_tls_verify(call: LuaCall, on: Any = None, *_: Any) -> bool:
    exchange = _routed(call, _BEFORE)
    if not isinstance(on, bool):
        raise LuaError("argument must be a boolean")
    set_tls(exchange, verify=on)
    return True


def _set_tls_verify_depth(call: LuaCall, depth: Any = None, *_: Any) -> bool:
    exchange = _routed(call, _BEFORE)
    if not is_number(depth):
        raise LuaError("argument must be a number")
    set_tls(exchange, verify_depth=int(depth))
    return True


def _set_tls_verify_store(call: LuaCall, *_: Any) -> None:
    exchange_of(call, _BEFORE)
    raise LuaError("argument must be a resty.openssl.x509.store object")


SERVICE_FUNCTIONS: Functions = {
    "kong.service.set_upstream": _set_upstream,
    "kong.service.set_target": _set_target,
    "kong.service.set_target_retry_callback": _set_target_retry_callback,
    "kong.service.set_retries": _set_retries,
    "kong.service.set_timeouts": _set_timeouts,
    "kong.service.set_tls_cert_key": _set_tls_cert_key,
    "kong.service.set_tls_verify": _set_tls_verify,
    "kong.service.set_tls_verify_depth": _set_tls_verify_depth,
    "kong.service.set_tls_verify_store": _set_tls_verify_store,
}
"""Of ``kong.service``."""


# -- kong.service.response -------------------------------------------------------------------------------------------------


def _get_status(call: LuaCall) -> int | None:
    return exchange_of(call, _ANSWERED).upstream_status or None


def _pairs(exchange: Exchange) -> list[tuple[bytes, bytes]]:
    block = exchange.response_fields
    return [] if block is None else [(name.lower(), value) for name, value in block.pairs]


def _get_headers(call: LuaCall, max_headers: Any = None, *_: Any) -> Any:
    exchange = exchange_of(call, _ANSWERED)
    if max_headers is not None:
        check_most(max_headers, "max_headers")
    return field_table(_pairs(exchange), int(max_headers or FIELDS_MOST))


def _get_header(call: LuaCall, name: Any = None, *_: Any) -> bytes | None:
    exchange = exchange_of(call, _ANSWERED)
    if not is_text(name):
        raise LuaError("name must be a string")
    wanted = raw(name).lower().replace(b"_", b"-")
    return next((value for each, value in _pairs(exchange) if each.replace(b"_", b"-") == wanted), None)


def _get_raw_body(call: LuaCall) -> bytes:
    exchange = exchange_of(call, _ANSWERED)
    body = exchange.own("kong.service").get("body")
    if body is None:
        raise LuaError(
            "service body is only available with buffered proxying (see: kong.service.request.enable_buffering function)"
        )
    return bytes(body)


def _get_body(call: LuaCall, mimetype: Any = None, max_args: Any = None, *_: Any) -> Any:
    body = _get_raw_body(call)
    kind = raw(mimetype) if is_text(mimetype) else _get_header(call, "content-type")
    if kind is None:
        return None, "missing content type"
    if max_args is not None and media_type(text(kind)).startswith(FORM):
        check_most(max_args, "max_args")
    return decoded_body(body, text(kind), int(max_args or FIELDS_MOST))


SERVICE_RESPONSE_FUNCTIONS: Functions = {
    "kong.service.response.get_status": _get_status,
    "kong.service.response.get_headers": _get_headers,
    "kong.service.response.get_header": _get_header,
    "kong.service.response.get_raw_body": _get_raw_body,
    "kong.service.response.get_body": _get_body,
}
"""Of ``kong.service.response``."""
