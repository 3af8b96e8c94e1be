"""TLS server names and their certificates (Kong 3.9)."""

from __future__ import annotations

from . import typedefs as rule
from .entity import Entity
from .schema import Foreign, String, Uuid

__all__ = ["SNIS"]

SNIS = Entity(
    "snis",
    {
        "id": Uuid(),
        "name": String(
            required=True, unique=True, unique_across_ws=True, checks=(rule.wildcard_host,), text="TLS server name."
        ),
        **rule.stamps(),
        "tags": rule.tags(),
        "certificate": Foreign("certificates", required=True, text="The certificate shown for it."),
    },
    endpoint_key="name",
    text="A TLS server name and the certificate that is shown for it.",
    example={"name": "shop.example.com", "certificate": {"id": "7fca84d6-7d37-4a74-a7b0-93e576089a41"}},
)
