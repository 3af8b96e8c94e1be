"""Certificate authorities (Kong 3.9)."""

from __future__ import annotations

from . import typedefs as rule
from .checks import Custom
from .entity import Entity
from .schema import String, Uuid

__all__ = ["CA_CERTIFICATES"]

_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB...\n-----END CERTIFICATE-----\n"

CA_CERTIFICATES = Entity(
    "ca_certificates",
    {
        "id": Uuid(),
        **rule.stamps(),
        "cert": String(required=True, checks=(rule.certificate,), text="One CA certificate, PEM."),
        "cert_digest": String(unique=True, text="SHA-256 of the certificate, hex; computed."),
        "tags": rule.tags(),
    },
    checks=[Custom(("cert",), rule.ca_error)],
    transform=lambda row, given: row | {"cert_digest": rule.digest(row["cert"])},
    text="A certificate authority that may vouch for upstreams or clients.",
    example={"cert": _CERTIFICATE},
)
