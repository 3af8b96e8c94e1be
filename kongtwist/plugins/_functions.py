"""What the plugins share that have a cloud's function answer in place of the upstream."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.exchange import Exchange
from ..core.http.headers import TOKEN

__all__ = ["answered_fields", "asked_fields"]

_CONNECTION = frozenset((
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length",
    b"expect",
))  # fmt: skip
"""Fields of a connection or of a message's framing, which each side writes anew (RFC 9110 7.6.1)."""


def asked_fields(exchange: Exchange) -> dict[bytes, tuple[bytes, ...]]:
    """The request's fields for the function, with what plugins changed: name in lower case to values."""
    fields = exchange.request_fields()
    named = {each.strip().lower() for value in fields.get(b"connection", ()) for each in value.split(b",")}
    return {name: values for name, values in fields.items() if name not in _CONNECTION and name not in named}


def answered_fields(exchange: Exchange, fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The function's fields for the client, with Via where the gateway adds one (``headers``)."""
    told = [(name, value) for name, value in fields if name.lower() not in _CONNECTION]
    conf = exchange.gateway.conf
    if conf is not None and not {"server_tokens", "Via"} & set(conf.headers):
        return told
    via = [value for name, value in told if name.lower() == b"via"]
    version = b"2" if exchange.http_version == "2" else b"1.1"
    rest = [(name, value) for name, value in told if name.lower() != b"via"]
    return [*rest, (b"Via", b", ".join((*via, version + b" " + TOKEN)))]
