"""``kong.service.request``: what goes up to the service (Kong 3.9.3, ``kong/pdk/service/request.lua``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ...core.http.uri import escape
from ...core.rerouting import set_scheme
from ..lua_error import LuaError
from .pdk_call import Functions, LuaCall, exchange_of, is_number, is_text, phases, raw, text, type_name
from .pdk_request import header_of, sent_fields
from .pdk_tables import FORM, JSON, MULTIPART, encoded_arguments, number_text
from .pdk_values import check_header, field_name, field_values, header_pairs, is_table, json_of

if TYPE_CHECKING:
    from ...core.exchange import Exchange

__all__ = ["SERVICE_REQUEST_FUNCTIONS"]

_BEFORE = phases("rewrite", "access")
_BEFORE_BALANCER = phases("rewrite", "access", "balancer")

_METHODS = frozenset((
    b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"MKCOL", b"COPY", b"MOVE", b"PROPFIND", b"PROPPATCH", b"LOCK",
    b"UNLOCK", b"PATCH", b"TRACE",
))  # fmt: skip


def _enable_buffering(call: LuaCall) -> None:
    exchange = exchange_of(call, _BEFORE_BALANCER)
    exchange.own("kong.service").update(buffered=True)


def _set_scheme(call: LuaCall, scheme: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, _BEFORE_BALANCER)
    if not is_text(scheme):
        raise LuaError("scheme must be a string")
    if text(scheme) not in ("http", "https"):
        raise LuaError(f"invalid scheme: {text(scheme)}")
    if exchange.route is not None:
        set_scheme(exchange, text(scheme))


def _set_path(call: LuaCall, path: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, _BEFORE_BALANCER)
    if not is_text(path):
        raise LuaError("path must be a string")
    if not raw(path).startswith(b"/"):
        raise LuaError("path must start with /")
    if exchange.match is not None:  # the route's path takes the place of what was set before routing, as in Kong
        exchange.set_upstream_path(escape(raw(path)))


def _set_raw_query(call: LuaCall, query: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, _BEFORE)
    if not is_text(query):
        raise LuaError("query must be a string")
    exchange.set_upstream_query(_without_controls(raw(query)))


def _without_controls(query: bytes) -> bytes:
    """A query that ends no request line."""
    return quote(query, safe=bytes(range(0x21, 0x7F))).encode("ascii")


def _set_method(call: LuaCall, method: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, _BEFORE)
    if not is_text(method):
        raise LuaError("method must be a string")
    if raw(method) not in _METHODS:
        raise LuaError(f"invalid method: {text(method)}")
    exchange.set_upstream_method(raw(method))


def _set_query(call: LuaCall, args: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, _BEFORE)
    if not is_table(args):
        raise LuaError("args must be a table")
    exchange.set_upstream_query(encoded_arguments(args))


def _clear_query_arg(call: LuaCall, name: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, _BEFORE)
    if not is_text(name):
        raise LuaError("query argument name must be a string")
    if exchange.raw_query:
        exchange.clear_query_arg(text(name))


# -- fields ----------------------------------------------------------------------------------------------------------------


def _set_header(call: LuaCall, header: Any = None, value: Any = None, *_: Any) -> Any:
    exchange = exchange_of(call, _BEFORE_BALANCER)
    check_header(header, value)
    name = raw(header).lower()
    if name == b":authority":
        if exchange.route is None or not exchange.route.grpc:
            return None, "cannot set :authority pseudo-header on non-grpc requests"
        name = b"host"
    exchange.set_upstream_header(field_name(name), *field_values(value))
    return None


def _add_header(call: LuaCall, header: Any = None, value: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, _BEFORE)
    check_header(header, value)
    name = field_name(raw(header).lower())
    before = [each for known, each in sent_fields(exchange) if known == name] if name != b"host" else []
    exchange.set_upstream_header(name, *before, *field_values(value))


def _clear_header(call: LuaCall, header: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, _BEFORE)
    if not is_text(header):
        raise LuaError("header must be a string")
    exchange.clear_upstream_header(field_name(raw(header).lower()))


def _set_headers(call: LuaCall, headers: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, _BEFORE)
    for name, values in header_pairs(headers):
        exchange.set_upstream_header(name.lower(), *values)


# -- the body ----------------------------------------------------------------------------------------------------------------


def _set_raw_body(call: LuaCall, body: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, _BEFORE_BALANCER)
    if not is_text(body):
        raise LuaError("body must be a string")
    _replace_body(call, exchange, raw(body))


def _replace_body(call: LuaCall, exchange: Exchange, body: bytes) -> None:
    if exchange.block.has_body and call.body is None and exchange.upstream_body is None:
        raise LuaError(call.body_error or "the request body has not been read, and nothing can take its place")
    exchange.set_upstream_body(body)


def _set_body(call: LuaCall, args: Any = None, mime: Any = None, *_: Any) -> Any:
    exchange = exchange_of(call, _BEFORE)
    if not is_table(args):
        raise LuaError("args must be a table")
    if mime and not is_text(mime):
        raise LuaError("mime must be a string")
    sent = raw(mime) if mime else header_of(exchange, b"content-type")
    if sent is None:
        return None, "content type was neither explicitly given as an argument or received as a header"
    kind = text(sent)
    bare = kind.partition(";")[0]
    if bare == FORM:
        body = encoded_arguments(args)
    elif bare == JSON:
        body = json_of(args)
    elif bare == MULTIPART:
        body, kind = _multipart(args, kind)
    else:
        raise LuaError(f"unsupported content type {kind}")
    _replace_body(call, exchange, body)
    exchange.set_upstream_header(b"content-type", *field_values(kind))
    return True


def _multipart(args: Any, kind: str) -> tuple[bytes, str]:
    """A table as a form (RFC 7578), and its type with the boundary."""
    parts: list[tuple[bytes, bytes]] = []
    found: Iterable[tuple[Any, Any]] = args.items() if isinstance(args, dict) else enumerate(args, 1)
    for name, value in found:
        if not is_text(name):
            raise LuaError(f'invalid key "{name}": got {type_name(name)}, expected string')
        if not (is_text(value) or is_number(value) or isinstance(value, bool)):
            raise LuaError(f'invalid value "{text(name)}": got {type_name(value)}, expected string, number or boolean')
        parts.append((raw(name), field_text(value)))
    parts.sort()
    boundary = _boundary(kind)
    number = 0
    while not boundary or any(b"\n--" + boundary in value for _, value in parts):
        number += 1
        boundary = b"%010d" % (number * 7919)
    made = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (boundary, quotable(name), value)
        for name, value in parts
    ]
    return b"".join((*made, b"--%b--\r\n" % boundary)), f"{MULTIPART}; boundary={boundary.decode('latin-1')}"


def _boundary(kind: str) -> bytes:
    _, found, rest = kind.partition("boundary=")
    if not found:
        return b""
    return raw(rest[1:].partition('"')[0] if rest.startswith('"') else rest)


def quotable(name: bytes) -> bytes:
    """A name as it stands between quotes (WHATWG HTML, multipart/form-data)."""
    return name.replace(b'"', b"%22").replace(b"\r", b"%0D").replace(b"\n", b"%0A")


def field_text(value: Any) -> bytes:
    """A text, number or boolean as Lua's ``tostring`` gives it."""
    if is_text(value):
        return raw(value)
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return number_text(value)


SERVICE_REQUEST_FUNCTIONS: Functions = {
    "kong.service.request.enable_buffering": _enable_buffering,
    "kong.service.request.set_scheme": _set_scheme,
    "kong.service.request.set_path": _set_path,
    "kong.service.request.set_raw_query": _set_raw_query,
    "kong.service.request.set_method": _set_method,
    "kong.service.request.set_query": _set_query,
    "kong.service.request.clear_query_arg": _clear_query_arg,
    "kong.service.request.set_header": _set_header,
    "kong.service.request.add_header": _add_header,
    "kong.service.request.clear_header": _clear_header,
    "kong.service.request.set_headers": _set_headers,
    "kong.service.request.set_raw_body": _set_raw_body,
    "kong.service.request.set_body": _set_body,
}
"""Of ``kong.service.request``."""
