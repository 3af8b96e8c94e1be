"""``kong.response``: what the client gets (Kong 3.9.3, ``kong/pdk/response.lua``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from ...core.answers import Answer
from ...core.http.error_bodies import default_message, error_body
from ..lua_error import LuaError, LuaExit
from .pdk_call import Functions, LuaCall, check_most, exchange_of, is_number, is_text, phases, raw, text
from .pdk_request import FIELDS_MOST
from .pdk_tables import field_table
from .pdk_values import check_header, field_name, field_values, header_pairs, is_table, json_of

if TYPE_CHECKING:
    from ...core.exchange import Exchange

__all__ = ["RESPONSE_FUNCTIONS", "answer_pairs"]

_ANSWERED = phases("header_filter", "response", "body_filter", "log", "error", "admin_api")
_BEFORE = phases("rewrite", "access", "response", "balancer", "header_filter", "error", "admin_api")
_BODY = phases("body_filter")

_FRAMING = (b"transfer-encoding", b"transfer_encoding")
"""Fields that Kong lets nobody set; it only says so in the log."""


def _get_status(call: LuaCall) -> int:
    return exchange_of(call, _ANSWERED).status


def answer_pairs(exchange: Exchange) -> list[tuple[bytes, bytes]]:
    """The answer's fields: those sent where its head has gone, else what is known of them."""
    if exchange.sent_head:
        lines = [line.partition(b":") for line in exchange.sent_head.split(b"\r\n")[1:]]
        return [(name.lower(), value.strip()) for name, colon, value in lines if colon]
    return [(name, value) for name, values in exchange.answer_fields().items() for value in values]


def _get_headers(call: LuaCall, max_headers: Any = None, *_: Any) -> Any:
    exchange = exchange_of(call, _ANSWERED)
    if max_headers is not None:
        check_most(max_headers, "max_headers")
    return field_table(answer_pairs(exchange), int(max_headers or FIELDS_MOST))


def _get_header(call: LuaCall, name: Any = None, *_: Any) -> bytes | None:
    exchange = exchange_of(call, _ANSWERED)
    if not is_text(name):
        raise LuaError("header name must be a string")
    wanted = raw(name).lower().replace(b"_", b"-")
    return next((value for each, value in answer_pairs(exchange) if each.replace(b"_", b"-") == wanted), None)


def _get_source(call: LuaCall, *_: Any) -> str:
    return exchange_of(call, _ANSWERED).answer_source


# -- changes -------------------------------------------------------------------------------------------------------------


def _unsent(call: LuaCall) -> Exchange:
    exchange = exchange_of(call, _BEFORE)
    if exchange.sent_head:
        raise LuaError("headers have already been sent")
    return exchange


def _check_code(status: Any, least: int) -> int:
    if not is_number(status):
        raise LuaError("code must be a number")
    if not least <= status <= 599:
        raise LuaError(f"code must be a number between {least} and 599")
    return int(status)


def _set_status(call: LuaCall, status: Any = None, *_: Any) -> None:
    exchange = _unsent(call)
    exchange.status = _check_code(status, 100)


def _set_header(call: LuaCall, name: Any = None, value: Any = None, *_: Any) -> None:
    exchange = _unsent(call)
    check_header(name, value)
    _put(exchange, field_name(name), field_values(value))


def _put(exchange: Exchange, name: bytes, values: list[bytes]) -> None:
    if name.lower() in _FRAMING:
        exchange.report("manually setting Transfer-Encoding. Ignored.")
        return
    if not values:
        exchange.clear_response_header(name)
    for at, value in enumerate(values):
        (exchange.add_response_header if at else exchange.set_response_header)(name, value)


def _add_header(call: LuaCall, name: Any = None, value: Any = None, *_: Any) -> None:
    exchange = _unsent(call)
    check_header(name, value)
    for each in field_values(value):
        exchange.add_response_header(field_name(name), each)


def _clear_header(call: LuaCall, name: Any = None, *_: Any) -> None:
    exchange = _unsent(call)
    if not is_text(name):
        raise LuaError("header name must be a string")
    exchange.clear_response_header(field_name(name))


def _set_headers(call: LuaCall, headers: Any = None, *_: Any) -> None:
    exchange = _unsent(call)
    for name, values in header_pairs(headers):
        _put(exchange, name, values)


# -- the body ------------------------------------------------------------------------------------------------------------


def _get_raw_body(call: LuaCall) -> bytes | None:
    """The whole body, when its last piece is here; None before. Until then nothing is sent, and what has come is kept."""
    exchange = exchange_of(call, _BODY)
    held: bytearray | None = call.held
    if call.last and held is None:
        return call.chunk
    if held is None:
        held = call.held = bytearray()
    held += call.chunk or b""
    if len(held) > exchange.gateway.body_limit:
        raise LuaError("the response body does not fit into memory, consider raising 'client_body_buffer_size'")
    if not call.last:
        call.chunk = None
        return None
    call.chunk, call.held = bytes(held), None
    return call.chunk


def _set_raw_body(call: LuaCall, body: Any = None, *_: Any) -> None:
    exchange_of(call, _BODY)
    if not is_text(body):
        raise LuaError("body must be a string")
    call.chunk = raw(body) or b"\n"
    call.last = True
    call.held = None


# -- answers -------------------------------------------------------------------------------------------------------------


def _exit(call: LuaCall, status: Any = None, body: Any = None, headers: Any = None, *_: Any) -> NoReturn:
    exchange = _unsent(call)
    code = _check_code(status, 100)
    if body is not None and not is_text(body) and not is_table(body):
        raise LuaError("body must be a nil, string or table")
    if headers is not None and not is_table(headers):
        raise LuaError("headers must be a nil or table")
    pairs = _answer_headers(exchange, headers)
    if is_table(body):
        made = json_of(body)
        if not _has_type(pairs):
            pairs.append((b"Content-Type", b"application/json; charset=utf-8"))
    else:
        made = b"" if body is None else raw(body)
    call.answer = Answer(code, made, pairs)
    raise LuaExit


def _answer_headers(exchange: Exchange, headers: Any) -> list[tuple[bytes, bytes]]:
    """Fields of an answer; what frames it is not among them."""
    pairs: list[tuple[bytes, bytes]] = []
    for name, values in header_pairs(headers) if headers is not None else ():
        lowered = name.lower()
        if lowered in _FRAMING:
            exchange.report("manually setting Transfer-Encoding. Ignored.")
        elif lowered not in (b"content-length", b"content_length"):
            pairs += [(name, value) for value in values]
    return pairs


def _has_type(pairs: list[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() in (b"content-type", b"content_type") for name, _ in pairs)


def _error(call: LuaCall, status: Any = None, message: Any = None, headers: Any = None, *_: Any) -> NoReturn:
    exchange = _unsent(call)
    code = _check_code(status, 400)
    if is_table(message):
        message = json_of(message)
    if message is not None and not is_text(message):
        raise LuaError("message must be a nil, a string or a table")
    if headers is not None and not is_table(headers):
        raise LuaError("headers must be a nil or table")
    pairs = _answer_headers(exchange, headers)
    told = None if message is None else text(message)
    kind = next((value for name, value in pairs if name.lower() == b"content-type"), None)
    if kind is None:
        call.answer = Answer(code, None, pairs, default_message(code) if told is None else told)
    else:  # the form that Content-Type names
        _kind, body = error_body(code, told, exchange.request_id, kind, templates=exchange.gateway.error_templates)
        call.answer = Answer(code, body, pairs)
    raise LuaExit


RESPONSE_FUNCTIONS: Functions = {
    "kong.response.get_status": _get_status,
    "kong.response.get_header": _get_header,
    "kong.response.get_headers": _get_headers,
    "kong.response.get_source": _get_source,
    "kong.response.set_status": _set_status,
    "kong.response.set_header": _set_header,
    "kong.response.add_header": _add_header,
    "kong.response.clear_header": _clear_header,
    "kong.response.set_headers": _set_headers,
    "kong.response.get_raw_body": _get_raw_body,
    "kong.response.set_raw_body": _set_raw_body,
    "kong.response.exit": _exit,
    "kong.response.error": _error,
}
"""Of ``kong.response``."""
