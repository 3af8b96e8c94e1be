"""What basic-auth and hmac-auth share: a consumer's names, each with a secret; a client gives the name, and shows that it knows
the secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.chain.credentials import Credentials
from ..core.chain.plugin import Plugin
from ..entities.entity import Entity
from ..entities.schema import Foreign, String, Timestamp, Uuid
from ..entities.typedefs import tags

__all__ = ["NamedCredentials", "named_credentials"]


def named_credentials(
    table: str, plugin: str, *, owner: str, named: str, secret: Mapping[str, String], **more: Any
) -> Entity:
    """The entity of such credentials.

    Args:
        table: its name.
        plugin: the plugin's name, also in the paths of the Admin API.
        owner: text of the field ``consumer``.
        named: text of the field ``username``.
        secret: the field beside the name.
        more: what else an `Entity` is given.
    """
    return Entity(
        table,
        {
            "id": Uuid(),
            "created_at": Timestamp(),
            "consumer": Foreign("consumers", on_delete="cascade", required=True, text=owner),
            "username": String(required=True, unique=True, text=named),
            **secret,
            "tags": tags(),
        },
        endpoint_key="username",
        cache_key=("username",),
        admin_name=f"{plugin}s",
        nested_name=plugin,
        plugin=plugin,
        **more,
    )


class NamedCredentials(Plugin):
    """A plugin that finds such credentials, and remembers whose they are; its ``entities`` are these alone."""

    authenticates = True
    scopes = ("service", "route")

    def __init__(self) -> None:
        (entity,) = self.entities
        self._credentials = Credentials(entity, "username", lambda row: row["username"])
