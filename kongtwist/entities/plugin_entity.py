"""The plugins entity: its configuration is the chosen plugin's (Kong 3.9, ``kong/db/schema/entities/plugins.lua``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import typedefs as rule
from .core_entities import PROTOCOLS, Field_eq_null
from .entity import Config, Entity, Subschema
from .schema import Any_, Boolean, Field, Foreign, Set, String, Timestamp, Uuid

__all__ = ["config_of", "plugins_entity"]


_PROTOCOLS_TEXT = "Protocols of requests it runs for."


def config_of(plugin: Any) -> Config:
    """A plugin's configuration as a record."""
    config = plugin.config
    return config if isinstance(config, Config) else Config(config)


def _subschema(plugin: Any) -> Subschema:
    config = config_of(plugin)
    fields: dict[str, Field] = {"config": config}
    for scope in ("route", "service", "consumer"):
        if scope not in plugin.scopes:
            fields[scope] = Field_eq_null(text=f"Always null: this plugin is never for one {scope}.")
    fields["protocols"] = Set(
        String(one_of=list(getattr(plugin, "protocols_allowed", None) or plugin.protocols)),
        required=True,
        default=list(plugin.protocols),
        text=_PROTOCOLS_TEXT,
    )
    return Subschema(fields, plugin.config_checks)


def _example(plugins: Mapping[str, Any]) -> dict[str, Any]:
    """A plugin as an example of all."""
    name = min(plugins, key=lambda each: (each != "rate-limiting", each), default=None)
    return {} if name is None else {"name": name, "config": dict(plugins[name].example)}


def plugins_entity(plugins: Mapping[str, Any]) -> Entity:
    """The entity for these plugins.

    Args:
        plugins: by name; objects with the attributes of `kongtwist.core.plugin.Plugin`.
    """
    schemas = {name: _subschema(plugin) for name, plugin in plugins.items()}

    def subschema(name: Any) -> Subschema:
        found = schemas.get(name) if isinstance(name, str) else None
        if found is None:
            raise ValueError(f"plugin '{name}' not enabled; add it to the 'plugins' configuration property")
        return found

    return Entity(
        "plugins",
        {
            "id": Uuid(),
            "name": String(required=True, text="The plugin."),
            "instance_name": String(unique=True, checks=(rule.utf8_name,), text="A name of your own for it, unique."),
            "created_at": Timestamp(),
            "updated_at": Timestamp(),
            "route": Foreign("routes", on_delete="cascade", default=None, text="Only for this route; null: all."),
            "service": Foreign("services", on_delete="cascade", default=None, text="Only for this service; null: all."),
            "consumer": Foreign("consumers", on_delete="cascade", default=None, text="Only for this consumer; null: all."),
            "config": Any_(abstract=True, text="The plugin's configuration."),
            "protocols": Set(
                String(one_of=PROTOCOLS), required=True, default=["grpc", "grpcs", "http", "https"],
                text=_PROTOCOLS_TEXT,
            ),
            "enabled": Boolean(required=True, default=True, text="Whether it runs."),
            "tags": rule.tags(),
        },
        endpoint_key="instance_name",
        subschema_key="name",
        subschema=subschema,
        variants=schemas,
        text="A plugin that is switched on, for all requests or for those of a service, route or consumer.",
        example=_example(plugins),
        cache_key=("name", "route", "service", "consumer"),
    )  # fmt: skip


def describe_plugin(plugin: Any) -> dict[str, Any]:
    """The answer of ``/schemas/plugins/{name}``."""
    schema = _subschema(plugin)
    config = config_of(plugin)
    shown = config.describe()
    if config.shorthands:
        shown["shorthand_fields"] = [{name: each.field.describe()} for name, each in config.shorthands.items()]
    fields: list[dict[str, Any]] = []
    for name, field in schema.fields.items():
        if isinstance(field, Field_eq_null):
            fields.append({name: {"type": "foreign", "reference": f"{name}s", "eq": None}})
        elif name == "protocols":
            fields.append({name: field.describe()})
    fields.append({"config": shown})
    return {"fields": fields, "entity_checks": [check.describe() for check in schema.checks if check.described]}
