"""What a function is told of a request: its event (Kong 3.9, ``kong/plugins/aws-lambda/request-util.lua``)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ...core.exchange import Exchange
from ...core.http.bodies import decode_body
from ...core.http.uri import split_host
from ...core.rows import Row
from .._functions import asked_fields

__all__ = ["event_of"]

_TEXTS = frozenset((b"text/plain", b"text/html", b"application/xml", b"text/xml", b"application/soap+xml"))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _one_or_all(values: Sequence[str]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _headers(exchange: Exchange) -> dict[str, list[str]]:
    return {_text(name): [_text(each) for each in values] for name, values in asked_fields(exchange).items()}


def _single(found: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {name: _one_or_all(values) for name, values in found.items()}


def event_of(conf: Row, exchange: Exchange, body: bytes | None) -> dict[str, Any]:
    """The event.

    Args:
        conf: ``config``.
        exchange: the request.
        body: the request's body; None where it was too long.
    """
    if conf["awsgateway_compatible"]:
        return _gateway_event(conf, exchange, body)
    parts = ("method", "uri", "headers", "body")
    if any(conf[f"forward_request_{part}"] for part in parts):
        return _forwarded(conf, exchange, body)
    decoded = decode_body(exchange.get_header(b"content-type"), body) if body else None
    return {**_single(exchange.query_args()), **({} if decoded is None else decoded.args)}


def _forwarded(conf: Row, exchange: Exchange, body: bytes | None) -> dict[str, Any]:
    event: dict[str, Any] = {}
    if conf["forward_request_method"]:
        event["request_method"] = exchange.method.decode("latin-1")
    if conf["forward_request_headers"]:
        event["request_headers"] = _single(_headers(exchange))
    if conf["forward_request_uri"]:
        query = exchange.raw_query
        event["request_uri"] = _text(exchange.raw_path + (b"?" + query if query else b""))
        event["request_uri_args"] = _single(exchange.query_args())
    if conf["forward_request_body"] and body is not None:
        kind = exchange.get_header(b"content-type")
        decoded = decode_body(kind, body)
        if decoded is None and kind not in _TEXTS and conf["base64_encode_body"]:
            event["request_body"] = b64encode(body).decode()
            event["request_body_base64"] = True
        else:
            event["request_body"] = _text(body)
        event["request_body_args"] = {} if decoded is None else decoded.args
    return event


def _gateway_event(conf: Row, exchange: Exchange, body: bytes | None) -> dict[str, Any]:
    """Amazon API Gateway's event, version 1.0."""
    headers, query = _headers(exchange), exchange.query_args()
    captures = exchange.match.captures or {}
    path = _text(exchange.match.upstream_path.partition(b"?")[0])
    method = exchange.method.decode("latin-1")
    encoded = bool(conf["base64_encode_body"])
    started = exchange.wall_started
    name = _text(split_host(exchange.block.host or b"")[0])
    agent = headers.get("user-agent")
    context = {
        "path": path, "protocol": f"HTTP/{exchange.http_version}", "httpMethod": method, "domainName": name,
        "domainPrefix": name.partition(".")[0],
        "identity": {"sourceIp": exchange.client_ip, **({} if agent is None else {"userAgent": agent[0]})},
        "requestId": exchange.request_id.decode("latin-1"), "requestTimeEpoch": int(started * 1000), "resourcePath": path,
        "requestTime": datetime.fromtimestamp(started, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
    }  # fmt: skip
    event = {
        "version": "1.0", "path": path, "httpMethod": method,
        "headers": {name: values[0] for name, values in headers.items()}, "multiValueHeaders": headers,
        "pathParameters": {
            name: _text(value) for name, value in captures.items() if value is not None and not name.isdigit()
        },
        "queryStringParameters": {name: values[0] for name, values in query.items()},
        "multiValueQueryStringParameters": query, "isBase64Encoded": encoded, "requestContext": context,
    }  # fmt: skip
    if exchange.match.matched is not None:
        event["resource"] = _text(exchange.match.matched)
    if body is not None or encoded:
        event["body"] = b64encode(body or b"").decode() if encoded else _text(body or b"")
    return event
