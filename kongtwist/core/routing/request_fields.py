"""What is known of a request while expressions are compared with it; what costs is found out at most once."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from ..http.query import parse_arguments
from .hosts import split_listed_host
from .patterns import BoundedPattern, PatternClock

__all__ = ["Facts", "Values", "reader_of"]

Values = tuple[Any, ...]
"""What a field holds: bytes, numbers or addresses; none where the request has nothing of it."""


class Facts:
    """A request's fields.

    Args:
        method, host, path: as bytes; the host as received, the path normalised.
        scheme: ``http`` or ``https``, of the connection.
        sni: the TLS server name, or None.
        headers: gives the values of a header by its name in lower case; a ``_`` may stand for a ``-``.
        query: the query string as received, without ``?``.
        source, destination: (address, port) of the client and of the listener; the address may be empty.

    Attributes:
        given_up: patterns whose match took too long and counts as none.
    """

    __slots__ = (
        "_arguments", "_clock", "_known", "_matches", "_segments", "destination", "given_up", "headers", "host", "method",
        "name", "path", "port", "query", "scheme", "sni", "source",
    )  # fmt: skip

    def __init__(
        self,
        method: bytes,
        host: bytes,
        path: bytes,
        scheme: bytes,
        sni: str | None,
        headers: Callable[[bytes], list[bytes]],
        query: bytes,
        source: tuple[str, int],
        destination: tuple[str, int],
    ) -> None:
        self.method, self.host, self.path, self.scheme, self.sni = method, host, path, scheme, sni
        self.headers, self.query, self.source, self.destination = headers, query, source, destination
        self.name, self.port = split_listed_host(host) if b":" in host else (host, None)
        self._known: dict[str, Values] = {}
        self._matches: dict[tuple[BoundedPattern, bytes], Any] = {}
        self._arguments: dict[bytes, list[bytes | None]] | None = None
        self._segments: list[bytes] | None = None
        self._clock: PatternClock | None = None
        self.given_up: list[str] = []

    def values(self, field: str) -> Values:
        """What a field holds."""
        known = self._known.get(field)
        if known is None:
            known = self._known[field] = reader_of(field)(self)
        return known

    def search(self, pattern: BoundedPattern, text: bytes) -> Any:
        """The match of a pattern, or None."""
        key = (pattern, text)
        try:
            return self._matches[key]
        except KeyError:
            pass
        clock = self._clock
        if clock is None:
            clock = self._clock = PatternClock()
        found = None
        try:
            found = pattern.find(text, clock)
        except TimeoutError:
            self.given_up.append(f"the pattern {pattern.text.decode('utf-8', 'replace')}")
        self._matches[key] = found
        return found

    def segments(self) -> list[bytes]:
        """The parts of the path; ``/a/b/`` has two."""
        found = self._segments
        if found is None:
            found = self.path[1:].split(b"/")
            if found[-1] == b"":
                found.pop()
            self._segments = found
        return found

    def arguments(self) -> dict[bytes, list[bytes | None]]:
        """The query's arguments, decoded."""
        found = self._arguments
        if found is None:
            found = self._arguments = parse_arguments(self.query)
        return found


Reader = Callable[[Facts], Values]


def _address(text: str) -> Values:
    try:
        return (ip_address(text),)
    except ValueError:
        return ()


def _some(value: Any) -> Values:
    return () if value is None else (value,)


_READERS: dict[str, Reader] = {
    "http.method": lambda facts: (facts.method,),
    "http.host": lambda facts: (facts.name,) if facts.host else (),
    "http.path": lambda facts: (facts.path,),
    "http.path.segments.len": lambda facts: (len(facts.segments()),),
    "tls.sni": lambda facts: () if facts.sni is None else (facts.sni.encode("utf-8", "surrogateescape"),),
    "net.protocol": lambda facts: (facts.scheme,),
    "net.src.ip": lambda facts: _address(facts.source[0]),
    "net.src.port": lambda facts: (facts.source[1],),
    "net.dst.ip": lambda facts: _address(facts.destination[0]),
    "net.dst.port": lambda facts: (facts.destination[1] if facts.port is None else facts.port,),
}


def reader_of(field: str) -> Reader:
    """What reads a field of a request (Kong 3.9, ``kong/router/fields.lua``)."""
    known = _READERS.get(field)
    if known is not None:
        return known
    kind, _, name = field.rpartition(".")
    raw = name.encode()
    if kind == "http.headers":
        return lambda facts: tuple(facts.headers(raw.lower()))
    if kind == "http.queries":
        return lambda facts: tuple(value or b"" for value in facts.arguments().get(raw, ()))
    first, mark, last = name.partition("_")
    low, high = int(first), int(last) if mark else int(first)
    return lambda facts: _part(facts.segments(), low, high)


def _part(segments: list[bytes], low: int, high: int) -> Values:
    return (b"/".join(segments[low : high + 1]),) if high < len(segments) else ()
