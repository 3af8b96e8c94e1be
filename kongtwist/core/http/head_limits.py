"""How large a request head may be, and whether the beginning of one may still become a good one.

The numbers are nginx's (``large_client_header_buffers``, ``max_headers``), and so are the answers: 414 for the request
line, 494 (which clients see as 400) for header lines. What is wrong for certain is answered at once, not when the
client has sent the rest.
"""

from __future__ import annotations

import re
from typing import Protocol

from .head import HeadError, could_be_request_line, parse_request_line

__all__ = ["HeadLimits", "check_beginning", "check_size", "largest_unchecked"]

_BARE_LF = re.compile(rb"(?<!\r)\n").search
_SHORTEST_LINE = 4  # "a:" CRLF


class HeadLimits(Protocol):
    """Bounds of a request head; `kongtwist.core.limits.Limits` has them."""

    @property
    def header_buffer_size(self) -> int: ...
    @property
    def max_headers(self) -> int: ...
    @property
    def head_size(self) -> int: ...


def largest_unchecked(limits: HeadLimits) -> int:
    """Bytes up to which a request line and its block together cannot fail `check_size`."""
    return min(limits.max_headers * _SHORTEST_LINE, limits.header_buffer_size)


def check_size(line: bytes, raw: bytes, limits: HeadLimits) -> None:
    """Check a complete head: its request line and its header block.

    Raises:
        HeadError: 414 or 494.
    """
    if len(line) > limits.header_buffer_size:
        raise HeadError(414, "URI too long", "request line too long")
    size = len(raw)
    if size > limits.max_headers * _SHORTEST_LINE and raw.count(b"\n") > limits.max_headers:
        raise HeadError.too_large("too many header lines")
    if size > limits.header_buffer_size:
        longest = max(map(len, raw.split(b"\r\n")))
        if longest > limits.header_buffer_size or size + len(line) > limits.head_size:
            raise HeadError.too_large("header lines too long")


def check_beginning(data: bytes, limits: HeadLimits) -> None:
    """Check the beginning of a head that is not complete.

    Raises:
        HeadError: whatever follows, it is no good head.
    """
    line_end = data.find(b"\r\n")
    if line_end < 0:
        if len(data) > limits.header_buffer_size:
            raise HeadError(414, "URI too long", "request line too long")
        if not could_be_request_line(data):
            raise HeadError.bad("malformed request line")
        return
    if line_end > limits.header_buffer_size:
        raise HeadError(414, "URI too long", "request line too long")
    parse_request_line(data[:line_end])
    if _BARE_LF(data) is not None:
        raise HeadError.bad("bare LF")
    last = len(data) - data.rfind(b"\r\n")
    if len(data) > limits.head_size or last > limits.header_buffer_size + 2:
        raise HeadError.too_large("header lines too long")
    if data.count(b"\n") > limits.max_headers + 1:
        raise HeadError.too_large("too many header lines")
