"""Which name servers are asked, in which order."""

from __future__ import annotations

from collections.abc import Sequence

from .records import Server

__all__ = ["ServerOrder"]

AVOIDED = 30.0
"""Seconds a server that was silent is asked behind the others."""


class ServerOrder:
    """Orders name servers for each question.

    One that was silent a moment ago comes behind the others, so that not every look-up waits for it first.
    """

    def __init__(self) -> None:
        self._silent: dict[Server, float] = {}
        self._turn = 0

    def tries(self, servers: Sequence[Server], attempts: int, rotate: bool, now: float) -> list[Server]:
        """The servers to ask one behind the other: ``attempts`` of them, but each once at least."""
        if not servers:
            return []
        start = 0
        if rotate:
            start = self._turn % len(servers)
            self._turn += 1
        turned = [*servers[start:], *servers[:start]]
        turned.sort(key=lambda each: self._silent.get(each, 0.0) > now)
        count = max(attempts, len(turned))
        return [turned[index % len(turned)] for index in range(count)]

    def silent(self, server: Server, now: float) -> None:
        """It did not answer."""
        self._silent[server] = now + AVOIDED
        if len(self._silent) > 64:  # more than are ever configured at once: former ones go
            self._silent = {each: until for each, until in self._silent.items() if until > now}

    def answered(self, server: Server) -> None:
        """It did."""
        self._silent.pop(server, None)
