"""What operators should know of a configuration that is right in itself: where it works otherwise than in Kong.

- Routes that Kong's default router flavor, ``traditional_compatible``, matches or forwards otherwise than ``traditional``,
  which is ours (Kong 3.9, ``kong/router/transform.lua`` and ``kong/router/traditional.lua``).
- Services whose protocol is not proxied yet.

Kept beside the snapshot and changed with it; a change costs the same with 10,000 routes as with ten.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from ..layers import Layers
from ..routing.protocol_checks import UNBUILT_PROTOCOLS
from ..rows import Row

__all__ = ["ROUTER_KINDS", "Notes"]

Moves = Mapping[str, Mapping[str, tuple[Row | None, Row | None]]]

V1, PORT, STAR, PROTOCOL = "v1", "port", "star", "protocol"
ROUTER_KINDS = frozenset((V1, PORT, STAR))
"""What is only to be said where nobody chose the router flavor."""

_ROUTES = "router_flavor is traditional here; Kong's default, traditional_compatible, treats some routes otherwise: "
_SERVICES = "services of protocols that are not proxied yet, so that requests to them are answered 503: "
_REASONS = {
    V1: "path_handling v1 has no effect there",
    PORT: "a host's port is compared with the port listened on there, not with the Host header's",
    STAR: "hosts with a star count less than paths and headers there",
}
_ATTRIBUTES = ("methods", "hosts", "headers", "paths", "snis")


class _Note(NamedTuple):
    """What is to be said of a row."""

    label: str
    kinds: tuple[str, ...]
    weight: int  #: a route's number of attributes; 0 for a service


class Notes:
    """What is to be said of a configuration. Immutable.

    Args:
        noted: by id of the row.
        rivals: how many routes there are that a star in a host would lose to in the other flavor, by number of attributes.
    """

    __slots__ = ("_noted", "_rivals")

    def __init__(self, noted: Layers[str, _Note] | None = None, rivals: Mapping[int, int] | None = None) -> None:
        self._noted: Layers[str, _Note] = Layers() if noted is None else noted
        self._rivals: Mapping[int, int] = rivals or {}

    def changed(self, moves: Moves) -> Notes:
        """The notes after these moves (entity to id to row before and after); this object where nothing new is to be said."""
        put: dict[str, _Note] = {}
        gone: list[str] = []
        rivals = dict(self._rivals)
        for entity, note_of in (("routes", _of_route), ("services", _of_service)):
            for key, (before, after) in moves.get(entity, {}).items():
                note = None if after is None else note_of(after)
                if note is not None and note != self._noted.get(key):
                    put[key] = note
                elif note is None and key in self._noted:
                    gone.append(key)
                for row, one in ((before, -1), (after, 1)) if entity == "routes" else ():
                    if row is not None and _is_rival(row):
                        weight = _weight(row)
                        rivals[weight] = rivals.get(weight, 0) + one
        if not put and not gone and rivals == self._rivals:
            return self
        return Notes(self._noted.changed(put, gone) if put or gone else self._noted, rivals)

    def concerned(self) -> frozenset[tuple[str, str]]:
        """(what is to be said, id of the row it is to be said of)."""
        return frozenset((kind, key) for kind, key, _ in self._each())

    def sentences(self, kinds: Collection[str], most: int = 10) -> list[str]:
        """What is to be said, each thing once, with the names of the rows.

        Args:
            kinds: what is asked for, of the kinds that `concerned` gives.
            most: names in one sentence.
        """
        labels: dict[str, list[str]] = {}
        for kind, _, label in self._each():
            if kind in kinds:
                labels.setdefault(kind, []).append(label)
        listed = {kind: _listed(sorted(names), most) for kind, names in labels.items()}
        routes = "; ".join(f"{listed[kind]} ({why})" for kind, why in _REASONS.items() if kind in listed)
        return [
            *([_ROUTES + routes] if routes else []),
            *([_SERVICES + listed[PROTOCOL]] if PROTOCOL in listed else []),
        ]

    def _each(self) -> Iterator[tuple[str, str, str]]:
        for key, note in self._noted.items():
            for kind in note.kinds:
                if kind != STAR or self._rivals.get(note.weight):
                    yield kind, key, note.label


def _listed(names: list[str], most: int) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _label(row: Row) -> str:
    return str(row.get("name") or row["id"])


def _weight(row: Row) -> int:
    return sum(bool(row.get(name)) for name in _ATTRIBUTES)


def _is_rival(row: Row) -> bool:
    """Whether a route without hosts has what counts more than a star in the other flavor."""
    return not row.get("hosts") and bool(row.get("paths") or row.get("headers"))


def _of_route(row: Row) -> _Note | None:
    hosts: list[str] = row.get("hosts") or []
    found = {
        V1: row.get("path_handling") == "v1",
        PORT: any(":" in host.rpartition("]")[2] for host in hosts if host.count(":") == 1 or host.startswith("[")),
        STAR: any("*" in host for host in hosts),
    }
    kinds = tuple(kind for kind, there in found.items() if there)
    return _Note(_label(row), kinds, _weight(row)) if kinds else None


def _of_service(row: Row) -> _Note | None:
    protocol = row.get("protocol")
    if protocol not in UNBUILT_PROTOCOLS or row.get("enabled") is False:
        return None
    return _Note(f"{_label(row)} ({protocol})", (PROTOCOL,), 0)
