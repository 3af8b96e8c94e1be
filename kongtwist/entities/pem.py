"""Certificates and keys in PEM form, read without what takes long.

OpenSSL tests the primes of a private RSA key when it reads one: 40 ms with 2048 bits, a second and more with 8192, all of it
with Python's interpreter held, so that neither a thread nor a slice helps. What matters here is told in microseconds: that
the numbers of a key belong together, and that its public half is the certificate's.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "MAX_CERTIFICATES",
    "MAX_RSA",
    "MAX_TEXT",
    "fits_together",
    "public_der",
    "read_chain",
    "read_private",
    "read_public",
]

MAX_CERTIFICATES = 100
"""Certificates in one chain."""

MAX_RSA = 16384
"""Bits of the largest RSA key that is taken (OpenSSL's own limit): work on keys grows with the cube of the length."""

MAX_TEXT = 1024 * 1024
"""Bytes of the longest text that certificates or a key are looked for in."""


def read_chain(text: str) -> list[Any]:
    """The certificates in a text, at least one.

    Raises:
        ValueError: there is no certificate, there are more than `MAX_CERTIFICATES`, or one cannot be read.
    """
    from cryptography import x509

    if text.count("-----BEGIN CERTIFICATE-----") > MAX_CERTIFICATES:
        raise ValueError(f"more than {MAX_CERTIFICATES} certificates")
    return x509.load_pem_x509_certificates(_bytes(text))


def read_private(text: str) -> Any:
    """A private key without password.

    Raises:
        ValueError, TypeError, UnsupportedAlgorithm: there is no key, or its numbers do not belong together.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(_bytes(text), None, unsafe_skip_rsa_key_validation=True)
    if isinstance(key, RSAPrivateKey):
        numbers = key.private_numbers()
        if not fits_together(numbers.public_numbers.n, numbers.public_numbers.e, numbers.d, numbers.p, numbers.q):
            raise ValueError("the numbers of the RSA key do not belong together")
    return key


def _bytes(text: str) -> bytes:
    if len(text) > MAX_TEXT:
        raise ValueError(f"longer than {MAX_TEXT} bytes")
    return text.encode("utf-8", "surrogatepass")


def fits_together(n: int, e: int, d: int, p: int, q: int) -> bool:
    """Whether these are the numbers of one RSA key (RFC 8017 3.2), but for whether ``p`` and ``q`` are prime."""
    if n.bit_length() > MAX_RSA or min(e, d, p, q) < 2 or max(e, d, p, q) > n:
        return False
    return p * q == n and e * d % (p - 1) == 1 and e * d % (q - 1) == 1


def read_public(text: str) -> Any:
    """A public key. Raises as `read_private`."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return load_pem_public_key(_bytes(text))


def public_der(key: Any) -> bytes:
    """A public key as DER (RFC 5280 SubjectPublicKeyInfo), by which keys are compared."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der
