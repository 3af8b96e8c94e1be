"""What requests are counted apart by (``limit_by``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...core.exchange import Exchange
from ...core.http.uri import normalise
from ...core.rows import Row

__all__ = ["Identify", "identifier"]

Identify = Callable[[Exchange], str | None]
"""Who a request is counted for; None: its client's address."""


def identifier(conf: Row) -> Identify:
    """What a configuration counts by. None from it: the client's address instead."""
    by: str = conf["limit_by"]
    if by == "header":
        header: bytes = conf["header_name"].lower().encode()
        return lambda exchange: _decoded(exchange.get_header(header))
    if by == "path":
        path: bytes = conf["path"].encode()
        text: str = conf["path"]
        return lambda exchange: text if path in (exchange.raw_path, normalise(exchange.raw_path)) else None
    return {"consumer": _consumer, "credential": _credential, "service": _service}.get(by, _address)


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "surrogateescape")


def _consumer(exchange: Exchange) -> str | None:
    found: dict[str, Any] | None = exchange.consumer or exchange.credential
    return None if found is None else found["id"]


def _credential(exchange: Exchange) -> str | None:
    return None if exchange.credential is None else exchange.credential["id"]


def _service(exchange: Exchange) -> str | None:
    service = exchange.route.service
    return None if service is None else service["id"]


def _address(exchange: Exchange) -> str | None:
    return exchange.client_ip
