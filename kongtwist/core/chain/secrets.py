"""Values of the references to secrets that rows hold (Kong 3.9, ``kong/pdk/vault.lua``).

A row is stored and shown with its references as written; `Secrets.resolved` gives a copy with their values for whoever
makes something of it (a plugin's compiled configuration, a TLS context). What cannot be found empties a field that may be
empty, with a sentence for the log; where the field is needed, or its value breaks the field's rules, the row cannot be used.
No sentence ever holds a secret: it names the field, the reference and the environment variable.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ...entities.certificates import CERTIFICATES
from ...entities.checks import AllOrNone, run_checks
from ...entities.errors import summary
from ...entities.keys import KEYS
from ...entities.references import SecretMissing, environment_secret, is_reference, parse_reference
from ...entities.schema import Array, Field, Map, Record

if TYPE_CHECKING:
    from ..rows import Row
    from .plugin import Plugin

__all__ = ["Secrets", "Unusable"]

ENV = "env"
"""The kind of vault that is always there, under its own name."""

_ENTITIES = {entity.name: entity for entity in (CERTIFICATES, KEYS)}
"""Entities that may hold references, beside plugins."""

_Shape = dict[str, Any]
"""Where references may be: member name -> its field, or the shape of what is inside it."""


class Unusable(ValueError):
    """A row that cannot be used because of a reference; the text is a sentence."""


class Secrets:
    """Looks up what references stand for.

    Args:
        vaults: the vault rows.
        plugins: the loaded plugins by name; their configurations say where references may be.
        environ: environment of the vault ``env``; that of the process when None.
    """

    def __init__(
        self, vaults: Iterable[Row], plugins: Mapping[str, Plugin], environ: Mapping[str, str] | None = None
    ) -> None:
        self._vaults: dict[str, Row] = {row["prefix"]: row for row in vaults}
        self._environ = os.environ if environ is None else environ
        self._shapes = {name: _shape(entity.fields) for name, entity in _ENTITIES.items()}
        self._plugins = {name: {"config": _shape(_members(plugin.config))} for name, plugin in plugins.items()}

    def changed(self, vaults: Iterable[Row]) -> Secrets:
        """The same with other vaults."""
        other = Secrets((), {}, self._environ)
        other._vaults = {row["prefix"]: row for row in vaults}
        other._plugins = self._plugins
        return other

    def refers(self, entity: str, row: Row) -> bool:
        """Whether a row holds a reference where one may be."""
        shape = self._shape_of(entity, row)
        return bool(shape) and _holds(shape, row)

    def resolved(self, entity: str, row: Row) -> tuple[Row, list[str]]:
        """A row with values in place of its references, and sentences about fields that were emptied.

        Raises:
            Unusable: a field that is needed has no value, or one that breaks its rules.
        """
        shape = self._shape_of(entity, row)
        if not shape or not _holds(shape, row):
            return row, []
        sentences: list[str] = []
        found: Row = self._inside(shape, row, "", sentences)
        errors: dict[str, Any] = {}
        kind = _ENTITIES.get(entity)
        if kind is not None:  # half of a pair that goes together is taken, and not used
            checks = [check for check in kind.checks if not isinstance(check, AllOrNone)]
            run_checks(checks, found, errors, kind.fields)
        if errors:
            raise Unusable(f"with the values of its references: {summary(errors)}")
        return found, sentences

    def secret(self, text: str) -> str:
        """What a reference stands for.

        Raises:
            SecretMissing: nothing.
        """
        try:
            reference = parse_reference(text)
        except ValueError as error:
            raise SecretMissing(f"it {error}") from None
        own = self._vaults.get(ENV)
        if own is not None and own["name"] != ENV:  # no row can have this prefix: it says that the kind may not be used
            raise SecretMissing(f"vault '{ENV}' is not installed (vaults)")
        vault = self._vaults.get(reference.vault)
        if vault is None and reference.vault != ENV:
            raise SecretMissing(f"there is no vault '{reference.vault}'")
        if vault is not None and vault["name"] != ENV:
            raise SecretMissing(f"vault '{vault['name']}' is not installed")
        return environment_secret(reference, (vault or {}).get("config") or {}, self._environ)

    # -- rows ----------------------------------------------------------------------------------------------------------

    def _shape_of(self, entity: str, row: Row) -> _Shape:
        if entity == "plugins":
            return self._plugins.get(row["name"]) or {}
        return self._shapes.get(entity) or {}

    def _inside(self, shape: Any, value: Any, where: str, sentences: list[str]) -> Any:
        if isinstance(shape, Field):
            return self._field(shape, value, where, sentences) if is_reference(value) else value
        if isinstance(value, Mapping):
            each = shape.get("*")
            return {
                name: self._inside(each or shape[name], inner, f"{where}.{name}".lstrip("."), sentences)
                if each or name in shape
                else inner
                for name, inner in value.items()
            }
        if isinstance(value, list) and "*" in shape:
            return [self._inside(shape["*"], inner, f"{where}[{at}]", sentences) for at, inner in enumerate(value, 1)]
        return value

    def _field(self, field: Field, text: str, where: str, sentences: list[str]) -> Any:
        try:
            value = self.secret(text)
        except SecretMissing as missing:
            sentence = f"{where} refers to {text}, but {missing}"
            if field.required or field.attrs.get("default") is not None:
                raise Unusable(f"{sentence}; it cannot be empty") from None
            sentences.append(f"{sentence}; it is empty")
            return None
        if not is_reference(value) and field.error(value) is None:
            return value
        raise Unusable(f"{where} refers to {text}, whose value is none that it may have")


def _members(config: Any) -> Mapping[str, Field]:
    return config.fields if isinstance(config, Record) else config


def _shape(fields: Mapping[str, Field]) -> _Shape:
    """The members that may hold references, and inside what."""
    found = {name: _inner(field) for name, field in fields.items()}
    return {name: inner for name, inner in found.items() if inner is not None}


def _inner(field: Field) -> Any:
    if field.referenceable and not isinstance(field, Array | Map | Record):
        return field
    if isinstance(field, Record):
        return _shape(field.fields) or None
    if isinstance(field, Array | Map):
        inner = _inner(field.elements if isinstance(field, Array) else field.values)
        return None if inner is None else {"*": inner}
    return None


def _holds(shape: Any, value: Any) -> bool:
    if isinstance(shape, Field):
        return is_reference(value)
    if isinstance(value, Mapping):
        if "*" in shape:
            return any(_holds(shape["*"], inner) for inner in value.values())
        return any(_holds(inner, value.get(name)) for name, inner in shape.items())
    if isinstance(value, list):
        return "*" in shape and any(_holds(shape["*"], inner) for inner in value)
    return False
