"""request-transformer's rules on headers: from the request's fields to the changes for the upstream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...core.http.headers import PreparedChanges
from ...core.http.pairs import pairs_of

__all__ = ["HeaderChanges", "HeaderRules", "changed_headers"]

HeaderChanges = dict[bytes, "tuple[bytes, ...] | None"]
"""Field names in lower case to their values for the upstream; None: the field is taken out."""

_HOST = b"host"


class HeaderRules(NamedTuple):
    """What is done with fields, in this order; names in lower case."""

    remove: list[bytes]
    rename: list[tuple[bytes, bytes]]
    replace: list[tuple[bytes, bytes]]  #: where the field is there; Host always is
    add: list[tuple[bytes, bytes]]  #: where it is not
    append: list[tuple[bytes, bytes]]

    @classmethod
    def of(cls, conf: Mapping[str, Any]) -> HeaderRules:
        """The rules of a configuration. A pair without a value does nothing, as in Kong."""
        steps = ("replace", "add", "append")
        return cls(
            [_name(name) for name, _ in pairs_of(conf["remove"]["headers"])],
            [(_name(old), _name(new)) for old, new in pairs_of(conf["rename"]["headers"]) if new],
            *(
                [(_name(name), value.encode()) for name, value in pairs_of(conf[step]["headers"]) if value]
                for step in steps
            ),
        )

    @property
    def empty(self) -> bool:
        """There is nothing to do."""
        return not any(self)

    def names(self) -> frozenset[bytes]:
        """The names of all fields that they look at."""
        pairs = (*self.replace, *self.add, *self.append)
        found = {*self.remove, *[name for pair in self.rename for name in pair], *[name for name, _ in pairs]}
        return frozenset(found | {name.replace(b"_", b"-") for name in found})

    def on_none(self) -> PreparedChanges | None:
        """What they change where none of these fields is there; None where that depends on the request all the same."""
        changes = changed_headers(self, {})
        try:
            return PreparedChanges({name: b"\0".join(values) for name, values in changes.items() if values is not None})
        except ValueError:
            return None  # fields that the gateway writes, or with several values


def _name(text: str) -> bytes:
    return text.lower().encode()


def changed_headers(rules: HeaderRules, fields: Mapping[bytes, tuple[bytes, ...]]) -> HeaderChanges:
    """What the rules change.

    A name with ``_`` finds a field with ``-`` where there is none of its own, as Kong's table of headers does; what is
    set then is the field of that name, beside the other.

    Args:
        rules: the rules.
        fields: the request's, names in lower case; what earlier plugins changed is changed in them.
    """
    table = {name: values for name, values in fields.items() if name != _HOST}
    gone: set[bytes] = set()

    def found(name: bytes) -> tuple[bytes, ...] | None:
        return table.get(name) or table.get(name.replace(b"_", b"-"))

    for name in rules.remove:
        if table.pop(name, None) is not None:
            gone.add(name)
    for old, new in rules.rename:
        values = found(old)
        if old != new and values:
            table.pop(old, None)
            gone.add(old)
            table[new] = values
    for name, value in rules.replace:
        if name == _HOST or found(name):
            table[name] = (value,)
    for name, value in rules.add:
        if name != _HOST and not found(name):
            table[name] = (value,)
    for name, value in rules.append:
        if name != _HOST:
            table[name] = (*(found(name) or ()), value)
    changes: HeaderChanges = {name: None for name in gone if name not in table}
    changes.update({name: values for name, values in table.items() if fields.get(name) != values})
    return changes
