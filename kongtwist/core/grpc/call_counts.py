"""What is counted of gRPC calls, method by method.

Each process counts by itself, with plain integers: what is counted while bytes pass is added by whoever passes them, in lumps. The
figures are brought to the node with those of plugins (`observability.plugin_metrics`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .grpc_status import NAMES
from .grpc_text import method_name

__all__ = ["NO_STATUS", "OTHERS", "CallCounts", "MethodCounts"]

OTHERS = "(others)"
"""Stands for the methods that there was no room for, and for paths that are none."""

NO_STATUS = -1
"""Stands for the status of a call that ended without one."""

_LONGEST = 256
"""Bytes of the longest path counted by itself."""


class Figures(Protocol):
    """Takes figures (`observability.plugin_metrics.Metrics`)."""

    def count(self, name: str, amount: float = 1, labels: Mapping[str, str] = {}) -> None: ...

    def gauge(self, name: str, value: float, labels: Mapping[str, str] = {}) -> None: ...


class MethodCounts:
    """Counts of one method's calls.

    Attributes:
        method: ``package.Service/Method``.
        open: calls under way.
        codes: gRPC's status, or `NO_STATUS` -> calls that ended with it.
        messages_in, messages_out: messages of clients, and of upstreams.
        bytes_in, bytes_out: bytes of bodies, the messages' prefixes included.
    """

    __slots__ = ("_told", "bytes_in", "bytes_out", "codes", "messages_in", "messages_out", "method", "open")

    def __init__(self, method: str) -> None:
        self.method = method
        self.open = self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0
        self.codes: dict[int, int] = {}
        self._told: dict[object, int] = {}

    def ended(self, code: int) -> None:
        """A call is over. ``code``: its status, or `NO_STATUS`."""
        self.open -= 1
        self.codes[code] = self.codes.get(code, 0) + 1

    def tell(self, figures: Figures) -> None:
        """Tell what has changed since the last time."""
        method = self.method
        for code, count in self.codes.items():
            if grown := self._grown(code, count):
                name = NAMES[code] if 0 <= code < len(NAMES) else "NONE" if code == NO_STATUS else str(code)
                figures.count("kongtwist_grpc_calls_total", grown, {"method": method, "code": name})
        for direction, messages, size in (
            ("request", self.messages_in, self.bytes_in),
            ("response", self.messages_out, self.bytes_out),
        ):
            labels = {"method": method, "direction": direction}
            if grown := self._grown(("messages", direction), messages):
                figures.count("kongtwist_grpc_messages_total", grown, labels)
            if grown := self._grown(("bytes", direction), size):
                figures.count("kongtwist_grpc_bytes_total", grown, labels)
        if self.open != self._told.get("open", 0):
            self._told["open"] = self.open
            figures.gauge("kongtwist_grpc_open_streams", self.open, {"method": method})

    def _grown(self, what: object, now: int) -> int:
        before = self._told.get(what, 0)
        self._told[what] = now
        return now - before


class CallCounts:
    """Counts of a process.

    Args:
        most: methods counted by themselves; what would be one more is counted as `OTHERS`. May be set later.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._methods: dict[bytes, MethodCounts] = {}
        self._others: MethodCounts | None = None

    def of(self, path: bytes) -> MethodCounts:
        """Counts of a method. Clients choose paths, so only what is a method's path takes up room.

        Args:
            path: of the request, without query.
        """
        found = self._methods.get(path)
        if found is not None:
            return found
        name = method_name(path)
        if name is None or len(self._methods) >= self.most or len(path) > _LONGEST:
            if self._others is None:
                self._others = MethodCounts(OTHERS)
            return self._others
        made = self._methods[path] = MethodCounts(name)
        return made

    def tell(self, figures: Figures) -> None:
        """Tell what has changed since the last time."""
        for each in self._methods.values():
            each.tell(figures)
        if self._others is not None:
            self._others.tell(figures)
