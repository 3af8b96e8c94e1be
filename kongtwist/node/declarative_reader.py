"""Reads and judges a declarative configuration in a process of its own: ``python -m kongtwist.node.declarative_reader``.

Standard input is a line of JSON (what to do) and the body. Standard output is lines of JSON: lists of rows, and at the
end a record: how it went; behind that of a refusal the answer.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..entities import Entity, EntityError, registry
from ..entities.size import is_heavy
from ..storage.declarative.dataset import Declared, declared
from ..storage.declarative.fault_lists import flattened
from ..storage.declarative.posted import BadGiven, tree_in
from .plugin_loader import load_plugins

__all__ = ["MEMORY", "Refusal", "Task", "judge"]

MEMORY = 4 * 1024**3
"""Bytes of memory that the process may take; a text that needs more is answered 413."""

SENTENCE = 10_000
"""Characters of a refusal's sentence that are told beside the answer itself."""

ROWS_A_LINE = 25
"""Rows that the gateway takes in at a stretch; none behind a heavy one."""


class Refusal(Exception):
    """The configuration is not taken.

    Attributes:
        status: HTTP status of the answer.
        body: its body.
    """

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body.get("message", ""))
        self.status, self.body = status, body


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be read.

    Attributes:
        given: the body.
        content_type: its type.
        flatten: tell faults row by row as well.
        now: epoch seconds.
    """

    given: bytes
    content_type: str
    flatten: bool
    now: float

    def encoded(self, plugins: Sequence[str], path: Sequence[str], router_flavor: str) -> Iterator[bytes]:
        """For the process that does it.

        Args:
            plugins: names of the plugins whose entities may be in the file.
            path: where they are looked for (``sys.path``).
            router_flavor: decides which fields routes have.
        """
        head = {
            "content_type": self.content_type,
            "flatten": self.flatten,
            "now": self.now,
            "router_flavor": router_flavor,
        }
        yield json.dumps(head | {"plugins": list(plugins), "path": list(path)}).encode() + b"\n"
        yield self.given


def judge(task: Task, entities: Mapping[str, Entity]) -> tuple[list[Declared], bool]:
    """The rows, and whether they were given as text.

    Raises:
        Refusal: there are faults.
    """
    tree: dict[str, Any] | None = None
    try:
        tree, as_text = tree_in(task.given, task.content_type)
        return declared(tree, entities, now=task.now), as_text
    except BadGiven as bad:
        raise Refusal(400, {"message": str(bad)}) from None
    except EntityError as error:
        told = flattened(error, tree, entities) if task.flatten and tree is not None else error.body()
        raise Refusal(error.status, told) from None
    except RecursionError:
        deep = EntityError.declarative({"error": "failed parsing declarative configuration: nested too deeply"})
        raise Refusal(deep.status, deep.body()) from None


def _main() -> None:
    head = json.loads(sys.stdin.buffer.readline())
    given = sys.stdin.buffer.read()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.path[:] = head["path"]
    task = Task(given, head["content_type"], head["flatten"], head["now"])
    try:
        rows, as_text = judge(task, registry(load_plugins(head["plugins"]), head["router_flavor"]))
    except Refusal as refusal:
        _refuse(refusal.status, refusal.body)
        return
    except MemoryError:
        _refuse(413, {"message": f"the configuration needs more than {MEMORY >> 20} MiB of memory"})
        return
    line: list[Declared] = []
    for declared_row in rows:
        line.append(declared_row)
        if len(line) == ROWS_A_LINE or is_heavy(declared_row.row):
            _say(line)
            line = []
    _say(line)
    _say({"as_text": as_text})


def _refuse(status: int, body: Mapping[str, Any]) -> None:
    """Two lines: status and sentence, and the whole answer, which may be long and is passed on as it is."""
    _say({"refused": status, "message": str(body.get("message", ""))[:SENTENCE]})
    _say(body)


def _say(what: Any) -> None:
    sys.stdout.write(json.dumps(what, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    _main()
