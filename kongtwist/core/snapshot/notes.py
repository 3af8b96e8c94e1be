"""What operators should know of a configuration that is right in itself.

- Routes whose ``path_handling`` has no effect (Kong 3.9: only the router flavor ``traditional`` knows ``v1``).
- Routes of sessions (``tcp``, ``tls``, ``tls_passthrough``, ``udp``) where nobody listens for those.

Kept beside the snapshot and changed with it; a change costs the same with 10,000 routes as with ten.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from ..layers import Layers
from ..routing.protocol_checks import SESSION_PROTOCOLS
from ..rows import Row

__all__ = ["ROUTER_KINDS", "SESSION_KINDS", "Notes"]

Moves = Mapping[str, Mapping[str, tuple[Row | None, Row | None]]]

V1, SESSIONS = "v1", "sessions"
ROUTER_KINDS = frozenset((V1,))
"""What is not to be said where the router is the traditional one."""
SESSION_KINDS = frozenset((SESSIONS,))
"""What is not to be said where there are listeners for sessions (``stream_listen``)."""

_SENTENCES = {
    V1: "path_handling v1 has no effect unless router_flavor is traditional; routes with it are: ",
    SESSIONS: "stream_listen is off, so that no traffic comes to routes of tcp, tls, tls_passthrough and udp: ",
}


class _Note(NamedTuple):
    """What is to be said of a row."""

    label: str
    kind: str


class Notes:
    """What is to be said of a configuration. Immutable.

    Args:
        noted: by id of the row.
    """

    __slots__ = ("_noted",)

    def __init__(self, noted: Layers[str, _Note] | None = None) -> None:
        self._noted: Layers[str, _Note] = Layers() if noted is None else noted

    def changed(self, moves: Moves) -> Notes:
        """The notes after these moves (entity to id to row before and after); this object where nothing new is to be said."""
        put: dict[str, _Note] = {}
        gone: list[str] = []
        for entity, note_of in (("routes", _of_route),):
            for key, (_, after) in moves.get(entity, {}).items():
                note = None if after is None else note_of(after)
                if note is not None and note != self._noted.get(key):
                    put[key] = note
                elif note is None and key in self._noted:
                    gone.append(key)
        return Notes(self._noted.changed(put, gone)) if put or gone else self

    def concerned(self) -> frozenset[tuple[str, str]]:
        """(what is to be said, id of the row it is to be said of)."""
        return frozenset((note.kind, key) for key, note in self._noted.items())

    def sentences(self, kinds: Collection[str], most: int = 10) -> list[str]:
        """What is to be said, each thing once, with the names of the rows.

        Args:
            kinds: what is asked for, of the kinds that `concerned` gives.
            most: names in one sentence.
        """
        labels: dict[str, list[str]] = {}
        for note in self._noted.values():
            if note.kind in kinds:
                labels.setdefault(note.kind, []).append(note.label)
        return [words + _listed(sorted(labels[kind]), most) for kind, words in _SENTENCES.items() if kind in labels]


def _listed(names: list[str], most: int) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _label(row: Row) -> str:
    return str(row.get("name") or row["id"])


def _of_route(row: Row) -> _Note | None:
    if not SESSION_PROTOCOLS.isdisjoint(row["protocols"]):
        return _Note(_label(row), SESSIONS)
    return _Note(_label(row), V1) if row.get("path_handling") == "v1" else None
