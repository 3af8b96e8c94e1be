"""Heads of HTTP/1.1 messages: start lines and header blocks, parsed strictly and once.

The caller finds the end of a head (CRLF CRLF) and hands in its parts; bodies are framed in protocols/framing.py. So
llhttp (httptools), which tokenises header blocks here, never sees a start line of a peer, a body, a second message or
the end of a connection, where its ideas differ from what a gateway must do. Two gates stand in a row, and both must
accept a block: a regular expression for the syntax of RFC 9112 5 (no folding, no bare CR or LF, no control characters,
no space before a colon) and llhttp; then come the rules about single fields (RFC 9112 3.2, 6.1-6.3).

Equal bytes give equal results. `BlockCache` and the connections keep parsed blocks by their bytes, because clients and
upstreams repeat themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote_to_bytes

import httptools

__all__ = [
    "BlockCache", "HeadError", "HeaderBlock", "StatusLine", "check_path", "check_request", "could_be_request_line",
    "is_block", "parse_request_block",
    "parse_request_line", "parse_response_block", "parse_status_line",
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
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=\x80-\xff-]+)(?::\d*)?").fullmatch
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
        HeadError: 400, 405 (TRACE) or 505.
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
    if method == b"TRACE":
        raise HeadError(405, "Method not allowed", "TRACE")
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

_BLOCK = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*").fullmatch
_DIGITS = re.compile(rb"\d{1,18}").fullmatch


class HeaderBlock:
    """The header fields of one message. Do not change: blocks are shared between messages with equal bytes.

    Attributes:
        raw: the bytes, each line with its CRLF, without the empty line.
        pairs: (name as spelled, value without surrounding blanks) in order.
        keys: the names in lower case, in the same order.
        host: value of Host, or None.
        content_length: bytes announced, or None.
        chunked: Transfer-Encoding is chunked.
        close, keep_alive: Connection has these options.
        connection: other fields that Connection names, in lower case.
        upgrade_websocket: asks to become a WebSocket.
        expect_continue: waits for ``100 Continue``.
        te_trailers: TE has ``trailers``.
        cache: for what is derived from the block when it is sent on, by purpose.
    """

    __slots__ = (
        "_fields", "cache", "chunked", "close", "connection", "content_length", "expect_continue", "host", "keep_alive",
        "keys", "pairs", "raw", "te_trailers", "upgrade_websocket",
    )  # fmt: skip

    def __init__(self, raw: bytes, pairs: Sequence[Pair]) -> None:
        self.raw = raw
        self.pairs = tuple(pairs)
        self.keys = tuple([name.lower() for name, _ in pairs])
        fields: dict[bytes, list[bytes]] = {}
        for key, (_, value) in zip(self.keys, pairs, strict=True):
            if key in fields:
                fields[key].append(value)
            else:
                fields[key] = [value]
        self._fields = fields
        self.cache: dict[object, bytes] = {}
        self.host: bytes | None = None
        self.content_length: int | None = None
        self.chunked = self.upgrade_websocket = self.expect_continue = self.te_trailers = False
        options = self.tokens(b"connection")
        self.close = b"close" in options
        self.keep_alive = b"keep-alive" in options
        self.connection = frozenset(options) - _CONNECTION_OPTIONS if options else _NOTHING
        if b"upgrade" in options:
            self.upgrade_websocket = b"websocket" in self.tokens(b"upgrade")

    @classmethod
    def from_pairs(cls, pairs: Iterable[Pair]) -> HeaderBlock:
        """A request's block from fields somebody else has parsed (a Site, a test). The rules about single fields hold.

        Raises:
            HeadError: as `parse_request_block`.
        """
        fields = list(pairs)
        raw = b"".join([name + b": " + value + b"\r\n" for name, value in fields])
        block = cls(raw, fields)
        _request_rules(block)
        return block

    def first(self, name: bytes) -> bytes | None:
        """The first value of the field ``name`` (lower case), or None."""
        values = self._fields.get(name)
        return values[0] if values is not None else None

    def all(self, name: bytes) -> list[bytes]:
        """All values of the field ``name`` (lower case), in order; do not change the list."""
        return self._fields.get(name, _NO_VALUES)

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
        if values is None:
            return []
        return [token for value in values for part in value.lower().split(b",") if (token := part.strip(b" \t"))]

    def without(self, names: frozenset[bytes]) -> bytes:
        """The lines of all fields but ``names`` and those that Connection names, as spelled and in order."""
        drop = names | self.connection if self.connection else names
        return b"".join(
            [b"%b: %b\r\n" % pair for key, pair in zip(self.keys, self.pairs, strict=True) if key not in drop]
        )

    @property
    def has_body(self) -> bool:
        """Whether a request with this block has a body (RFC 9112 6.3)."""
        return self.chunked or bool(self.content_length)

    @property
    def forward(self) -> bytes:
        """The lines passed on to an upstream unchanged: without hop-by-hop fields and those a proxy writes itself."""
        lines = self.cache.get("forward")
        if lines is None:
            lines = self.cache["forward"] = self.without(REQUEST_DROPPED)
        return lines

    def keeps_alive(self, minor: int) -> bool:
        """Whether the sender lets the connection stay open after this message (RFC 9112 9.3)."""
        return not self.close and (minor > 0 or self.keep_alive)

    def __repr__(self) -> str:
        return f"<HeaderBlock {self.raw!r}>"


_NO_VALUES: list[bytes] = []
_NOTHING: frozenset[bytes] = frozenset()
_CONNECTION_OPTIONS = frozenset((b"close", b"keep-alive", b"upgrade", b"te"))

REQUEST_DROPPED = frozenset((
    b"host", b"connection", b"keep-alive", b"proxy-connection", b"proxy", b"te", b"upgrade", b"transfer-encoding",
    b"content-length", b"expect", b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host",
    b"x-forwarded-port", b"x-forwarded-path", b"x-forwarded-prefix", b"x-real-ip", b"x-kong-request-id",
))  # fmt: skip
"""Request fields never passed on as they are: hop-by-hop (RFC 9110 7.6.1) or written by core/headers.py."""


def is_block(raw: bytes) -> bool:
    """Whether these are well-formed field lines (a trailer section), each with its CRLF."""
    return _BLOCK(raw) is not None


class _Collector:
    """Takes fields from llhttp."""

    __slots__ = ("on_header",)

    def __init__(self, pairs: list[Pair]) -> None:
        def on_header(name: bytes, value: bytes) -> None:
            pairs.append((name, value.rstrip(b" \t")))

        self.on_header = on_header


def _tokenize(raw: bytes, parser: type, start: bytes) -> list[Pair]:
    """Fields of a block, as llhttp sees them behind the start line ``start``.

    Raises:
        httptools.HttpParserError: llhttp refuses it.
    """
    pairs: list[Pair] = []
    try:
        parser(_Collector(pairs)).feed_data(start + raw + b"\r\n")
    except httptools.HttpParserUpgrade:
        pass  # "Connection: upgrade": all fields are there; what follows a head is none of llhttp's business here
    return pairs


def parse_request_block(raw: bytes) -> HeaderBlock:
    """Parse the header block of a request.

    Args:
        raw: complete lines, each with its CRLF, without the empty line.

    Raises:
        HeadError: 400, or 501 for a transfer coding other than chunked.
    """
    if _BLOCK(raw) is None:
        raise HeadError.bad("malformed header line")
    try:
        pairs = _tokenize(raw, httptools.HttpRequestParser, b"POST / HTTP/1.1\r\n")
    except httptools.HttpParserError as error:
        # llhttp also judges framing fields, with one answer for all; the rules below know which answer is due.
        _request_rules(HeaderBlock(raw, [_split(line) for line in raw.split(b"\r\n")[:-1]]))
        raise HeadError.bad(str(error)) from error
    block = HeaderBlock(raw, pairs)
    _request_rules(block)
    return block


def _split(line: bytes) -> Pair:
    name, _, value = line.partition(b":")
    return name, value.strip(b" \t")


def _request_rules(block: HeaderBlock) -> None:
    """Rules about single request fields, filled into the block."""
    fields = block._fields
    hosts = fields.get(b"host")
    if hosts is not None:
        if len(hosts) > 1:
            raise HeadError.bad("two Host fields")
        if _HOST(hosts[0]) is None:
            raise HeadError.bad("malformed Host")
        block.host = hosts[0]
    _framing_rules(block, HeadError.bad, HeadError(501, None, "unknown Transfer-Encoding"))
    if b"expect" in fields:
        block.expect_continue = b"100-continue" in block.tokens(b"expect")
    if b"te" in fields:
        block.te_trailers = b"trailers" in block.tokens(b"te")


def _framing_rules(block: HeaderBlock, bad: Callable[[str], HeadError], unknown: HeadError) -> None:
    """Body framing (RFC 9112 6.1-6.3): at most one length, or chunked alone, never both."""
    fields = block._fields
    lengths = fields.get(b"content-length")
    codings = fields.get(b"transfer-encoding")
    if lengths is not None:
        if codings is not None:
            raise bad("both Content-Length and Transfer-Encoding")
        if len(lengths) > 1 or _DIGITS(lengths[0]) is None:
            raise bad("malformed Content-Length")
        block.content_length = int(lengths[0])
    elif codings is not None:
        if len(codings) > 1:
            raise bad("two Transfer-Encoding fields")
        if codings[0].lower() != b"chunked":
            raise unknown
        block.chunked = True


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


def parse_response_block(raw: bytes) -> HeaderBlock:
    """Parse the header block of an upstream's response.

    Raises:
        HeadError: 502.
    """
    if _BLOCK(raw) is None:
        raise _from_upstream("malformed header line")
    try:
        # 204: llhttp then has no opinion about a body. Framing is ours.
        pairs = _tokenize(raw, httptools.HttpResponseParser, b"HTTP/1.1 204 -\r\n")
    except httptools.HttpParserError as error:
        raise _from_upstream(str(error)) from error
    block = HeaderBlock(raw, pairs)
    _framing_rules(block, _from_upstream, _from_upstream("unknown Transfer-Encoding"))
    return block


def _from_upstream(why: str) -> HeadError:
    return HeadError(502, None, f"{why} from the upstream")


class BlockCache:
    """Parsed blocks by their bytes, bounded in number and size; the oldest goes first.

    Args:
        entries: blocks kept per direction.
        size: bytes of the largest block kept.
    """

    __slots__ = ("_entries", "_requests", "_responses", "_size")

    def __init__(self, entries: int = 1024, size: int = 2048) -> None:
        self._entries = entries
        self._size = size
        self._requests: dict[bytes, HeaderBlock] = {}
        self._responses: dict[bytes, HeaderBlock] = {}

    def request(self, raw: bytes) -> HeaderBlock:
        """`parse_request_block`, or the block it gave for equal bytes."""
        block = self._requests.get(raw)
        if block is None:
            block = parse_request_block(raw)
            self._keep(self._requests, block)
        return block

    def response(self, raw: bytes) -> HeaderBlock:
        """`parse_response_block`, or the block it gave for equal bytes."""
        block = self._responses.get(raw)
        if block is None:
            block = parse_response_block(raw)
            self._keep(self._responses, block)
        return block

    def _keep(self, kept: dict[bytes, HeaderBlock], block: HeaderBlock) -> None:
        if len(block.raw) <= self._size:
            if len(kept) >= self._entries:
                del kept[next(iter(kept))]
            kept[block.raw] = block
