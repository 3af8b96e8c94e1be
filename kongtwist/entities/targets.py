"""Targets of upstreams (Kong 3.9)."""

from __future__ import annotations

from . import typedefs as rule
from .addresses import parse_address
from .entity import Entity
from .schema import Foreign, Integer, Number, String, Uuid

__all__ = ["TARGETS", "target_with_port"]

_BAD_TARGET = "not a valid hostname or ip address"


def target_with_port(value: str) -> str:
    """A target as it is stored: with its port, 8000 by default, IPv6 written out in brackets.

    Raises:
        ValueError: not a name or an address; the message is Kong's.
    """
    try:
        return parse_address(value).with_port(8000)
    except ValueError:
        raise ValueError(f"Invalid target; {_BAD_TARGET}") from None


def _target(value: str) -> str | None:
    """A host name or address, with a port or not."""
    try:
        parse_address(value)
    except ValueError:
        return (
            f"Invalid target; {_BAD_TARGET}" if rule.utf8_error(value) else f"Invalid target ('{value}'); {_BAD_TARGET}"
        )
    return None


TARGETS = Entity(
    "targets",
    {
        "id": Uuid(),
        "created_at": Number(auto=True, timestamp=True, text="Epoch seconds."),
        "updated_at": Number(auto=True, timestamp=True, text="Epoch seconds."),
        "upstream": Foreign("upstreams", on_delete="cascade", required=True, text="The upstream it belongs to."),
        "target": String(required=True, checks=(_target,), text="Name or address and port (8000 by default)."),
        "weight": Integer(default=100, between=[0, 65535], text="Share of the traffic; 0: none."),
        "tags": rule.tags(),
    },
    endpoint_key="target",
    cache_key=("upstream", "target"),
    transform=lambda row, given: row | {"target": target_with_port(row["target"])},
    text="An address that takes a share of an upstream's requests.",
    example={"target": "10.0.0.7:8080", "weight": 100, "upstream": {"name": "orders.internal"}},
)
