"""What a line of the error log says about a request: one form for all of them, after nginx's.

``what; remedy, client: ..., request: "...", stream: "...", route: "...", service: "...", upstream: "...", request_id: "..."``

The request id is the one the client was given (X-Kong-Request-Id) and the access log has. Nothing here is kept while a
request goes well: a line is put together from the exchange when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .rows import Row

__all__ = [
    "PROTOCOLS", "error_line", "request_line", "row_name", "seconds_text", "too_large_line", "upstream_name", "without_query",
]  # fmt: skip

PROTOCOLS = {"1.0": b"HTTP/1.0", "1.1": b"HTTP/1.1", "2": b"HTTP/2.0"}
"""An exchange's ``http_version`` -> what logs call it, as nginx writes it (``$server_protocol``)."""


def error_line(what: str, remedy: str = "", /, **facts: str) -> str:
    """A line about something a client did before there was a request.

    Args:
        what: what happened.
        remedy: what to do about it, if there is something to do.
        facts: name -> value, in the order they are to stand in; empty ones are left out. The client's address stands as
            it is, other values in quotes.
    """
    text = f"{what}; {remedy}" if remedy else what
    parts = [_printable(text)]
    for name, value in facts.items():
        if value:
            shown = _printable(value, '"')
            parts.append(f"{name}: {shown}" if name == "client" else f'{name}: "{shown}"')
    return ", ".join(parts)


def request_line(exchange: object, what: str, remedy: str = "", *, upstream: str = "", stream: str = "") -> str:
    """A line about a request. Never raises, whatever an exchange lacks.

    Args:
        exchange: the request: a `kongtwist.core.exchange.Exchange`.
        what: what happened.
        remedy: what to do about it, if there is something to do.
        upstream: where it went (see `upstream_name`).
        stream: what kind of stream it is.
    """
    route = getattr(exchange, "route", None)
    method, target = getattr(exchange, "method", b""), getattr(exchange, "target", b"")
    shown: Callable[[bytes], bytes] = getattr(getattr(exchange, "gateway", None), "shown", without_query)
    protocol = PROTOCOLS[getattr(exchange, "http_version", "1.1")]
    request = b"%b %b %b" % (method, shown(target), protocol)
    return error_line(
        what,
        remedy,
        client=getattr(exchange, "client_ip", ""),
        request=request.decode("latin-1") if method else "",
        stream=stream,
        route=row_name(getattr(route, "row", None)),
        service=row_name(getattr(route, "service", None)),
        upstream=upstream,
        request_id=getattr(exchange, "request_id", b"").decode("latin-1"),
    )


def too_large_line(exchange: object, limit: int) -> str:
    """A line about a request whose body is larger than ``limit`` bytes."""
    what = f"client intended to send too large body: more than {limit} bytes"
    return request_line(exchange, what, "nginx_http_client_max_body_size sets the limit")


def row_name(row: Row | None) -> str:
    """What an entity is called: its name, else its id; "" for none."""
    if row is None:
        return ""
    found: Any = row.get("name") or row.get("id") or ""
    return str(found)


def upstream_name(host: str, port: int, address: str = "") -> str:
    """An upstream: ``example.com:80 (192.0.2.1)``.

    Args:
        host: as configured.
        port: likewise.
        address: what the host resolved to, if that is known.
    """
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return name if address in ("", host) else f"{name} ({address})"


def seconds_text(seconds: float) -> str:
    """A time-out as people write it: ``60 s``, ``0.5 s``."""
    return f"{seconds:g} s"


def without_query(target: bytes) -> bytes:
    """A request target without what may hold credentials, where nobody says which arguments do."""
    path, mark, _ = target.partition(b"?")
    return path + b"?***" if mark else path


def _printable(text: str, but: str = "") -> str:
    r"""``text`` in which nothing can end a line or steer a terminal: such characters, and ``but``, stand as ``\xHH``."""
    if text.isprintable() and (not but or but not in text):
        return text
    return "".join(each if each.isprintable() and each != but else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02X}" if code < 256 else f"\\u{code:04X}"
