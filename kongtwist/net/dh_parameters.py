"""Diffie-Hellman parameters for TLS (``ssl_dhparam``): the groups of RFC 7919 by their names, and those of files."""

from __future__ import annotations

import base64
import binascii
from functools import cache
from tempfile import NamedTemporaryFile

from OpenSSL import SSL

__all__ = ["GROUPS", "dh_parameters", "use_parameters"]

GROUPS = {"ffdhe2048": 560316, "ffdhe3072": 2625351, "ffdhe4096": 5736041, "ffdhe6144": 15705020, "ffdhe8192": 10965728}
"""Names of the groups, and the number by which each differs from the beginning of e (RFC 7919 appendix A)."""


def dh_parameters(text: str) -> bytes:
    """Parameters as PEM.

    Args:
        text: the name of a group, of a file with PEM, or PEM itself, in base64 or not.

    Raises:
        ValueError: it is none of these; the text says why.
    """
    if text in GROUPS:
        return _group(text)
    material = text.encode() if "-----BEGIN" in text else _material(text)
    try:
        use_parameters(SSL.Context(SSL.TLS_METHOD), material)
    except SSL.Error:
        raise ValueError("holds no Diffie-Hellman parameters in PEM form") from None
    return material


def use_parameters(context: SSL.Context, pem: bytes) -> None:
    """Have a context use these parameters. Raises SSL.Error where they are none."""
    with NamedTemporaryFile() as file:  # pyOpenSSL reads them from nowhere else
        file.write(pem)
        file.flush()
        context.load_tmp_dh(file.name)


def _material(text: str) -> bytes:
    try:
        with open(text, "rb") as file:
            return file.read()
    except OSError as error:
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(
                f"is none of {', '.join(GROUPS)}, and no file that can be read: {error.strerror}"
            ) from None


@cache
def _group(name: str) -> bytes:
    """A group of RFC 7919: p = 2^b - 2^(b-64) + (floor(2^(b-130) * e) + X) * 2^64 - 1, g = 2, q = (p - 1) / 2."""
    bits = int(name[5:])
    p = 2**bits - 2 ** (bits - 64) + (_e_times(bits - 130) + GROUPS[name]) * 2**64 - 1
    text = base64.b64encode(_der(0x30, _integer(p) + _integer(2))).decode()  # PKCS #3: the sequence of p and g
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN DH PARAMETERS-----", *lines, "-----END DH PARAMETERS-----", ""]).encode()


def _integer(number: int) -> bytes:
    return _der(0x02, number.to_bytes(number.bit_length() // 8 + 1))


def _der(tag: int, content: bytes) -> bytes:
    """An element of DER (X.690 8.1)."""
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, size)) + content if size < 128 else bytes((tag, 0x80 | len(length))) + length + content


def _e_times(bits: int) -> int:
    """floor(2^bits * e), e being the sum of 1 / n!."""
    guard = 64
    term = total = 1 << (bits + guard)
    number = 1
    while term:
        term //= number
        total += term
        number += 1
    return total >> guard
