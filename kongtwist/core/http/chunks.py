"""Chunked bodies (RFC 9112 7.1): a scanner that finds payload and end without collecting anything.

One scanner serves a body in either direction. It can hand out payload, or, when the other side is sent chunks as well,
the bytes with their framing as they are, so that a relayed chunk costs a look at its size line and nothing else.

Upstreams are taken as nginx takes them (`ngx_http_parse_chunked`): lines may end with LF alone, anything may stand
between a size and the end of its line, trailers may be nonsense. What is passed on with its framing is put right where
it is not as RFC 9112 has it, so whoever reads it behind us reads what we read. Clients get away with blanks behind a
size: their chunks are always framed anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .field_lines import is_block

__all__ = ["FORBIDDEN_TRAILERS", "LAST_CHUNK", "ChunkScanner", "FramingError", "last_chunk"]

LAST_CHUNK = b"0\r\n\r\n"
"""The end of a chunked body without trailers."""

FORBIDDEN_TRAILERS = frozenset((
    b"transfer-encoding", b"content-length", b"host", b"connection", b"keep-alive", b"te", b"trailer", b"upgrade",
    b"authorization", b"set-cookie", b"content-encoding", b"content-type", b"content-range", b"cache-control",
    b"expect", b"max-forwards", b"proxy-authorization", b"proxy-connection", b"age", b"expires", b"date",
    b"location", b"vary", b"warning", b"retry-after", b"range", b"cookie",
))  # fmt: skip
"""Fields that must not come behind a body (RFC 9110 6.5.1); dropped."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = rb'"[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]*+"'
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;%b(?:=(?:%b|%b))?)*\r\n" % (_TOKEN, _TOKEN, _QUOTED)).match
_ODD_SIZE = rb"(?=[0-9A-Fa-f])0*+([0-9A-Fa-f]{0,15}+)"
_CLIENT_REST = rb"[\t ]*+(?:;[\t\x20-\x7e\x80-\xff]*+)?"
_UPSTREAM_REST = rb"(?:[\t ;][^\r\n]*+)?"
_CLIENT_LINE = re.compile(_ODD_SIZE + _CLIENT_REST + rb"\r\n").match
_CLIENT_START = re.compile(rb"(?:" + _ODD_SIZE + _CLIENT_REST + rb"\r?)?").fullmatch
_UPSTREAM_LINE = re.compile(_ODD_SIZE + _UPSTREAM_REST + rb"\r?\n").match
_UPSTREAM_START = re.compile(rb"(?:" + _ODD_SIZE + _UPSTREAM_REST + rb"\r?)?").fullmatch
_EMPTY_LINE = re.compile(rb"\n\r?\n").search

_SIZE, _DATA, _END, _TRAILER, _DONE = range(5)


class FramingError(ValueError):
    """A body that breaks its framing."""


def last_chunk(trailers: list[tuple[bytes, bytes]] | None) -> bytes:
    """The last chunk with its trailers."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n%b\r\n" % b"".join([b"%b: %b\r\n" % pair for pair in trailers])


class ChunkScanner:
    """Goes through one chunked body.

    Args:
        limit: bytes of a size line with its extensions, and of the trailer section.
        upstream: the body comes from an upstream.

    Attributes:
        done: the body and its trailers are complete.
        rest: what came behind the body; only when done.
        trailers: (name, value) pairs, forbidden ones left out.
    """

    __slots__ = ("_carry", "_left", "_limit", "_state", "_upstream", "done", "rest", "trailers")

    def __init__(self, limit: int = 8192, upstream: bool = False) -> None:
        self._limit = limit
        self._upstream = upstream
        self._state = _SIZE
        self._left = 0
        self._carry = b""
        self.done = False
        self.rest = b""
        self.trailers: list[tuple[bytes, bytes]] = []

    @property
    def between_chunks(self) -> bool:
        """Whether what was fed ended with a whole chunk."""
        return self._state == _SIZE and not self._carry

    def written(self) -> list[Any]:
        """Where it is, as JSON can say it; only while it is not done."""
        return [self._state, self._left, self._carry.hex()]

    def resume(self, written: Sequence[Any]) -> None:
        """Go on where another was, which has `written` it. Raises ValueError, TypeError: nobody has."""
        self._state, self._left, carry = written
        self._carry = bytes.fromhex(carry)

    def feed(self, data: bytes, payload: list[bytes] | None) -> bytes:
        """Go on with ``data``.

        Args:
            data: the bytes that came.
            payload: takes the pieces of payload; None when framed bytes are wanted.

        Returns:
            without ``payload``: the framed bytes that may be passed on now: whole lines and pieces of payload, without
            the last chunk. Else nothing.

        Raises:
            FramingError: the framing is broken; what was handed out before is good.
        """
        if self._carry:
            data = self._carry + data
            self._carry = b""
        at, size, state = 0, len(data), self._state
        passed = 0 if state == _TRAILER else size  # where what may be passed on ends
        mended: list[bytes] = []  # what may be passed on up to `taken`, where that is not as it came
        taken = 0
        while at < size:
            if state == _DATA:
                end = at + self._left
                if end > size:
                    if payload is not None:
                        payload.append(data[at:] if at else data)
                    self._left = end - size
                    break
                if payload is not None:
                    payload.append(data[at:end])
                at, state = end, _END
            elif state == _END:
                if data[at : at + 2] != b"\r\n":
                    if data[at:] == b"\r":
                        self._carry, passed = b"\r", at
                        break
                    if not self._upstream or data[at] != 10:
                        raise FramingError("no CRLF after a chunk")
                    mended += (data[taken:at], b"\r\n")
                    taken = at = at + 1
                else:
                    at += 2
                state = _SIZE
            elif state == _SIZE:
                odd = None
                match = _SIZE_LINE(data, at)
                if match is None:
                    match = odd = (_UPSTREAM_LINE if self._upstream else _CLIENT_LINE)(data, at)
                    if match is None:
                        self._partial(data[at:])
                        passed = at
                        break
                if match.end() - at > self._limit:
                    raise FramingError("chunk extensions too large")
                self._left = int(match[1] or b"0", 16)
                if self._left == 0:
                    passed, at, state = at, match.end(), _TRAILER
                    if at == size:
                        break
                else:
                    if odd is not None:
                        mended += (data[taken:at], b"%b\r\n" % odd[1])
                        taken = match.end()
                    at, state = match.end(), _DATA
            else:
                if not self._trail(data[at:]):
                    passed = min(passed, at)
                    break
                state = _DONE
                break
        self._state = state
        if payload is not None:
            return b""
        if mended:
            return b"".join((*mended, data[taken:passed]))
        return data if passed == len(data) else data[:passed]

    def _partial(self, line: bytes) -> None:
        """Keep a size line that is not complete, if it may become one."""
        if len(line) > self._limit or (_UPSTREAM_START if self._upstream else _CLIENT_START)(line) is None:
            raise FramingError("malformed chunk size")
        self._carry = line

    def _trail(self, data: bytes) -> bool:
        """Read the trailer section; whether it is complete."""
        if data[:2] == b"\r\n":
            end = 0
        elif self._upstream:
            return self._trail_of_upstream(data)
        else:
            found = data.find(b"\r\n\r\n")
            if found < 0:
                if len(data) > self._limit:
                    raise FramingError("trailers too large")
                complete = data.rfind(b"\r\n") + 2
                if complete > 1 and not is_block(data[:complete]):
                    raise FramingError("malformed trailer")
                self._carry = data
                return False
            end = found + 2
        if end:
            if end > self._limit or not is_block(data[:end]):
                raise FramingError("malformed trailer")
            self._take_trailers(data[: end - 2].split(b"\r\n"))
        self.rest = data[end + 2 :]
        self.done = True
        return True

    def _trail_of_upstream(self, data: bytes) -> bool:
        """The same where lines may end with LF alone, and be nonsense."""
        start, end = 0, 1
        if data[:1] != b"\n":
            empty = _EMPTY_LINE(data)
            start, end = (len(data), 0) if empty is None else empty.span()
            if start > self._limit:
                raise FramingError("trailers too large")
            if not end:
                self._carry = data
                return False
            self._take_trailers([line.rstrip(b"\r") for line in data[:start].split(b"\n")])
        self.rest = data[end:]
        self.done = True
        return True

    def _take_trailers(self, lines: list[bytes]) -> None:
        """Remember the trailers that may be passed on. Of an upstream's, those that are nonsense are left out: nginx does
        not look at them."""
        for line in lines:
            name, _, value = line.partition(b":")
            if name.lower() not in FORBIDDEN_TRAILERS and is_block(line + b"\r\n"):
                self.trailers.append((name, value.strip(b" \t")))
