"""The OpenAPI 3.1 document of the Admin API: paths from the resources that answer them, schemas from the entities."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ... import VERSION
from ...entities import Entity
from ...entities.json_schema import Schema
from ..json_resource import JSONResource
from ..overrides import rows_class
from . import operations as openapi_operations
from .operations import operations
from .parts import ANSWERS, Components, key_parameter
from .path import OpenAPI

__all__ = ["document"]

_PARAMETER = re.compile(r"\{([^}]*)\}")
_TEXT = """\
Every path also answers HEAD where it answers GET, and OPTIONS. A trailing slash means nothing. What a path does not offer is
405, what is not there 404. A refusal says which field is wrong and why. What JSON Schema cannot say stands in `x-rules`;
fields with `x-referenceable` may hold a reference to a secret, such as `{vault://env/my-secret}`."""
_OTHERS = {
    "filter_chains": "A filter chain.",
    "name": "Name of the entity or plugin.",
    "tags": "A tag.",
    "key": "A key of Kong's cache.",
    "address": "An address of the target, with its port.",
    "log_level": "debug, info, notice, warn, error, crit, alert or emerg.",
}


def document(paths: Iterable[tuple[str, JSONResource]], registry: Mapping[str, Entity]) -> dict[str, Any]:
    """The document.

    Args:
        paths: every path of the API as a template, with its resource.
        registry: the entities.
    """
    components = Components(registry)
    found: dict[str, Any] = {}
    for path, resource in paths:
        described = operations(resource, components)
        for method, each in described.items():
            each["operationId"] = _operation_id(method, path)
            each.setdefault("tags", [path.split("/")[1] or "node"])
        parameters = [_parameter(name, registry) for name in _PARAMETER.findall(path)]
        found[path] = ({"parameters": parameters} if parameters else {}) | described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kongtwist Admin API",
            "version": VERSION,
            "description": _TEXT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This node."}],
        "security": [{}, {"token": []}, {"bearer": []}],
        "tags": [{"name": name} for name in dict.fromkeys(tag for each in found.values() for tag in _tags(each))],
        "paths": found,
        "components": {
            "schemas": components.schemas,
            "responses": {name: answer for name, (_, answer) in ANSWERS.items()},
            "securitySchemes": {
                "token": {
                    "type": "apiKey", "in": "header", "name": "Kong-Admin-Token",
                    "description": "The property admin_api_token, when it is set.",
                },
                "bearer": {"type": "http", "scheme": "bearer", "description": "The same token in Authorization."},
            },
        },
    }  # fmt: skip


def _tags(item: Mapping[str, Any]) -> Iterable[str]:
    return (tag for name, each in item.items() if name != "parameters" for tag in each["tags"])


def _operation_id(method: str, path: str) -> str:
    """``get`` and ``/services/{services}/routes`` -> ``get-services-_-routes``; unique as paths are."""
    return "-".join((method, *(_PARAMETER.sub("_", part) for part in path.strip("/").split("/") if part)))


def _parameter(name: str, registry: Mapping[str, Entity]) -> Schema:
    if name in registry and registry[name].stored:
        return key_parameter(name, registry[name], rows_class(name).key_text)
    schema: Schema = {"type": "string", "minLength": 1}
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": _OTHERS.get(name, name.replace("_", " ")),
        "schema": schema,
    }


@operations.register
def _(resource: OpenAPI, components: Components) -> openapi_operations.Operations:
    answer = {"description": "The document.", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {"get": openapi_operations.operation("Get this document", {200: answer})}
