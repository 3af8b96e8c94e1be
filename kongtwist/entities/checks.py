"""Rules over several fields of an entity (Kong 3.9, ``entity_checks``), and rules on single values with their words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .entity_check import EntityCheck, Row, complain, is_empty, put_error, run_checks, value_at
from .errors import ErrorTree
from .schema import Field

__all__ = [
    "AllOrNone", "AtLeastOneOf", "Conditional", "ConditionalAtLeastOneOf", "Custom", "Distinct", "EntityCheck", "ExactlyOneOf",
    "MutuallyExclusive", "run_checks",
]  # fmt: skip


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


class _Listed(EntityCheck):
    """A rule over fields of equal standing. ``told``: their order in messages, where it is not that of ``/schemas``."""

    name = ""

    def __init__(self, *fields: str, told: Sequence[str] = ()) -> None:
        self.fields = fields
        self.told = tuple(told) or fields

    def sources(self) -> Sequence[str]:
        return self.fields

    def describe(self) -> Row:
        return {self.name: list(self.fields)}


class AtLeastOneOf(_Listed):
    """One of the fields must be set."""

    name = "at_least_one_of"
    with_faulty = True

    def run(self, row: Row, errors: dict[str, Any], words: str) -> None:
        if all(is_empty(value_at(row, field)) for field in self.fields):
            complain(errors, f"{words}at least one of these fields must be non-empty: {_quoted(self.told)}")


class ExactlyOneOf(_Listed):
    """One of the fields must be set, and no other."""

    name = "only_one_of"

    def run(self, row: Row, errors: dict[str, Any], words: str) -> None:
        if sum(not is_empty(value_at(row, field)) for field in self.fields) != 1:
            complain(errors, f"{words}exactly one of these fields must be non-empty: {_quoted(self.told)}")


class MutuallyExclusive(_Listed):
    """At most one of the fields may be set."""

    name = "mutually_exclusive"

    def run(self, row: Row, errors: dict[str, Any], words: str) -> None:
        if sum(not is_empty(value_at(row, field)) for field in self.fields) > 1:
            complain(errors, f"{words}only one or none of these fields must be set: {_quoted(self.told)}")


class AllOrNone(_Listed):
    """The fields go together."""

    name = "mutually_required"

    def run(self, row: Row, errors: dict[str, Any], words: str) -> None:
        if 0 < sum(not is_empty(value_at(row, field)) for field in self.fields) < len(self.fields):
            complain(errors, f"{words}all or none of these fields must be set: {_quoted(self.fields)}")


class Distinct(_Listed):
    """The fields must differ."""

    name = "distinct"

    def run(self, row: Row, errors: dict[str, Any], words: str) -> None:
        values = [value for field in self.fields if not is_empty(value := value_at(row, field))]
        if any(value in values[:at] for at, value in enumerate(values)):
            complain(errors, f"{words}values of these fields must be distinct: {_quoted(self.fields)}")


class Conditional(EntityCheck):
    """A field's rules depend on another field's value.

    Args:
        if_field: the field looked at; ``if_match``: rules it must meet for the others to hold.
        then_field: the field ruled; ``then_match``: its rules.
        then_err: message about the entity in place of Kong's usual one.
        shown: the rules as ``/schemas`` shows them.
    """

    def __init__(
        self,
        if_field: str,
        if_match: Field,
        then_field: str,
        then_match: Field,
        shown: Row,
        then_err: str | None = None,
    ) -> None:
        self.if_field, self.if_match = if_field, if_match
        self.then_field, self.then_match = then_field, then_match
        self.then_err, self.shown = then_err, shown

    def sources(self) -> Sequence[str]:
        return (self.if_field,)

    def seen(self) -> Sequence[str]:
        return (self.if_field, self.then_field)

    def applies(self, faulty: Mapping[str, Any]) -> bool:
        """Errors of single elements are looked at with the elements, by ``if_match``."""
        return not isinstance(value_at(faulty, self.if_field), str)

    def run(self, row: Row, errors: dict[str, Any], words: str) -> None:
        value = value_at(row, self.if_field)
        if value is None or self.if_match.error(value) is not None:
            return
        # Its conditional rules stand in place of its own of the same name; one that is wrong by the others fails here too.
        wrong = self.then_match.error(value_at(row, self.then_field)) or value_at(errors, self.then_field)
        if wrong is not None:
            put_error(errors, self.then_field, wrong)
            complain(errors, self.then_err or f"failed conditional validation given value of field '{self.if_field}'")

    def describe(self) -> Row:
        return {"conditional": self.shown}


class ConditionalAtLeastOneOf(EntityCheck):
    """Which fields must be set depends on another field's value.

    Args:
        if_field: the field looked at.
        cases: (rule it must meet, fields of which one must be set, message); the first that is met decides.
    """

    described = False

    def __init__(self, if_field: str, *cases: tuple[Field, Sequence[str], str]) -> None:
        self.if_field, self.cases = if_field, cases

    def sources(self) -> Sequence[str]:
        return (self.if_field,)

    def seen(self) -> Sequence[str]:
        return (self.if_field, *(name for _, names, _ in self.cases for name in names))

    def run(self, row: Row, errors: dict[str, Any], words: str) -> None:
        value = value_at(row, self.if_field)
        for match, fields, message in self.cases:
            if value is not None and match.error(value) is None:
                if all(is_empty(value_at(row, field)) for field in fields):
                    complain(errors, message % _quoted(fields) if "%s" in message else message)
                return

    def describe(self) -> Row:
        raise AssertionError("not shown")


class Custom(EntityCheck):
    """A rule of its own.

    Args:
        sources: fields that must be right in themselves before it runs.
        rule: gets the row; gives a message about the entity, errors by field, or None.
        all_set: whether it only runs when all of them are set.
        shown: further members of what ``/schemas`` shows of it.
    """

    def __init__(
        self,
        sources: Sequence[str],
        rule: Callable[[Row], ErrorTree],
        *,
        all_set: bool = True,
        shown: Mapping[str, Any] | None = None,
    ) -> None:
        self._sources, self.rule, self._all_set, self._shown = sources, rule, all_set, dict(shown or {})

    def sources(self) -> Sequence[str]:
        return self._sources

    def run(self, row: Row, errors: dict[str, Any], words: str) -> None:
        if self._all_set and any(is_empty(value_at(row, field)) for field in self._sources):
            return
        wrong = self.rule(row)
        if isinstance(wrong, str):
            complain(errors, wrong)
        elif wrong is not None:
            errors.update(wrong)

    def describe(self) -> Row:
        return {"custom_entity_check": {"field_sources": list(self._sources), **self._shown}}
