"""Connect's protocol (connectrpc.com/docs/protocol, version 1) without I/O: its content types, error codes, time-outs, what ends
a stream, and calls in a query."""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Any

from .grpc_status import NAMES

__all__ = [
    "CODES", "END_OF_STREAM", "BadCall", "connect_status", "end_of_stream", "error_object", "json_metadata", "message_of_query",
    "timeout_of", "trailer_fields",
]  # fmt: skip

Pair = tuple[bytes, bytes]

_PREFIX = Struct(">BI")

END_OF_STREAM = 2
"""Flag of the frame that ends a stream's answer."""

CODES = tuple("canceled" if name == "CANCELLED" else name.lower() for name in NAMES)
"""gRPC's code -> Connect's; the first, ``ok``, is never sent."""

_STATUSES = (200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401)


class BadCall(ValueError):
    """A request that breaks the protocol."""


def connect_status(code: int) -> int:
    """The HTTP status of a unary answer with gRPC's ``code``; 500 for unknown codes."""
    return _STATUSES[code] if 0 <= code < len(_STATUSES) else 500


def _code_name(code: int) -> str:
    return CODES[code] if 0 < code < len(CODES) else "unknown"


def error_object(code: int, message: str, details: bytes | None = None) -> dict[str, Any]:
    """An error as JSON has it.

    Args:
        code: gRPC's.
        message: for people; left out where it is empty.
        details: a ``google.rpc.Status`` as it stands in ``grpc-status-details-bin``, decoded; what cannot be read is left out.
    """
    error: dict[str, Any] = {"code": _code_name(code)}
    if message:
        error["message"] = message
    found = _details(details) if details else []
    if found:
        error["details"] = found
    return error


def end_of_stream(error: Mapping[str, Any] | None, metadata: Mapping[str, Sequence[str]]) -> bytes:
    """The frame that ends a stream: its error, or None, and the trailers."""
    body: dict[str, Any] = {}
    if error is not None:
        body["error"] = error
    if metadata:
        body["metadata"] = metadata
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    return _PREFIX.pack(END_OF_STREAM, len(text)) + text


def json_metadata(trailers: Iterable[Pair]) -> dict[str, list[str]]:
    """Trailers as a stream's end has them."""
    out: dict[str, list[str]] = {}
    for name, value in trailers:
        out.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return out


def trailer_fields(trailers: Iterable[Pair]) -> list[Pair]:
    """Trailers as a unary answer has them: among its headers, ``trailer-`` before each name."""
    return [(b"trailer-" + name.lower(), value) for name, value in trailers]


_MILLISECONDS = re.compile(rb"\d{1,10}").fullmatch


def timeout_of(value: bytes) -> float:
    """Seconds that ``connect-timeout-ms`` gives.

    Raises:
        BadCall: it is no number of at most ten digits.
    """
    if _MILLISECONDS(value) is None:
        raise BadCall(f"invalid timeout {value.decode('latin-1')!r}: expected at most ten digits")
    return int(value) / 1000


def message_of_query(query: Mapping[str, Sequence[str]]) -> tuple[str, str, bytes]:
    """A call that came as GET.

    Args:
        query: decoded arguments: name to values.

    Returns:
        encoding (``proto``, ``json``...), compression (``identity`` where none is named), the message as it was sent.

    Raises:
        BadCall: what a call must say is missing, or wrong.
    """
    for name in ("message", "encoding"):
        if name not in query:
            raise BadCall(f"missing {name} parameter")
    message = query["message"][0]
    if query.get("base64", ("",))[0] == "1":
        try:
            data = urlsafe_b64decode(message + "=" * (-len(message) % 4))
        except (binascii.Error, ValueError) as error:
            raise BadCall("message parameter is no base64") from error
    else:
        data = message.encode("utf-8", "surrogateescape")
    return query["encoding"][0], query.get("compression", ("identity",))[0] or "identity", data


# -- google.rpc.Status ---------------------------------------------------------------------------------------------------


def _details(status: bytes) -> list[dict[str, str]]:
    """Its details, which are messages of type ``google.protobuf.Any``, as Connect has them; none where it cannot be read."""
    out = []
    try:
        for number, value in _fields(status):
            if number == 3 and isinstance(value, bytes):
                found = {key: text for key, text in _fields(value) if isinstance(text, bytes)}
                name = found.get(1, b"").decode().rpartition("/")[2]
                out.append({"type": name, "value": b64encode(found.get(2, b"")).rstrip(b"=").decode()})
    except (IndexError, ValueError):
        return []
    return out


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a message (protobuf.dev/programming-guides/encoding): numbers with varints or bytes; others are skipped.

    Raises:
        ValueError, IndexError: it is none.
    """
    out: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            number, at = _varint(data, at)
            out.append((key >> 3, number))
        elif kind == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field longer than its message")
            out.append((key >> 3, data[at : at + size]))
            at += size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
    return out


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")
