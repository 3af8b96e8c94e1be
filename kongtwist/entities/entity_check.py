"""What a rule over several fields of an entity is, and how such rules run (Kong 3.9, ``entity_checks``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .errors import ErrorTree

__all__ = ["EntityCheck", "Referring", "Row", "complain", "is_empty", "put_error", "run_checks", "value_at"]

Row = dict[str, Any]
"""A row: values by field name."""


class Referring(Protocol):
    """A field that may hold a reference to a secret."""

    def refers(self, value: Any, path: str = "") -> bool:
        """Whether the value holds a reference at a dotted path below it."""
        ...


def is_empty(value: Any) -> bool:
    """What "non-empty" means in entity checks."""
    return value is None or value == "" or value == [] or value == {}


def value_at(row: Any, path: str) -> Any:
    """The member at a dotted path; None where there is none."""
    for name in path.split("."):
        row = row.get(name) if isinstance(row, Mapping) else None
    return row


def put_error(errors: dict[str, Any], path: str, error: ErrorTree) -> None:
    """Put an error at a dotted path, unless a field above it has one."""
    *parents, last = path.split(".")
    for name in parents:
        inner = errors.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        errors = inner
    errors[last] = error


class EntityCheck:
    """A rule over several fields.

    Attributes:
        described: whether ``/schemas`` shows it.
        with_faulty: whether it runs although one of its fields is wrong in itself.
    """

    described = True
    with_faulty = False

    def applies(self, faulty: Mapping[str, Any]) -> bool:
        """Whether it runs beside these errors of single fields."""
        return self.with_faulty or not any(value_at(faulty, name) is not None for name in self.sources())

    def sources(self) -> Sequence[str]:
        """The fields it looks at, dotted."""
        raise NotImplementedError

    def seen(self) -> Sequence[str]:
        """All fields that decide about its outcome, dotted."""
        return self.sources()

    def run(self, row: Row, errors: dict[str, Any], words: str) -> None:
        """Add what is wrong to ``errors``. ``words`` come before a message when updating."""
        raise NotImplementedError

    def describe(self) -> Row:
        """The rule as ``/schemas`` shows it."""
        raise NotImplementedError


def complain(errors: dict[str, Any], message: str) -> None:
    """Add a message about the whole entity."""
    errors.setdefault("@entity", []).append(message)


def run_checks(
    checks: Sequence[EntityCheck],
    row: Row,
    errors: dict[str, Any],
    fields: Mapping[str, Referring],
    words: str = "",
) -> None:
    """Run entity checks over a row whose fields were validated; add to ``errors``.

    A check that looks at a field that holds a reference to a secret is left out: what the reference stands for is not known
    yet (Kong 3.9, ``run_entity_check``).

    Args:
        checks: the rules.
        row: the row.
        errors: by field.
        fields: the row's fields, which say where a reference may be.
        words: what comes before a message when updating.
    """
    faulty = dict(errors)
    for check in checks:
        if any(_refers(row, fields, name) for name in check.seen()):
            continue
        if check.applies(faulty):
            check.run(row, errors, words)


def _refers(row: Row, fields: Mapping[str, Referring], path: str) -> bool:
    """Whether a field holds a reference, and may."""
    first, _, rest = path.partition(".")
    field = fields.get(first)
    return field is not None and field.refers(row.get(first), rest)
