"""Base64 as credentials come in it: padded or not, and nothing else beside its alphabet (RFC 4648 4 and 5; nginx's decoder)."""

from __future__ import annotations

from binascii import Error, a2b_base64

__all__ = ["decode_base64", "decode_base64url"]

_TO_PLAIN = bytes.maketrans(b"-_+/", b"+/\0\0")  # NUL is in no alphabet


def decode_base64(text: bytes) -> bytes | None:
    """What base64 stands for; None for what is none."""
    return _decoded(text)


def decode_base64url(text: bytes) -> bytes | None:
    """What base64url stands for; None for what is none."""
    return _decoded(text.translate(_TO_PLAIN))


def _decoded(plain: bytes) -> bytes | None:
    digits = plain.rstrip(b"=")
    if len(plain) - len(digits) > 2:
        return None
    try:  # the padding is made as it must be: more or less of it than is needed does no harm
        return a2b_base64(digits + b"==="[: -len(digits) % 4], strict_mode=True)
    except Error:  # another byte than of the alphabet, or one character is left over
        return None
