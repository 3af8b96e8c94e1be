"""``ngx.var``: nginx's variables of a request, those that Kong's plugins and users ask for; the constants of ``ngx``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.error_lines import PROTOCOLS
from ..core.exchange import Exchange
from ..core.http.headers import host_name
from .lua_calls import Members
from .lua_error import LuaError
from .pdk.pdk_call import LuaCall, is_text, text
from .pdk.pdk_request import header_of
from .pdk.pdk_service_request import SERVICE_REQUEST_FUNCTIONS

__all__ = ["CONSTANTS", "VARIABLES"]


def _uri(exchange: Exchange) -> bytes:
    return exchange.raw_path


def _upstream_uri(exchange: Exchange) -> bytes:
    return b"" if exchange.match is None else exchange.match.upstream_path


def _took(exchange: Exchange) -> str:
    return f"{max(0.0, exchange.gateway.now() - exchange.wall_started):.3f}"


def _of_tls(name: str) -> Callable[[Exchange], Any]:
    def called(exchange: Exchange) -> Any:
        return None if exchange.tls is None else getattr(exchange.tls, name)

    return called


_NAMES: dict[str, Callable[[Exchange], Any]] = {
    "args": lambda exchange: exchange.raw_query,
    "body_bytes_sent": lambda exchange: str(exchange.bytes_out),
    "bytes_sent": lambda exchange: str(len(exchange.sent_head) + exchange.bytes_out),
    "content_length": lambda exchange: header_of(exchange, b"content-length"),
    "content_type": lambda exchange: header_of(exchange, b"content-type"),
    "host": lambda exchange: host_name(exchange.block.host),
    "hostname": lambda exchange: exchange.gateway.hostname,
    "https": lambda exchange: "on" if exchange.scheme == b"https" else "",
    "is_args": lambda exchange: "?" if exchange.raw_query else "",
    "kong_request_id": lambda exchange: exchange.request_id,
    "msec": lambda exchange: f"{exchange.gateway.now():.3f}",
    "pid": lambda exchange: str(exchange.gateway.worker_pid),
    "query_string": lambda exchange: exchange.raw_query,
    "realip_remote_addr": lambda exchange: exchange.peer_ip,
    "realip_remote_port": lambda exchange: str(exchange.peer_port),
    "remote_addr": lambda exchange: exchange.client_ip,
    "remote_port": lambda exchange: str(exchange.peer_port),
    "request": lambda exchange: b"%b %b %b" % (exchange.method, exchange.target, PROTOCOLS[exchange.http_version]),
    "request_id": lambda exchange: exchange.request_id,
    "request_method": lambda exchange: exchange.method,
    "request_time": _took,
    "request_uri": lambda exchange: exchange.target,
    "scheme": lambda exchange: exchange.scheme,
    "server_port": lambda exchange: str(exchange.local_port),
    "server_protocol": lambda exchange: PROTOCOLS[exchange.http_version],
    "ssl_cipher": _of_tls("cipher"),
    "ssl_client_verify": _of_tls("client_verify"),
    "ssl_protocol": _of_tls("version"),
    "status": lambda exchange: f"{exchange.status:03d}",
    "upstream_status": lambda exchange: str(exchange.upstream_status) if exchange.upstream_status else None,
    "upstream_uri": _upstream_uri,
    "uri": _uri,
}


def _get(call: LuaCall, name: Any) -> Any:
    if not is_text(name):
        raise LuaError("bad variable name")
    exchange = call.exchange
    if exchange is None:
        raise LuaError("no request found")
    key = text(name)
    found = _NAMES.get(key)
    if found is not None:
        return found(exchange)
    kind, _, rest = key.partition("_")
    if kind == "http" and rest:
        return header_of(exchange, rest.lower().replace("_", "-").encode("utf-8", "replace"))
    if kind == "arg" and rest:
        return next(iter(exchange.query_args().get(rest, ())), None)
    if kind == "cookie" and rest:
        return _cookie(header_of(exchange, b"cookie") or b"", rest.encode("utf-8", "replace"))
    return None


def _cookie(field: bytes, name: bytes) -> bytes | None:
    for part in field.split(b";"):
        key, equals, value = part.strip().partition(b"=")
        if equals and key == name:
            return value
    return None


def _set(call: LuaCall, name: Any, value: Any) -> None:
    if name == "args" and call.exchange is not None and (value is None or is_text(value)):
        SERVICE_REQUEST_FUNCTIONS["kong.service.request.set_raw_query"](call, value or "")
        return
    raise LuaError(
        f"variable {text(name) if is_text(name) else name!r} cannot be set here; kong.service.request sets what goes up"
    )


VARIABLES = Members(_get, _set)
"""``ngx.var``."""

CONSTANTS: dict[str, Any] = {
    "ngx.OK": 0, "ngx.ERROR": -1, "ngx.AGAIN": -2, "ngx.DONE": -4, "ngx.DECLINED": -5,
    "ngx.HTTP_GET": 2, "ngx.HTTP_HEAD": 4, "ngx.HTTP_POST": 8, "ngx.HTTP_PUT": 16, "ngx.HTTP_DELETE": 32, "ngx.HTTP_OPTIONS": 512,
    "ngx.HTTP_PATCH": 16384, "ngx.HTTP_CONTINUE": 100, "ngx.HTTP_SWITCHING_PROTOCOLS": 101, "ngx.HTTP_OK": 200, "ngx.HTTP_CREATED": 201,
    "ngx.HTTP_ACCEPTED": 202, "ngx.HTTP_NO_CONTENT": 204, "ngx.HTTP_PARTIAL_CONTENT": 206, "ngx.HTTP_SPECIAL_RESPONSE": 300,
    "ngx.HTTP_MOVED_PERMANENTLY": 301, "ngx.HTTP_MOVED_TEMPORARILY": 302, "ngx.HTTP_SEE_OTHER": 303, "ngx.HTTP_NOT_MODIFIED": 304,
    "ngx.HTTP_TEMPORARY_REDIRECT": 307, "ngx.HTTP_PERMANENT_REDIRECT": 308, "ngx.HTTP_BAD_REQUEST": 400, "ngx.HTTP_UNAUTHORIZED": 401,
    "ngx.HTTP_PAYMENT_REQUIRED": 402, "ngx.HTTP_FORBIDDEN": 403, "ngx.HTTP_NOT_FOUND": 404, "ngx.HTTP_NOT_ALLOWED": 405,
    "ngx.HTTP_NOT_ACCEPTABLE": 406, "ngx.HTTP_REQUEST_TIMEOUT": 408, "ngx.HTTP_CONFLICT": 409, "ngx.HTTP_GONE": 410,
    "ngx.HTTP_UPGRADE_REQUIRED": 426, "ngx.HTTP_TOO_MANY_REQUESTS": 429, "ngx.HTTP_CLOSE": 444, "ngx.HTTP_ILLEGAL": 451,
    "ngx.HTTP_INTERNAL_SERVER_ERROR": 500, "ngx.HTTP_METHOD_NOT_IMPLEMENTED": 501, "ngx.HTTP_BAD_GATEWAY": 502,
    "ngx.HTTP_SERVICE_UNAVAILABLE": 503, "ngx.HTTP_GATEWAY_TIMEOUT": 504, "ngx.HTTP_VERSION_NOT_SUPPORTED": 505,
    "ngx.HTTP_INSUFFICIENT_STORAGE": 507,
}  # fmt: skip
"""Numbers of ``ngx``."""
