"""Reason phrases and pages as nginx words them."""

from __future__ import annotations

__all__ = ["REASONS", "nginx_page", "reason_of"]

REASONS: dict[int, bytes] = {
    200: b"OK", 201: b"Created", 202: b"Accepted", 203: b"Non-Authoritative Information", 204: b"No Content",
    205: b"Reset Content", 206: b"Partial Content", 207: b"Multi-Status",
    300: b"Multiple Choices", 301: b"Moved Permanently", 302: b"Moved Temporarily", 303: b"See Other",
    304: b"Not Modified", 307: b"Temporary Redirect", 308: b"Permanent Redirect",
    400: b"Bad Request", 401: b"Unauthorized", 402: b"Payment Required", 403: b"Forbidden", 404: b"Not Found",
    405: b"Not Allowed", 406: b"Not Acceptable", 408: b"Request Time-out", 409: b"Conflict", 410: b"Gone",
    411: b"Length Required", 412: b"Precondition Failed", 413: b"Request Entity Too Large",
    414: b"Request-URI Too Large", 415: b"Unsupported Media Type", 416: b"Requested Range Not Satisfiable",
    421: b"Misdirected Request", 426: b"Upgrade Required", 429: b"Too Many Requests",
    500: b"Internal Server Error", 501: b"Not Implemented", 502: b"Bad Gateway",
    503: b"Service Temporarily Unavailable", 504: b"Gateway Time-out", 505: b"HTTP Version Not Supported", 507: b"Insufficient Storage",
}  # fmt: skip
"""Reason phrases of answers made here, as nginx words them."""


def reason_of(status: int) -> bytes:
    """The reason phrase of an answer made here; empty for codes nginx has no words for."""
    return REASONS.get(status, b"")


def nginx_page(status: int, text: bytes | None = None) -> bytes:
    """nginx's own page, which Kong shows where its error templates are not asked (redirects, 501, 505).

    Args:
        status: the status code.
        text: a second line, also taken into the title (``The plain HTTP request was sent to HTTPS port``).
    """
    line = b"%d %b" % (status, reason_of(status))
    title = line if text is None else b"%d %b" % (status, text)
    second = b"" if text is None else b"<center>%b</center>\r\n" % text
    return (
        b"<html>\r\n<head><title>%b</title></head>\r\n<body>\r\n<center><h1>%b</h1></center>\r\n%b</body>\r\n</html>\r\n"
        % (title, line, second)
    )
