"""The plugins entity: its configuration is the chosen plugin's (Kong 3.9, ``kong/db/schema/entities/plugins.lua``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import typedefs as rule
from .entity import Config, Entity, Subschema
from .protocols import PROTOCOLS
from .schema import Any_, Boolean, Field, Foreign, Null, Set, String, Timestamp, Uuid

__all__ = ["KONGS_PLUGINS", "config_of", "not_enabled", "plugins_entity"]

KONGS_PLUGINS = frozenset({
    "acl", "acme", "ai-prompt-decorator", "ai-prompt-guard", "ai-prompt-template", "ai-proxy", "ai-request-transformer",
    "ai-response-transformer", "aws-lambda", "azure-functions", "basic-auth", "bot-detection", "correlation-id", "cors",
    "datadog", "file-log", "grpc-gateway", "grpc-web", "hmac-auth", "http-log", "ip-restriction", "jwt", "key-auth",
    "ldap-auth", "loggly", "oauth2", "opentelemetry", "post-function", "pre-function", "prometheus", "proxy-cache",
    "rate-limiting", "redirect", "request-size-limiting", "request-termination", "request-transformer",
    "response-ratelimiting", "response-transformer", "session", "standard-webhooks", "statsd", "syslog", "tcp-log",
    "udp-log", "zipkin",
})  # fmt: skip
"""The plugins that Kong 3.9 comes with (``kong/constants.lua``), whether they are built here or not."""


_PROTOCOLS_TEXT = "Protocols of requests it runs for."


def config_of(plugin: Any) -> Config:
    """A plugin's configuration as a record."""
    config = plugin.config
    return config if isinstance(config, Config) else Config(config)


def _subschema(plugin: Any) -> Subschema:
    config = config_of(plugin)
    fields: dict[str, Field] = {"config": config}
    for scope in ("consumer", "service", "route"):
        if scope not in plugin.scopes:
            fields[scope] = Null(text=f"Always null: this plugin is never for one {scope}.")
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


def not_enabled(name: Any) -> str:
    """Kong's words for a plugin that is not among those of the property ``plugins``."""
    return f"plugin '{name}' not enabled; add it to the 'plugins' configuration property"


def plugins_entity(plugins: Mapping[str, Any]) -> Entity:
    """The entity for these plugins.

    Args:
        plugins: by name; objects with the attributes of `kongtwist.core.chain.plugin.Plugin`. If it has a method ``absence``,
            that says why a name is not in it (`kongtwist.node.plugin_loader.LoadedPlugins`).
    """
    schemas = {name: _subschema(plugin) for name, plugin in plugins.items()}
    absence: Callable[[Any], str] = getattr(plugins, "absence", not_enabled)

    def subschema(name: Any) -> Subschema:
        found = schemas.get(name) if isinstance(name, str) else None
        if found is None:
            raise ValueError(absence(name))
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
        if isinstance(field, Null):
            fields.append({name: {"type": "foreign", "reference": f"{name}s", "eq": None}})
        elif name == "protocols":
            fields.append({name: field.describe()})
    fields.append({"config": shown})
    return {"fields": fields, "entity_checks": [check.describe() for check in schema.checks if check.described]}
