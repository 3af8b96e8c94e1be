"""What took how long in one request: the tree of X-Kong-Request-Debug-Output (Kong 3.9, ``kong/timing/context.lua``).

A place is a phase, or a part of one; its time is in milliseconds. Only a request that asks for it has a tree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

__all__ = ["RequestTiming"]

_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


class RequestTiming:
    """The tree of one request.

    Args:
        clock: monotonic seconds.
        facts: stand at its root: ``request_id``, ``workspace_id``.
        logs: it is to stand in the error log, too.
        loopback: the client is on this machine, and gets the whole of it whatever its size.
    """

    def __init__(self, clock: Callable[[], float], facts: dict[str, Any], *, logs: bool, loopback: bool) -> None:
        self.clock = clock
        self.logs, self.loopback = logs, loopback
        self._root: dict[str, Any] = facts

    def add(self, seconds: float, *path: str, **facts: Any) -> None:
        """Something took its time; what was added to the same place before is summed up.

        Args:
            seconds: how long.
            path: the names of the places from the root on.
            facts: further facts of the last one.
        """
        node = self._root
        for name in path:
            node = node.setdefault("child", {}).setdefault(name, {})
        node["total_time"] = node.get("total_time", 0.0) + max(0.0, seconds) * 1000
        node.update(facts)

    def upstream(self, waited: float, streaming: float | None) -> None:
        """The upstream's part, in whole milliseconds as Kong tells it.

        Args:
            waited: seconds until its head came.
            streaming: seconds from there to the end; None before it.
        """
        first = int(waited * 1000)
        node: dict[str, Any] = {"total_time": first, "child": {"time_to_first_byte": {"total_time": first}}}
        if streaming is not None:
            rest = int(max(0.0, streaming) * 1000)
            node["child"]["streaming"] = {"total_time": rest}
            node["total_time"] = first + rest
        self._root.setdefault("child", {})["upstream"] = node

    @property
    def request_id(self) -> str:
        """The request's."""
        return str(self._root.get("request_id", ""))

    def text(self) -> str:
        """The tree as JSON."""
        root = _rounded(self._root)
        children = root.get("child")
        if children is not None:
            ours = sum(each.get("total_time", 0.0) for name, each in children.items() if name != "upstream")
            root["total_time_without_upstream"] = math.floor(ours * 100) / 100
        return _json(root)


def _rounded(node: dict[str, Any]) -> dict[str, Any]:
    """A copy with times of two decimal places."""
    made = dict(node)
    if "total_time" in made:
        made["total_time"] = math.floor(made["total_time"] * 100) / 100
    if "child" in made:
        made["child"] = {name: _rounded(each) for name, each in made["child"].items()}
    return made
