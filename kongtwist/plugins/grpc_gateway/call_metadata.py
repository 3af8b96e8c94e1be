"""Headers of requests as metadata of calls, and metadata as headers of answers (gRPC over HTTP2, PROTOCOL-HTTP2.md)."""

from __future__ import annotations

import re
from binascii import Error as BadBase64
from binascii import a2b_base64, b2a_base64
from typing import TYPE_CHECKING

from ...core.chain.host_grpc import Metadata

if TYPE_CHECKING:
    from ...core.exchange import Exchange

__all__ = ["headers_of", "metadata_of"]

_NOT_SENT = frozenset((
    b"accept", b"accept-encoding", b"connection", b"content-encoding", b"content-length", b"content-type", b"expect", b"host",
    b"http2-settings", b"keep-alive", b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
    b"upgrade", b"user-agent",
))  # fmt: skip
"""Fields that are about this connection, or about the form of this request and its answer. ``user-agent`` is the library's."""
_NOT_SENT_BEGINNINGS = (b"grpc-", b"sec-websocket-", b":")
_NOT_SHOWN = frozenset((
    "connection", "content-encoding", "content-length", "content-type", "date", "keep-alive", "server", "te", "trailer",
    "transfer-encoding", "upgrade",
))  # fmt: skip
_NAME = re.compile(rb"[0-9a-z_.\-]+").fullmatch
_VALUE = re.compile(rb"[\x20-\x7e]*").fullmatch


def metadata_of(exchange: Exchange) -> Metadata:
    """What goes with a call: the request's headers with what plugins have changed, and where it came from. A header that no metadata
    can hold is left out."""
    fields = exchange.request_fields()
    for line in exchange.forwarded().split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            fields[name.lower()] = (value.strip(),)
    fields[b"x-kong-request-id"] = (exchange.request_id,)
    named = {name.strip().lower() for name in b",".join(fields.get(b"connection", ())).split(b",")}
    found: list[tuple[str, str | bytes]] = []
    for name, values in fields.items():
        if name in _NOT_SENT or name in named or name.startswith(_NOT_SENT_BEGINNINGS) or _NAME(name) is None:
            continue
        for value in values:
            if name.endswith(b"-bin"):
                found.extend((name.decode(), part) for part in _binary(value))
            elif _VALUE(value) is not None:
                found.append((name.decode(), value.decode().strip()))
    return found


def _binary(value: bytes) -> list[bytes]:
    """Values of a header that ends in ``-bin``: base64, with or without padding, several divided by commas."""
    found = []
    for part in value.split(b","):
        text = part.strip()
        try:
            found.append(a2b_base64(text + b"=" * (-len(text) % 4)))
        except BadBase64:
            continue
    return found


def headers_of(*metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """Headers for an answer; bytes as base64."""
    found = []
    for name, value in (pair for each in metadata for pair in each):
        if name in _NOT_SHOWN or name.startswith(("grpc-", ":")):
            continue
        shown = b2a_base64(value, newline=False) if isinstance(value, bytes) else value.encode("latin-1", "replace")
        if name.endswith("-bin") and isinstance(value, str):
            continue
        if _VALUE(shown) is not None:
            found.append((name.encode("latin-1"), shown))
    return found
