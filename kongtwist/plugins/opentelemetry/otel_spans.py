"""The spans of a request, as Kong names them: ``kong``, ``kong.balancer``, ``kong.router`` and others (Kong 3.9.3,
``kong/observability/tracing/instrumentation.lua``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...core.exchange import Exchange
from ...core.http.headers import host_name
from ...core.tracing.trace import Noted, Trace, new_id
from ...core.tracing.trace_context import SPAN_ID_SIZE

if TYPE_CHECKING:
    from .otel_trace import OwnTrace

__all__ = ["Encode", "request_spans"]

Encode = Callable[..., bytes]

_INTERNAL, _SERVER, _CLIENT = 1, 2, 3


def _request_attributes(exchange: Exchange) -> dict[str, Any]:
    host = host_name(exchange.block.host).decode("latin-1")
    scheme = exchange.scheme.decode()
    version = exchange.http_version
    told = {
        "http.method": exchange.method.decode("latin-1"),
        "http.url": f"{scheme}://{host}{exchange.target.decode('utf-8', 'replace')}",
        "http.host": host,
        "http.scheme": scheme,
        "http.flavor": f"{version}.0" if version == "2" else version,
        "http.client_ip": exchange.client_ip,
        "net.peer.ip": exchange.peer_ip,
        "kong.request.id": exchange.request_id.decode("latin-1"),
        "http.status_code": exchange.status or None,
    }
    if exchange.route is not None:
        paths = exchange.route.row.get("paths")
        told["http.route"] = paths[0] if paths else ""
    return told


def _tries(exchange: Exchange, own: OwnTrace, now: float, encode: Encode) -> Iterator[bytes]:
    tries = exchange.tries or []
    for number, each in enumerate(tries, 1):
        last = number == len(tries)
        attributes: Mapping[str, Any] = {
            "try_count": number, "net.peer.ip": each.ip, "net.peer.port": each.port, "net.peer.name": each.host,
            "http.status_code": each.code,
        }  # fmt: skip
        span_id = own.balancer_id if last and own.balancer_id else new_id(SPAN_ID_SIZE)
        failed = each.code is not None
        end = now if last and not failed else each.ended
        yield encode(
            "kong.balancer", _CLIENT, (own.trace_id, span_id, own.root_id), each.started, end, attributes, failed
        )


def _of(noted: Noted | None, root: bytes) -> bytes:
    """The id of a span that was noted, or of the request's."""
    if noted is None:
        return root
    if not noted.span_id:
        noted.span_id = new_id(SPAN_ID_SIZE)
    return noted.span_id


def request_spans(exchange: Exchange, own: OwnTrace, trace: Trace, encode: Encode) -> Iterator[bytes]:
    """The spans of a request that is over, encoded.

    Args:
        exchange: the request.
        own: the ids of its trace.
        trace: what was noted.
        encode: `otlp_encoding.encoded_span`.
    """
    now = exchange.gateway.now()
    root = own.root_id if "request" in trace.kinds else own.parent_id
    if "request" in trace.kinds:
        attributes = _request_attributes(exchange)
        if trace.stream is not None:
            attributes |= trace.stream
        ids = (own.trace_id, own.root_id, own.parent_id)
        yield encode("kong", _SERVER, ids, exchange.wall_started, now, attributes)
    if "router" in trace.kinds and trace.router is not None:
        yield encode("kong.router", _INTERNAL, (own.trace_id, new_id(SPAN_ID_SIZE), root), *trace.router, {})
    for each in trace.spans:
        kind = _CLIENT if each.client else _INTERNAL
        ids = (own.trace_id, _of(each, root), _of(each.parent, root))
        yield encode(
            each.name, kind, ids, each.start, each.end or now, each.attributes, each.error is not None, each.error
        )
    if "balancer" in trace.kinds:
        yield from _tries(exchange, own, now, encode)
