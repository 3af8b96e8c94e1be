"""Where the demo's upstreams listen: at the same ports at every start, so that what was stored with one goes on working.

Each upstream has its usual port. Where that is taken (by another node with a demo) any free one is used, and kept in a
file in the node's prefix for the next time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.error import CannotListenError

__all__ = ["USUAL", "KeptPorts"]

USUAL = {"page": 9301, "chat": 9101, "ticker": 9201, "sensors": 9401, "kafka": 9501}
"""Upstream -> its port. Beside 9100 and 9200, where `examples/` listen."""

T = TypeVar("T")


class KeptPorts:
    """The ports of one node's demo.

    Args:
        path: the file they are kept in; None keeps them nowhere.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._kept = _read(path)
        self._used: dict[str, int] = {}

    def listen(self, name: str, listen: Callable[[int], T]) -> T:
        """Listen at the first port that is free: the last one, the usual one, any.

        Args:
            name: the upstream's.
            listen: listens at a port; 0 stands for any.

        Raises:
            CannotListenError: there is none.
        """
        for port in dict.fromkeys((self._kept.get(name, USUAL[name]), USUAL[name])):
            try:
                return listen(port)
            except CannotListenError:
                continue
        return listen(0)

    def keep(self, name: str, port: int) -> None:
        """Use this port again the next time."""
        self._used[name] = port

    def save(self) -> None:
        """Write the file, if a port is another one than there would be anyway. Where that fails the demo starts all the
        same: only the next one may be at other ports."""
        if self._path is None or self._used == (self._kept or USUAL):
            return
        try:
            with open(self._path, "w", encoding="ascii") as file:
                json.dump(self._used, file)
        except OSError:
            return


def _read(path: str | None) -> dict[str, int]:
    if path is None:
        return {}
    try:
        with open(path, encoding="ascii") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: port for name, port in found.items() if name in USUAL and isinstance(port, int) and 0 < port < 65536}
