"""gRPC's fields: the content type, ``grpc-message`` and ``grpc-timeout`` (PROTOCOL-HTTP2.md)."""

from __future__ import annotations

import re
from math import ceil
from urllib.parse import unquote_to_bytes

__all__ = ["decode_message", "encode_message", "format_timeout", "is_grpc", "method_name", "parse_timeout"]


def is_grpc(content_type: bytes | None) -> bool:
    """Whether a content type is gRPC's: ``application/grpc``, alone or with ``+`` or ``;`` behind it (``application/grpc-web``
    is another protocol)."""
    if content_type is None or content_type[:16].lower() != b"application/grpc":
        return False
    return content_type[16:17] in (b"", b"+", b";", b" ")


_ESCAPED = re.compile(rb"[^\x20-\x24\x26-\x7e]")


def encode_message(text: str) -> bytes:
    """A text as value of ``grpc-message``: UTF-8, everything but printable ASCII percent-encoded, ``%`` too."""
    return _ESCAPED.sub(lambda found: b"%%%02X" % found[0][0], text.encode("utf-8", "replace"))


def decode_message(value: bytes) -> str:
    """The text of a ``grpc-message``. What is wrongly encoded stays as it is, as the specification demands."""
    return unquote_to_bytes(value).decode("utf-8", "replace")


_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])").fullmatch
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MOST = 99_999_999


def parse_timeout(value: bytes | None) -> float | None:
    """Seconds that a ``grpc-timeout`` gives; None where there is none, or what is there is malformed."""
    found = None if value is None else _TIMEOUT(value)
    return None if found is None else int(found[1]) * _UNITS[found[2]]


def format_timeout(seconds: float) -> bytes:
    """A ``grpc-timeout`` of at least ``seconds``, in the finest unit that eight digits allow; none below zero."""
    seconds = max(seconds, 0.0)
    for unit, size in ((b"n", 1e-9), (b"u", 1e-6), (b"m", 1e-3), (b"S", 1.0), (b"M", 60.0)):
        count = ceil(seconds / size)
        if count <= _MOST:
            return b"%d%b" % (count, unit)
    return b"%dH" % min(ceil(seconds / 3600.0), _MOST)


def method_name(path: bytes) -> str | None:
    """``package.Service/Method`` of a call's path (``/package.Service/Method``); None where it is no such path."""
    parts = path.split(b"/")
    if len(parts) != 3 or parts[0] or not parts[1] or not parts[2]:
        return None
    return path[1:].decode("latin-1")
