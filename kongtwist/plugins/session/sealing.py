"""Encryption of what a session's cookies and rows hold: AES-256-GCM, its keys by HKDF-SHA256 (RFC 5869) from the secret.

Each session id has keys of its own, one for each use, so what was sealed as a row or as a cookie that outlives the browser
opens as nothing else. The head (version, flags, nonce) is authenticated with the text.
"""

from __future__ import annotations

import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from hmac import digest
from os import urandom

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["ID_SIZE", "Sealer", "base64url", "unbase64url"]

ID_SIZE = 32
"""Bytes of a session id."""

_VERSION = 1
_DEFLATED = 1  # flag
_NONCE = 12
_HEAD = 2 + _NONCE
_DEFLATE_FROM = 1024  # bytes
_SALT = b"kongtwist session"
_LARGEST = 1 << 20
"""Bytes of an opened text: who has the secret and nobody else can make one that inflates beyond."""


class Sealer:
    """Seals with the keys of one secret.

    Args:
        secret: as configured.
    """

    __slots__ = ("_key",)

    def __init__(self, secret: str) -> None:
        self._key = digest(_SALT, secret.encode("utf-8", "surrogatepass"), "sha256")  # HKDF-Extract

    def _cipher(self, use: bytes, session: bytes) -> AESGCM:
        return AESGCM(digest(self._key, use + b":" + session + b"\x01", "sha256"))  # HKDF-Expand, its first block

    def seal(self, use: bytes, session: bytes, text: bytes) -> bytes:
        """A text for this use and session id, sealed."""
        flags = 0
        if len(text) > _DEFLATE_FROM:
            smaller = zlib.compress(text)
            if len(smaller) < len(text):
                text, flags = smaller, _DEFLATED
        nonce = urandom(_NONCE)
        head = bytes((_VERSION, flags)) + nonce
        return head + self._cipher(use, session).encrypt(nonce, text, head + use)

    def open(self, use: bytes, session: bytes, sealed: bytes) -> bytes | None:
        """What was sealed for this use and session id; None if this is no such thing."""
        head = sealed[:_HEAD]
        if len(head) < _HEAD or head[0] != _VERSION:
            return None
        try:
            text = self._cipher(use, session).decrypt(head[2:], sealed[_HEAD:], head + use)
            if head[1] & _DEFLATED:
                text = zlib.decompressobj().decompress(text, _LARGEST)
        except (InvalidTag, zlib.error):
            return None
        return text


def base64url(data: bytes) -> str:
    """Base64 without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unbase64url(text: str | bytes) -> bytes | None:
    """The same back; None if it is not that."""
    raw = text.encode("ascii", "replace") if isinstance(text, str) else text
    try:
        data = urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
    except (Error, ValueError):
        return None
    return data if urlsafe_b64encode(data).rstrip(b"=") == raw else None
