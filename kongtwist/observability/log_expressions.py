"""The usual variables of log formats as source: a call for each of them would be most of a line's cost (`log_formats.LineWriter`)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..core.error_lines import PROTOCOLS
from ..core.http.headers import host_name
from .log_variables import MILLISECONDS, consumer_name, response_times, seconds_text, upstream_addr, upstream_statuses

__all__ = ["EXPRESSIONS", "NAMES"]


def _expression(field: str) -> tuple[bytes, str]:
    return b"%b", f"(A if (v := first({field.encode()!r})) is None else V(v) or text(v))"


EXPRESSIONS: dict[str, tuple[bytes, str]] = {
    "body_bytes_sent": (b"%d", "x.bytes_out"),
    "host": (b"%b", "(V(v := host(x.block.host)) or text(v))"),
    "http_referer": _expression("referer"),
    "http_user_agent": _expression("user-agent"),
    "kong_consumer": (b"%b", "(A if (v := x.consumer) is None else text(consumer(v)))"),
    "kong_request_id": (b"%b", "x.request_id"),
    "kong_route": (b"%b", "(A if (v := x.route) is None else named(v.row))"),
    "kong_service": (b"%b", "(A if (v := x.route) is None or v.service is None else named(v.service))"),
    "remote_addr": (b"%b", "x.client_ip.encode()"),
    "remote_user": (b"%b", "(A if (v := first(b'authorization')) is None else user(v))"),
    "request": (b"%b %b %b", "x.method, V(v := x.target) or text(v), P[x.http_version]"),
    "request_id": (b"%b", "x.request_id"),
    "request_length": (b"%d", "len(x.method) + len(x.target) + len(x.block.raw) + 14 + x.bytes_in"),
    "request_method": (b"%b", "x.method"),
    "request_time": (b"%b", "(M(v := int((T.at - x.wall_started) * 1000.0 + 0.5)) or seconds(v))"),
    "request_uri": (b"%b", "(V(v := x.target) or text(v))"),
    "scheme": (b"%b", "x.scheme"),
    "server_protocol": (b"%b", "P[x.http_version]"),
    "ssl_protocol": (b"%b", "(A if x.scheme != b'https' or (v := x.tls) is None else v.version.encode())"),
    "status": (b"%d", "x.status or 499"),
    "time_iso8601": (b"%b", "T.iso"),
    "time_local": (b"%b", "T.local"),
    "upstream_addr": (b"%b", "(addresses(x) or A)"),
    "upstream_response_time": (
        b"%b",
        "(times(x, T.at) or A if (v := x.latencies) is None or x.tries is not None and len(x.tries) > 1"
        " else M(v := int((T.at - x.wall_started - v[0]) * 1000.0 + 0.5)) or seconds(v))",
    ),
    "upstream_status": (b"%b", "(statuses(x) or A)"),
}
"""The usual variables of an exchange as expressions: how each is converted, and its source. ``x`` is the exchange, ``v`` is free."""

NAMES: dict[str, Any] = {
    "P": PROTOCOLS,
    "addresses": upstream_addr,
    "consumer": consumer_name,
    "M": MILLISECONDS.get,
    "host": lru_cache(1024)(host_name),
    "seconds": seconds_text,
    "statuses": upstream_statuses,
    "times": response_times,
}
"""What these expressions call."""
