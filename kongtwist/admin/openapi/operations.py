"""What each resource of the Admin API does with each method, for the OpenAPI document.

`operations` has one implementation per class of resource. A resource without one is a fault that a test finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any

from ...entities import Entity
from ...entities.json_schema import Schema, Use
from ..endpoints import declarative_config as config
from ..endpoints import metrics_page, service_methods, status
from ..endpoints import node_information as node
from ..endpoints import runtime as switches
from ..endpoints import target_health as targets
from ..endpoints.plugin_endpoints import PluginPath
from ..entity_rows import Parent
from ..json_resource import JSONResource
from ..row_resources import CollectionResource, ParentResource, RowResource
from .parts import ANSWERS, ERROR, FORM, JSON, MULTIPART, Components, ref

__all__ = ["Operations", "operation", "operations"]

Operations = dict[str, dict[str, Any]]
"""Operation objects by method, lower case."""

ALWAYS = ("Refused", "Unauthorized", "Forbidden", "TooSlow", "TooLarge", "LineTooLong", "HeadTooLarge", "Unavailable")
"""Answers that any request may get; some of them before its path is looked at."""

WRITES = ("ReadOnly", "Conflict", "UnknownType")


def operation(
    summary: str,
    answers: Mapping[int, Schema],
    *others: str,
    body: Schema | None = None,
    parameters: Sequence[Schema] = (),
) -> dict[str, Any]:
    """An operation object.

    Args:
        summary: what it does.
        answers: its own answers by status.
        others: names of `ANSWERS` it may give besides those that all may.
        body: its request body.
        parameters: its query arguments.
    """
    given = {str(status): each for status, each in answers.items()}
    for name in (*others, *ALWAYS):
        given.setdefault(str(ANSWERS[name][0]), ref(name, "responses"))
    found: dict[str, Any] = {"summary": summary}
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        found["requestBody"] = body
    return found | {"responses": dict(sorted(given.items()))}


def argument(name: str, text: str, schema: Schema) -> Schema:
    """A query argument."""
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _json(description: str, schema: Schema, example: Any = None) -> Schema:
    content: Schema = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"description": description, "content": {JSON: content}}


def _free(text: str) -> Schema:
    return {"type": "object", "description": text}


NOTHING: Schema = {"description": "Done; no body."}
PAGING = (
    argument("size", "Rows of a page.", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
    argument("offset", "Where the page begins: the offset that the page before gave.", {"type": "string"}),
)
TAGS = argument(
    "tags",
    "Only rows with these tags: separated by commas all of them, by slashes any of them; at most five.",
    {"type": "string", "minLength": 1},
)


@singledispatch
def operations(resource: JSONResource, components: Components) -> Operations:
    """The operations of a resource.

    Raises:
        TypeError: nobody described this class of resource.
    """
    raise TypeError(f"{type(resource).__name__} is not described in openapi_operations.py")


def _one(entity: Entity) -> str:
    return entity.name.removesuffix("s").replace("_", " ")


def _of(parent: Parent | None) -> str:
    return "" if parent is None else f" of a {_one(parent.rows.entity)}"


@operations.register
def _(resource: CollectionResource, components: Components) -> Operations:
    entity, parent = resource.entity, resource.parent
    nested = () if parent is None else ("NotFound",)
    more = [TAGS] if parent is None else []
    if parent is None:
        arguments = resource.rows.list_arguments.items()
        more += [argument(name, text, {"type": "string", "minLength": 1}) for name, text in arguments]
    names = entity.name.replace("_", " ")
    given = () if parent is None else (parent.field,)
    return {
        "get": operation(
            f"List {names}{_of(parent)}", {200: components.page(entity, "A page of rows.")}, *nested,
            parameters=[*PAGING, *more],
        ),
        "post": operation(
            f"Create a {_one(entity)}{_of(parent)}", {201: components.answer(entity, "The new row.")}, *WRITES, *nested,
            body=components.body(entity, Use.WRITE, given),
        ),
    }  # fmt: skip


@operations.register
def _(resource: RowResource, components: Components) -> Operations:
    entity, parent = resource.entity, resource.parent
    one = _one(entity) + _of(parent)
    given = [] if parent is None else [parent.field]
    if entity.endpoint_key is not None:
        given.append(entity.endpoint_key)
    put = Use.WRITE if resource.rows.put_creates else Use.MERGE
    return {
        "get": operation(f"Get a {one}", {200: components.answer(entity, "The row.")}, "NotFound"),
        "put": operation(
            f"Replace a {one}" if put is Use.MERGE else f"Create or replace a {one}",
            {200: components.answer(entity, "The row as it is now.")}, *WRITES, "NotFound",
            body=components.body(entity, put, given, required=False),
        ),
        "patch": operation(
            f"Change a {one}", {200: components.answer(entity, "The row as it is now.")}, *WRITES, "NotFound",
            body=components.body(entity, Use.MERGE, given, required=False),
        ),
        "delete": operation(
            f"Delete a {one}", {204: NOTHING}, "ReadOnly", "NotFound"
        ),
    }  # fmt: skip


@operations.register
def _(resource: ParentResource, components: Components) -> Operations:
    entity = resource.entity
    of = f"the {resource.field.replace('_', ' ')} of a {_one(resource.child.entity)}"
    return {
        "get": operation(f"Get {of}", {200: components.answer(entity, "The row.")}, "NotFound"),
        "put": operation(
            f"Replace {of}, or create and set it", {200: components.answer(entity, "The row as it is now.")},
            *WRITES, "NotFound", body=components.body(entity, Use.WRITE, required=False),
        ),
        "patch": operation(
            f"Change {of}", {200: components.answer(entity, "The row as it is now.")}, *WRITES, "NotFound",
            body=components.body(entity, Use.MERGE, required=False),
        ),
        "delete": operation(f"Not possible: {of} cannot be deleted from here", {}, "ReadOnly", "NotFound"),
    }  # fmt: skip


@operations.register
def _(resource: targets.UpstreamHealth, components: Components) -> Operations:
    weight = {"type": "object", "properties": {
        name: {"type": "integer"} for name in ("total", "available", "unavailable")
    }}  # fmt: skip
    schema = {
        "type": "object",
        "properties": {
            "data": {
                "description": "A list of targets, or with balancer_health=1 one object about them all.",
                "type": ["array", "object"],
                "items": {
                    "type": "object",
                    "properties": {
                        "target": {"type": "string"},
                        "health": {"enum": ["HEALTHCHECKS_OFF", "HEALTHY", "UNHEALTHY", "DNS_ERROR"]},
                        "weight": {"type": "integer"},
                        "data": {"type": "object", "properties": {"weight": weight}},
                    },
                },
            },
            "next": {"type": ["string", "null"]},
            "node_id": {"type": "string", "format": "uuid"},
            "offset": {"type": "string"},
        },
        "required": ["node_id", "next"],
    }
    whole = argument("balancer_health", "1: one object about the whole upstream.", {"type": "string"})
    return {
        "get": operation(
            "Get the health of an upstream's targets", {200: _json("Health, as this node sees it.", schema)},
            "NotFound", parameters=[whole, *PAGING],
        )
    }  # fmt: skip


@operations.register
def _(resource: service_methods.ServiceMethods, components: Components) -> Operations:
    method = {
        "type": "object",
        "properties": {
            **{name: {"type": "string"} for name in ("name", "path", "request", "response")},
            "kind": {"enum": ["unary", "server_stream", "client_stream", "bidi_stream"]},
            "client_streaming": {"type": "boolean"},
            "server_streaming": {"type": "boolean"},
        },
    }
    service = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "methods": {"type": "array", "items": method}},
    }
    schema = {
        "type": "object",
        "properties": {"data": {"type": "array", "items": service}, "next": {"type": "null"}},
        "required": ["data", "next"],
    }
    return {
        "get": operation(
            "Ask a gRPC service for its services and methods (server reflection)",
            {
                200: _json("What it tells.", schema),
                400: _json("It is no gRPC service.", ERROR),
                502: _json("It cannot be asked, or does not tell.", ERROR),
                504: _json("It took too long to tell.", ERROR),
            },
            "NotFound",
        )
    }


def _get(
    summary: str, schema: Schema, *others: str, parameters: Sequence[Schema] = (), example: Any = None
) -> Operations:
    return {"get": operation(summary, {200: _json("The answer.", schema, example)}, *others, parameters=parameters)}


@operations.register
def _(resource: node.Root, components: Components) -> Operations:
    text = {"type": "string"}
    return _get("Get facts about the node", {
        "type": "object",
        "properties": {
            "tagline": text, "edition": text, "hostname": text, "node_id": text, "lua_version": text,
            "version": {"type": "string", "description": "The version of Kong whose contract is kept."},
            "kongtwist_version": {"type": "string", "description": "Our own version."},
            "timers": _free("Timers of the process."),
            "pids": _free("Process ids of the parent and the workers."),
            "plugins": _free("Plugins that are installed, and those in use."),
            "configuration": _free("Every property with its value; secrets are masked."),
        },
        "required": ["version", "kongtwist_version", "node_id", "plugins", "configuration"],
    })  # fmt: skip


@operations.register
def _(resource: status.Status, components: Components) -> Operations:
    counts = {"type": "object", "additionalProperties": {"type": "integer"}}
    return _get("Get figures of the node", {
        "type": "object",
        "properties": {
            "server": counts, "connections": counts,
            "memory": {"type": "object", "description": "Resident memory of each process."},
            "database": {"type": "object", "properties": {"reachable": {"type": "boolean"}}, "required": ["reachable"]},
            "configuration_hash": {"type": "string", "description": "Of a node without a database.", "pattern": "^[0-9a-f]{32}$"},
        },
        "required": ["server", "connections", "memory"],
    }, parameters=[
        argument("unit", "Unit of amounts of memory: b, k, m or g.", {"type": "string", "default": "m"}),
        argument("scale", "Digits behind the point.", {"type": "integer", "minimum": 0, "default": 2}),
    ])  # fmt: skip


_SCHEMA = {
    "type": "object",
    "properties": {"fields": {"type": "array", "items": {"type": "object"}}},
    "required": ["fields"],
}


@operations.register
def _(resource: node.SchemaOf, components: Components) -> Operations:
    return _get("Get an entity's fields and rules", _SCHEMA, "NotFound")


@operations.register
def _(resource: node.PluginSchema, components: Components) -> Operations:
    what = "the configuration fields of a plugin" if resource.config_only else "a plugin's fields and rules"
    return _get(f"Get {what}", _SCHEMA, "NotFound")


@operations.register
def _(resource: node.Validate, components: Components) -> Operations:
    entity = components.registry.get(resource.name)
    body = {"required": True, "content": {JSON: {"schema": _free("The entity.")}}}
    if entity is not None:
        body = components.body(entity, Use.WRITE)
    good = _json("It would be taken.", ref("Message"), {"message": "schema validation successful"})
    return {
        "post": operation(
            "Say whether a row would be taken, and store nothing",
            {200: good},
            "Refused",
            "NotFound",
            "UnknownType",
            body=body,
        )
    }


@operations.register
def _(resource: node.EnabledPlugins, components: Components) -> Operations:
    names = {"type": "array", "items": {"type": "string"}}
    schema = {"type": "object", "properties": {"enabled_plugins": names}, "required": ["enabled_plugins"]}
    return _get(
        "List the plugins that can be configured", schema, example={"enabled_plugins": ["key-auth", "rate-limiting"]}
    )


@operations.register
def _(resource: node.Tags, components: Components) -> Operations:
    what = "List all tags and what carries them" if resource.tag is None else "List what carries a tag"
    page = components.page(components.registry["tags"], "A page of tags.")
    found = {"get": operation(what, {200: page}, parameters=PAGING)}
    if resource.tag is None:
        found["post"] = operation("Not possible: tags are set on rows", {}, "Refused")
    return found


@operations.register
def _(resource: node.Endpoints, components: Components) -> Operations:
    paths = {"type": "array", "items": {"type": "string"}}
    return _get("List all paths", {"type": "object", "properties": {"data": paths}, "required": ["data"]})


@operations.register
def _(resource: node.Timers, components: Components) -> Operations:
    return _get("Get figures about timers", _free("Figures."))


@operations.register
def _(resource: node.VaultSchema, components: Components) -> Operations:
    return _get("Get the configuration fields of a kind of vault", _SCHEMA, "NotFound")


@operations.register
def _(resource: node.FilterSchema, components: Components) -> Operations:
    return {"get": operation("Always 404: there are no WebAssembly filters", {}, "NotFound")}


@operations.register
def _(resource: status.StatusDNS, components: Components) -> Operations:
    answer = _json("Always: the resolver has no figures.", ref("Message"), {"message": _NO_FIGURES})
    return {"get": operation("Get figures of name resolution", {501: answer})}


_NO_FIGURES = "not implemented with the legacy DNS client"


@operations.register
def _(resource: metrics_page.Metrics, components: Components) -> Operations:
    answer = {"description": "Figures.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"get": operation("Get figures in the format of Prometheus", {200: answer})}


@operations.register
def _(resource: targets.AllTargets, components: Components) -> Operations:
    page = components.page(resource.entity, "A page of rows.")
    return {"get": operation("List all targets of an upstream by id", {200: page}, "NotFound", parameters=PAGING)}


@operations.register
def _(resource: targets.SetHealth, components: Components) -> Operations:
    word = "healthy" if resource.available else "unhealthy"
    what = "a target" if resource.address is None else "an address of a target"
    return {"put": operation(f"Call {what} {word}, for this node's balancer", {204: NOTHING}, "NotFound")}


@operations.register
def _(resource: switches.LogLevel, components: Components) -> Operations:
    return _get("Get the error log's level", ref("Message"), example={"message": "log level: notice"})


@operations.register
def _(resource: switches.ChangeLogLevel, components: Components) -> Operations:
    seconds: Schema = {"type": "number", "minimum": 0, "maximum": 10**9, "default": switches.LOG_LEVEL_SECONDS}
    schema = {
        "type": "object",
        "properties": {"timeout": {"description": "Seconds for which the level holds."} | seconds},
    }
    body = {"content": {kind: {"schema": schema, "example": {"timeout": 30}} for kind in (JSON, FORM, MULTIPART)}}
    good = _json("Done, or nothing to do.", ref("Message"), {"message": "log level changed"})
    return {
        "put": operation(
            "Change the error log's level for a while", {200: good}, "ReadOnly", "UnknownType", body=body,
            parameters=[argument("timeout", "Seconds for which the level holds, if the body does not say.", seconds)],
        )
    }  # fmt: skip


@operations.register
def _(resource: switches.Cache, components: Components) -> Operations:
    return {"delete": operation("Empty the cache: there is none, so nothing happens", {204: NOTHING})}


@operations.register
def _(resource: switches.CacheEntry, components: Components) -> Operations:
    return {
        "get": operation("Get a row by its key in Kong's cache", {200: _json("The row.", _free("A row."))}, "NotFound"),
        "delete": operation("Forget a row: there is no cache, so nothing happens", {204: NOTHING}),
    }


@operations.register
def _(resource: PluginPath, components: Components) -> Operations:
    assert resource.found is not None
    endpoint = resource.found.endpoint
    answer = {"description": "The plugin's answer.", "content": {JSON: {}}}
    body = {"content": {kind: {"schema": _free("What the plugin takes.")} for kind in (JSON, FORM, MULTIPART)}}
    found: Operations = {}
    for method in endpoint.methods:
        writes = method in ("POST", "PUT", "PATCH")
        others = ("UnknownType",) if writes else ()
        answers = {200: answer} | {"POST": {201: answer}, "DELETE": {204: NOTHING}}.get(method, {})
        found[method.lower()] = operation(
            endpoint.text, answers, *others, "NotFound", body=body if writes else None
        ) | {"tags": [endpoint.tag]}
    return found


@operations.register
def _(resource: switches.Unavailable, components: Components) -> Operations:
    return {method.lower(): operation("Never available on this node (400)", {}) for method in resource.methods}


@operations.register
def _(resource: node.Robots, components: Components) -> Operations:
    text = {"description": "Nobody.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"get": operation("Tell robots to stay away", {200: text})}


@operations.register
def _(resource: config.Config, components: Components) -> Operations:
    shown = {"type": "object", "properties": {"config": {"type": "string"}}, "required": ["config"]}
    yes = {"type": "string", "enum": ["1", "true", "on", "yes"]}
    refused = {
        **ERROR, "properties": {**ERROR["properties"], "flattened_errors": {"type": "array", "items": {"type": "object"}}}
    }  # fmt: skip
    text = {"schema": {"type": "string"}, "example": "_format_version: '3.0'\nservices: []\n"}
    given = {"schema": {"type": "object", "properties": {"config": {"type": "string"}}}}
    kinds = dict.fromkeys((JSON, FORM, MULTIPART), given) | dict.fromkeys(("application/yaml", "text/yaml"), text)
    return {
        "get": operation(
            "Get the declarative configuration of a node without a database", {200: _json("YAML.", shown)}
        ),
        "post": operation(
            "Put another declarative configuration in place, at once or not at all",
            {
                201: _json(
                    "All rows: type to id to row.", {"type": "object", "additionalProperties": {"type": "object"}}
                ),
                304: {"description": "It is the present one (check_hash); no body."},
                400: _json("It cannot be read or has faults.", refused),
                429: _json("Another one is being loaded.", ref("Message")),
                500: _json("It could not be read to its end.", ref("Message")),
                504: _json("Reading it took too long.", ref("Message")),
            },
            "UnknownType",
            body={"required": True, "content": kinds},
            parameters=[
                argument("check_hash", "Answer 304 if nothing changes (for configurations given as text).", yes),
                argument("flatten_errors", "Tell faults row by row, in flattened_errors.", yes),
            ],
        ),
    }
