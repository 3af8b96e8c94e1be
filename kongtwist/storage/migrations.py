"""How far a database's tables are, and the commands that bring them to the form this program needs.

A step has a part that running nodes of the version before can live with, and may have one that only fits when all nodes
are new. So an upgrade without interruption is: ``migrations up``, start the new nodes, stop the old ones, ``migrations
finish``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["MigrationState", "Migrations", "unfit"]


@dataclass(frozen=True)
class MigrationState:
    """How far a database is.

    Attributes:
        executed: names of finished steps.
        pending: of those begun, to be finished when all nodes are new.
        new: of those not begun.
        unknown: of those that only a newer program knows.
    """

    executed: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def needs_bootstrap(self) -> bool:
        """Whether there is nothing at all yet."""
        return not self.executed and not self.pending and not self.unknown


class Migrations(Protocol):
    """The migrations of one database. All methods block, and raise StorageError."""

    @property
    def where(self) -> str:
        """The database in words."""
        ...

    def state(self) -> MigrationState:
        """How far the database is."""
        ...

    def bootstrap(self) -> list[str]:
        """Make the tables; the steps done, none where somebody was faster."""
        ...

    def up(self, force: bool = False) -> list[str]:
        """Do new steps; their names. ``force``: the first parts of all others again too."""
        ...

    def finish(self) -> list[str]:
        """Do what is pending; the names."""
        ...

    def reset(self) -> None:
        """Drop everything."""
        ...


def unfit(where: str, state: MigrationState) -> str | None:
    """Why a node cannot start on a database in this state; None when it can."""
    if state.needs_bootstrap:
        return f"{where} has no tables yet; run 'kongtwist migrations bootstrap'"
    if state.unknown:
        return (
            f"{where} was migrated by a newer kongtwist (it has {', '.join(state.unknown)}); start that one, or upgrade"
        )
    if state.new:
        return f"{where} needs the migrations {', '.join(state.new)}; run 'kongtwist migrations up'"
    return None
