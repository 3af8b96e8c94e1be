"""How a call ended: as its trailers say, or as an answer says that is no gRPC."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ...core.grpc.grpc_status import (
    INTERNAL,
    PERMISSION_DENIED,
    STATUS_WORDS,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    UNKNOWN,
    status_of_http,
)
from ...core.grpc.grpc_text import decode_message, encode_message
from ...core.http.head import HeaderBlock

__all__ = ["STATUS_FIELDS", "CallEnd", "end_of_refusal", "end_of_trailers", "trailers_of_head"]

Pair = tuple[bytes, bytes]

STATUS_FIELDS = frozenset((b"grpc-status", b"grpc-message", b"grpc-status-details-bin"))
"""What tells how a call ended; the rest of the trailers is the service's own."""

_HEAD_FIELDS = frozenset((
    b"content-type", b"content-length", b"date", b"server", b"via", b"connection", b"keep-alive", b"trailer", b"te",
    b"transfer-encoding", b"grpc-encoding", b"grpc-accept-encoding", b"alt-svc", b"vary",
))  # fmt: skip
"""Fields of a head that are no trailers where head and trailers are one."""

_MOST_TEXT = 1024
"""Bytes of a body of text that are taken for a message."""

_OF_UPSTREAM = {400: INTERNAL, 401: UNAUTHENTICATED, 403: PERMISSION_DENIED, 404: UNIMPLEMENTED,
                429: UNAVAILABLE, 502: UNAVAILABLE, 503: UNAVAILABLE, 504: UNAVAILABLE}  # fmt: skip
"""HTTP status of an upstream that did not answer in gRPC -> code (http-grpc-status-mapping.md)."""


class CallEnd(NamedTuple):
    """The end of a call."""

    code: int
    fields: list[Pair]  #: those of STATUS_FIELDS there are, as they stand in trailers
    metadata: list[Pair]  #: the service's own trailers

    @classmethod
    def of(cls, code: int, message: str) -> CallEnd:
        """An end that we make."""
        return cls(code, [(b"grpc-status", b"%d" % code), (b"grpc-message", encode_message(message))], [])

    @property
    def message(self) -> str:
        """The message, decoded."""
        return decode_message(self._field(b"grpc-message") or b"")

    @property
    def details(self) -> bytes | None:
        """``grpc-status-details-bin`` as it stands there: base64."""
        return self._field(b"grpc-status-details-bin")

    def _field(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.fields if key == name), None)


def end_of_trailers(trailers: Iterable[Pair]) -> CallEnd:
    """What trailers say. Without a status in them the call has failed, whatever came before (PROTOCOL-HTTP2.md)."""
    fields: list[Pair] = []
    metadata: list[Pair] = []
    code: int | None = None
    for name, value in trailers:
        name = name.lower()
        if name == b"grpc-status" and code is None:
            code = int(value) if value.isdigit() and len(value) < 10 else UNKNOWN
        (fields if name in STATUS_FIELDS else metadata).append((name, value))
    if code is None:
        end = CallEnd.of(UNKNOWN, "the upstream ended the call without a status")
        return end._replace(metadata=metadata)
    return CallEnd(code, fields, metadata)


def trailers_of_head(block: HeaderBlock) -> list[Pair]:
    """The trailers in a head that ends its stream (PROTOCOL-HTTP2.md, Trailers-Only)."""
    return [
        (name, value) for name, value in block.pairs if name.lower() not in _HEAD_FIELDS and not name.startswith(b":")
    ]


def end_of_refusal(status: int, ours: bool, fields: Mapping[bytes, tuple[bytes, ...]], body: bytes | None) -> CallEnd:
    """What an answer says that is no gRPC.

    Args:
        status: its HTTP status.
        ours: it was made by the gateway or a plugin, not by the upstream.
        fields: its header fields, by name in lower case.
        body: None where it is too long.
    """
    if b"grpc-status" in fields:
        return end_of_trailers((name, fields[name][0]) for name in STATUS_FIELDS if name in fields)
    if not ours:
        code = _OF_UPSTREAM.get(status, UNKNOWN)
        return CallEnd.of(code, f"the upstream answered HTTP {status}, and not in gRPC")
    code = status_of_http(status)
    kind = fields.get(b"content-type", (b"",))[0].lower()
    return CallEnd.of(code, (_told(kind, body) if body else None) or STATUS_WORDS[code])


def _told(kind: bytes, body: bytes) -> str | None:
    """What a body says in words."""
    if body[:1] == b"{":
        try:
            told = json.loads(body)
        except ValueError:
            return None
        message = told.get("message") if isinstance(told, dict) else None
        return message if isinstance(message, str) else None
    if kind.startswith(b"text/plain") and len(body) <= _MOST_TEXT:
        return body.decode("utf-8", "replace").partition("\nrequest_id: ")[0].strip()
    return None
