"""Vaults: where secrets come from that other entities refer to (Kong 3.9). The one kind is ``env``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import typedefs as rule
from .entity import Config, Entity, Subschema
from .schema import Any_, Field, String, Uuid

__all__ = ["ENV_VAULT", "KINDS", "VAULTS", "describe_vault", "own_vault"]

KINDS: dict[str, dict[str, Field]] = {
    "env": {
        "prefix": String(
            match="^[%a_-][%a%d_-]*$", text="Put before each secret's name to make the environment variable's; null: nothing."
        ),
    },
}  # fmt: skip
"""Configuration of each kind of vault."""

_SCHEMAS = {name: Subschema({"config": Config(fields)}) for name, fields in KINDS.items()}


def _subschema(name: Any) -> Subschema:
    found = _SCHEMAS.get(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"vault '{name}' is not installed")
    return found


VAULTS = Entity(
    "vaults",
    {
        "id": Uuid(),
        "prefix": String(
            required=True, unique=True, unique_across_ws=True, not_one_of=["env"], match="^[a-z][a-z%d-]-[a-z%d]+$",
            text="Name by which references mean this vault.",
        ),
        "name": String(required=True, text="The kind of vault: env."),
        "description": String(text="What it is for, in your words; null: nothing said."),
        "config": Any_(abstract=True, text="Configuration of that kind of vault."),
        **rule.stamps(),
        "tags": rule.tags(),
    },
    endpoint_key="prefix",
    subschema_key="name",
    subschema=_subschema,
    variants=_SCHEMAS,
    text="A place secrets come from; fields that may be references name it by its prefix.",
    example={"prefix": "shop-secrets", "name": "env", "config": {"prefix": "SHOP_"}, "description": "Secrets of the shop"},
)  # fmt: skip


ENV_VAULT = "ffffffff-ffff-4fff-bfff-ffffffffffff"
"""Id of the vault ``env`` where the configuration gives it a prefix; it is never stored."""


def own_vault(kinds: Sequence[str], prefix: str) -> dict[str, Any] | None:
    """What stands in the place of the vault ``env``; no stored row can have its name.

    Args:
        kinds: the kinds that may be used (``vaults``); none: stored vaults have none either.
        prefix: of the vault (``vault_env_prefix``).

    Returns:
        the row; None where ``env`` is as it always is.
    """
    if not kinds:
        return {"id": ENV_VAULT, "prefix": "env", "name": "off", "config": {}}
    return {"id": ENV_VAULT, "prefix": "env", "name": "env", "config": {"prefix": prefix}} if prefix else None


def describe_vault(name: str) -> dict[str, Any] | None:
    """The answer of ``/schemas/vaults/{name}``; None when there is no such kind."""
    if name not in _SCHEMAS:
        return None
    return {"fields": [{"config": _SCHEMAS[name].fields["config"].describe()}], "entity_checks": []}
