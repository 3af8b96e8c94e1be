"""Base64 as credentials come in it: padded or not, and nothing else beside its alphabet (RFC 4648 4 and 5; nginx's decoder)."""

from __future__ import annotations

import re
from binascii import Error, a2b_base64

__all__ = ["decode_base64", "decode_base64url"]

_PLAIN = re.compile(rb"[A-Za-z0-9+/]*={0,2}\Z").match
_URL = re.compile(rb"[A-Za-z0-9_-]*={0,2}\Z").match
_TO_PLAIN = bytes.maketrans(b"-_", b"+/")


def decode_base64(text: bytes) -> bytes | None:
    """What base64 stands for; None for what is none."""
    return None if _PLAIN(text) is None else _decoded(text)


def decode_base64url(text: bytes) -> bytes | None:
    """What base64url stands for; None for what is none."""
    return None if _URL(text) is None else _decoded(text.translate(_TO_PLAIN))


def _decoded(text: bytes) -> bytes | None:
    try:
        return a2b_base64(text + b"==")  # more padding than is needed does no harm
    except Error:  # one character is left over
        return None
