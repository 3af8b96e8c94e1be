"""What schemathesis asks and checks beside its own, loaded by it (SCHEMATHESIS_HOOKS) in the runs of test_openapi.py.

Environment: KONGTWIST_ROWS: a JSON object, name of a path parameter -> key of a row that is there.
"""

from __future__ import annotations

import json
import os
import zlib
from typing import Any

import jsonschema_rs
import schemathesis

ROWS: dict[str, str] = json.loads(os.environ.get("KONGTWIST_ROWS", "{}"))
Schema = dict[str, Any]


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: Schema) -> None:
    """Have changes of every second kind of plugin made up: of more than 35 kinds in one `anyOf` nothing is (jsonschema-rs gives up)."""
    config = raw_schema["components"]["schemas"]["PluginPatch"]["properties"]["config"]
    config["anyOf"] = config["anyOf"][::2]


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Address rows that are there three times of four, chosen by what was made up. What is deleted is never one of them."""
    if case.method == "DELETE":
        return
    for name, value in case.path_parameters.items():
        if name in ROWS and zlib.crc32(repr(value).encode("utf-8", "surrogatepass")) % 4:
            case.path_parameters[name] = ROWS[name]


def _writes(case: Any) -> bool:
    """Whether a case sent a JSON object, and did not call it something else."""
    kinds = {case.media_type, *(value for name, value in case.headers.items() if name.lower() == "content-type")}
    return case.method in ("POST", "PUT", "PATCH") and kinds == {"application/json"} and isinstance(case.body, dict)


def _whole(case: Any) -> Schema:
    """The schema of a case's body, with the components it refers to; where there are variants that of the chosen one."""
    raw = case.operation.schema.raw_schema
    body = raw["paths"][case.path][case.method.lower()]["requestBody"]["content"]["application/json"]["schema"]
    found = {**body, "components": raw["components"]}
    choice = _resolved(found, found).get("discriminator") or {"mapping": {}}
    chosen = case.body.get(choice.get("propertyName"))
    if isinstance(chosen, str) and chosen in choice["mapping"]:
        found["$ref"] = choice["mapping"][chosen]
    return found


def _tolerant(schema: Any) -> Any:
    """A schema that also takes what the gateway takes on purpose, as Kong does: {} for a list, [] for a map, and duplicates
    in sets."""
    if isinstance(schema, list):
        return [_tolerant(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        name: each if name in ("enum", "const", "default", "example", "examples", "required") else _tolerant(each)
        for name, each in schema.items()
        if name != "uniqueItems"
    }
    kinds = [found["type"]] if isinstance(found.get("type"), str) else found.get("type", [])
    if "array" in kinds and "object" not in kinds:
        found |= {"type": [*kinds, "object"], "maxProperties": 0}
    elif "object" in kinds and "array" not in kinds:
        found |= {"type": [*kinds, "array"], "maxItems": 0}
    return found


_validators: dict[tuple[str, bool], Any] = {}


def _validator(case: Any, tolerant: bool) -> Any:
    schema = _whole(case)
    key = (schema.get("$ref", f"{case.method} {case.path}"), tolerant)
    if key not in _validators:
        _validators[key] = jsonschema_rs.Draft202012Validator(_tolerant(schema) if tolerant else schema)
    return _validators[key]


def _given_by_path(case: Any) -> set[str]:
    """Members that the path decides about, so that a body may say anything there."""
    segments = [part.strip("{}") for part in case.path.strip("/").split("/")]
    singular = {each.removesuffix("s") for each in segments[:-1]} | {"set"}
    return {"id", "name", "username", "prefix", "target", "key", "instance_name", *singular}


@schemathesis.check
def never_fails(context: Any, response: Any, case: Any) -> None:
    """No fault of the gateway's; one path says 501 by design."""
    assert response.status_code < 500 or (case.path, response.status_code) == ("/status/dns", 501), response.text


@schemathesis.check
def takes_only_what_is_documented(context: Any, response: Any, case: Any) -> None:
    """A body that was taken fits its schema."""
    if not _writes(case) or response.status_code not in (200, 201):
        return
    errors = [
        error
        for error in _validator(case, True).iter_errors(case.body)
        if not (error.instance_path and str(error.instance_path[0]) in _given_by_path(case))
    ]
    assert not errors, f"taken although {errors[0].message} at {errors[0].instance_path}: {json.dumps(case.body)}"


@schemathesis.check
def documents_what_it_refuses(context: Any, response: Any, case: Any) -> None:
    """A body that fits its schema is refused only by rules that stand in ``x-rules``."""
    if not _writes(case) or case.method == "PATCH" or response.status_code != 400:
        return
    answer = response.json()
    if answer.get("code") != 2 or not _validator(case, False).is_valid(case.body):
        return
    if "url" in case.body:
        return  # it sets other members, whose rules stand there
    schema = _whole(case)
    for name, error in answer["fields"].items():
        found = [schema] if name == "@entity" else _members(schema, schema, name)
        if not any(_has_rules(schema, each, name == "@entity") for each in found):
            raise AssertionError(f"no rule documents {name}: {error}, for {json.dumps(case.body)}")


def _resolved(root: Schema, schema: Schema) -> Schema:
    while "$ref" in schema:
        found: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def _members(root: Schema, schema: Schema, name: str) -> list[Schema]:
    """Where a member's rules may stand: its own schema, or the whole's."""
    schema = _resolved(root, schema)
    found = [schema["properties"][name]] if name in schema.get("properties", {}) else []
    for each in schema.get("oneOf", []):
        found += _members(root, each, name)
    return [*found, *([{"x-rules": schema["x-rules"]}] if "x-rules" in schema else [])]


def _has_rules(root: Schema, schema: Any, whole: bool = False) -> bool:
    if isinstance(schema, list):
        return any(_has_rules(root, each) for each in schema)
    if not isinstance(schema, dict):
        return False
    schema = _resolved(root, schema)
    if "x-rules" in schema:
        return True
    inside = ("oneOf",) if whole else ("oneOf", "anyOf", "allOf", "items", "additionalProperties")
    deeper = [] if whole else list(schema.get("properties", {}).values())
    return any(_has_rules(root, each) for each in [*(schema[name] for name in inside if name in schema), *deeper])
