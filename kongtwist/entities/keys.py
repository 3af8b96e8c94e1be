"""Keys for signing and encrypting, and the sets they are grouped in (Kong 3.9)."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import Any

from . import typedefs as rule
from .checks import AtLeastOneOf, Custom, MutuallyExclusive
from .entity import Entity
from .errors import ErrorTree
from .json_text import parse_json
from .pem import MAX_RSA, fits_together, public_der, read_private, read_public
from .references import is_reference
from .schema import Foreign, Record, Row, String, Uuid

__all__ = ["KEYS", "KEY_SETS", "MAX_JWK", "MAX_RSA", "jwk_error"]

MAX_JWK = 64 * 1024
"""Characters of the longest JSON Web Key that is looked at."""

_PUBLIC = "-----BEGIN PUBLIC KEY-----\nMIIB...\n-----END PUBLIC KEY-----\n"
_UNUSABLE = "could not load JWK, likely not a valid key"


def _loaded(read: Callable[[str], Any], text: str) -> Any:
    """A key in PEM form, or None."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return read(text)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _pem_error(pem: Mapping[str, Any]) -> ErrorTree:
    """What is wrong with a pair of keys in PEM form; what a reference stands for is not known yet."""
    public, private = pem.get("public_key"), pem.get("private_key")
    if is_reference(public) or is_reference(private):
        return None
    parts = []
    if public is not None:
        loaded = _loaded(read_public, public)
        if loaded is None:
            return "could not load public key"
        parts.append(public_der(loaded))
    if private is not None:
        loaded = _loaded(read_private, private)
        if loaded is None:
            return "could not load private key"
        parts.append(public_der(loaded.public_key()))
    return "public key does not match private key" if len(set(parts)) > 1 else None


# -- JSON Web Keys (RFC 7517, 7518, 8037) --------------------------------------------------------------------------------


def _bytes_of(jwk: Mapping[str, Any], name: str) -> bytes:
    """A member in base64url. Raises ValueError, KeyError."""
    text = jwk[name]
    if not isinstance(text, str) or not text or len(text) > MAX_RSA // 4:  # no member is longer than an RSA modulus
        raise ValueError(name)
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _number_of(jwk: Mapping[str, Any], name: str) -> int:
    return int.from_bytes(_bytes_of(jwk, name))


def _load_rsa(jwk: Mapping[str, Any]) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    n, e = _number_of(jwk, "n"), _number_of(jwk, "e")
    if n.bit_length() > MAX_RSA:
        raise ValueError("n")
    rsa.RSAPublicNumbers(e, n).public_key()
    if "d" not in jwk:
        return
    d = _number_of(jwk, "d")
    if "p" not in jwk:  # finding the primes takes seconds, and they are not needed
        if not 1 < d < n:
            raise ValueError("d")
    elif not fits_together(n, e, d, _number_of(jwk, "p"), _number_of(jwk, "q")):
        raise ValueError("p")


def _load_ec(jwk: Mapping[str, Any]) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    curves: dict[str, type[Any]] = {
        "P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1, "secp256k1": ec.SECP256K1,
    }  # fmt: skip
    public = ec.EllipticCurvePublicNumbers(_number_of(jwk, "x"), _number_of(jwk, "y"), curves[jwk["crv"]]())
    public.public_key()
    if "d" in jwk:
        ec.EllipticCurvePrivateNumbers(_number_of(jwk, "d"), public).private_key()


def _load_okp(jwk: Mapping[str, Any]) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, x448, x25519

    publics = {"Ed25519": ed25519.Ed25519PublicKey, "Ed448": ed448.Ed448PublicKey, "X25519": x25519.X25519PublicKey,
               "X448": x448.X448PublicKey}  # fmt: skip
    privates = {"Ed25519": ed25519.Ed25519PrivateKey, "Ed448": ed448.Ed448PrivateKey, "X25519": x25519.X25519PrivateKey,
                "X448": x448.X448PrivateKey}  # fmt: skip
    x = _bytes_of(jwk, "x")
    publics[jwk["crv"]].from_public_bytes(x)  # type: ignore[attr-defined]
    if "d" in jwk:
        own = privates[jwk["crv"]].from_private_bytes(_bytes_of(jwk, "d"))  # type: ignore[attr-defined]
        if own.public_key().public_bytes_raw() != x:
            raise ValueError("d")


_LOADERS = {"RSA": _load_rsa, "EC": _load_ec, "OKP": _load_okp}
_TEXTS = ("alg", "kty", "use", "x5t", "x5t#S256", "x5u")


def jwk_error(text: str, kid: str | None) -> str | None:
    """What is wrong with a JSON Web Key that a row calls ``kid``.

    Args:
        text: the key as JSON text.
        kid: the name that its own member ``kid`` must have.
    """
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        jwk = parse_json(text) if len(text) <= MAX_JWK else None
    except ValueError:
        jwk = None
    if not isinstance(jwk, dict):
        return "could not json decode jwk string"
    if jwk.get("kid") != kid:
        return "kid in jwk.kid must be equal to keys.kid"
    kind = jwk.get("kty")
    load = _LOADERS.get(kind) if isinstance(kind, str) else None
    if load is None:  # a shared secret (oct) cannot be loaded, as in Kong
        return _UNUSABLE
    try:
        load(jwk)
    except (ValueError, KeyError, TypeError, OverflowError, ZeroDivisionError, UnsupportedAlgorithm):
        return _UNUSABLE
    wrong = next((name for name in _TEXTS if name in jwk and not isinstance(jwk[name], str)), None)
    return None if wrong is None else f"jwk.{wrong}: expected a string"


def _key_error(row: Row) -> ErrorTree:
    """A JSON Web Key is one, and its kid is the row's."""
    jwk, pem = row.get("jwk"), row.get("pem")
    if isinstance(jwk, str) and not is_reference(jwk):
        return jwk_error(jwk, row.get("kid"))
    if isinstance(pem, dict) and not (pem.get("private_key") or pem.get("public_key")):
        return "need to supply a PEM formatted public and/or private key."
    return None


KEY_SETS = Entity(
    "key_sets",
    {
        "id": Uuid(),
        "name": String(required=False, unique=True, text="Unique name; null: only the id addresses it."),
        "tags": rule.tags(),
        **rule.stamps(),
    },
    endpoint_key="name",
    admin_name="key-sets",
    text="A set of keys.",
    example={"name": "partners"},
)

KEYS = Entity(
    "keys",
    {
        "id": Uuid(),
        "set": Foreign("key_sets", required=False, on_delete="cascade", text="The key set it belongs to; null: none."),
        "name": String(required=False, unique=True, text="Unique name; null: only the id addresses it."),
        "kid": String(required=True, unique=False, text="Name of the key in tokens; unique within its set."),
        "jwk": String(encrypted=True, referenceable=True, text="The key as JSON Web Key (RFC 7517), JSON text; null: see pem."),
        "pem": Record(
            {
                "private_key": String(required=False, encrypted=True, referenceable=True, text="Private key, PEM; null: none."),
                "public_key": String(required=False, referenceable=True, text="Public key, PEM; null: none."),
            },
            required=False, entity_checks=[AtLeastOneOf("private_key", "public_key")], checks=(_pem_error,),
            text="The key in PEM form; null: see jwk.",
        ),
        "tags": rule.tags(),
        **rule.stamps(),
    },
    endpoint_key="name",
    cache_key=("kid", "set"),
    checks=[
        MutuallyExclusive("jwk", "pem", told=("pem", "jwk")),
        AtLeastOneOf("jwk", "pem", told=("pem", "jwk")),
        Custom(("jwk", "pem", "kid"), _key_error, all_set=False),
    ],
    text="A key for signing or encrypting, as a JSON Web Key or in PEM form.",
    example={"name": "partner-1", "kid": "2026-01", "pem": {"public_key": _PUBLIC}, "set": {"name": "partners"}},
)  # fmt: skip
