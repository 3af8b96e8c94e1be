"""What is known of the names of upstreams, for those that choose among addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

__all__ = ["Address", "Names"]


class Address(NamedTuple):
    """One address of a name.

    ``port`` and ``weight`` are None where the record tells none (A and AAAA); ``name`` is the host name that an SRV record
    points to, or the name that was asked for.
    """

    ip: str
    port: int | None
    weight: int | None
    name: str


class Names(Protocol):
    """Knows the addresses of names, and who wants to hear of their changes."""

    def known(self, name: str) -> tuple[Address, ...] | None:
        """The addresses of ``name`` as far as they are known now; None: it was not asked for yet."""

    def watch(self, name: str, changed: Callable[[tuple[Address, ...]], None]) -> Callable[[], None]:
        """Have ``changed`` called with the addresses of ``name`` whenever they are others; the answer ends that."""
