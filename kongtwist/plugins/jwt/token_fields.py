"""Configuration and keys of the plugin jwt."""

from __future__ import annotations

from typing import Any

from ...core.chain.authentication import anonymous_field, preflight_field, realm_field
from ...core.chain.subprotocols import subprotocol_field
from ...entities.checks import Conditional
from ...entities.entity import Entity
from ...entities.pem import read_private, read_public
from ...entities.schema import Array, Boolean, Foreign, Number, Set, String, Timestamp, Uuid
from ...entities.typedefs import tags

__all__ = ["ALGORITHMS", "CHECKS", "CONFIG", "SECRETS", "public_key"]

ALGORITHMS = (
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA",
)  # fmt: skip
"""Algorithms of signatures (RFC 7518 3.1, RFC 8037 3.1)."""

_KEYED = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA")
"""Those whose key is looked at when it is written; as in Kong not those of ES*."""


def public_key(pem: str) -> Any:
    """The public key in a PEM text that holds a public or a private key.

    Raises:
        ValueError: there is none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm

    for read in (read_public, lambda text: read_private(text).public_key()):  # the private one will do, as in Kong
        try:
            return read(pem)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            continue
    raise ValueError("invalid key")


def _key_error(pem: Any) -> str | None:
    try:
        public_key(pem)
    except ValueError as error:
        return str(error)
    return None


SECRETS = Entity(
    "jwt_secrets",
    {
        "id": Uuid(),
        "created_at": Timestamp(),
        "consumer": Foreign("consumers", on_delete="cascade", required=True, text="Whose tokens these are."),
        "key": String(
            required=False, auto=True, unique=True,
            text="What the claim named in key_claim_name says; made at random when it is not given.",
        ),
        "secret": String(
            auto=True, text="Secret that tokens of HS* are signed with; made at random when it is not given."
        ),
        "rsa_public_key": String(text="Public key, PEM, of tokens of all other algorithms; null: none."),
        "algorithm": String(default="HS256", one_of=list(ALGORITHMS), text="The one algorithm that tokens may have."),
        "tags": tags(),
    },
    endpoint_key="key",
    cache_key=("key",),
    admin_name="jwts",
    nested_name="jwt",
    plugin="jwt",
    checks=(
        Conditional(
            "algorithm", String(one_of=list(_KEYED)), "rsa_public_key", String(required=True, checks=(_key_error,)),
            {
                "if_field": "algorithm", "if_match": {"match_any": {"patterns": [f"^{each}$" for each in _KEYED]}},
                "then_field": "rsa_public_key", "then_match": {"required": True},
            },
        ),
    ),
    text="A key that tokens of a consumer are signed with, for the plugin jwt.",
    example={"key": "alice-issuer", "secret": "R5hSyWv2", "consumer": {"username": "alice"}},
)  # fmt: skip
"""Keys that tokens are signed with."""


CONFIG = {
    "uri_param_names": Set(
        String(), default=["jwt"], text="Query arguments in which a token is looked for; null or empty: none."
    ),
    "cookie_names": Set(String(), default=[], text="Cookies in which a token is looked for; null or empty: none."),
    "key_claim_name": String(
        default="iss", text="The claim, or the member of the token's header, that names the key it is signed with."
    ),
    "secret_is_base64": Boolean(
        required=True, default=False, text="Secrets of HS* are base64url: what they stand for is the key."
    ),
    "claims_to_verify": Set(
        String(one_of=["exp", "nbf"]),
        text="Claims that must be there and hold: exp (not over yet), nbf (begun); null or empty: none.",
    ),
    "anonymous": anonymous_field(),
    "token_in_subprotocol": subprotocol_field(
        "token", "bearer.<token>, or kong.<name>.<token> with a name of uri_param_names"
    ),
    "run_on_preflight": preflight_field("a token"),
    "maximum_expiration": Number(
        default=0, between=[0, 31536000],
        text="Seconds that exp may lie ahead at the most; 0: any. More than 0 needs exp in claims_to_verify.",
    ),
    "header_names": Set(
        String(), default=["authorization"], text="Headers in which `Bearer TOKEN` is looked for; null or empty: none."
    ),
    "realm": realm_field(),
}  # fmt: skip
"""Fields of the configuration, in order."""

CHECKS = (
    Conditional(
        "config.maximum_expiration", Number(gt=0), "config.claims_to_verify", Array(String(), contains="exp"),
        {
            "if_field": "config.maximum_expiration", "if_match": {"gt": 0},
            "then_field": "config.claims_to_verify", "then_match": {"contains": "exp"},
        },
    ),
)  # fmt: skip
"""Rules over several fields of the configuration."""
