"""JSON Schema: data stay JSON, and are checked. Schemas that others refer to come from the registry, never from elsewhere."""

from __future__ import annotations

from typing import Any

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
        known = dict(schema.references)

        def fetched(uri: str) -> Any:
            for name, text in known.items():
                if uri == name or uri.endswith("/" + name):
                    return parse_json(text)
            raise ValueError(f"the registry has no reference {uri} with it")

        options: dict[str, Any] = {"retriever": fetched, "mask": _MASK}
        try:
            rules = parse_json(schema.text)
            if isinstance(rules, dict) and "$schema" in rules:
                self._validator: Any = jsonschema_rs.validator_for(rules, **options)
            else:
                self._validator = jsonschema_rs.Draft7Validator(rules, **options)
        except (ValueError, TypeError) as error:  # the library's own errors are ValueErrors
            raise BadSchema(str(error).partition("\n")[0]) from error

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
        error = next(iter(self._validator.iter_errors(value)), None)
        if error is not None:
            where = "".join(f"/{each}" for each in error.instance_path)
            raise NotFitting(f"at {where or 'the top'}: {error.message}")
