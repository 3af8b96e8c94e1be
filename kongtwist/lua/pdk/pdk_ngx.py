"""Names of ``ngx`` that read and change a request (lua-nginx-module 0.10): ``ngx.status``, ``ngx.header``, ``ngx.arg``, ``ngx.exit``,
``ngx.say`` and ``ngx.req``. The answer that a script says is kept until it, or its phase, ends: what is said is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from ...core.answers import Answer
from ...core.exchange import Exchange
from ...core.http.error_bodies import default_message
from ..lua_calls import Members
from ..lua_error import LuaError, LuaExit
from .pdk_call import LuaCall, check_most, exchange_of, is_number, is_text, phases, raw
from .pdk_request import FIELDS_MOST, REQUEST_FUNCTIONS, sent_fields
from .pdk_response import RESPONSE_FUNCTIONS, answer_pairs
from .pdk_service_request import SERVICE_REQUEST_FUNCTIONS, field_text
from .pdk_tables import arguments_table, encoded_arguments, field_table
from .pdk_values import field_name, field_values, is_table

__all__ = ["NGX_NAMES", "said"]

_SAYING = phases("rewrite", "access", "response", "error", "admin_api")
_ANY = phases("rewrite", "access", "balancer", "response", "header_filter", "body_filter", "log", "error", "admin_api")

_SAID = 1024 * 1024
"""Bytes that a script may say."""

_PAGES = frozenset((400, 404, 405, 408, 411, 412, 413, 414, 417, 494, 500, 502, 503, 504))
"""Statuses whose page is Kong's error (Kong 3.9.3, ``error_page``); others have nginx's."""

_METHODS = {
    2: b"GET", 4: b"HEAD", 8: b"POST", 16: b"PUT", 32: b"DELETE", 64: b"MKCOL", 128: b"COPY", 256: b"MOVE", 512: b"OPTIONS",
    1024: b"PROPFIND", 2048: b"PROPPATCH", 4096: b"LOCK", 8192: b"UNLOCK", 16384: b"PATCH", 32768: b"TRACE",
}  # fmt: skip
"""``ngx.HTTP_GET`` and so on."""


# -- what is answered ----------------------------------------------------------------------------------------------------


def said(exchange: Exchange, status: int = 0) -> Answer | None:
    """The answer that scripts have said in this phase; None: they have said nothing.

    Args:
        exchange: the request.
        status: where they have set none.
    """
    body = exchange.own("ngx").pop("said", None)
    return None if body is None else Answer(exchange.status or status or 200, bytes(body), _plain_type(exchange))


def _plain_type(exchange: Exchange) -> list[tuple[bytes, bytes]]:
    """What nginx calls an answer whose type nobody has set (``default_type``)."""
    changes = exchange.response_changes or ()
    if any(what != "lines" and name.lower() == b"content-type" for what, name, _ in changes):
        return []
    return [(b"Content-Type", b"text/plain; charset=utf-8")]


def _say(call: LuaCall, *values: Any) -> int:
    return _print(call, *values, "\n")


def _print(call: LuaCall, *values: Any) -> int:
    exchange = exchange_of(call, _SAYING)
    kept: bytearray = exchange.own("ngx").setdefault("said", bytearray())
    for value in values:
        _add(kept, value)
    return 1


def _add(kept: bytearray, value: Any) -> None:
    if isinstance(value, list):
        for one in value:
            _add(kept, one)
        return
    if value is None:
        value = "nil"
    if not (is_text(value) or is_number(value) or isinstance(value, bool)):
        raise LuaError("bad argument #1 to 'print' (string, number, boolean, nil, ngx.null, or array table expected)")
    kept += field_text(value)
    if len(kept) > _SAID:
        raise LuaError(f"more than {_SAID} bytes are said")


def _exit(call: LuaCall, status: Any = None, *_: Any) -> NoReturn:
    exchange = exchange_of(call, _ANY)
    if not is_number(status):
        raise LuaError("bad argument #1 to 'exit' (number expected)")
    code = int(status)
    if call.phase in _SAYING:
        call.answer = said(exchange, code) or _page(500 if code == -1 else code)
    elif call.phase == "header_filter" and (code == -1 or code >= 300):
        call.answer = _page(500 if code == -1 else code)
    raise LuaExit


def _page(code: int) -> Answer | None:
    if not 200 <= code <= 599:
        return None  # ngx.OK and its like: the phase ends
    if code < 300:
        return Answer(code, b"")
    return Answer(code, None, None, default_message(code) if code in _PAGES else None)


def _send_headers(call: LuaCall, *_: Any) -> int:
    exchange_of(call, _SAYING).own("ngx").setdefault("said", bytearray())
    return 1


# -- ngx.status, ngx.header, ngx.arg --------------------------------------------------------------------------------------


def _get_member(call: LuaCall, name: Any) -> Any:
    """A member of ``ngx`` that depends on the request."""
    if name == "status":
        return exchange_of(call, _ANY).status
    if name == "headers_sent":
        return bool(exchange_of(call, _ANY).sent_head)
    return None


def _set_member(call: LuaCall, name: Any, value: Any) -> None:
    if name != "status":
        raise LuaError(f"cannot change ngx: '{name}' is read-only here")
    exchange = exchange_of(call, _ANY)
    if not is_number(value) and not (is_text(value) and raw(value).isdigit()):
        raise LuaError("number expected for ngx.status")
    if exchange.sent_head:
        raise LuaError("attempt to set ngx.status after sending out response headers")
    exchange.status = int(value)


def _get_field(call: LuaCall, name: Any) -> Any:
    exchange = exchange_of(call, _ANY)
    if not is_text(name):
        return None
    wanted = raw(name).lower().replace(b"_", b"-")
    values = [value for each, value in answer_pairs(exchange) if each == wanted]
    return values[0] if len(values) == 1 else values or None


def _set_field(call: LuaCall, name: Any, value: Any) -> None:
    exchange = exchange_of(call, _ANY)
    if exchange.sent_head:
        raise LuaError("attempt to set ngx.header.HEADER after sending out response headers")
    if not is_text(name):
        raise LuaError("bad header name")
    key = field_name(raw(name).replace(b"_", b"-"))
    if value is None or (is_table(value) and not value):
        exchange.clear_response_header(key)
        return
    RESPONSE_FUNCTIONS["kong.response.set_header"](_as_any(call), key, value)


def _as_any(call: LuaCall) -> LuaCall:
    """The call in a phase in which fields may be set."""
    other = LuaCall(call.exchange, "header_filter")
    return other


def _get_arg(call: LuaCall, index: Any) -> Any:
    if call.phase != "body_filter":
        return None
    return call.chunk if index == 1 else call.last if index == 2 else None


def _set_arg(call: LuaCall, index: Any, value: Any) -> None:
    if call.phase != "body_filter":
        raise LuaError("ngx.arg can only be set in body_filter")
    if index == 2:
        call.last = value is not None and value is not False
    elif index != 1:
        raise LuaError("bad index")
    elif value is None or value is False:
        call.chunk = None
    elif is_text(value) or is_number(value):
        call.chunk = field_text(value)
    elif isinstance(value, list):
        kept = bytearray()
        _add(kept, value)
        call.chunk = bytes(kept)
    else:
        raise LuaError("bad chunk")


# -- ngx.req ---------------------------------------------------------------------------------------------------------------


def _get_headers(call: LuaCall, most: Any = None, *_: Any) -> Any:
    exchange = exchange_of(call, _ANY)
    return field_table(sent_fields(exchange), _most(most))


def _most(value: Any) -> int:
    if value is None:
        return FIELDS_MOST
    if value == 0:
        return 1000
    check_most(value, "max_args")
    return int(value)


def _get_uri_args(call: LuaCall, most: Any = None, *_: Any) -> Any:
    return arguments_table(exchange_of(call, _ANY).raw_query, _most(most))


def _get_body_data(call: LuaCall, *_: Any) -> Any:
    body = REQUEST_FUNCTIONS["kong.request.get_raw_body"](call)
    return None if isinstance(body, tuple) else body or None


def _get_post_args(call: LuaCall, most: Any = None, *_: Any) -> Any:
    body = REQUEST_FUNCTIONS["kong.request.get_raw_body"](call)
    if isinstance(body, tuple):
        return None, "request body in temp file not supported"
    return arguments_table(body, _most(most))


def _set_method(call: LuaCall, number: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, _ANY)
    if number not in _METHODS:
        raise LuaError("unsupported HTTP method")
    exchange.set_upstream_method(_METHODS[number])


def _set_uri_args(call: LuaCall, args: Any = None, *_: Any) -> None:
    query = (
        encoded_arguments(args) if is_table(args) else field_text(args) if is_text(args) or is_number(args) else None
    )
    if query is None:
        raise LuaError("bad argument #1 to 'set_uri_args' (string, number, or table expected)")
    SERVICE_REQUEST_FUNCTIONS["kong.service.request.set_raw_query"](call, query)


def _set_header(call: LuaCall, name: Any = None, value: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, _ANY)
    if not is_text(name):
        raise LuaError("bad header name")
    key = field_name(raw(name).lower())
    if value is None or (is_table(value) and not value):
        exchange.clear_upstream_header(key)
    else:
        exchange.set_upstream_header(key, *field_values(value))


def _nothing(call: LuaCall, *_: Any) -> None:
    """What has no effect here: bodies are read before a script that names them runs."""


def _pid(call: LuaCall, *_: Any) -> int:
    return 0 if call.gateway is None else call.gateway.worker_pid


NGX_NAMES: Mapping[str, Any] = {
    "ngx.*": Members(_get_member, _set_member),
    "ngx.header": Members(_get_field, _set_field),
    "ngx.arg": Members(_get_arg, _set_arg),
    "ngx.exit": _exit,
    "ngx.say": _say,
    "ngx.print": _print,
    "ngx.send_headers": _send_headers,
    "ngx.flush": _nothing,
    "ngx.eof": _nothing,
    "ngx.worker.pid": _pid,
    "ngx.req.get_headers": _get_headers,
    "ngx.req.get_uri_args": _get_uri_args,
    "ngx.req.get_method": REQUEST_FUNCTIONS["kong.request.get_method"],
    "ngx.req.http_version": REQUEST_FUNCTIONS["kong.request.get_http_version"],
    "ngx.req.read_body": _nothing,
    "ngx.req.get_body_data": _get_body_data,
    "ngx.req.get_body_file": _nothing,
    "ngx.req.get_post_args": _get_post_args,
    "ngx.req.set_method": _set_method,
    "ngx.req.set_header": _set_header,
    "ngx.req.clear_header": lambda call, name=None, *_: _set_header(call, name),
    "ngx.req.set_uri_args": _set_uri_args,
    "ngx.req.set_body_data": SERVICE_REQUEST_FUNCTIONS["kong.service.request.set_raw_body"],
}
"""Of ``ngx``, by dotted name; ``ngx.*`` is what ``ngx`` has no member for."""
