"""Heads of upstreams' answers that are not as RFC 9112 has them, read as nginx reads them.

The usual head (CRLF everywhere, tokens for names, no control characters) never comes here: core/http/head.py parses it. What
is refused there is looked at once more, by the rules of nginx 1.25.3 (``ngx_http_parse_status_line``,
``ngx_http_parse_header_line``): lines may end with LF alone, values may hold any byte but NUL, CR and LF, names any but
blanks, controls and the colon, a line may lack its colon, and status lines may repeat themselves (IIS). Whoever is
behind us sees none of it: lines are passed on with CRLF, and what lines mean together is judged as for any answer.

Stricter than nginx: what has no status line is no answer (nginx passes it on as HTTP/0.9, without a head), there is no
status below 100, and lines whose names are not ASCII are left out: Python's http.client, for one, takes such a line for
the end of the head, and would miss what we say behind it about the body.
"""

from __future__ import annotations

import re

from .head import HeadError, StatusLine

__all__ = ["check_beginning", "find_end", "mended_lines", "parse_status_line"]

find_end = re.compile(rb"\n\r?\n").search
"""Finds the empty line that ends a head; the lines before it go up to the match's start, what follows begins at its end."""

_STATUS_LINE = re.compile(rb"HTTP/([1-9]\d{0,2})\.(\d{1,3}) +([1-9]\d\d)(?:(?: |\.\d* ?)([^\r\n]*))?\r?").fullmatch
_STATUS_START = re.compile(
    rb"H?|HTT?P?|HTTP/(?:[1-9]\d{0,2}(?:\.(?:\d{1,3}(?: +(?:[1-9]\d?|[1-9]\d\d(?:[ .][^\r\n]*)?\r?)?)?)?)?)?"
).fullmatch
_LINE = re.compile(rb"[^\x00-\x20\x7f:]+(?::[^\x00\r\n]*)?\r*").fullmatch
_LINE_START = re.compile(rb"\r?|[^\x00-\x20\x7f:]+(?::[^\x00\r\n]*)?\r*").fullmatch
_REPEATED = b"HTTP/"
_CONTROLS = bytes(set(range(0x20)) - {9}) + b"\x7f"


def parse_status_line(line: bytes) -> StatusLine:
    """Split a status line without its LF.

    Raises:
        HeadError: 502.
    """
    match = _STATUS_LINE(line)
    if match is None:
        raise _bad("malformed status line")
    old = match[1] == b"1" and int(match[2]) == 0
    return (0 if old else 1), int(match[3]), (match[4] or b"").translate(None, _CONTROLS)


def mended_lines(lines: bytes) -> bytes:
    """Header lines that may end with LF alone as lines that end with CRLF, those without a colon with one.

    Args:
        lines: complete lines, the last one without its end.

    Raises:
        HeadError: 502, for a line that is none.
    """
    if not lines:
        return b""
    mended = []
    for line in lines.split(b"\n"):
        if line.startswith(_REPEATED):
            continue
        if _LINE(line) is None:
            raise _bad("malformed header line")
        line = line.rstrip(b"\r")
        if line.partition(b":")[0].isascii():
            mended.append(line if b":" in line else line + b":")
    return b"\r\n".join([*mended, b""])


def check_beginning(data: bytes, checked: int) -> None:
    """Check the beginning of a head that is not complete.

    Args:
        data: all that came, with no empty line in it.
        checked: so many bytes of it were checked before.

    Raises:
        HeadError: whatever follows, it is no head.
    """
    start = data.rfind(b"\n", 0, checked) + 1
    *lines, last = data[start:].split(b"\n")
    if not start:
        if not lines:
            if _STATUS_START(last) is None:
                raise _bad("no HTTP/1")
            return
        parse_status_line(lines.pop(0))
    for line in lines:
        if not line.startswith(_REPEATED) and _LINE(line) is None:
            raise _bad("malformed header line")
    if not last.startswith(_REPEATED) and _LINE_START(last) is None:
        raise _bad("malformed header line")


def _bad(why: str) -> HeadError:
    return HeadError(502, None, f"{why} from the upstream")
