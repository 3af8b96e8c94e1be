"""Heads of HTTP/1.1 messages: start lines and header blocks, parsed strictly and once.

The caller finds the end of a head (CRLF CRLF) and hands in its parts; bodies are framed in core/http/chunks.py. So
llhttp (httptools), which judges field lines (core/http/field_lines.py), never sees a start line of a peer, a body, a
second message or the end of a connection, where its ideas differ from what a gateway must do. Behind the lines come the
rules about fields and what they mean together (RFC 9112 3.2, 6.1-6.3), which are stricter than llhttp's.

Equal bytes give equal results. `BlockCache` and the connections keep parsed blocks by their bytes, because clients and
upstreams repeat themselves; where two heads differ, most of their lines do not, and those are remembered too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, KeysView, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools

from .field_lines import REQUEST_DROPPED, RESPONSE_DROPPED, FieldLines, Line, MalformedLine, split_line, taken_apart

__all__ = [
    "BlockCache", "HeadError", "HeaderBlock", "StatusLine", "check_path", "check_request", "could_be_request_line",
    "parse_request_block", "parse_request_line", "parse_response_block", "parse_status_line",
]  # fmt: skip

Pair = tuple[bytes, bytes]


class HeadError(ValueError):
    """A head that is refused.

    Args:
        status: the status to answer with (towards an upstream: 502 whatever it says).
        message: text for Kong's error body; None for nginx's own page (Kong 3.9 answers 501 and 505 with it).
        why: the reason, for the log.
        page: with nginx's own page, a second line on it.
    """

    def __init__(self, status: int, message: str | None, why: str, page: bytes | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.message = message
        self.page = page

    @classmethod
    def bad(cls, why: str) -> HeadError:
        """400, the answer to nearly everything malformed."""
        return cls(400, "Bad request", why)

    @classmethod
    def too_large(cls, why: str) -> HeadError:
        """Header lines above a limit: nginx's 494, which the client sees as 400."""
        return cls(400, "Request header or cookie too large", why)


# -- start lines -----------------------------------------------------------------------------------------------------

# Methods as in nginx: upper case, "_" and "-". The common case: HTTP/1.x, origin form, a path without escapes.
_PLAIN_LINE = re.compile(rb"([A-Z_-]+) (/[^\x00-\x20\x7f%]*) HTTP/1\.([01])").fullmatch
_LINE = re.compile(rb"([A-Z_-]+) ([^\x00-\x20\x7f]+) HTTP/(\d)\.(\d)").fullmatch
_LINE_START = re.compile(rb"[A-Z_-]*(?:[A-Z_-] (?:[^\x00-\x20\x7f]*(?: [^\x00-\x20\x7f]*\r?)?)?)?").fullmatch
_ABSOLUTE = re.compile(rb"[hH][tT][tT][pP][sS]?://([^/?#]*)([^\x00-\x20\x7f]*)").fullmatch
# What nginx takes (ngx_http_validate_host): no empty label but a last one, no dot alone, a port up to 65535.
_HOST = re.compile(
    rb"(?!.*\.\.|\.(?::|\Z))(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=\x80-\xff-]+)"
    rb"(?::0*(?:\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])?)?"
).fullmatch
_STATUS_LINE = re.compile(rb"HTTP/1\.(\d) ([1-9]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?").fullmatch
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})|%00").search

StatusLine = tuple[int, int, bytes]
"""(minor version, status, reason)."""


def parse_request_line(line: bytes) -> tuple[bytes, bytes, int]:
    """Split a request line (RFC 9112 3) without its CRLF.

    An absolute-form target gives its path: the Host header decides about routing, as in Kong.

    Returns:
        method, target (path and query, raw), minor version (1 for everything above 1.1).

    Raises:
        HeadError: 400, 405 (TRACE and CONNECT: a gateway is no tunnel) or 505.
    """
    plain = _PLAIN_LINE(line)
    if plain is not None and b"/." not in line and plain[1] not in (b"TRACE", b"CONNECT"):
        return plain[1], plain[2], 1 if plain[3] == b"1" else 0
    match = _LINE(line)
    if match is None:
        raise HeadError.bad("malformed request line")
    method, target, major, minor = match.groups()
    if major == b"0":
        raise HeadError.bad("HTTP/0.x")
    if major != b"1":
        raise HeadError(505, None, "HTTP version not supported")
    if target[0] != 0x2F:
        target = _origin_form(target)
    check_path(target)
    if method in (b"TRACE", b"CONNECT"):
        raise HeadError(405, "Method not allowed", method.decode())
    return method, target, 0 if minor == b"0" else 1


def could_be_request_line(start: bytes) -> bool:
    """Whether ``start``, the bytes before the first CRLF as far as they came, may still become a request line."""
    return _LINE_START(start) is not None


def _origin_form(target: bytes) -> bytes:
    """The path and query of an absolute-form target (RFC 9112 3.2.2); other forms are refused as by Kong."""
    match = _ABSOLUTE(target)
    if match is None or _HOST(match[1]) is None:
        raise HeadError.bad("malformed request target")
    rest: bytes = match[2]
    return rest if rest[:1] == b"/" else b"/" + rest


def check_path(target: bytes) -> None:
    """Refuse what nginx refuses in a path: malformed escapes, an escaped NUL, and ``..`` above the root.

    Raises:
        HeadError: 400.
    """
    path = target.partition(b"?")[0]
    if _BAD_ESCAPE(path) is not None:
        raise HeadError.bad("malformed escape in the path")
    depth = 0
    for segment in unquote_to_bytes(path.partition(b"#")[0]).split(b"/"):
        if segment == b"..":
            depth -= 1
            if depth < 0:
                raise HeadError.bad("path climbs above the root")
        elif segment and segment != b".":
            depth += 1


def parse_status_line(line: bytes) -> StatusLine:
    """Split a status line (RFC 9112 4) without its CRLF.

    Raises:
        HeadError: 502.
    """
    match = _STATUS_LINE(line)
    if match is None:
        raise HeadError(502, None, "malformed status line from the upstream")
    return (0 if match[1] == b"0" else 1), int(match[2]), match[3] or b""


# -- header blocks ---------------------------------------------------------------------------------------------------

_ODD_BLOCK = re.compile(rb"(?:[!-9;-~]+:[^\x00\r\n]*\r\n)*").fullmatch
_DIGITS = re.compile(rb"\d{1,18}").fullmatch


class HeaderBlock:
    """The header fields of one message. Do not change: blocks are shared between messages with equal bytes.

    Attributes:
        raw: the bytes, each line with its CRLF, without the empty line.
        host: value of Host, or None.
        content_length: bytes announced, or None. chunked: Transfer-Encoding is chunked.
        has_body: a request with this block has a body (RFC 9112 6.3).
        close, keep_alive: Connection has these options. connection: other fields that it names, in lower case.
        upgrade_websocket: asks to become a WebSocket; whether Connection says ``upgrade`` too makes no difference (Kong 3.9).
        unusual: it does, or asks what took how long in it (X-Kong-Request-Debug).
        expect_continue: waits for ``100 Continue``.
        te_trailers: TE has ``trailers``.
        relayed: says that the message came through another proxy (Via, X-Forwarded-For).
        end: the last lines of the head of a request with this block, as it is passed on: framing, `forward` and the
            empty line; None until `make_end`.
        http2: the message came over HTTP/2 (an answer's).
        never: names, in lower case, of fields that came over HTTP/2 as never indexed (RFC 7541 6.2.3) and go out so.
        passed_on: what was made of it for the other side, and for whom: by `headers.ResponseHeaders`, `http2_forwarding`.
    """

    __slots__ = (
        "_fields", "_lines", "chunked", "close", "connection", "content_length", "end", "expect_continue", "has_body", "host",
        "http2", "keep_alive", "never", "passed_on", "raw", "relayed", "te_trailers", "unusual", "upgrade_websocket",
    )  # fmt: skip

    def __init__(self, raw: bytes, lines: Sequence[Line]) -> None:
        self.raw = raw
        self._lines = lines
        fields: dict[bytes, list[bytes]] = {}
        for key, values, _ in lines:
            fields[key] = fields[key] + values if key in fields else values
        self._fields = fields
        self.host: bytes | None = None
        self.content_length: int | None = None
        self.chunked = self.has_body = self.expect_continue = self.te_trailers = self.http2 = False
        self.relayed = b"x-forwarded-for" in fields or b"via" in fields
        self.end: bytes | None = None
        self.never = _NOTHING
        self.passed_on: Any = None
        if b"connection" in fields:
            self.close, self.keep_alive, self.connection = _options(b",".join(fields[b"connection"]))
        else:
            self.close = self.keep_alive = False
            self.connection = _NOTHING
        self.upgrade_websocket = b"upgrade" in fields and b"websocket" in self.tokens(b"upgrade")
        debugs = b"x-kong-request-debug" in fields or b"x-kong-request-debug-token" in fields
        self.unusual = self.upgrade_websocket or debugs

    @classmethod
    def from_pairs(cls, pairs: Iterable[Pair]) -> HeaderBlock:
        """A request's block from fields somebody else has parsed (a Site, a test). The rules about single fields hold.

        Raises:
            HeadError: as `parse_request_block`.
        """
        fields = list(pairs)
        raw = b"".join([name + b": " + value + b"\r\n" for name, value in fields])
        block = cls(raw, [taken_apart(line, REQUEST_DROPPED) for line in raw.split(b"\r\n")[:-1]])
        _request_rules(block)
        return block

    @property
    def pairs(self) -> list[Pair]:
        """(name as spelled, value without surrounding blanks) in order."""
        return [split_line(line) for line in self.raw.split(b"\r\n")[:-1]]

    def first(self, name: bytes) -> bytes | None:
        """The first value of the field ``name`` (lower case), or None."""
        values = self._fields.get(name)
        return values[0] if values is not None else None

    def all(self, name: bytes) -> list[bytes]:
        """All values of the field ``name`` (lower case), in order; do not change the list."""
        return self._fields.get(name, _NO_VALUES)

    @property
    def names(self) -> KeysView[bytes]:
        """The fields' names, lower case, each once."""
        return self._fields.keys()

    def __contains__(self, name: bytes) -> bool:
        """Whether there is a field ``name`` (lower case)."""
        return name in self._fields

    def has_none_of(self, names: Iterable[bytes]) -> bool:
        """Whether no field has one of these names (lower case)."""
        return self._fields.keys().isdisjoint(names)

    def joined(self, name: bytes) -> bytes | None:
        """All values of a list field (lower case) as one (RFC 9110 5.3), or None."""
        values = self._fields.get(name)
        if values is None:
            return None
        return values[0] if len(values) == 1 else b", ".join(values)

    def tokens(self, name: bytes) -> list[bytes]:
        """The members of a list field (lower case), in lower case."""
        values = self._fields.get(name)
        return [] if values is None else _members(b",".join(values))

    def without(self, names: frozenset[bytes]) -> bytes:
        """The lines of all fields but ``names`` and those that Connection names, as spelled and in order."""
        drop = names | self.connection if self.connection else names
        return b"".join([b"%b: %b\r\n" % pair for pair in self.pairs if pair[0].lower() not in drop])

    @property
    def forward(self) -> bytes:
        """The lines passed on unchanged: without hop-by-hop fields and those a proxy writes itself (`REQUEST_DROPPED`,
        `RESPONSE_DROPPED`)."""
        return b"\r\n".join([*self._passed_on(), b""])

    def make_end(self) -> bytes:
        """Make `end`."""
        lines = self._passed_on()
        if self.content_length is not None:
            lines.insert(0, b"Content-Length: %d" % self.content_length)
        elif self.chunked:
            lines.insert(0, b"Transfer-Encoding: chunked")
        if self.te_trailers:
            lines.insert(0, b"TE: trailers")
        lines += (b"", b"")
        end = self.end = b"\r\n".join(lines)
        return end

    def _passed_on(self) -> list[bytes]:
        drop = self.connection
        if drop:
            return [line for key, _, line in self._lines if line and key not in drop]
        return [line for _, _, line in self._lines if line]

    def keeps_alive(self, minor: int) -> bool:
        """Whether the sender lets the connection stay open after this message (RFC 9112 9.3)."""
        return not self.close and (minor > 0 or self.keep_alive)

    def __repr__(self) -> str:
        return f"<HeaderBlock {self.raw!r}>"


_NO_VALUES: list[bytes] = []
_NOTHING: frozenset[bytes] = frozenset()
_CONNECTION_OPTIONS = frozenset((b"close", b"keep-alive", b"upgrade", b"te"))


def _members(value: bytes) -> list[bytes]:
    """The members of a list (RFC 9110 5.6.1), in lower case."""
    return [member for part in value.lower().split(b",") if (member := part.strip(b" \t"))]


@lru_cache(maxsize=256)
def _options(value: bytes) -> tuple[bool, bool, frozenset[bytes]]:
    """What Connection says: close, keep-alive, and which fields are for this connection only."""
    options = frozenset(_members(value))
    return b"close" in options, b"keep-alive" in options, options - _CONNECTION_OPTIONS


@lru_cache(maxsize=1024)
def _is_host(value: bytes) -> bool:
    """Whether this is a good Host (RFC 9110 7.2)."""
    return _HOST(value) is not None


def parse_request_block(raw: bytes, lines: FieldLines | None = None) -> HeaderBlock:
    """Parse the header block of a request.

    Args:
        raw: complete lines, each with its CRLF, without the empty line.
        lines: where lines are remembered.

    Raises:
        HeadError: 400, or 501 for a transfer coding other than chunked.
    """
    try:
        block = HeaderBlock(raw, (lines or FieldLines.of_requests()).read(raw))
    except MalformedLine as error:
        raise HeadError.bad(str(error)) from error
    except httptools.HttpParserError as error:
        # llhttp also judges framing fields, with one answer for all; the rules below know which answer is due.
        HeaderBlock.from_pairs([split_line(line) for line in raw.split(b"\r\n")[:-1]])
        raise HeadError.bad(str(error)) from error
    _request_rules(block)
    return block


def _request_rules(block: HeaderBlock) -> None:
    """Rules about single request fields, filled into the block."""
    fields = block._fields
    hosts = fields.get(b"host")
    if hosts is not None:
        if len(hosts) > 1:
            raise HeadError.bad("two Host fields")
        if not _is_host(hosts[0]):
            raise HeadError.bad("malformed Host")
        block.host = hosts[0]
    if b"content-length" in fields or b"transfer-encoding" in fields:
        _framing_rules(block, HeadError.bad, 501)
    if b"expect" in fields:
        block.expect_continue = b"100-continue" in block.tokens(b"expect")
    if b"te" in fields:
        block.te_trailers = b"trailers" in block.tokens(b"te")


def _framing_rules(block: HeaderBlock, bad: Callable[[str], HeadError], unknown: int) -> None:
    """Body framing (RFC 9112 6.1-6.3): at most one length, or chunked alone, never both.

    Args:
        block: to be filled in.
        bad: makes the error for what is wrong.
        unknown: the status for a coding other than chunked.
    """
    fields = block._fields
    lengths = fields.get(b"content-length")
    codings = fields.get(b"transfer-encoding")
    if lengths is not None:
        if codings is not None:
            raise bad("both Content-Length and Transfer-Encoding")
        if len(lengths) > 1 or _DIGITS(lengths[0]) is None:
            raise bad("malformed Content-Length")
        block.content_length = length = int(lengths[0])
        block.has_body = length > 0
    elif codings is not None:
        if len(codings) > 1:
            raise bad("two Transfer-Encoding fields")
        if codings[0].lower() != b"chunked":
            raise HeadError(unknown, None, "unknown Transfer-Encoding")
        block.chunked = block.has_body = True


def check_request(minor: int, block: HeaderBlock) -> None:
    """Rules that need the version: HTTP/1.1 must name a host (RFC 9112 3.2), HTTP/1.0 has no transfer codings.

    Raises:
        HeadError: 400.
    """
    if minor:
        if block.host is None:
            raise HeadError.bad("no Host")
    elif block.chunked:
        raise HeadError.bad("Transfer-Encoding in HTTP/1.0")


def parse_response_block(raw: bytes, lines: FieldLines | None = None) -> HeaderBlock:
    """Parse the header block of an upstream's response; the arguments are those of `parse_request_block`.

    Names and values may be odd, as nginx lets them be (core/http/lenient_heads.py); such lines are not remembered.

    Raises:
        HeadError: 502.
    """
    try:
        block = HeaderBlock(raw, (lines or FieldLines.of_responses()).read(raw))
    except (MalformedLine, httptools.HttpParserError) as error:
        if _ODD_BLOCK(raw) is None:
            raise _from_upstream(str(error)) from error
        block = HeaderBlock(raw, [taken_apart(line, RESPONSE_DROPPED) for line in raw.split(b"\r\n")[:-1]])
    _framing_rules(block, _from_upstream, 502)
    return block


def _from_upstream(why: str) -> HeadError:
    return HeadError(502, None, f"{why} from the upstream")


class BlockCache:
    """Parsed blocks by their bytes, bounded in number and size; the oldest goes first.

    A block is kept when it comes the second time: blocks that differ in every request would only push out the others.

    Args:
        entries: blocks kept per direction.
        size: bytes of the largest block kept.
    """

    __slots__ = ("_entries", "_met", "_request_lines", "_requests", "_response_lines", "_responses", "_size")

    def __init__(self, entries: int = 1024, size: int = 2048) -> None:
        self._entries = entries
        self._size = size
        self._requests: dict[bytes, HeaderBlock] = {}
        self._responses: dict[bytes, HeaderBlock] = {}
        self._met: set[int] = set()
        self._request_lines = FieldLines.of_requests()
        self._response_lines = FieldLines.of_responses()

    def request(self, raw: bytes, shared: bool = True) -> HeaderBlock:
        """`parse_request_block`, or the block it gave for equal bytes, where it may be ``shared``."""
        block = self._requests.get(raw)
        if block is None or not shared:
            block = parse_request_block(raw, self._request_lines)
            self._keep(self._requests if shared else {}, block)
        return block

    def response(self, raw: bytes) -> HeaderBlock:
        """`parse_response_block`, or the block it gave for equal bytes."""
        block = self._responses.get(raw)
        if block is None:
            block = parse_response_block(raw, self._response_lines)
            self._keep(self._responses, block)
        return block

    def _keep(self, kept: dict[bytes, HeaderBlock], block: HeaderBlock) -> None:
        raw = block.raw
        mark = hash(raw)
        if mark not in self._met:
            if len(self._met) >= 4 * self._entries:
                self._met.clear()
            self._met.add(mark)
        elif len(raw) <= self._size:
            if len(kept) >= self._entries:
                del kept[next(iter(kept))]
            kept[raw] = block
