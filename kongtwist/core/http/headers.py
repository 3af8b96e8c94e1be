"""Header rules of a proxy, in both directions: what is passed on, what is taken out, what is written by us.

Pure functions from an exchange to bytes (contract: Kong 3.9, ``kong/runloop/handler.lua`` and the nginx template's
``proxy_set_header``). What repeats is made once: per header block, per response block, per configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import add
from typing import TYPE_CHECKING, Any

from ... import KONG_VERSION
from .field_lines import RESPONSE_DROPPED
from .identity_fields import SPELLINGS

if TYPE_CHECKING:
    from .head import HeaderBlock
    from .request_facts import RequestFacts

__all__ = [
    "PreparedChanges", "ResponseHeaders", "apply_changes", "check_field", "encoded", "forwarded_lines", "path_lines",
    "prepared_lines", "request_opening", "spread", "upstream_fields", "upstream_head", "with_charset",
]  # fmt: skip

Pair = tuple[bytes, bytes]

TOKEN = f"kong/{KONG_VERSION}".encode()
"""What Via and Server say; clients gate on it."""

DEFAULT_HOST = b"kong"
"""X-Forwarded-Host of a request without Host (HTTP/1.0): nginx's ``server_name`` in Kong's template."""

# -- towards the upstream --------------------------------------------------------------------------------------------


_VIA = {"1.0": b"1 ", "1.1": b"1.1 ", "2": b"2 "}


def forwarded_lines(exchange: RequestFacts) -> bytes:
    """Via, X-Forwarded-For, -Proto, -Host, -Port and X-Real-IP.

    They depend on the connection and the header block only, so a door may keep them for the next request.
    """
    block = exchange.block
    peer, client = exchange.peer_ip.encode(), exchange.client_ip.encode()
    sent = block.joined(b"x-forwarded-for")
    proto, host, port = exchange.scheme, host_name(block.host), b"%d" % exchange.host_port
    if exchange.trusted:
        proto = block.first(b"x-forwarded-proto") or proto
        host = block.first(b"x-forwarded-host") or host
        port = block.first(b"x-forwarded-port") or port
    via = block.joined(b"via")
    ours = _VIA[exchange.http_version] + TOKEN
    return (
        b"Via: %b\r\nX-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Port: %b\r\n"
        b"X-Real-IP: %b\r\n"
    ) % (
        via + b", " + ours if via else ours,
        sent + b", " + peer if sent else client,
        proto,
        host,
        port,
        client,
    )


def host_name(host: bytes | None) -> bytes:
    """The name in a Host field: lower case, without port and final dot (nginx's ``$host``)."""
    if not host:
        return DEFAULT_HOST
    if host[:1] == b"[":
        return host[: host.index(b"]") + 1].lower()
    return host.partition(b":")[0].lower().rstrip(b".") or DEFAULT_HOST


def path_lines(exchange: RequestFacts, prefix: bytes | None, path: bytes) -> bytes:
    """X-Forwarded-Path and, where a prefix was stripped, X-Forwarded-Prefix.

    Args:
        exchange: the request; on a mount, both lines begin with the mount.
        prefix: what ``strip_path`` took off, or None.
        path: the request's, without query.
    """
    if not exchange.mount and not exchange.trusted:
        if prefix and prefix != b"/":
            return b"X-Forwarded-Path: %b\r\nX-Forwarded-Prefix: %b\r\n" % (path, prefix)
        return b"X-Forwarded-Path: %b\r\n" % path
    path = exchange.mount + path
    if prefix is not None or exchange.mount:
        prefix = exchange.mount + (prefix or b"")
    if exchange.trusted:
        block = exchange.block
        path = block.first(b"x-forwarded-path") or path
        prefix = block.first(b"x-forwarded-prefix") or prefix
    if prefix and prefix != b"/":
        return b"X-Forwarded-Path: %b\r\nX-Forwarded-Prefix: %b\r\n" % (path, prefix)
    return b"X-Forwarded-Path: %b\r\n" % path


def request_opening(exchange: RequestFacts, path: bytes, prefix: bytes | None, host: bytes, upgrade: bool) -> bytes:
    """The first lines of the head of the request to the upstream: what does not differ where the same is asked for again.

    Args:
        exchange, path, prefix, host, upgrade: as for `upstream_head`.
    """
    target = exchange.target
    at = target.find(b"?", 1)
    return b"".join((
        exchange.upstream_method or exchange.method, b" ", path, _query(exchange, at), b" HTTP/1.1\r\nHost: ", host,
        b"\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" if upgrade else _KEEP_ALIVE,
        exchange.forwarded(),
        path_lines(exchange, prefix, target[:at] if at > 0 else target),
    ))  # fmt: skip


_KEEP_ALIVE = b"\r\nConnection: keep-alive\r\n"


def upstream_head(
    exchange: RequestFacts,
    path: bytes,
    prefix: bytes | None,
    host: bytes,
    send_id: bool = True,
    upgrade: bool = False,
    chunked: bool = False,
) -> bytes:
    """The whole head of the request to the upstream.

    Args:
        exchange: the client's request, with what plugins changed.
        path: the upstream's path, escaped, without query.
        prefix: what ``strip_path`` took off, or None.
        host: value of Host.
        send_id: write X-Kong-Request-Id (``headers_upstream``).
        upgrade: ask for a WebSocket.
        chunked: the body goes up in chunks, however the client framed it.
    """
    block = exchange.block
    rest = block.end or block.make_end()
    if exchange.upstream_body is not None:
        rest = _framed(block, b"Content-Length: %d" % len(exchange.upstream_body))
    elif chunked and not block.chunked:
        rest = _framed(block, b"Transfer-Encoding: chunked")
    opening = exchange.opening(path, prefix, host, upgrade)
    if exchange.request_changes is None:
        if send_id:
            return b"%bX-Kong-Request-Id: %b\r\n%b" % (opening, exchange.request_id, rest)
        return opening + rest
    more, changes = _prepared(exchange)
    head = b"".join((opening, b"X-Kong-Request-Id: %b\r\n" % exchange.request_id if send_id else b"", more, rest))
    return _change_request(head, changes) if changes else head


def upstream_fields(
    exchange: RequestFacts,
    path: bytes,
    prefix: bytes | None,
    send_id: bool = True,
    length: int | None = None,
    own: bool = False,
) -> tuple[bytes, bytes]:
    """What a request over HTTP/2 has in place of a head: its target, and the lines of its regular fields.

    Args:
        exchange: the client's request, with what plugins changed; a Host of theirs is the caller's business.
        path: the upstream's path, escaped, without query.
        prefix: what ``strip_path`` took off, or None.
        send_id: write X-Kong-Request-Id (``headers_upstream``).
        length: bytes of the body, where known.
        own: only the lines that the gateway writes, neither the client's nor the plugins'.
    """
    target = exchange.target
    at = target.find(b"?", 1)
    more, changes = (b"", None) if own else _prepared(exchange)
    lines = b"".join((
        exchange.forwarded(),
        path_lines(exchange, prefix, target[:at] if at > 0 else target),
        b"X-Kong-Request-Id: %b\r\n" % exchange.request_id if send_id else b"",
        more,
        b"TE: trailers\r\n" if length is None else b"TE: trailers\r\nContent-Length: %d\r\n" % length,
        b"" if own else exchange.block.forward,
    ))  # fmt: skip
    if changes:
        lines = _change_request(b"\r\n%b\r\n" % lines, {k: v for k, v in changes.items() if k != b"host"})[2:-2]
    return path + _query(exchange, at), lines


def _query(exchange: RequestFacts, at: int) -> bytes:
    """The query for the upstream with its ``?``; ``at``: where it begins in the client's target, or -1."""
    if exchange.upstream_query is not None:
        return b"?" + exchange.upstream_query if exchange.upstream_query else b""
    return exchange.target[at:] if at > 0 else b""


def _prepared(exchange: RequestFacts) -> tuple[bytes, Mapping[bytes, bytes | None] | None]:
    """Plugins' changes: as lines to be added where that is all there is to do, and those that are still to be made."""
    changes = exchange.request_changes
    if not changes:
        return b"", None
    block = exchange.block
    if changes.__class__ is PreparedChanges and block.has_none_of(changes.names):
        return changes.lines, None
    additions = _additions((*changes, *changes.values()))
    if additions is not None and block.has_none_of(additions[0]):
        return additions[1], None
    return b"", changes


def _framed(block: HeaderBlock, framing: bytes) -> bytes:
    """The end of a head with other framing than the client's."""
    trailers = b"TE: trailers\r\n" if block.te_trailers else b""
    return b"%b%b\r\n%b\r\n" % (trailers, framing, block.forward)


_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"te"))

_WRITTEN = frozenset((
    b"host", b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port",
    b"x-forwarded-path", b"x-forwarded-prefix", b"x-real-ip", b"x-kong-request-id",
))  # fmt: skip
"""Request fields that `upstream_head` writes, and a plugin may change."""


@lru_cache(maxsize=1024)
def _additions(changes: tuple[bytes | None, ...]) -> tuple[frozenset[bytes], bytes] | None:
    """The names and the lines of changes that only concern fields we do not write; None for others.

    Remembered, for what plugins add for a consumer is the same each time.

    Args:
        changes: all names, then all values.
    """
    half = len(changes) // 2
    names = [name for name in changes[:half] if name is not None]
    if not _WRITTEN.isdisjoint(names):
        return None
    lines = [
        _lines_of(name, value)
        for name, value in zip(names, changes[half:], strict=True)
        if value is not None and name not in _FRAMING
    ]
    others = [each for name in names for each in SPELLINGS.get(name, ())]
    return frozenset((*names, *others)) - _FRAMING, b"".join(lines)


class PreparedChanges(dict[bytes, "bytes | None"]):
    """Changes to a request's fields that many requests share, with their lines made. Never changed: who wants to add to
    them makes a dictionary of them first (`Exchange.set_upstream_header` does).

    Args:
        changes: names to values (None: taken out); none of fields we write or that frame the message.

    Attributes:
        names: of the fields that must not be there for ``lines`` to be all that is to be done.
        lines: what is added.

    Raises:
        ValueError: fields are among them that cannot be prepared, or sent.
    """

    __slots__ = ("lines", "names")

    def __init__(self, changes: Mapping[bytes, bytes | None]) -> None:
        super().__init__(changes)
        for name, value in changes.items():
            check_field(name, value or b"")
        additions = _additions((*changes, *changes.values()))
        if additions is None:
            raise ValueError("these fields depend on the request")
        self.names, self.lines = additions


def _change_request(head: bytes, changes: Mapping[bytes, bytes | None]) -> bytes:
    """Apply a plugin's changes; lines that frame the message or belong to the connection are not theirs to change."""
    lowered: bytes | None = None
    added = []
    for name, value in changes.items():
        if name in _FRAMING or (value is None and name == b"host"):  # no request is without a Host (RFC 9112 3.2)
            continue
        for each in (name, *SPELLINGS.get(name, ())):
            if lowered is None:
                lowered = head.lower()
            if b"\n" + each + b":" in lowered:
                head = _without(head, each)
                lowered = None
        if value is not None:
            added.append(_lines_of(name, value))
    return b"".join((head[:-2], *added, b"\r\n")) if added else head


def _lines_of(name: bytes, value: bytes) -> bytes:
    """A field's line; of several values, which NUL divides, a line for each."""
    if b"\0" in value:
        return b"".join([b"%b: %b\r\n" % (spelled(name), clean(each)) for each in value.split(b"\0")])
    return b"%b: %b\r\n" % (spelled(name), clean(value))


def _without(lines: bytes, name: bytes) -> bytes:
    """Lines (each with its CRLF) without the fields ``name`` (lower case)."""
    start = name + b":"
    size = len(start)
    return b"\r\n".join([line for line in lines.split(b"\r\n") if line[:size].lower() != start])


@lru_cache(maxsize=1024)
def spelled(name: bytes) -> bytes:
    """A lower-case field name as people write it: ``X-Consumer-Id``."""
    return b"-".join([part.capitalize() for part in name.split(b"-")])


def clean(value: bytes) -> bytes:
    """A field value without the bytes that would end it (RFC 9110 5.5)."""
    return value.translate(None, b"\r\n\0")


_BREAKING = re.compile(rb"[\r\n\x00]").search
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def check_field(name: bytes, value: bytes) -> None:
    """Refuse a field that would be more than one, or none.

    Raises:
        ValueError: there are bytes in it that end a line. The value, which may be a secret, is not told.
    """
    if _BREAKING(name + value) is not None:
        raise ValueError(f"header {name!r} cannot be sent: CR, LF or NUL in its name or value")


def prepared_lines(names: frozenset[bytes], lines: bytes) -> tuple[str, frozenset[bytes], bytes]:
    """A change to an answer's fields (`apply_changes`) that sets these; it may be made once and used for many answers.

    Args:
        names: of the fields, lower case.
        lines: complete lines, one for each name.

    Raises:
        ValueError: they are more, or less, than that.
    """
    count = len(names)
    if lines.count(b"\n") != count or lines.count(b"\r") != count:
        raise ValueError(f"headers {sorted(names)} cannot be sent: CR or LF in a name or value")
    return "lines", names, lines


def encoded(value: bytes) -> bytes:
    """A value with control characters as ``%HH``, as Kong (lua-nginx-module) sends what it does not choose itself."""
    return _CONTROLS.sub(lambda found: b"%%%02X" % found[0][0], value)


def spread(changes: Iterable[tuple[str, Any, bytes]]) -> list[tuple[str, bytes, bytes]]:
    """Changes with those that came as lines taken apart: "set", field by field."""
    out: list[tuple[str, bytes, bytes]] = []
    for what, name, value in changes:
        if what == "lines":
            fields = [line.partition(b": ") for line in value.split(b"\r\n")[:-1]]
            out += [("set", field, text) for field, _, text in fields]
        else:
            out.append((what, name, value))
    return out


def apply_changes(lines: bytes, changes: Sequence[tuple[str, Any, bytes]], block: HeaderBlock | None = None) -> bytes:
    """Apply a plugin's changes to lines of a response, in the order they were made.

    Args:
        lines: complete lines, each with its CRLF.
        changes: ("set" | "add" | "clear", name as to be sent, value) or ("lines", names, lines): `Exchange.set_response_lines`.
        block: the upstream's, where ``lines`` came of it (`ResponseHeaders.of_proxied`): saves looking for fields.
    """
    first = changes[0]
    if first[0] == "lines" and len(changes) == 1 and block is not None and block.has_none_of(first[1]):
        return lines + first[2]
    changes = spread(changes)
    whats, names, values = zip(*changes, strict=True)
    plan = _plan(whats, names) if block is not None else None
    if plan is not None and block is not None and block.has_none_of(plan[0]):
        if _BREAKING(b"".join(values)) is not None:
            values = tuple([clean(value) for value in values])
        return b"".join((lines, b"\r\n".join(map(add, plan[1], values)), b"\r\n"))
    added: dict[bytes, bytes] = {}
    replaced: list[tuple[bytes, bytes]] = []
    for what, name, value in changes:
        key, needle, start = _parts(name)
        if what != "add":
            replaced.append((key, needle))
            added.pop(key, None)
        if what != "clear" and start is not None:
            line = start + clean(value) + b"\r\n"
            added[key] = added[key] + line if key in added else line
    made = None if block is None or not replaced else block.passed_on
    if made is not None and made[1] in lines and _BESIDE.isdisjoint([key for key, _ in replaced]):
        lines = lines.replace(made[1], _lines_without(made[1], tuple([key for key, _ in replaced])), 1)
    elif replaced:
        lowered = b"\n" + lines.lower()
        for key, needle in replaced:
            if needle in lowered:
                lines = _without(lines, key)
    return lines + b"".join(added.values()) if added else lines


@lru_cache(maxsize=256)
def _lines_without(lines: bytes, names: tuple[bytes, ...]) -> bytes:
    """Lines without the fields of these names (lower case)."""
    for name in names:
        lines = _without(lines, name)
    return lines


@lru_cache(maxsize=256)
def _plan(whats: tuple[str, ...], names: tuple[bytes, ...]) -> tuple[frozenset[bytes], list[bytes]] | None:
    """The lower-case names and the beginnings of the lines, of changes that only add fields none of which is ours or
    comes twice; None for others."""
    keys = frozenset(name.lower() for name in names)
    ours = _BESIDE | _RESPONSE_FRAMING
    if "clear" in whats or len(keys) < len(names) or not keys.isdisjoint(ours):
        return None
    return keys, [name + b": " for name in names]


_WRITTEN_BACK = frozenset((
    b"server", b"via", b"x-kong-upstream-latency", b"x-kong-proxy-latency", b"x-kong-upstream-status",
    b"x-kong-request-id",
))  # fmt: skip
"""Response fields that `ResponseHeaders.of_proxied` writes."""
_BESIDE = _WRITTEN_BACK | {b"date"}  # those that may stand beside `ResponseHeaders.passed_on`

_CHARSET_TYPES = frozenset((
    b"text/html", b"text/xml", b"text/plain", b"text/vnd.wap.wml", b"application/javascript", b"application/rss+xml",
))  # fmt: skip
"""Types of answers made here that say their charset (nginx ``charset_types``; Kong's ``charset UTF-8``)."""


def with_charset(content_type: bytes) -> bytes:
    """A Content-Type of an answer made here, with the charset that nginx adds."""
    return content_type + b"; charset=UTF-8" if content_type.lower() in _CHARSET_TYPES else content_type


@lru_cache(maxsize=1024)
def _parts(name: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Of a field name: lower case, how its line begins in a lower-case block, how as sent (None: never sent)."""
    key = name.lower()
    return key, b"\n" + key + b":", None if key in _RESPONSE_FRAMING else name + b": "


_RESPONSE_FRAMING = frozenset((b"content-length", b"transfer-encoding"))

# -- towards the client ----------------------------------------------------------------------------------------------

_KEPT_TRAILER = RESPONSE_DROPPED - {b"trailer"}

_QUICK = 32
"""Milliseconds up to which the lines that tell them are remembered."""

_LATENCY_NAMES = {"x-kong-upstream-latency", "x-kong-proxy-latency", "x-kong-response-latency"}


class ResponseHeaders:
    """Which headers are added to answers: the property ``headers``, compiled.

    Args:
        names: the property's members; ``server_tokens`` means Server and Via, ``latency_tokens`` the three latencies.
    """

    __slots__ = (
        "_dropped", "_latencies", "proxy_latency", "request_id",
        "response_latency", "server", "upstream_latency", "upstream_status", "via",
    )  # fmt: skip

    def __init__(self, names: Iterable[str] = ("server_tokens", "latency_tokens", "X-Kong-Request-Id")) -> None:
        on = {name.strip().lower() for name in names} - {"off"}
        if "server_tokens" in on:
            on |= {"server", "via"}
        if "latency_tokens" in on:
            on |= _LATENCY_NAMES
        self.server = "server" in on
        self.via = "via" in on
        self.upstream_latency = "x-kong-upstream-latency" in on
        self.proxy_latency = "x-kong-proxy-latency" in on
        self.response_latency = "x-kong-response-latency" in on
        self.upstream_status = "x-kong-upstream-status" in on
        self.request_id = "x-kong-request-id" in on
        ours = (
            "x-kong-upstream-latency", "x-kong-proxy-latency", "x-kong-upstream-status", "x-kong-request-id",
        )  # fmt: skip
        # What we write replaces what the upstream (another Kong, perhaps) wrote.
        self._dropped = frozenset(name.encode() for name in ours if name in on)
        self._latencies: dict[tuple[int, int], bytes] = {}

    def passed_on(self, block: HeaderBlock, trailers: bool) -> bytes:
        """The upstream's lines for the client, with Server and Via; made once per block.

        Args:
            block: the upstream's response block.
            trailers: the client takes trailers (``TE: trailers``), so Trailer stays.
        """
        if trailers and b"trailer" in block:
            lines = block.without(_KEPT_TRAILER | self._dropped)
        elif block.passed_on is not None and block.passed_on[0] is self:
            known: bytes = block.passed_on[1]
            return known
        else:
            trailers = False
            plain = block.has_none_of(self._dropped)
            lines = block.forward if plain else block.without(RESPONSE_DROPPED | self._dropped)
        if self.server and b"server" not in block:
            lines += b"Server: %b\r\n" % TOKEN
        if self.via or block.relayed:
            via = block.joined(b"via")
            if self.via:
                lines += b"Via: %b%b %b\r\n" % (via + b", " if via else b"", b"2" if block.http2 else b"1.1", TOKEN)
            elif via:
                lines += b"Via: %b\r\n" % via
        if not trailers:
            block.passed_on = (self, lines)
        return lines

    def of_proxied(self, exchange: RequestFacts, block: HeaderBlock) -> bytes:
        """Lines of an answer that came from the upstream; ``exchange.latencies`` must be set."""
        proxy, upstream = exchange.latencies or (0.0, 0.0)
        made = block.passed_on
        if made is not None and made[0] is self and not exchange.block.te_trailers:
            lines: bytes = made[1]
        else:
            lines = self.passed_on(block, exchange.block.te_trailers)
        key = (int(proxy * 1000), int(upstream * 1000))
        latencies = self._latencies.get(key)
        if latencies is None:
            latencies = self.latency_lines(key)
        if self.upstream_status:
            latencies += b"X-Kong-Upstream-Status: %d\r\n" % exchange.upstream_status
        if self.request_id:
            return b"".join((lines, latencies, b"X-Kong-Request-Id: ", exchange.request_id, b"\r\n"))
        return lines + latencies

    def latency_lines(self, key: tuple[int, int]) -> bytes:
        """Proxy and upstream latency (milliseconds) as lines; small ones are remembered."""
        proxy, upstream = key
        lines = b"X-Kong-Upstream-Latency: %d\r\n" % max(upstream, 0) if self.upstream_latency else b""
        if self.proxy_latency:
            lines += b"X-Kong-Proxy-Latency: %d\r\n" % max(proxy, 0)
        if proxy < _QUICK and upstream < _QUICK:
            self._latencies[key] = lines
        return lines

    def of_own(self, exchange: RequestFacts, now: float) -> bytes:
        """Lines that close the head of an answer made here.

        Args:
            exchange: the request; ``latencies`` is set when the upstream was tried.
            now: monotonic seconds.
        """
        latencies = exchange.latencies
        parts = []
        if latencies is not None:
            if self.upstream_latency:
                parts.append(latency_line(b"X-Kong-Upstream-Latency", latencies[1]))
            if self.proxy_latency:
                parts.append(latency_line(b"X-Kong-Proxy-Latency", latencies[0]))
            if self.upstream_status and exchange.upstream_status:
                parts.append(b"X-Kong-Upstream-Status: %d\r\n" % exchange.upstream_status)
            if self.via:
                parts.append(b"Via: 1.1 %b\r\n" % TOKEN)
        elif self.response_latency:
            parts.append(latency_line(b"X-Kong-Response-Latency", now - exchange.started))
        if self.server:
            parts.append(b"Server: %b\r\n" % TOKEN)
        if self.request_id:
            parts.append(b"X-Kong-Request-Id: %b\r\n" % exchange.request_id)
        return b"".join(parts)


@lru_cache(maxsize=4096)
def _latency_line(name: bytes, milliseconds: int) -> bytes:
    return b"%b: %d\r\n" % (name, milliseconds)


def latency_line(name: bytes, seconds: float) -> bytes:
    """A latency header in whole milliseconds, never negative."""
    return _latency_line(name, int(seconds * 1000) if seconds > 0 else 0)
