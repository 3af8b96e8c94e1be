"""What the fields of a block mean: requests, answers, trailers (RFC 9113 8).

Heads become what HTTP/1.1 has, a start line and lines ``name: value``, so that routes, plugins and logs need to know one form only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .hpack import BAD, COOKIE, FORBIDDEN, HOST, PSEUDO, REGULAR, SECRET, TE, Field, NeverIndexed

__all__ = ["AnswerHead", "FieldList", "MalformedFields", "RequestHead"]

_REQUEST_FIELDS = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
_STATUS = re.compile(rb"[1-9]\d\d").fullmatch
_DIGITS = re.compile(rb"\d{1,18}").fullmatch


class MalformedFields(ValueError):
    """Fields that are no good message: the stream ends with PROTOCOL_ERROR (RFC 9113 8.1.1)."""


class RequestHead:
    """A request's head.

    Attributes:
        method, scheme, authority, path: its pseudo-header fields; b"" for what is not there. ``authority`` is Host where that came instead.
        protocol: of an extended CONNECT (RFC 8441), or b"".
        raw: the other fields as lines of HTTP/1.1, Host first and cookies in one line (8.2.3).
        length: Content-Length, or None.
        never: names of fields that came as never indexed, but for those that always go out so (`hpack.SECRET`).
    """

    __slots__ = ("authority", "length", "method", "never", "path", "protocol", "raw", "scheme")

    def __init__(self, fields: Sequence[Field]) -> None:
        pseudo: dict[bytes, bytes] = {}
        lines = [b""]
        cookies: list[bytes] = []
        never: list[bytes] = []
        host: bytes | None = None
        self.length: int | None = None
        for field in fields:
            kind = field.kind
            if kind == REGULAR:
                lines.append(field.line)
                if field.name == b"content-length":
                    self.length = _length(field, self.length)
            elif kind == PSEUDO:
                if len(lines) > 1 or cookies or host is not None:
                    raise MalformedFields("a pseudo-header field behind others")
                if field.name in pseudo or field.name not in _REQUEST_FIELDS:
                    raise MalformedFields(f"{field.name.decode()} twice, or none of a request's")
                pseudo[field.name] = field.value
            elif kind == COOKIE:
                cookies.append(field.value)
            elif kind == HOST:
                if host is not None:
                    raise MalformedFields("two Host fields")
                host = field.value
            else:
                _check(field)
                lines.append(field.line)
            if field.never and field.name not in SECRET:
                never.append(b":authority" if kind == HOST else field.name)
        if cookies:
            lines.append(b"cookie: %b\r\n" % b"; ".join(cookies))
        self.never = frozenset(never)
        self.method = pseudo.get(b":method", b"")
        self.scheme = pseudo.get(b":scheme", b"")
        self.path = pseudo.get(b":path", b"")
        self.protocol = pseudo.get(b":protocol", b"")
        self._check_pseudo(pseudo)
        authority = pseudo.get(b":authority")
        if authority is not None and host is not None and authority != host:
            raise MalformedFields(":authority and Host differ")
        self.authority = (authority if authority is not None else host) or b""
        if authority is not None or host is not None:
            lines[0] = b"host: %b\r\n" % self.authority
        self.raw = b"".join(lines)

    def _check_pseudo(self, pseudo: dict[bytes, bytes]) -> None:
        """What must be there (RFC 9113 8.3.1, 8.5; RFC 8441 4)."""
        if self.method == b"CONNECT" and b":protocol" not in pseudo:
            if b":scheme" in pseudo or b":path" in pseudo or not pseudo.get(b":authority"):
                raise MalformedFields("CONNECT with :scheme or :path, or without :authority")
        elif not (self.method and self.scheme and self.path):
            raise MalformedFields(":method, :scheme or :path is missing")
        elif b":protocol" in pseudo and (
            self.method != b"CONNECT" or not self.protocol or not pseudo.get(b":authority")
        ):
            raise MalformedFields(":protocol without CONNECT")


class AnswerHead:
    """An answer's head, of an interim answer too.

    Attributes:
        status: the status.
        raw: the other fields as lines of HTTP/1.1.
        length: Content-Length, or None.
        never: as a `RequestHead`'s.
    """

    __slots__ = ("length", "never", "raw", "status")

    def __init__(self, fields: Sequence[Field]) -> None:
        first = fields[0] if fields else None
        if first is None or first.name != b":status" or _STATUS(first.value) is None:
            raise MalformedFields("no :status")
        self.status = int(first.value)
        self.length: int | None = None
        lines, never = [], []
        for field in fields[1:]:
            kind = field.kind
            if kind in (PSEUDO, FORBIDDEN, BAD):
                raise MalformedFields(f"a field that an answer may not have: {field.name!r}")
            if field.name == b"content-length":
                self.length = _length(field, self.length)
            if field.never and field.name not in SECRET:
                never.append(field.name)
            lines.append(field.line)
        self.raw = b"".join(lines)
        self.never = frozenset(never)


class FieldList:
    """The fields of one block; blocks with equal bytes share one.

    Attributes:
        fields: as they came.
        size: bytes as SETTINGS_MAX_HEADER_LIST_SIZE counts them (RFC 9113 6.5.2).
        made: what the user of a connection makes of it, kept for the next time. Keep what depends on nothing else.
        direct: how a call with these fields is relayed directly (`proxy.direct_calls`), or None.
    """

    __slots__ = ("_answer", "_request", "_trailers", "direct", "fields", "made", "size")

    def __init__(self, fields: list[Field]) -> None:
        self.fields = fields
        self.size = sum([field.size for field in fields])
        self.made: Any = None
        self.direct: Any = None
        self._request: RequestHead | None = None
        self._answer: AnswerHead | None = None
        self._trailers: list[tuple[bytes, bytes]] | None = None

    @property
    def request(self) -> RequestHead:
        """As a request's head. Raises MalformedFields."""
        if self._request is None:
            self._request = RequestHead(self.fields)
        return self._request

    @property
    def decisive(self) -> tuple[Field, ...]:
        """The fields of a request on which it depends where it goes and what becomes of the others."""
        return tuple([field for field in self.fields if field.decides])

    @property
    def answer(self) -> AnswerHead:
        """As an answer's head. Raises MalformedFields."""
        if self._answer is None:
            self._answer = AnswerHead(self.fields)
        return self._answer

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        """As trailers: (name, value), without pseudo-header fields; a name is a `NeverIndexed` where its field came so.

        Raises:
            MalformedFields: they are none.
        """
        if self._trailers is None:
            for field in self.fields:
                if field.kind in (PSEUDO, FORBIDDEN, BAD):
                    raise MalformedFields(f"a field that trailers may not have: {field.name!r}")
            self._trailers = [
                (NeverIndexed(field.name) if field.never else field.name, field.value) for field in self.fields
            ]
        return self._trailers


def _check(field: Field) -> None:
    """Refuse what HTTP/2 has no place for (RFC 9113 8.2.2)."""
    if field.kind == TE and field.value.lower() == b"trailers":
        return
    raise MalformedFields(f"a field that a request may not have: {field.name!r}")


def _length(field: Field, before: int | None) -> int:
    if before is not None or _DIGITS(field.value) is None:
        raise MalformedFields("malformed Content-Length")
    return int(field.value)
