"""Certificates with their keys (Kong 3.9)."""

from __future__ import annotations

from typing import Any

from . import typedefs as rule
from .checks import AllOrNone, Custom
from .entity import Entity
from .references import is_reference
from .schema import Array, Row, String, Uuid

__all__ = ["CERTIFICATES"]


_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB...\n-----END CERTIFICATE-----\n"
_KEY = "-----BEGIN PRIVATE KEY-----\nMIIE...\n-----END PRIVATE KEY-----\n"


def _pem(text: str, check: Any, **attrs: Any) -> String:
    return String(referenceable=True, checks=(check,), text=text, **attrs)


def _matching(certificate: str, key: str, message: str) -> Custom:
    def wrong(row: Row) -> str | None:
        """The key is the certificate's."""
        if is_reference(row[certificate]) or is_reference(row[key]):
            return None
        return None if rule.key_matches(row[certificate], row[key]) else message

    return Custom((certificate, key), wrong)


def _same_type(row: Row) -> str | None:
    """Certificate and alternative certificate differ in their keys' type."""
    if is_reference(row["cert"]) or is_reference(row["cert_alt"]):
        return None
    kinds = [rule.key_kind(row[name]) for name in ("cert", "cert_alt")]
    if kinds[0] != kinds[1]:
        return None
    return (
        "certificate and alternative certificate need to have different type (e.g. RSA and ECDSA), "
        "the provided certificates were both of the same type"
    )


CERTIFICATES = Entity(
    "certificates",
    {
        "id": Uuid(),
        **rule.stamps(),
        "cert": _pem("Certificate chain, PEM.", rule.certificate, required=True),
        "key": _pem("Its private key, PEM.", rule.key, required=True, encrypted=True),
        "cert_alt": _pem("A second chain of another key type, PEM; null: none.", rule.certificate, required=False),
        "key_alt": _pem("Its private key, PEM.", rule.key, required=False, encrypted=True),
        "tags": rule.tags(),
        "snis": Array(
            String(checks=(rule.wildcard_host,)), required=False, transient=True,
            text="Server names it is for; kept as SNI entities.",
        ),
    },
    checks=[
        AllOrNone("cert_alt", "key_alt"),
        _matching("cert", "key", "certificate does not match key"),
        _matching("cert_alt", "key_alt", "alternative certificate does not match key"),
        Custom(("cert", "cert_alt"), _same_type),
    ],
    text="A certificate with its key: shown to clients for some server names, or to upstreams.",
    example={"cert": _CERTIFICATE, "key": _KEY, "snis": ["shop.example.com"]},
)  # fmt: skip
