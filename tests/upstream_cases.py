"""What upstreams send, by name: the rows of docs/upstreams.md, for tests in memory and on real sockets beside nginx."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CASES", "NOT_REPEATED", "REPEATED", "TRIES", "Case", "told"]


class Case(NamedTuple):
    """One answer.

    Attributes:
        pieces: what is sent; a piece behind the first one when the client has something of the answer.
        end: what the upstream does then: ``keep``, ``close`` or ``reset`` the connection; over TLS ``notify``, and close.
        method: of the request.
    """

    pieces: tuple[bytes, ...]
    end: str = "keep"
    method: bytes = b"GET"


def _with(
    fields: bytes, body: bytes = b"hi", end: str = "keep", line: bytes = b"HTTP/1.1 200 OK", **more: bytes
) -> Case:
    """An answer with these header lines (each with its end), and with its length where they say nothing about it."""
    if b"ength:" not in fields and b"ncoding:" not in fields:
        fields += b"Content-Length: %d\r\n" % len(body)
    return Case((line + b"\r\n" + fields + b"\r\n" + body,), end, **more)


def _chunked(body: bytes, *later: bytes, end: str = "keep", line: bytes = b"HTTP/1.1 200 OK") -> Case:
    return Case((line + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + body, *later), end)


_LENGTH = b"Content-Length: 2\r\n"
_LAST = b"0\r\n\r\n"

CASES: dict[str, Case] = {
    # the status line
    "usual": _with(b""),
    "no reason": _with(b"", line=b"HTTP/1.1 200"),
    "empty reason": _with(b"", line=b"HTTP/1.1 200 "),
    "odd reason": _with(b"", line=b"HTTP/1.1 200 \x01 \xc3\xa9\x7f"),
    "two blanks": _with(b"", line=b"HTTP/1.1  200 OK"),
    "sub-status": _with(b"", line=b"HTTP/1.1 403.14 Forbidden"),
    "version 1.0": _with(b"", line=b"HTTP/1.0 200 OK"),
    "version 2.0": _with(b"", line=b"HTTP/2.0 200 OK"),
    "status above 599": _with(b"", line=b"HTTP/1.1 999 Odd"),
    "no status line": Case((b"hi\n",), "close"),
    "ICY": Case((b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nhi",), "close"),
    "lower case": Case((b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",), "close"),
    "version without minor": Case((b"HTTP/2 200\r\nContent-Length: 2\r\n\r\nhi",), "close"),
    "two digits": Case((b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nhi",), "close"),
    "four digits": Case((b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nhi",), "close"),
    "status below 100": _with(b"", line=b"HTTP/1.1 099 Odd", end="close"),
    # header lines
    "LF head": Case((b"HTTP/1.1 200 OK\nX-A: 1\nContent-Length: 2\n\nhi",)),
    "LF head, body with an empty line": Case((b"HTTP/1.1 200 OK\nContent-Length: 6\n\nh\r\n\r\ni",)),
    "mixed ends of lines": Case((b"HTTP/1.1 200 OK\r\nX-A: 1\nContent-Length: 2\r\n\nhi",)),
    "LF status line": Case((b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nhi",)),
    "CR CR LF": _with(b"X-A: 1\r\r\nContent-Length: 2\r\n"),
    "folded line": _with(b"X-A: 1\r\n 2\r\n"),
    "first line folded": _with(b" X-A: 1\r\n"),
    "blank in a name": _with(b"Secured By: x\r\n"),
    "blank before the colon": _with(b"X-A : 1\r\n"),
    "tab in a name": _with(b"X\tA: 1\r\n"),
    "no name": _with(b": 1\r\n"),
    "control character in a name": _with(b"X\x01A: 1\r\n"),
    "odd name": _with(b'X(A)@"[]": 1\r\n'),
    "name that is no ASCII": _with(b"X-\xc3\xa9: 1\r\n"),
    "no colon": _with(b"garbage\r\n"),
    "control character in a value": _with(b"X-A: a\x01b\x7f\x0b\r\n"),
    "NUL in a value": _with(b"X-A: a\0b\r\n"),
    "CR in a value": _with(b"X-A: a\rb\r\n"),
    "status line twice": _with(b"HTTP/1.1 200 OK\r\n"),
    "long line": _with(b"X-A: %b\r\n" % (b"a" * 20000)),
    "head too large": _with(b"X-A: %b\r\n" % (b"a" * 40000)),
    # how long the body is
    "length with zeros": _with(b"Content-Length: 0002\r\n"),
    "two equal lengths": _with(_LENGTH + _LENGTH, end="close"),
    "two lengths": _with(_LENGTH + b"Content-Length: 3\r\n", end="close"),
    "length of letters": _with(b"Content-Length: 2x\r\n", end="close"),
    "negative length": _with(b"Content-Length: -2\r\n", end="close"),
    "length with a plus": _with(b"Content-Length: +2\r\n", end="close"),
    "list of lengths": _with(b"Content-Length: 2, 2\r\n", end="close"),
    "empty length": _with(b"Content-Length:\r\n", end="close"),
    "huge length": _with(b"Content-Length: 99999999999999999999\r\n", end="close"),
    "length and chunked": _with(_LENGTH + b"Transfer-Encoding: chunked\r\n", b"2\r\nhi\r\n" + _LAST, "close"),
    "chunked and length": _with(b"Transfer-Encoding: chunked\r\n" + _LENGTH, b"2\r\nhi\r\n" + _LAST, "close"),
    "unknown coding": _with(b"Transfer-Encoding: gzip\r\n", end="close"),
    "identity": _with(b"Transfer-Encoding: identity\r\n", end="close"),
    "list of codings": _with(b"Transfer-Encoding: gzip, chunked\r\n", b"2\r\nhi\r\n" + _LAST, "close"),
    "two codings": _with(b"Transfer-Encoding: chunked\r\n" * 2, b"2\r\nhi\r\n" + _LAST, "close"),
    "coding in capitals": _with(b"Transfer-Encoding: CHUNKED\r\n", b"2\r\nhi\r\n" + _LAST),
    "chunked in 1.0": _chunked(b"2\r\nhi\r\n" + _LAST, line=b"HTTP/1.0 200 OK", end="close"),
    "no length": Case((b"HTTP/1.1 200 OK\r\n\r\nh", b"i"), "close"),
    "no length, reset": Case((b"HTTP/1.1 200 OK\r\n\r\nh", b"i"), "reset"),
    "less than its length": _with(b"Content-Length: 3\r\n", end="close"),
    "more than its length": _with(_LENGTH, b"hi there"),
    "204 with a body": _with(_LENGTH, line=b"HTTP/1.1 204 No Content"),
    "304 with a length": _with(_LENGTH, b"", line=b"HTTP/1.1 304 Not Modified"),
    "HEAD with a body": _with(_LENGTH, method=b"HEAD"),
    "HEAD, chunked": _with(b"Transfer-Encoding: chunked\r\n", b"", method=b"HEAD"),
    # chunks
    "blanks behind a size": _chunked(b"2  \r\nhi\r\n0 \r\n\r\n"),
    "tab behind a size": _chunked(b"2\t\r\nhi\r\n0\t\r\n\r\n"),
    "extension": _chunked(b"2;a=b\r\nhi\r\n0;c\r\n\r\n"),
    "blank before an extension": _chunked(b"2 ; a = b\r\nhi\r\n" + _LAST),
    "anything behind a size": _chunked(b"2 \x01;\x7f=\r\nhi\r\n" + _LAST),
    "LF in chunks": _chunked(b"2\nhi\n0\n\n"),
    "size in capitals": _chunked(b"A\r\nhi there, \r\n" + _LAST),
    "size with zeros": _chunked(b"0000000000000000000002\r\nhi\r\n0000\r\n\r\n"),
    "huge size": _chunked(b"2\r\nhi\r\n", b"FFFFFFFFFFFFFFFFF\r\n", end="close"),
    "size of letters": _chunked(b"zz\r\nhi\r\n" + _LAST, end="close"),
    "size of letters, later": _chunked(b"2\r\nhi\r\n", b"zz\r\nhi\r\n" + _LAST, end="close"),
    "blank before a size": _chunked(b"2\r\nhi\r\n", b" 2\r\nhi\r\n" + _LAST, end="close"),
    "no end of line behind a chunk": _chunked(b"2\r\nhi\r\n", b"2\r\nhi0\r\n\r\n", end="close"),
    "no last chunk": _chunked(b"2\r\nhi\r\n", end="close"),
    "chunk cut short": _chunked(b"2\r\nhi\r\n", b"5\r\nhi", end="close"),
    "trailers": _chunked(b"2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n"),
    "nonsense for trailers": _chunked(b"2\r\nhi\r\n0\r\nX T\r\n: 1\r\n x\0\r\n\r\n"),
    "more behind the last chunk": _chunked(b"2\r\nhi\r\n" + _LAST + b"more"),
    # informational answers
    "100 first": _with(b"", line=b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", end="close"),
    "103 first": _with(b"", line=b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK", end="close"),
    "102 without end": Case((b"HTTP/1.1 102 Processing\r\n\r\n" * 100,), "close"),
    "101 unasked": Case((b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",), "close"),
}

TRIES: dict[str, Case] = {
    "closed": Case((), "close"),
    "reset": Case((), "reset"),
    "silent": Case((), "keep"),
    "closed within the head": Case((b"HTTP/1.1 2",), "close"),
    "silent within the head": Case((b"HTTP/1.1 2",), "keep"),
    "closed behind a 100": Case((b"HTTP/1.1 100 Continue\r\n\r\n",), "close"),
    "no HTTP": Case((b"SSH-2.0-OpenSSH_9.2\r\n",), "close"),
    "bad head": Case((b"HTTP/1.1 200 OK\r\nSecured By: x\r\nContent-Length: 2\r\n\r\nhi",), "close"),
    "bad chunk": Case((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",), "close"),
    "head too large": Case((b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 40000,), "keep"),
    "cut within the body": Case((b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",), "close"),
    "an answer of 503": _with(b"Connection: close\r\n", line=b"HTTP/1.1 503 Busy", end="close"),
}
"""What may be tried again, or not."""

REPEATED = (b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS")
NOT_REPEATED = (b"POST", b"PATCH", b"LOCK")


def told(received: bytes, ended: bool, method: bytes = b"GET") -> str:
    """What a client was told, in the words of the table: status, body, and ``cut`` where the end of the body is missing.

    Args:
        received: all the client got.
        ended: the connection has ended.
        method: what it asked with.
    """
    head, _, body = received.partition(b"\r\n\r\n")
    while head[9:10] == b"1" and head[9:12] != b"101":  # informational
        head, _, body = body.partition(b"\r\n\r\n")
    if b"\r\nVia: 1.1 kong" not in head and b"\r\nServer: nginx" not in head:
        return "its bytes as they are, without a head" if received else "nothing"
    status = head[9:12].decode()
    fields = head.lower()
    if status in ("204", "304") or method == b"HEAD":
        return status
    if status in ("502", "504"):
        return status
    complete = ended
    if b"\r\ntransfer-encoding: chunked" in fields:
        payload, size = b"", -1
        while size and body:
            line, _, rest = body.partition(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            payload, body = payload + rest[:size], rest[size + 2 :]
        complete, body = size == 0, payload
    elif b"\r\ncontent-length: " in fields:
        length = int(fields.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        complete = len(body) == length
    text = body.decode("latin-1").replace("\r\n", " ")
    return f"{status} `{text}`" + ("" if complete else ", cut")
