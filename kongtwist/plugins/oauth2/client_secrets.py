"""Secrets of OAuth 2 clients kept as hashes: PBKDF2 (RFC 8018 5.2) in the form of PHC strings, as Kong 3.9.3 stores them.

A hash takes milliseconds on purpose: who verifies one for a request does it in a thread.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error
from hashlib import pbkdf2_hmac
from hmac import compare_digest
from os import urandom

__all__ = ["hashed", "is_hash", "needs_rehash", "same", "verified"]

ITERATIONS = 10_000
LENGTH = 32  # bytes of the hash
SALT = 16  # bytes
_PREFIX = f"$pbkdf2-sha512$i={ITERATIONS},l={LENGTH}$"
_MOST_ITERATIONS = 1_000_000
_MOST_LENGTH = 512
"""A row that asks for more work than that is taken for a fault: nobody may make a thread busy for minutes."""

_PHC = re.compile(
    r"\$pbkdf2-(sha1|sha224|sha256|sha384|sha512)\$i=([0-9]{1,9}),l=([0-9]{1,4})\$([A-Za-z0-9+/]{2,128}={0,2})\$([A-Za-z0-9+/]{2,1024}={0,2})\Z"
)


def hashed(secret: str) -> str:
    """A secret as it is stored: hash, salt and how they were made."""
    salt = urandom(SALT)
    return _PREFIX + f"{_text(salt)}${_text(_derived('sha512', secret, salt, ITERATIONS, LENGTH))}"


def is_hash(text: str) -> bool:
    """Whether a text is one that `verified` can work with."""
    return _parts(text) is not None


def verified(secret: str, stored: str) -> bool:
    """Whether a secret is the one that ``stored`` was made of; False for what is no hash. Takes milliseconds."""
    parts = _parts(stored)
    if parts is None:
        return False
    digest, rounds, salt, expected = parts
    return compare_digest(_derived(digest, secret, salt, rounds, len(expected)), expected)


def needs_rehash(stored: str) -> bool:
    """Whether a hash was made in another way than today's."""
    return not stored.startswith(_PREFIX)


def same(given: str, stored: str) -> bool:
    """Whether two texts are equal; how long it takes tells nothing of where they differ."""
    return compare_digest(given.encode("utf-8", "surrogatepass"), stored.encode("utf-8", "surrogatepass"))


def _derived(digest: str, secret: str, salt: bytes, rounds: int, length: int) -> bytes:
    return pbkdf2_hmac(digest, secret.encode("utf-8", "surrogatepass"), salt, rounds, length)


def _text(data: bytes) -> str:
    return b64encode(data).rstrip(b"=").decode()


def _parts(text: str) -> tuple[str, int, bytes, bytes] | None:
    """Digest, iterations, salt and hash."""
    found = _PHC.match(text)
    if found is None:
        return None
    try:
        salt, expected = (
            b64decode(each.rstrip("=") + "=" * (-len(each.rstrip("=")) % 4)) for each in found.group(4, 5)
        )
    except (Error, ValueError):
        return None
    rounds, length = int(found[2]), int(found[3])
    if not 1 <= rounds <= _MOST_ITERATIONS or not 1 <= length <= _MOST_LENGTH or len(expected) != length:
        return None
    return found[1], rounds, salt, expected
