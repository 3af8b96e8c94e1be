"""JSON Schema: data stay JSON, and are checked. Schemas that others refer to come from the registry, never from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from ..entities.json_text import parse_json
from .codec_basics import BadSchema, NotFitting, SchemaText, json_bytes

__all__ = ["JSONSchemaCodec"]

_MASK = "the value"
"""Stands for data in what is told: it goes into logs."""


class JSONSchemaCodec:
    """See `Codec`. Drafts 4, 6, 7, 2019-09 and 2020-12; without ``$schema`` draft 7, as Confluent has it.

    Args:
        schema: with its references.

    Raises:
        BadSchema: it is no JSON Schema, or refers to what the registry does not have with it.
    """

    def __init__(self, schema: SchemaText) -> None:
        known: dict[str, Any] = {}

        def fetched(uri: str) -> Any:
            for name, rules in known.items():
                if uri == name or uri.endswith("/" + name):
                    return rules
            raise ValueError(f"the registry has no reference {uri} with it")

        options: dict[str, Any] = {"retriever": fetched, "mask": _MASK}
        try:
            known.update((name, parse_json(text)) for name, text in schema.references)
            rules = parse_json(schema.text)
            if isinstance(rules, dict) and "$schema" in rules:
                self._validator: Any = jsonschema_rs.validator_for(rules, **options)
            else:
                self._validator = jsonschema_rs.Draft7Validator(rules, **options)
        except (ValueError, TypeError) as error:  # the library's own errors are ValueErrors
            raise BadSchema(str(error).partition("\n")[0]) from error
        # Finding out where data do not fit takes the library time that doubles with each level of such a schema.
        self._is_recursive = _is_recursive(rules, known)

    def encode(self, value: Any) -> bytes:
        """See `Codec`."""
        self._check(value)
        return json_bytes(value)

    def decode(self, data: bytes) -> bytes:
        """See `Codec`."""
        try:
            value = parse_json(data)
        except ValueError:
            raise NotFitting("it is no JSON") from None
        self._check(value)
        return data

    def _check(self, value: Any) -> None:
        if self._validator.is_valid(value):
            return
        if self._is_recursive:
            raise NotFitting("it does not fit")
        error = next(iter(self._validator.iter_errors(value)), None)
        if error is not None:
            where = "".join(f"/{each}" for each in error.instance_path)
            raise NotFitting(f"at {where or 'the top'}: {error.message}")


def _is_recursive(rules: Any, known: Mapping[str, Any]) -> bool:
    """Whether a schema may stand within itself, for all that can be told.

    Args:
        rules: the schema.
        known: those that it refers to, by name.
    """
    open_: set[int] = set()
    done: set[int] = set()

    def visit(node: Any, root: Any) -> bool:
        if not isinstance(node, dict | list) or id(node) in done:
            return False
        if id(node) in open_:
            return True
        open_.add(id(node))
        found = any(visit(each, root) for each in (node.values() if isinstance(node, dict) else node))
        if isinstance(node, dict) and not found:
            found = "$recursiveRef" in node or "$dynamicRef" in node
            if isinstance(node.get("$ref"), str):
                found = found or visit(*_target(node["$ref"], root, known))
        open_.discard(id(node))
        done.add(id(node))
        return found

    try:
        return visit(rules, rules)
    except (LookupError, ValueError, TypeError, RecursionError):
        return True


def _target(reference: str, root: Any, known: Mapping[str, Any]) -> tuple[Any, Any]:
    """What a reference names, and the schema that it is in. Raises LookupError, ValueError, TypeError: nothing that can be found here."""
    name, _, pointer = reference.partition("#")
    node = root = known[name] if name else root
    for part in unquote(pointer).split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        node = node[int(part)] if isinstance(node, list) else node[part]
    if pointer and not pointer.startswith("/"):
        raise LookupError(reference)
    return node, root
