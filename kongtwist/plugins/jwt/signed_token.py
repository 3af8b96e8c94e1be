"""Tokens taken apart, and their signatures (RFC 7515, RFC 7518, RFC 7519). Plain functions of bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from hmac import HMAC, compare_digest
from typing import Any, NamedTuple

from ...core.http.base64_text import decode_base64url
from .token_fields import ALGORITHMS, public_key

__all__ = ["BadToken", "SignedToken", "UnusableKey", "read_token", "verifies"]


class BadToken(ValueError):
    """What came is no token that can be used; the text says why, in Kong's words."""


class UnusableKey(ValueError):
    """The stored key is none for the algorithm."""


class SignedToken(NamedTuple):
    """A token, not verified yet."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes  #: what the signature is over
    signature: bytes


def read_token(token: bytes) -> SignedToken:
    """A token in its compact form, taken apart.

    Raises:
        BadToken: ``invalid JSON``, ``invalid alg``, ``invalid claims`` or ``invalid signature``.
    """
    header_text, _, rest = token.partition(b".")
    claims_text, dot, signature_text = rest.partition(b".")
    header, claims = _header(header_text), _json(claims_text)
    if not dot:
        raise BadToken("invalid JSON")
    # A header that names extensions which must be understood is not understood here (RFC 7515 4.1.11).
    algorithm = header.get("alg") if isinstance(header, dict) else None
    if not isinstance(algorithm, str) or algorithm not in _VERIFY or "crit" in header:
        raise BadToken("invalid alg")
    if not isinstance(claims, dict):
        raise BadToken("invalid claims")
    signature = decode_base64url(signature_text)
    if signature is None:
        raise BadToken("invalid signature")
    return SignedToken(header, claims, token[: -len(signature_text) - 1], signature)


def _json(text: bytes) -> Any:
    found: Any = None
    raw = decode_base64url(text)
    if raw is None:
        raise BadToken("invalid JSON")
    try:
        given = raw.decode()
        try:
            found, end = _scan(given, 0)
        except StopIteration:  # blanks come first, or it is none
            end = -1
        return found if end == len(given) else _decode(given)
    except (ValueError, RecursionError):
        raise BadToken("invalid JSON") from None


@lru_cache(maxsize=256)
def _header(text: bytes) -> Any:
    """The header of many tokens is the same. Not to be changed."""
    return _json(text)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, no member of which may come twice: who reads the token behind us might take the other (RFC 7519 4)."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member comes twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(text)  # NaN and Infinity are no JSON


_decoder = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_number)
_decode = _decoder.decode
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # type: ignore[attr-defined]
"""`_decode` without blanks around it."""


# -- signatures ------------------------------------------------------------------------------------------------------


def verifies(token: SignedToken, key: bytes | str) -> bool:
    """Whether a token is signed with a key, by the algorithm that it names. The caller has seen that it may have that one.

    Args:
        token: see `read_token`.
        key: the secret as bytes for HS*, else a public key as PEM.

    Raises:
        UnusableKey: it is no key for that algorithm.
    """
    return _VERIFY[token.header["alg"]](token.signed, token.signature, key)


_Verify = Callable[[bytes, bytes, Any], bool]


def _hmac(algorithm: str) -> _Verify:
    name = f"sha{algorithm[2:]}"

    def verify(signed: bytes, signature: bytes, secret: bytes) -> bool:
        if not secret:
            raise UnusableKey("an empty secret")  # anybody could sign with it
        made = _keyed(secret, name).copy()
        made.update(signed)
        return compare_digest(made.digest(), signature)

    return verify


@lru_cache(maxsize=1024)
def _keyed(secret: bytes, name: str) -> HMAC:
    """An HMAC that has taken the secret in; to be copied."""
    return HMAC(secret, digestmod=name)


def _public(algorithm: str) -> _Verify:
    def verify(signed: bytes, signature: bytes, pem: str) -> bool:
        return _verifier(pem, algorithm)(signed, signature)

    return verify


_VERIFY: Mapping[str, _Verify] = {each: _hmac(each) if each.startswith("HS") else _public(each) for each in ALGORITHMS}


@lru_cache(maxsize=4096)
def _verifier(pem: str, algorithm: str) -> Callable[[bytes, bytes], bool]:
    """What verifies signatures made with a key.

    Raises:
        UnusableKey: the text holds no key, or one of another kind.
    """
    # Imported here: it is large, and only who uses such keys needs it.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    try:
        key: Any = public_key(pem)
    except ValueError as error:
        raise UnusableKey(str(error)) from None
    family, bits = algorithm[:2], algorithm[2:]
    hash_ = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}.get(bits, hashes.SHA256())
    kinds: dict[str, Any] = {
        "RS": rsa.RSAPublicKey, "PS": rsa.RSAPublicKey, "ES": ec.EllipticCurvePublicKey,
        "Ed": (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey),
    }  # fmt: skip
    if not isinstance(key, kinds[family]) or (family == "ES" and key.curve.name != _CURVES[bits]):
        raise UnusableKey(f"no key for {algorithm}")

    def ecdsa(signed: bytes, signature: bytes) -> None:
        half = (key.curve.key_size + 7) // 8
        if len(signature) != 2 * half:
            raise InvalidSignature
        pair = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
        key.verify(encode_dss_signature(*pair), signed, ec.ECDSA(hash_))

    def check(signed: bytes, signature: bytes) -> None:
        if family == "ES":
            ecdsa(signed, signature)
        elif family == "Ed":
            key.verify(signature, signed)
        elif family == "RS":
            key.verify(signature, signed, padding.PKCS1v15(), hash_)
        else:
            key.verify(signature, signed, padding.PSS(padding.MGF1(hash_), padding.PSS.AUTO), hash_)

    def verify(signed: bytes, signature: bytes) -> bool:
        try:
            check(signed, signature)
        except InvalidSignature:
            return False
        return True

    return verify


_CURVES = {"256": "secp256r1", "384": "secp384r1", "512": "secp521r1"}
