"""Bodies of errors made by the gateway itself, in the form the client accepts (Kong 3.9, ``kong.response.error``)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from html import escape

__all__ = ["default_message", "error_body"]

_MESSAGES = {
    400: "Bad request",
    401: "Unauthorized",
    402: "Payment required",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    407: "Proxy authentication required",
    408: "Request timeout",
    409: "Conflict",
    410: "Gone",
    411: "Length required",
    412: "Precondition failed",
    413: "Payload too large",
    414: "URI too long",
    415: "Unsupported media type",
    416: "Range not satisfiable",
    417: "Expectation failed",
    418: "I'm a teapot",
    421: "Misdirected request",
    422: "Unprocessable entity",
    423: "Locked",
    424: "Failed dependency",
    425: "Too early",
    426: "Upgrade required",
    428: "Precondition required",
    429: "Too many requests",
    431: "Request header fields too large",
    451: "Unavailable for legal reasons",
    494: "Request header or cookie too large",
    500: "An unexpected error occurred",
    501: "Not implemented",
    502: "An invalid response was received from the upstream server",
    503: "The upstream server is currently unavailable",
    504: "The upstream server is timing out",
    505: "HTTP version not supported",
    506: "Variant also negotiates",
    507: "Insufficient storage",
    508: "Loop detected",
    510: "Not extended",
    511: "Network authentication required",
}


_NO_TEMPLATES: Mapping[str, str] = {}


def default_message(status: int) -> str:
    """What an error says when nobody gave it a text."""
    return _MESSAGES.get(status) or f"The upstream server responded with {status}"


def _json(message: str, request_id: str) -> str:
    text = json.dumps(message, ensure_ascii=False)
    return f'{{\n  "message":{text},\n  "request_id":"{request_id}"\n}}'


def _plain(message: str, request_id: str) -> str:
    return f"{message}\nrequest_id: {request_id}\n"


def _html(message: str, request_id: str) -> str:
    return (
        '<!doctype html>\n<html>\n  <head>\n    <meta charset="utf-8">\n    <title>Error</title>\n  </head>\n  <body>\n'
        f"    <h1>Error</h1>\n    <p>{escape(message, quote=False)}.</p>\n    <p>request_id: {request_id}</p>\n"
        "  </body>\n</html>\n"
    )


def _xml(message: str, request_id: str) -> str:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<error>\n  <message>{escape(message, quote=False)}</message>\n'
        f"  <requestid>{request_id}</requestid>\n</error>\n"
    )


def _empty(message: str, request_id: str) -> str:
    return ""


def _json_text(message: str) -> str:
    return json.dumps(message, ensure_ascii=False)[1:-1]


def _markup_text(message: str) -> str:
    return escape(message, quote=False)


_SIGN = re.compile("%([s%])")


def _filled(template: str, *texts: str) -> str:
    """A template with these texts in the place of its ``%s``, in order."""
    rest = iter(texts)
    return _SIGN.sub(lambda sign: "%" if sign[1] == "%" else next(rest, ""), template)


_Form = tuple[bytes, Callable[[str, str], str], str, Callable[[str], str]]
"""Content-Type, what writes it, the name of a template that takes its place, and how a message is written in that."""

_JSON: _Form = (b"application/json; charset=utf-8", _json, "json", _json_text)
_PLAIN: _Form = (b"text/plain; charset=utf-8", _plain, "plain", str)
_HTML: _Form = (b"text/html; charset=utf-8", _html, "html", _markup_text)
_XML: _Form = (b"application/xml; charset=utf-8", _xml, "xml", _markup_text)
_GRPC: _Form = (b"", _empty, "", str)

_FORMS = {
    b"application/json": _JSON,
    b"application/*": _JSON,
    b"*/*": _JSON,
    b"text/plain": _PLAIN,
    b"text/*": _PLAIN,
    b"text/html": _HTML,
    b"application/xml": _XML,
    b"application/grpc": _GRPC,
}
"""Forms by media type; all others are JSON."""


@lru_cache(maxsize=256)
def _form(accept: bytes) -> _Form:
    """The form of the media type with the highest q, of equal ones the first (RFC 9110 12.5.1, as far as Kong goes)."""
    best, highest = _JSON, 0.0
    for item in accept.split(b","):
        kind, *parameters = (part.strip().lower() for part in item.split(b";"))
        if b"/" not in kind:
            continue
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith(b"q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 1.0
        if quality > highest:
            best, highest = _FORMS.get(kind, _JSON), quality
    return best


def error_body(
    status: int,
    message: str | None,
    request_id: bytes,
    accept: bytes | None,
    content_type: bytes | None = None,
    templates: Mapping[str, str] = _NO_TEMPLATES,
) -> tuple[bytes, bytes]:
    """The body of an error.

    Args:
        status: the answer's status; gives the text where ``message`` is None.
        message: the text.
        request_id: goes into the body, so that client and log can be brought together.
        accept: the request's Accept header.
        content_type: the form where there is no Accept header: errors on the level of nginx (malformed requests, no
            or a late answer of the upstream) pass the request's Content-Type, else ``text/plain``; all others are JSON.
        templates: the operator's own forms (``error_template_json`` and its like), by name.

    Returns:
        Content-Type and body; for gRPC both are empty.
    """
    wanted = accept or content_type
    kind, write, name, written = _JSON if wanted is None else _form(wanted)
    text = default_message(status) if message is None else message
    shown_id = request_id.decode("ascii", "replace")
    template = templates.get(name)
    return kind, (write(text, shown_id) if template is None else _filled(template, written(text), shown_id)).encode()
