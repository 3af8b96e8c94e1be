"""request-termination: answer here instead of asking the upstream. Kong 3.9 `request-termination`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ..core.chain.plugin import Plugin
from ..core.exchange import Answer, BodyTooLarge, Exchange, Row
from ..core.http.bodies import decode_body
from ..core.http.uri import split_host
from ..core.routing.patterns import Captures
from ..entities.entity import Config
from ..entities.schema import Boolean, Integer, String
from ..entities.typedefs import header_name, header_value

__all__ = ["RequestTermination"]

_MESSAGES = {
    401: "Unauthorized",
    404: "Not found",
    405: "Method not allowed",
    500: "An unexpected error occurred",
    502: "Bad Gateway",
    503: "Service unavailable",
}
"""Messages where the configuration has none; other statuses are answered with an empty body."""


def _together(conf: Row) -> str | None:
    """Members that contradict each other."""
    raw = conf.get("content_type") is not None or conf.get("body") is not None
    if conf.get("message") is not None and raw:
        return "message cannot be used with content_type or body"
    if conf.get("content_type") is not None and conf.get("body") is None:
        return "content_type requires a body"
    if conf.get("echo") and raw:
        return "echo cannot be used with content_type and body"
    return None


class RequestTermination(Plugin):
    """Answer with the configured status and message or body; with ``trigger`` only where that header or argument is."""

    name = "request-termination"
    priority = 2
    example = {"status_code": 503, "message": "Back at noon"}
    config = Config(
        {
            "status_code": Integer(required=True, default=503, between=[100, 599], text="HTTP status of the answer."),
            "message": String(text="Message of the answer (JSON); null: the status's own, if it has one."),
            "content_type": String(checks=(header_value,), text="Content-Type of body; null: none."),
            "body": String(text="The answer's whole body; null: a message."),
            "echo": Boolean(required=True, default=False, text="Answer with what was understood of the request."),
            "trigger": String(
                checks=(header_name,),
                text="Header or query argument without which requests pass; null: every request is answered.",
            ),
        },
        checks=(_together,),
    )

    def access(self, exchange: Exchange, conf: Row) -> Answer | Awaitable[Answer | None] | None:
        trigger = conf["trigger"]
        if trigger is not None and not _has(exchange, trigger):
            return None
        status: int = conf["status_code"]
        message = conf["message"] or _MESSAGES.get(status)
        if conf["echo"]:
            if exchange.block.has_body:
                return _echo_with_body(exchange, status, message)
            return _echo(exchange, status, message, b"")
        if conf["body"] is not None:
            content_type = conf["content_type"]
            headers = [] if content_type is None else [(b"Content-Type", content_type.encode())]
            return exchange.exit(status, conf["body"].encode(), headers)
        return exchange.exit(status, None if message is None else {"message": message})


def _has(exchange: Exchange, name: str) -> bool:
    """Whether the request has a header or a query argument of this name."""
    return bool(exchange.get_headers(name.lower().encode())) or name in exchange.query_args()


async def _echo_with_body(exchange: Exchange, status: int, message: str | None) -> Answer:
    try:
        raw = await exchange.read_body(exchange.gateway.body_limit)
    except BodyTooLarge:
        raw = b""  # as Kong: what is not in memory is not shown
    return _echo(exchange, status, message, raw)


def _echo(exchange: Exchange, status: int, message: str | None, raw: bytes) -> Answer:
    """Tell the client what was understood of its request (for finding faults)."""
    gateway = exchange.gateway
    request: dict[str, Any] = {
        "scheme": exchange.scheme.decode(),
        "host": _text(split_host(exchange.block.host or b"")[0]),
        "port": exchange.local_port,
        "headers": _headers(exchange),
        "query": _query(exchange),
        "raw_body": _text(raw),
        "method": exchange.method.decode(),
        "path": _text(exchange.raw_path),
        "uri_captures": _captures(exchange.match.captures),
    }
    body = decode_body(exchange.get_header(b"content-type"), raw) if raw else None
    if body is not None:
        request["body"] = body.args
    told: dict[str, Any] = {
        "kong": {"node_id": gateway.node_id, "worker_pid": gateway.worker_pid, "hostname": gateway.hostname},
        "request": request,
        "matched_route": _set_fields(exchange.route.row, gateway.workspace_id),
    }
    if message is not None:
        told["message"] = message
    if exchange.route.service is not None:
        told["matched_service"] = _set_fields(exchange.route.service, gateway.workspace_id)
    return exchange.exit(status, told)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _headers(exchange: Exchange) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in exchange.block.pairs:
        key = _text(name).lower()
        if key not in out:
            out[key] = _text(value)
        elif isinstance(out[key], list):
            out[key].append(_text(value))
        else:
            out[key] = [out[key], _text(value)]
    return out


def _query(exchange: Exchange) -> dict[str, Any]:
    return {name: values[0] if len(values) == 1 else values for name, values in exchange.query_args().items()}


def _captures(captures: Captures | None) -> dict[str, Any]:
    """A route's regex groups: by name, and in order."""
    found = {key: _text(value) for key, value in (captures or {}).items() if value is not None and key != "0"}
    return {
        "named": {key: value for key, value in found.items() if not key.isdigit()},
        "unnamed": [value for key, value in found.items() if key.isdigit()],
    }


def _set_fields(row: Row, workspace: str | None) -> Row:
    """An entity without its empty fields and with its workspace, as Kong shows it here."""
    told = row if workspace is None else {"ws_id": workspace, **row}
    return {key: value for key, value in told.items() if value is not None}
