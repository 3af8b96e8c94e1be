"""Routes as expressions and numbers of priority (Kong 3.9.3, ``kong/router/transform.lua``).

The flavors ``traditional_compatible`` and ``expressions`` know nothing else: a route is one expression, or one for each length
of its paths, and the one with the largest number that is true wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, ip_network
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

if TYPE_CHECKING:
    from .schema import Row

__all__ = [
    "EXPRESSION_FIELDS",
    "MATCHING_FIELDS",
    "amended",
    "expression_of",
    "is_stream",
    "parts_of",
    "priority_of",
    "protocols_part",
]

MATCHING_FIELDS = ("snis", "sources", "destinations", "methods", "hosts", "paths", "headers")
"""Fields of a route that its requests are compared with, but for ``expression``."""

EXPRESSION_FIELDS = ("expression", "priority")

_STREAM = frozenset(("tcp", "udp", "tls", "tls_passthrough"))
_PLAIN_HOSTS_ONLY = 1 << 60
_REGEX_PATH = 1 << 51
_EXPRESSION_ONLY = 0xFF << 56
_SNI = 1 << 61
_MOST_HEADERS = 255
_ALL = (1 << 64) - 1
_PART_IDS = UUID("7f145bf9-0dce-4f91-98eb-debbce4b9f6b")
_HOST_PORT = re.compile(r"([^:]*):\s*(\d+)\s*")
_PORT = re.compile(r"net\.port(?=\s*[=><!])")


def _quoted(text: str) -> str:
    if '"#' not in text:
        return f'r#"{text}"#'
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _any_of(parts: Sequence[str]) -> str:
    return f"({' || '.join(parts)})"


def _sni(name: str) -> str:
    if name.endswith("*") and not name.startswith("*"):
        return f"tls.sni ^= {_quoted(name[:-1])}"
    if len(name) > 1 and name.endswith("."):
        name = name[:-1]
    return f"tls.sni =^ {_quoted(name[1:])}" if name.startswith("*") else f"tls.sni == {_quoted(name)}"


def _address(side: str, entry: Row) -> str:
    parts = []
    address, port = entry.get("ip"), entry.get("port")
    if address is not None:
        _, mark, length = address.partition("/")
        if not mark:
            parts.append(f"net.{side}.ip == {address}")
        elif ":" in address:
            parts.append(f"net.{side}.ip in {address}")
        else:
            network = ip_network(f"{IPv4Address(address.partition('/')[0])}/{length}", strict=False)
            parts.append(f"net.{side}.ip in {network}")
    if port is not None:
        parts.append(f"net.{side}.port == {port}")
    return f"({' && '.join(parts)})" if len(parts) > 1 else parts[0]


def _host(host: str) -> str:
    found = _HOST_PORT.fullmatch(host)
    name, port = (found[1], int(found[2])) if found else (host, None)
    if name.startswith("*"):
        text = f'http.host =^ r#"{name[1:]}"#'
    elif name.endswith("*"):
        text = f'http.host ^= r#"{name[:-1]}"#'
    else:
        text = f'http.host == r#"{name}"#'
    return text if port is None else f"({text} && net.dst.port == {port})"


def _path(path: str) -> str:
    if path.startswith("~"):
        return f"http.path ~ {_quoted('^' + path[1:].replace('?<', '?P<'))}"
    return f"http.path ^= {_quoted(path)}"


def _header(name: str, values: Sequence[str]) -> str:
    left = f"any(lower(http.headers.{name.replace('-', '_').lower()}))"
    return _any_of(
        [
            f"{left} ~ {_quoted(value[2:].lower())}"
            if value.startswith("~*")
            else f"{left} == {_quoted(value.lower())}"
            for value in values
        ]
    )


def is_stream(row: Row) -> bool:
    """Whether a route is one of streams of bytes: its first protocol decides."""
    protocols = row.get("protocols") or [""]
    return protocols[0] in _STREAM


def amended(expression: str) -> str:
    """An expression with ``net.dst.port`` in place of its former name ``net.port``."""
    return _PORT.sub("net.dst.port", expression) if "net.port" in expression else expression


def expression_of(row: Row) -> str:
    """What a route's requests are compared with, as one expression; empty for a route without anything."""
    if row.get("expression") is not None:
        return amended(row["expression"])
    stream = is_stream(row)
    parts = []
    if row.get("snis"):
        unsecured = "tls" if stream else "https"
        parts.append(f'(net.protocol != r#"{unsecured}"# || {_any_of([_sni(name) for name in row["snis"]])})')
    for side, field in (("src", "sources"), ("dst", "destinations")):
        if row.get(field):
            parts.append(_any_of([_address(side, entry) for entry in row[field]]))
    if not stream:
        if row.get("methods"):
            parts.append(_any_of([f"http.method == {_quoted(method)}" for method in row["methods"]]))
        if row.get("hosts"):
            parts.append(_any_of([_host(host) for host in row["hosts"]]))
        if row.get("paths"):
            parts.append(_any_of([_path(path) for path in row["paths"]]))
        parts.extend(_header(name, values) for name, values in (row.get("headers") or {}).items() if values)
    return " && ".join(parts)


_PROTOCOLS = {"tls_passthrough": "tcp", "grpc": "http", "grpcs": "https"}


def protocols_part(protocols: Sequence[str]) -> str:
    """What the flavor ``expressions`` adds to a route's expression; empty where its protocol is checked later, to redirect."""
    if list(protocols) in (["https"], ["tls"], ["tls_passthrough"]):
        return ""
    return _any_of([f'net.protocol == r#"{_PROTOCOLS.get(each, each)}"#' for each in protocols])


# -- priorities ----------------------------------------------------------------------------------------------------------


def _shifted(number: int, bits: int) -> int:
    """A plain number of Lua moved to the left: in 32 bits, by the bits modulo 32, with its sign in all bits above.

    So Kong 3.9.3's number of attributes stands at bit 29 and not at 61: up to three attributes count less than plain hosts
    or a regular expression, four or more count more.
    """
    moved = (number << (bits & 31)) & 0xFFFFFFFF
    return (moved - (1 << 32) if moved >> 31 else moved) & _ALL


def _stream_bits(entries: Sequence[Row] | None) -> int:
    bits = 0
    for entry in entries or ():
        if entry.get("ip") is not None:
            bits |= 1 if "/" in entry["ip"] else 8
        if entry.get("port") is not None:
            bits |= 4
    return bits


def priority_of(row: Row) -> int:
    """A route's number: 64 bits, the largest is tried first.

    Args:
        row: the route. Its paths are regular expressions, or all of one length (`parts_of`).
    """
    if row.get("expression") is not None:
        return _EXPRESSION_ONLY | int(row.get("priority") or 0)
    if is_stream(row):
        first = _SNI if row.get("snis") or (row.get("sources") and row.get("destinations")) else 0
        return first | _stream_bits(row.get("sources")) << 4 | _stream_bits(row.get("destinations"))
    hosts, headers = row.get("hosts") or (), row.get("headers") or {}
    paths: list[str] = row.get("paths") or []
    regex = bool(paths) and paths[0].startswith("~")
    number = _shifted(sum(1 for name in MATCHING_FIELDS if row.get(name)), 61)
    number |= _shifted(min(len(headers), _MOST_HEADERS), 52)
    if hosts and not any("*" in host for host in hosts):
        number |= _PLAIN_HOSTS_ONLY
    if regex:
        return number | _REGEX_PATH | _shifted(row.get("regex_priority") or 0, 19)
    return number | (len(paths[0].encode()) & 0x7FFFF if paths else 0)


def parts_of(row: Row) -> Iterator[tuple[Row, int]]:
    """A route as the routes Kong makes of it: one for each length of its paths, one for its regular expressions.

    Returns:
        each with the number that decides among routes of one priority: of its id, the largest is tried first.
    """
    paths = row.get("paths")
    groups: dict[int, list[str]] = {}
    if row.get("expression") is None:
        for path in paths or ():
            groups.setdefault(0 if path.startswith("~") else len(path.encode()), []).append(path)
    if len(groups) < 2:
        yield row, _number(str(row["id"]))
        return
    for index, group in enumerate(groups.values(), 1):
        yield {**row, "paths": group}, uuid5(_PART_IDS, f"{row['id']}#{index}").int


def _number(route_id: str) -> int:
    try:
        return UUID(route_id).int
    except ValueError:
        return int.from_bytes(route_id.encode()[:16].ljust(16, b"\0"), "big")
