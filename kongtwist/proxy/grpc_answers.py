"""Answers of our own in gRPC's words: status and message in a head that ends the stream (PROTOCOL-HTTP2.md, Trailers-Only).

As in Kong 3.9 (PDK response) the HTTP status stays: clients of gRPC look at ``grpc-status`` as the content type is gRPC's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..core.answers import Answer
from ..core.grpc.grpc_status import RESOURCE_EXHAUSTED, STATUS_WORDS, status_of_http
from ..core.grpc.grpc_text import encode_message, is_grpc
from ..core.http.head import HeadError
from ..core.http.headers import clean

if TYPE_CHECKING:
    from ..core.exchange import Exchange

__all__ = ["grpc_lines", "refusal_lines", "takes_grpc"]

_OURS = frozenset((b"content-type", b"content-length", b"transfer-encoding"))


def takes_grpc(exchange: Exchange) -> bool:
    """Whether the client reads answers as gRPC's: it asked with gRPC's content type, over HTTP/2."""
    return exchange.http_version == "2" and is_grpc(exchange.block.first(b"content-type"))


def grpc_lines(answer: Answer) -> bytes:
    """The head's lines of an answer, its body left out.

    The message is that of the error, or the member ``message`` of a JSON body; without one it is the status's name. A
    ``grpc-status`` that the answer has of its own stays.
    """
    names = {name.lower() for name, _ in answer.headers}
    parts = [b"Content-Type: application/grpc\r\n"]
    if b"grpc-status" not in names:
        code = status_of_http(answer.status)
        parts.append(b"grpc-status: %d\r\n" % code)
        if b"grpc-message" not in names:
            parts.append(b"grpc-message: %b\r\n" % encode_message(_message(answer) or STATUS_WORDS[code]))
    for name, value in answer.headers:
        if name.lower() not in _OURS:
            parts.append(b"%b: %b\r\n" % (clean(name), clean(value)))
    return b"".join(parts)


def refusal_lines(error: HeadError) -> bytes:
    """The same for a request that was refused for its head. One that is too large is told as such."""
    answer = Answer.error(error.status, error.message or (error.page and error.page.decode()) or str(error))
    if error.message == HeadError.too_large("").message:
        message = encode_message(answer.message or "")
        answer = Answer(error.status, None, [(b"grpc-status", b"%d" % RESOURCE_EXHAUSTED), (b"grpc-message", message)])
    return grpc_lines(answer)


def _message(answer: Answer) -> str | None:
    """What the answer tells in words, if it does."""
    if answer.message is not None:
        return answer.message
    if not answer.body or answer.body[:1] != b"{":
        return None
    try:
        told = json.loads(answer.body)
    except ValueError:
        return None
    message = told.get("message") if isinstance(told, dict) else None
    return message if isinstance(message, str) else None
