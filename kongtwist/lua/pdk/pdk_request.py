"""``kong.request``: what the client sent (Kong 3.9.3, ``kong/pdk/request.lua``), with what plugins have changed of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.http.headers import host_name
from ...core.http.uri import normalise
from ..lua_error import LuaError
from .pdk_call import (
    REQUEST_PHASES,
    Functions,
    LuaCall,
    check_most,
    exchange_of,
    forbid_phase,
    is_text,
    phases,
    raw,
    text,
)
from .pdk_tables import FORM, arguments_table, decoded_body, field_table, media_type

if TYPE_CHECKING:
    from ...core.exchange import Exchange

__all__ = ["FIELDS_MOST", "REQUEST_FUNCTIONS", "header_of", "sent_fields"]

FIELDS_MOST = 100
"""Fields and arguments that are given where no number is asked for (Kong's ``lua_max_req_headers``, ``lua_max_uri_args``)."""

_BODY_PHASES = phases("rewrite", "access", "response", "error", "admin_api")

_TOO_LARGE = "request body did not fit into client body buffer, consider raising 'client_body_buffer_size'"


def header_of(exchange: Exchange, name: bytes) -> bytes | None:
    """The first value of a field as it goes up: what plugins have changed counts.

    Args:
        exchange: the request.
        name: in lower case; ``-`` and ``_`` are the same.
    """
    changes = exchange.request_changes
    if changes:
        for each in (name, name.replace(b"_", b"-")):
            if each in changes:
                value = changes[each]
                return None if value is None else value.partition(b"\0")[0]
    return exchange.get_header(name)


def sent_fields(exchange: Exchange) -> list[tuple[bytes, bytes]]:
    """All fields as they go up, (name in lower case, value)."""
    if not exchange.request_changes:
        return [(name.lower(), value) for name, value in exchange.block.pairs]
    return [(name, value) for name, values in exchange.request_fields().items() for value in values]


def _get_scheme(call: LuaCall) -> bytes:
    return exchange_of(call, REQUEST_PHASES).scheme


def _get_host(call: LuaCall) -> bytes:
    return host_name(exchange_of(call, REQUEST_PHASES).block.host)


def _get_port(call: LuaCall) -> int:
    forbid_phase(call, "init_worker")
    if call.exchange is not None:
        return call.exchange.local_port
    return call.hello.local_port if call.hello is not None else 0


def _trusted(exchange: Exchange, name: bytes) -> bytes | None:
    """A field of who stands before us, where it may be believed."""
    return header_of(exchange, name) if exchange.trusted else None


def _get_forwarded_scheme(call: LuaCall) -> bytes:
    exchange = exchange_of(call, REQUEST_PHASES)
    scheme = _trusted(exchange, b"x-forwarded-proto")
    return exchange.scheme if scheme is None else scheme.lower()


def _get_forwarded_host(call: LuaCall) -> bytes:
    exchange = exchange_of(call, REQUEST_PHASES)
    host = _trusted(exchange, b"x-forwarded-host")
    if host is None:
        return host_name(exchange.block.host)
    return _without_user(host).partition(b":")[0].lower()


def _without_user(host: bytes) -> bytes:
    user, at, rest = host.partition(b"@")
    return rest if at else user


def _get_forwarded_port(call: LuaCall) -> int:
    exchange = exchange_of(call, REQUEST_PHASES)
    port = _port(_trusted(exchange, b"x-forwarded-port"))
    if port is None:
        port = _port(_without_user(_trusted(exchange, b"x-forwarded-host") or b"").partition(b":")[2])
    return exchange.host_port if port is None else port


def _port(digits: bytes | None) -> int | None:
    if not digits or not digits.strip().isdigit() or len(digits) > 10:
        return None
    port = int(digits)
    return port if 1 <= port <= 65535 else None


def _get_forwarded_path(call: LuaCall) -> bytes:
    exchange = exchange_of(call, REQUEST_PHASES)
    path = _trusted(exchange, b"x-forwarded-path")
    return normalise(exchange.raw_path) if path is None else path


def _get_forwarded_prefix(call: LuaCall) -> bytes | None:
    exchange = exchange_of(call, REQUEST_PHASES)
    prefix = _trusted(exchange, b"x-forwarded-prefix")
    if prefix is not None:
        return prefix
    prefix = None if exchange.match is None else exchange.match.prefix
    return None if prefix in (b"", b"/") else prefix


def _get_http_version(call: LuaCall) -> float:
    return float(exchange_of(call, REQUEST_PHASES).http_version)


def _get_method(call: LuaCall) -> bytes:
    exchange = exchange_of(call, REQUEST_PHASES)
    return exchange.upstream_method or exchange.method


def _get_path(call: LuaCall) -> bytes:
    return normalise(exchange_of(call, REQUEST_PHASES).raw_path)


def _get_raw_path(call: LuaCall) -> bytes:
    return exchange_of(call, REQUEST_PHASES).raw_path


def _get_path_with_query(call: LuaCall) -> bytes:
    return exchange_of(call, REQUEST_PHASES).target


def _get_raw_query(call: LuaCall) -> bytes:
    return exchange_of(call, REQUEST_PHASES).raw_query


def _get_query_arg(call: LuaCall, name: Any = None, *_: Any) -> Any:
    exchange = exchange_of(call, REQUEST_PHASES)
    if not is_text(name):
        raise LuaError("query argument name must be a string")
    table = arguments_table(exchange.raw_query, FIELDS_MOST)
    value = (table[0] if isinstance(table, tuple) else table).get(raw(name))
    return value[0] if isinstance(value, list) else value


def _get_query(call: LuaCall, max_args: Any = None, *_: Any) -> Any:
    exchange = exchange_of(call, REQUEST_PHASES)
    if max_args is not None:
        check_most(max_args, "max_args")
    return arguments_table(exchange.raw_query, int(max_args or FIELDS_MOST))


def _get_header(call: LuaCall, name: Any = None, *_: Any) -> bytes | None:
    exchange = exchange_of(call, REQUEST_PHASES)
    if not is_text(name):
        raise LuaError("header name must be a string")
    return header_of(exchange, raw(name).lower())


def _get_headers(call: LuaCall, max_headers: Any = None, *_: Any) -> Any:
    exchange = exchange_of(call, REQUEST_PHASES)
    if max_headers is not None:
        check_most(max_headers, "max_headers")
    return field_table(sent_fields(exchange), int(max_headers or FIELDS_MOST))


def _get_raw_body(call: LuaCall, _max_allowed_file_size: Any = None, *_: Any) -> Any:
    exchange = exchange_of(call, _BODY_PHASES)
    if exchange.upstream_body is not None:
        return exchange.upstream_body
    if call.body is not None:
        return call.body
    if call.body_error is not None:
        return None, call.body_error
    if not exchange.block.has_body:
        return b""
    return None, "the request body has not been read: it is where the code names a function that reads it"


def _get_body(
    call: LuaCall, mimetype: Any = None, max_args: Any = None, max_allowed_file_size: Any = None, *_: Any
) -> Any:
    exchange = exchange_of(call, _BODY_PHASES)
    sent = raw(mimetype) if is_text(mimetype) else header_of(exchange, b"content-type")
    if sent is None:
        return None, "missing content type"
    content_type = text(sent)
    if max_args is not None and media_type(content_type).startswith(FORM):
        check_most(max_args, "max_args")
    body = _get_raw_body(call, max_allowed_file_size)
    if isinstance(body, tuple):
        return *body, media_type(content_type)
    return decoded_body(body, content_type, int(max_args or FIELDS_MOST))


def _get_start_time(call: LuaCall) -> int:
    return int(exchange_of(call, REQUEST_PHASES).wall_started * 1000)


def _get_uri_captures(call: LuaCall, *_: Any) -> dict[str, Any]:
    exchange = exchange_of(call, REQUEST_PHASES)
    named: dict[str, bytes] = {}
    unnamed: dict[int, bytes] = {}
    for name, value in ((exchange.match.captures if exchange.match is not None else None) or {}).items():
        if value is None:
            continue
        if name.isdigit():
            unnamed[int(name)] = value
        else:
            named[name] = value
    return {"named": named, "unnamed": unnamed}


REQUEST_FUNCTIONS: Functions = {
    "kong.request.get_scheme": _get_scheme,
    "kong.request.get_host": _get_host,
    "kong.request.get_port": _get_port,
    "kong.request.get_forwarded_scheme": _get_forwarded_scheme,
    "kong.request.get_forwarded_host": _get_forwarded_host,
    "kong.request.get_forwarded_port": _get_forwarded_port,
    "kong.request.get_forwarded_path": _get_forwarded_path,
    "kong.request.get_forwarded_prefix": _get_forwarded_prefix,
    "kong.request.get_http_version": _get_http_version,
    "kong.request.get_method": _get_method,
    "kong.request.get_path": _get_path,
    "kong.request.get_raw_path": _get_raw_path,
    "kong.request.get_path_with_query": _get_path_with_query,
    "kong.request.get_raw_query": _get_raw_query,
    "kong.request.get_query_arg": _get_query_arg,
    "kong.request.get_query": _get_query,
    "kong.request.get_header": _get_header,
    "kong.request.get_headers": _get_headers,
    "kong.request.get_raw_body": _get_raw_body,
    "kong.request.get_body": _get_body,
    "kong.request.get_start_time": _get_start_time,
    "kong.request.get_uri_captures": _get_uri_captures,
}
"""Of ``kong.request``."""
