"""Header compression of HTTP/2 (RFC 7541): decoding with a dynamic table, encoding without one.

The decoder gives `Field` objects. They are shared: by the table, by a memory of literals, by whoever keeps a decoded block; what is
worked out about a field (is it well formed, what line of HTTP/1.1 is it) is worked out once.

The encoder puts nothing into the peer's table. A line that was encoded before is looked up, and a head is a join of such pieces: that is
faster than any table, and it keeps no state that a reset stream could spoil. What must not be put into a table further on is marked
(RFC 7541 7.1.3): credentials, cookies (`SECRET`), and what came so marked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from ..http.field_lines import REQUEST_DROPPED
from .huffman import decode as decode_huffman

__all__ = [
    "BAD", "COOKIE", "FORBIDDEN", "HOST", "PSEUDO", "REGULAR", "SECRET", "STATIC", "TABLE_SIZE", "TE", "Decoder", "Encoder", "Field",
    "HPACKError", "NeverIndexed", "encode_field", "encoded", "encoded_fields",
]  # fmt: skip

TABLE_SIZE = 4096
"""Bytes of a dynamic table before anybody says otherwise (RFC 9113 6.5.2), and what our decoder lets peers use."""

REGULAR, PSEUDO, COOKIE, HOST, TE, FORBIDDEN, BAD = range(7)
"""Kinds of fields. FORBIDDEN: for one connection of HTTP/1.1 (RFC 9113 8.2.2); BAD: malformed (8.2.1)."""

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_BAD_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$").search
_PLAIN_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?").fullmatch
_PSEUDO_NAME = re.compile(rb":[a-z]+").fullmatch
_DECISIVE = frozenset((
    b"content-type", b"kong-debug", b"x-kong-request-debug", b"x-kong-request-debug-token", b"x-kong-request-debug-log",
))  # fmt: skip
_KINDS = {
    b"cookie": COOKIE, b"host": HOST, b"te": TE, b"connection": FORBIDDEN, b"keep-alive": FORBIDDEN,
    b"proxy-connection": FORBIDDEN, b"transfer-encoding": FORBIDDEN, b"upgrade": FORBIDDEN,
}  # fmt: skip

SECRET = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"))
"""Fields that nobody may keep in a table: they go out as never indexed, however they came."""

_REMEMBERED = 4096
"""Literals a process remembers, and encoded lines; all are forgotten together."""
_LONGEST = 512
"""Bytes of the longest of them."""


class HPACKError(ValueError):
    """A block that cannot be decoded: the connection ends with COMPRESSION_ERROR (RFC 9113 4.3)."""


class NeverIndexed(bytes):
    """The name of a field that came as never indexed, where names and values go alone, without their `Field`: in trailers."""

    __slots__ = ()

    def lower(self) -> NeverIndexed:
        """Itself: names of HTTP/2 are in lower case (RFC 9113 8.2)."""
        return self


def _judge(name: bytes) -> tuple[int, bool, bool]:
    """`Field.kind`, `passes` and `decides` of one with this name and a good value."""
    if name[:1] == b":":
        return PSEUDO if _PSEUDO_NAME(name) else BAD, False, True
    kind = _KINDS.get(name, REGULAR) if _NAME(name) else BAD
    passes = kind == REGULAR and name not in REQUEST_DROPPED
    return kind, passes, name in _DECISIVE or not (passes or name == b"content-length")


_of_name = lru_cache(maxsize=512)(_judge)


class Field:
    """One field, as it came. Immutable.

    Attributes:
        name, value: bytes, as they came.
        kind: what it is, and whether it is well formed.
        never: it came as "never indexed" (RFC 7541 6.2.3).
        size: what it counts in tables and in lists (RFC 7541 4.1).
        passes: of a request's, a proxy passes it on as it is.
        decides: of a request's, where it goes or what becomes of other fields depends on it. A length is none of these.
        encoded: see `encoded`; None until it is called.
    """

    __slots__ = ("_line", "decides", "encoded", "kind", "name", "never", "passes", "size", "value")

    def __init__(self, name: bytes, value: bytes, never: bool = False) -> None:
        self.name = name
        self.value = value
        self.never = never
        self.size = 32 + len(name) + len(value)
        self.kind, self.passes, self.decides = (_of_name if len(name) <= _LONGEST else _judge)(name)
        if _PLAIN_VALUE(value) is None:
            self.passes = False
            self.decides = name != b"content-length"
            if _BAD_VALUE(value) is not None:
                self.kind = BAD
        self.encoded: bytes | None = None
        self._line: bytes | None = None

    @property
    def line(self) -> bytes:
        """The field as a line of HTTP/1.1, with its CRLF."""
        line = self._line
        if line is None:
            line = self._line = b"%b: %b\r\n" % (self.name, self.value)
        return line

    def __repr__(self) -> str:
        return f"<Field {self.name!r}: {self.value!r}>"


def _static_table() -> list[Field]:
    """RFC 7541 Appendix A; index 0 is nothing."""
    text = (
        ":authority :method=GET :method=POST :path=/ :path=/index.html :scheme=http :scheme=https :status=200 "
        ":status=204 :status=206 :status=304 :status=400 :status=404 :status=500 accept-charset "
        "accept-encoding=gzip,_deflate accept-language accept-ranges accept access-control-allow-origin age allow "
        "authorization cache-control content-disposition content-encoding content-language content-length "
        "content-location content-range content-type cookie date etag expect expires from host if-match "
        "if-modified-since if-none-match if-range if-unmodified-since last-modified link location max-forwards "
        "proxy-authenticate proxy-authorization range referer refresh retry-after server set-cookie "
        "strict-transport-security transfer-encoding user-agent vary via www-authenticate"
    )
    table = [Field(b"", b"")]
    for each in text.encode().split():
        name, _, value = each.partition(b"=")
        table.append(Field(name, value.replace(b"_", b" ")))
    return table


STATIC = _static_table()

_literals: dict[tuple[bytes, bytes, int], Field] = {}
_met: set[int] = set()
"""Literals that came once, by their hashes."""


def _literal(name: bytes, raw: bytes, coded: bool, never: bool) -> Field:
    """A field that came as a literal; ``raw``: its value, in Huffman code where ``coded``. It is remembered when it comes the second
    time: tokens and ids never do."""
    key = (name, raw, coded | never << 1)
    field = _literals.get(key)
    if field is None:
        field = Field(name, decode_huffman(raw) if coded else raw, never)
        mark = hash(key)
        if mark not in _met:
            if len(_met) >= _REMEMBERED:
                _met.clear()
            _met.add(mark)
        elif len(raw) <= _LONGEST:
            if len(_literals) >= _REMEMBERED:
                _literals.clear()
            _literals[key] = field
    return field


class Decoder:
    """Decodes the blocks of one connection's peer, all of them and in order: refused and reset streams' too.

    Args:
        limit: bytes the peer may have kept in the dynamic table (SETTINGS_HEADER_TABLE_SIZE).

    Attributes:
        changes: grows whenever the table changes. Between two changes equal blocks have equal fields.
    """

    __slots__ = ("_held", "_limit", "_room", "_table", "changes")

    def __init__(self, limit: int = TABLE_SIZE) -> None:
        self._table: list[Field] = []  # the newest last: index 62 is table[-1]
        self._held = 0
        self._room = self._limit = limit
        self.changes = 0

    def decode(self, block: bytes) -> list[Field]:
        """The fields of a whole block.

        A block of n bytes has at most n fields, which refer to bytes that are held anyway: however large they are together, decoding takes
        no more memory than that. Whoever limits their size does so afterwards, and the table stays in step.

        Raises:
            HPACKError: it is malformed.
        """
        try:
            return self._decode(block)
        except HPACKError:
            raise
        except IndexError as error:
            raise HPACKError("an index outside the tables, or a block that breaks off") from error
        except ValueError as error:
            raise HPACKError(str(error)) from error

    def _decode(self, block: bytes) -> list[Field]:
        found: list[Field] = []
        add = found.append
        table, static = self._table, STATIC
        at, size = 0, len(block)
        while at < size:
            first = block[at]
            if first > 0x80:
                if first < 0xFF:  # as most are: an index below 127, by 128 more
                    add(static[first - 128] if first < 190 else table[189 - first])
                    at += 1
                    continue
                index, at = _integer(block, at + 1, 0x7F)
                add(table[61 - index])
                continue
            if first & 0xC0 == 0x40:
                mask = 0x3F
            elif first & 0xE0 == 0x20:
                if found:
                    raise HPACKError("a change of the table's size behind fields")
                at = self._resize(block, at)
                continue
            elif first == 0x80:
                raise HPACKError("index 0")
            else:
                mask = 0x0F
            at += 1
            index = first & mask
            if index == mask:
                index, at = _integer(block, at, mask)
            if index:
                name = (static[index] if index < 62 else table[61 - index]).name
            else:
                length = block[at] & 0x7F
                coded = block[at] > 0x7F
                at += 1
                if length == 0x7F:
                    length, at = _integer(block, at, 0x7F)
                name = block[at : at + length]
                at += length
                if coded:
                    name = decode_huffman(name)
            coded = block[at] > 0x7F
            length = block[at] & 0x7F
            at += 1
            if length == 0x7F:
                length, at = _integer(block, at, 0x7F)
            raw = block[at : at + length]
            at += length
            if at > size:
                raise HPACKError("a block that breaks off")
            field = _literal(name, raw, coded, first & 0xF0 == 0x10)
            if mask == 0x3F:
                self._insert(field)
            add(field)
        return found

    def _insert(self, field: Field) -> None:
        self.changes += 1
        if self._held + field.size > self._room:
            self._evict(field.size)
            if field.size > self._room:
                return  # RFC 7541 4.4: it empties the table, and is not in it
        self._table.append(field)
        self._held += field.size

    def _evict(self, need: int) -> None:
        """Forget the oldest until ``need`` bytes more have room, or nothing is left."""
        table = self._table
        gone = 0
        while gone < len(table) and self._held + need > self._room:
            self._held -= table[gone].size
            gone += 1
        del table[:gone]

    def _resize(self, block: bytes, at: int) -> int:
        room = block[at] & 0x1F
        at += 1
        if room == 0x1F:
            room, at = _integer(block, at, 0x1F)
        if room > self._limit:
            raise HPACKError("a table larger than was allowed")
        self.changes += 1
        self._room = room
        self._evict(0)
        return at


def _integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """The rest of an integer whose prefix is all ones (RFC 7541 5.1): (it, where it ends)."""
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 28:
            raise HPACKError("an integer that is too large")


# -- encoding --------------------------------------------------------------------------------------------------------

_WHOLE = {(each.name, each.value): bytes((0x80 | index,)) for index, each in enumerate(STATIC) if index}
_NAMED = {each.name: index for index, each in reversed(list(enumerate(STATIC))) if index}

_LENGTHS = [bytes((size,)) for size in range(0x7F)]

_encoded: dict[bytes, bytes] = {}


def _number(value: int, bits: int, first: int) -> bytes:
    mask = (1 << bits) - 1
    if value < mask:
        return bytes((first | value,))
    out = bytearray((first | mask,))
    value -= mask
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_field(name: bytes, value: bytes, never: bool = False) -> bytes:
    """One field: from the static table where it is there, else a literal that is put into no table.

    Args:
        name: in lower case.
        value: the value.
        never: nobody further on may put it into a table either; credentials and cookies are always marked so.
    """
    never = never or name in SECRET
    if not never:
        whole = _WHOLE.get((name, value))
        if whole is not None:
            return whole
    kind = 0x10 if never else 0
    size = len(value)
    start = (_start_of if len(name) <= _LONGEST else _begin)(name, kind)
    return start + (_LENGTHS[size] if size < 0x7F else _number(size, 7, 0)) + value


def _begin(name: bytes, kind: int) -> bytes:
    """The beginning of a literal, as far as its value."""
    index = _NAMED.get(name)
    return bytes((kind,)) + _number(len(name), 7, 0) + name if index is None else _number(index, 4, kind)


_start_of = lru_cache(maxsize=512)(_begin)


def encoded_fields(fields: Iterable[Field]) -> bytes:
    """Fields as they came, encoded again; each is encoded once."""
    return b"".join([field.encoded or encoded(field) for field in fields])


def encoded(field: Field) -> bytes:
    """A field as it came, encoded again; it is kept in ``field.encoded``."""
    made = field.encoded = encode_field(field.name, field.value, field.never)
    return made


class Encoder:
    """Encodes blocks for one connection's peer."""

    __slots__ = ("_prefix", "_room")

    def __init__(self) -> None:
        self._room = TABLE_SIZE
        self._prefix = b""

    def limit(self, size: int) -> None:
        """The peer keeps a table of ``size`` bytes at most (SETTINGS_HEADER_TABLE_SIZE). Ours is empty; that is said once, where
        the peer wants to hear it (RFC 7541 4.2)."""
        if size < self._room:
            self._room = 0
            self._prefix = b"\x20"

    def whole(self, block: bytes) -> bytes:
        """A whole block that is encoded already."""
        if self._prefix:
            block, self._prefix = self._prefix + block, b""
        return block

    def block(self, start: bytes, lines: Iterable[bytes], never: frozenset[bytes] = frozenset()) -> bytes:
        """A whole block.

        Args:
            start: fields encoded already: the pseudo-header fields.
            lines: ``Name: value`` each, without CRLF, well formed.
            never: names, in lower case, of fields that came as never indexed.
        """
        known = _encoded.get
        pieces = [self._prefix, start]
        self._prefix = b""
        for line in lines:
            piece = known(line)
            if piece is None or never:
                piece = _line(line, never)
            pieces.append(piece)
        return b"".join(pieces)

    def trailers(self, pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
        """A block of trailers: (name, value) each, well formed; a name is a `NeverIndexed` where its field came so."""
        known = _encoded.get
        pieces = [self._prefix]
        self._prefix = b""
        for pair in pairs:
            line = b"%b: %b" % pair
            name = pair[0]
            if name.__class__ is NeverIndexed:
                piece: bytes | None = encode_field(name, pair[1], True)
            else:
                piece = known(line)
            pieces.append(_line(line) if piece is None else piece)
        return b"".join(pieces)


def _line(line: bytes, never: frozenset[bytes] = frozenset()) -> bytes:
    spelled, _, value = line.partition(b":")
    value = value.strip(b" \t")
    if spelled in _DIFFERENT and len(value) < 0x7F:
        return _DIFFERENT[spelled] + bytes((len(value),)) + value
    name = spelled.lower()
    if _KINDS.get(name) == FORBIDDEN:
        return b""
    marked = name in never
    piece = encode_field(name, value, marked)
    if not marked and len(line) <= _LONGEST and name not in SECRET and not (name in _TIMES and len(value) > 2):
        if len(_encoded) >= _REMEMBERED:
            _encoded.clear()
        _encoded[line] = piece
    return piece


_DIFFERENT = {b"X-Kong-Request-Id": b"\0\x11x-kong-request-id"}
"""Fields that are never the same, with their beginnings: they would push the others out of memory."""

_TIMES = frozenset((b"x-kong-upstream-latency", b"x-kong-proxy-latency"))
"""Fields with a number of milliseconds: small numbers come again, large ones rarely."""
