"""Field lines of HTTP/1.1 heads: judged strictly, taken apart, and remembered (RFC 9110 5, RFC 9112 5).

Two gates stand in a row, and a line must pass both: a regular expression for the syntax (no folding, no bare CR or LF, no control
characters, no space before a colon) and llhttp (httptools). What lines mean together is the business of core/http/head.py.
"""

from __future__ import annotations

import re

import httptools

__all__ = [
    "REQUEST_DROPPED", "RESPONSE_DROPPED", "FieldLines", "Line", "MalformedLine", "is_block", "split_line", "taken_apart",
]  # fmt: skip

_BLOCK = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*").fullmatch
Line = tuple[bytes, list[bytes], bytes]
"""What a field line says: name in lower case; the value, in a list of its own; the line as it is passed on, without its
CRLF, or nothing where it is not."""


REQUEST_DROPPED = frozenset((
    b"host", b"connection", b"keep-alive", b"proxy-connection", b"proxy", b"te", b"upgrade", b"transfer-encoding",
    b"content-length", b"expect", b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host",
    b"x-forwarded-port", b"x-forwarded-path", b"x-forwarded-prefix", b"x-real-ip", b"x-kong-request-id",
))  # fmt: skip
"""Request fields never passed on as they are: hop-by-hop (RFC 9110 7.6.1) or written by core/http/headers.py."""

RESPONSE_DROPPED = frozenset((
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"content-length", b"upgrade",
    b"trailer", b"via", b"x-pad", b"x-accel-expires", b"x-accel-redirect", b"x-accel-limit-rate",
    b"x-accel-buffering", b"x-accel-charset",
))  # fmt: skip
"""Response fields that are not passed on as they are: hop-by-hop, framing (the door's), written anew, or meant for the
proxy (nginx ``proxy_hide_header``; Kong passes Date and Server)."""

_FRAMING = frozenset((b"transfer-encoding", b"content-length"))


def split_line(line: bytes) -> tuple[bytes, bytes]:
    """The name as spelled, and the value without surrounding blanks."""
    name, _, value = line.partition(b":")
    return name, value.strip(b" \t")


def taken_apart(line: bytes, dropped: frozenset[bytes]) -> Line:
    """What a line says; ``dropped``: names, in lower case, of fields that are not passed on."""
    name, _, rest = line.partition(b":")
    key = name.lower()
    value = rest.strip(b" \t")
    if key in dropped:
        if dropped is REQUEST_DROPPED and key in _FRAMING:
            # A tab, which nginx takes for a part of the value, makes it a bad one.
            value = rest.strip(b" ")
        return key, [value], b""
    usual = len(rest) == len(value) + 1 and rest[0] == 0x20
    return key, [value], line if usual else b"%b: %b" % (name, value)


def is_block(raw: bytes) -> bool:
    """Whether these are well-formed field lines (a trailer section), each with its CRLF."""
    return _BLOCK(raw) is not None


class MalformedLine(ValueError):
    """Lines that are none."""


_OF_LLHTTP = frozenset((b"connection", b"content-length", b"proxy-connection", b"transfer-encoding", b"upgrade"))
"""Fields whose values llhttp looks into. Of all others it checks single bytes, as `_BLOCK` does."""

_VALUE_BYTES = bytes((9, *range(0x20, 0x7F), *range(0x80, 0x100)))
"""What a field value may be made of (RFC 9110 5.5)."""


class FieldLines:
    """What field lines of one direction say; those met before are remembered, bounded in number and size.

    A line is judged by itself, so it makes no difference whether it was remembered: what lines mean together is the
    business of the rules. Where a field's name has passed both gates, and llhttp would look at nothing but the bytes of its value,
    another value of it is judged by its bytes alone: of most heads that differ from those before, a few values do.

    Args:
        parser, start: llhttp's parser, and a start line for it. To 204 it has no opinion about a body: framing is ours.
        dropped: names of fields that are not passed on.
        entries: lines remembered.
        size: bytes of the longest line remembered.
    """

    __slots__ = ("_dropped", "_entries", "_known", "_met", "_names", "_parser", "_size", "_start")

    def __init__(
        self, parser: type, start: bytes, dropped: frozenset[bytes], entries: int = 2048, size: int = 512
    ) -> None:
        self._parser = parser
        self._start = start
        self._dropped = dropped
        self._entries = entries
        self._size = size
        self._known: dict[bytes, Line] = {}
        self._met: set[int] = set()
        # As spelled: in lower case, and whether the field is passed on.
        self._names: dict[bytes, tuple[bytes, bool]] = {}

    @classmethod
    def of_requests(cls, entries: int = 2048) -> FieldLines:
        """Lines of requests."""
        return cls(httptools.HttpRequestParser, b"POST / HTTP/1.1\r\n", REQUEST_DROPPED, entries)

    @classmethod
    def of_responses(cls, entries: int = 2048) -> FieldLines:
        """Lines of responses."""
        return cls(httptools.HttpResponseParser, b"HTTP/1.1 204 -\r\n", RESPONSE_DROPPED, entries)

    def read(self, raw: bytes) -> list[Line]:
        """The lines of a block.

        Raises:
            MalformedLine: it has a line that is none.
            httptools.HttpParserError: llhttp refuses it.
        """
        lines = raw.split(b"\r\n")
        if lines.pop():
            raise MalformedLine("malformed header line")
        found = list(map(self._known.get, lines))
        return found if all(found) else self._learned(lines, found)  # type: ignore[return-value]

    def _learned(self, lines: list[bytes], found: list[Line | None]) -> list[Line]:
        """``found`` with the lines that were not known. A line is remembered when it comes the second time: many never
        do."""
        met, names = self._met, self._names
        for at, known in enumerate(found):
            if known is not None:
                continue
            line = lines[at]
            name, _, value = line.partition(b": ")
            usual = names.get(name)
            if usual is not None and value and value.strip() == value and not value.translate(None, _VALUE_BYTES):
                one = usual[0], [value], line if usual[1] else b""
            else:
                one = self._judged(line)
            found[at] = one
            mark = hash(line)
            if mark not in met:
                met.add(mark)
                if len(met) > 2 * self._entries:
                    met.clear()
            elif len(line) <= self._size:
                if len(self._known) >= self._entries:
                    self._known.clear()
                self._known[line] = one
        return found  # type: ignore[return-value]

    def _judged(self, line: bytes) -> Line:
        """A line that has passed both gates."""
        text = line + b"\r\n"
        if _BLOCK(text) is None:
            raise MalformedLine("malformed header line")
        try:
            self._parser(_NOBODY).feed_data(b"%b%b\r\n" % (self._start, text))
        except httptools.HttpParserUpgrade:
            pass  # "Connection: upgrade"; what follows a head is none of llhttp's business here
        one = taken_apart(line, self._dropped)
        name = line.partition(b":")[0]
        if one[0] not in _OF_LLHTTP and len(name) <= _LONGEST_NAME:
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()
            self._names[name] = one[0], one[0] not in self._dropped
        return one


_MOST_NAMES, _LONGEST_NAME = 512, 64
"""Names of fields that are remembered, and the bytes of the longest."""

_NOBODY = object()
"""Is told by llhttp what it finds."""
