"""What a running node tells the command ``kongtwist``: small files in its prefix.

A signal asks the node for something, and has no answer. So the node writes how it went into a file. It counts what it is
asked for: the command looks at that number before it sends the signal, and waits for the outcome of a later one. An
outcome that is being worked out when the signal comes is none of it: it may be that of a file as it was before.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

__all__ = ["Outcome", "forget_outcome", "last_outcome", "write_outcome"]

RELOAD_FILE = "reload.json"


class Outcome(NamedTuple):
    """How the last reload went."""

    asked: int = 0  #: reloads that the node was asked for since its start
    number: int = 0  #: the last one that this is the outcome of; 0: the node has only started
    source: str | None = None  #: the configuration file that the node runs by
    error: str | None = None  #: why everything stays as it was
    later: tuple[str, ...] = ()  #: properties that were changed and take effect at the next start


def write_outcome(prefix: str, outcome: Outcome) -> None:
    """Tell how a reload went. Raises OSError."""
    path = os.path.join(prefix, RELOAD_FILE)
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(outcome._asdict(), file)
    os.replace(f"{path}.new", path)


def forget_outcome(prefix: str) -> None:
    """Take away what a node told that ran here before."""
    try:
        os.unlink(os.path.join(prefix, RELOAD_FILE))
    except FileNotFoundError:
        pass


def last_outcome(prefix: str) -> Outcome | None:
    """How the last reload went; None where nobody has told. Raises OSError if it cannot be looked at."""
    try:
        with open(os.path.join(prefix, RELOAD_FILE), encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
        return Outcome(found["asked"], found["number"], found["source"], found["error"], tuple(found["later"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
