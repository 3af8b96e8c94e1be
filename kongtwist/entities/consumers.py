"""Consumers (Kong 3.9)."""

from __future__ import annotations

from . import typedefs as rule
from .checks import AtLeastOneOf
from .entity import Entity
from .schema import String, Uuid

__all__ = ["CONSUMERS"]

CONSUMERS = Entity(
    "consumers",
    {
        "id": Uuid(),
        **rule.stamps(),
        "username": String(unique=True, text="Unique name of the consumer."),
        "custom_id": String(unique=True, text="Your own id of the consumer, unique."),
        "tags": rule.tags(),
    },
    endpoint_key="username",
    checks=[AtLeastOneOf("custom_id", "username")],
    text="Somebody who uses services, known by credentials.",
    example={"username": "alice", "custom_id": "4711", "tags": ["gold"]},
)
