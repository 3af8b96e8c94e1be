"""Which dialect a request speaks: its content type decides, or the query of a GET."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .connect_calls import ConnectStream, ConnectUnary
from .web_call import Call, WebCall

if TYPE_CHECKING:
    from ...core.exchange import Exchange

__all__ = ["call_of"]

_JSON = b"json"


def call_of(exchange: Exchange) -> Call | None:
    """The call that a request is; None: it is none that needs translation."""
    kind = (exchange.get_header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if exchange.method == b"GET":
        query = exchange.query_args()
        if "encoding" not in query or "message" not in query:
            return None
        encoding = query["encoding"][0]
        json = encoding == "json"
        if encoding not in ("json", "proto"):
            return None
        return ConnectUnary(exchange, b"application/json" if json else b"application/proto", json=json, query=query)
    family, _, name = kind.removeprefix(b"application/").partition(b"+")
    if not kind.startswith(b"application/"):
        return None
    json = name == _JSON
    if family in (b"grpc-web", b"grpc-web-text") and name in (b"", b"proto", _JSON):
        return WebCall(exchange, kind, json=json, text=family == b"grpc-web-text")
    if family == b"connect" and name in (b"proto", _JSON):
        return ConnectStream(exchange, kind, json=json)
    if family in (b"proto", _JSON) and not name:
        return ConnectUnary(exchange, kind, json=family == _JSON)
    return None
