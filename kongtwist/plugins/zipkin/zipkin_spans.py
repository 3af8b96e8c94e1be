"""Zipkin's spans of a request, as its API takes them (Zipkin API v2, ``POST /api/v2/spans``)."""

from __future__ import annotations

import json
from typing import Any

from ...core.exchange import Exchange
from ...core.http.headers import host_name
from ...core.tracing.trace import Trace

__all__ = ["Span", "request_spans", "tags_of"]

_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Span:
    """A span. Ids are bytes, times epoch seconds.

    Attributes:
        tags: values that are empty or None are left out.
        annotations: what happened, and when.
        remote: service, address and port of the other side; each may be None.
    """

    __slots__ = ("annotations", "end", "kind", "name", "parent_id", "remote", "span_id", "start", "tags", "trace_id")

    def __init__(
        self, kind: str, name: str, start: float, trace_id: bytes, span_id: bytes, parent_id: bytes | None
    ) -> None:
        self.kind, self.name, self.start = kind, name, start
        self.trace_id, self.span_id, self.parent_id = trace_id, span_id, parent_id
        self.end = start
        self.tags: dict[str, Any] = {}
        self.annotations: list[tuple[str, float]] = []
        self.remote: tuple[str | None, str | None, int | None] = (None, None, None)

    def text(self, local_name: str, default_name: str | None) -> bytes:
        """The span as JSON.

        Args:
            local_name: what the gateway is called.
            default_name: what another side is called that has no name.
        """
        start = int(self.start * 1_000_000)
        told: dict[str, Any] = {
            "traceId": self.trace_id.hex(),
            "name": self.name,
            "id": self.span_id.hex(),
            "kind": self.kind,
            "timestamp": start,
            "duration": max(0, int(self.end * 1_000_000) - start),
            "localEndpoint": {"serviceName": local_name},
            "remoteEndpoint": _endpoint(self.remote, default_name),
        }
        if self.parent_id is not None:
            told["parentId"] = self.parent_id.hex()
        tags = {name: _value(value) for name, value in self.tags.items() if value is not None and value != ""}
        if tags:
            told["tags"] = tags
        if self.annotations:
            told["annotations"] = [
                {"value": name, "timestamp": int(when * 1_000_000)} for name, when in self.annotations
            ]
        return _json(told).encode("utf-8", "replace")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _endpoint(remote: tuple[str | None, str | None, int | None], default_name: str | None) -> dict[str, Any] | None:
    name, address, port = remote
    name = name or default_name
    if name is None and port is None:
        return None
    told: dict[str, Any] = {}
    if name is not None:
        told["serviceName"] = name
    if port is not None:
        told["port"] = port
    if address:
        told["ipv6" if ":" in address else "ipv4"] = address
    return told


def tags_of(values: list[bytes]) -> tuple[dict[str, str], int]:
    """Tags that a client asks for: ``name=value`` with semicolons between. A name has no blanks, a value is not empty.

    Args:
        values: of the header, one for each time it came.

    Returns:
        the tags, and how many could not be read.
    """
    tags: dict[str, str] = {}
    bad = 0
    for text in values:
        for item in text.decode("utf-8", "replace").split(";"):
            if not item:
                continue
            found = _tag(item.strip())
            if found is None:
                bad += 1
            else:
                tags[found[0]] = found[1]
    return tags, bad


def _tag(item: str) -> tuple[str, str] | None:
    """A tag: the name is as long as it can be (Lua's pattern ``^%s*(%S+)%s*=%s*(.*%S)%s*$``)."""
    word = item.split(None, 1)[0] if item else ""
    rest = item[len(word) :].lstrip()
    if word and rest.startswith("=") and rest[1:].strip():
        return word, rest[1:].strip()
    at = word.rfind("=")
    while at > 0:
        value = item[at + 1 :].strip()
        if value:
            return word[:at], value
        at = word.rfind("=", 0, at)
    return None


def _scope_tags(exchange: Exchange, span: Span) -> str | None:
    """Tag a span with service and route; the service's name."""
    route = exchange.route
    if route is None:
        return None
    name: str | None = None
    service = route.service
    if service is not None:
        span.tags["kong.service"] = service["id"]
        name = service.get("name")
        span.tags["kong.service_name"] = name
    span.tags["kong.route"] = route.row["id"]
    span.tags["kong.route_name"] = route.row.get("name")
    return name


def request_tags(exchange: Exchange) -> dict[str, Any]:
    """What is told of every request."""
    version = exchange.http_version
    return {
        "lc": "kong",
        "http.method": exchange.method.decode("latin-1"),
        "http.host": host_name(exchange.block.host).decode("latin-1"),
        "http.path": exchange.raw_path.decode("utf-8", "replace"),
        "http.protocol": f"HTTP/{version}",
    }


def _milliseconds(start: float, end: float) -> int:
    return max(0, round((end - start) * 1000))


def _phases(request: Span, proxy: Span, trace: Trace | None, now: float, as_tags: bool) -> None:
    """Tell how long phases took, as annotations or tags."""
    rewrite = request.start
    access_start = (trace.access_start if trace else 0) or proxy.start
    access_end = (trace.access_end if trace else 0) or now
    rewrite_end = (trace.rewrite_end if trace else 0) or access_start
    header_start = trace.header_start if trace else 0.0
    header_end = (trace.header_end if trace else 0) or now
    if as_tags:
        request.tags["kong.rewrite.duration_ms"] = _milliseconds(rewrite, rewrite_end)
        proxy.tags["kong.access.duration_ms"] = _milliseconds(access_start, access_end)
        if header_start:
            proxy.tags["kong.header_filter.duration_ms"] = _milliseconds(header_start, header_end)
            proxy.tags["kong.body_filter.duration_ms"] = _milliseconds(header_end, now)
        return
    request.annotations += [("krf", rewrite_end), ("krs", rewrite)]
    if header_start:
        proxy.annotations += [("khs", header_start), ("khf", header_end), ("kbs", header_end)]
    proxy.annotations += [("kas", access_start), ("kaf", access_end)]
    if not header_start:
        proxy.annotations.append(("khf", now))
    proxy.annotations.append(("kbf", now))


def request_spans(
    exchange: Exchange, request: Span, proxy: Span, trace: Trace | None, new_id: Any, conf: Any
) -> list[Span]:
    """All spans of a request that is over, in the order in which they are sent.

    Args:
        exchange: the request.
        request: its span, with the tags that it has had from the beginning.
        proxy: the span of what was asked of the upstream.
        trace: what was noted.
        new_id: gives an id of so many bytes.
        conf: the plugin's configuration.
    """
    now = exchange.gateway.now()
    spans: list[Span] = []
    tries = exchange.tries or []
    for number, each in enumerate(tries, 1):
        span = Span(
            "CLIENT",
            f"{request.name} (balancer try {number})",
            each.started,
            request.trace_id,
            new_id(8),
            request.span_id,
        )
        span.tags["kong.balancer.try"] = number
        if each.code is not None:
            span.tags |= {"error": True, "kong.balancer.state": "failed", "http.status_code": each.code}
        span.remote = (_scope_tags(exchange, span), each.ip, each.port)
        span.end = max(each.started, each.ended)
        spans.append(span)
    proxy.remote = (_scope_tags(exchange, proxy), None, None)
    if tries:
        last = tries[-1]
        proxy.tags["peer.hostname"] = last.host
        proxy.remote = (proxy.remote[0], last.ip, last.port)
    _phases(request, proxy, trace, now, conf["phase_duration_flavor"] == "tags")
    request.tags["http.status_code"] = exchange.status or None
    if exchange.consumer is not None:
        request.tags["kong.consumer"] = exchange.consumer.get("id")
    if conf["include_credential"] and exchange.credential is not None:
        request.tags["kong.credential"] = exchange.credential.get("id")
    request.tags["kong.node.id"] = exchange.gateway.node_id
    if trace is not None and trace.stream is not None:
        request.tags |= trace.stream
    proxy.end = request.end = now
    return [*spans, proxy, request]
