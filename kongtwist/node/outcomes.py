"""What the command ``kongtwist`` and a running node tell one another: small files in the node's prefix.

A signal carries no words and brings no answer. So the command writes the order for a drain into a file, which the node
removes when it gets the signal; another file says how the drain went.

A third file says how a reload went. The node counts the reloads that were asked for: the command reads that number before
it sends the signal, and waits for the outcome of a later one. A reload that runs when the signal comes does not count: it
may have read the file as it was before.
"""

from __future__ import annotations

import errno
import json
import os
from typing import Any, NamedTuple

__all__ = [
    "DrainOrder", "Drained", "Outcome", "drain_ordered", "forget_order", "forget_outcomes", "how_drained", "last_outcome",
    "order_drain", "take_drain_order", "write_drained", "write_outcome",
]  # fmt: skip

_FULL = (errno.ENOSPC, errno.EDQUOT)

RELOAD_FILE, ORDER_FILE, DRAINED_FILE = "reload.json", "drain.json", "drained.json"


class Outcome(NamedTuple):
    """How the last reload went."""

    asked: int = 0  #: reloads that the node was asked for since its start
    number: int = 0  #: the last one that this is the outcome of; 0: the node has only started
    source: str | None = None  #: the configuration file that the node runs by
    error: str | None = None  #: why everything stays as it was
    later: tuple[str, ...] = ()  #: properties that were changed and take effect at the next start


class DrainOrder(NamedTuple):
    """What a drain is to be like."""

    delay: float  #: seconds that new connections are still accepted, while monitors notice
    timeout: float  #: seconds behind that until what is still open is ended
    stop: bool = True  #: end the node then; else only tell monitors


class Drained(NamedTuple):
    """What was still open when a drain came to its end."""

    streams: int
    connections: int  #: those of the streams included


def write_outcome(prefix: str, outcome: Outcome) -> None:
    """Tell how a reload went. Raises OSError."""
    _write(prefix, RELOAD_FILE, outcome._asdict())


def last_outcome(prefix: str) -> Outcome | None:
    """How the last reload went; None where nobody has told. Raises OSError if it cannot be looked at."""
    try:
        found = _read(prefix, RELOAD_FILE)
        return Outcome(found["asked"], found["number"], found["source"], found["error"], tuple(found["later"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def order_drain(prefix: str, order: DrainOrder) -> None:
    """Leave an order for the node, which looks for it at SIGWINCH. Raises OSError."""
    _write(prefix, ORDER_FILE, order._asdict())


def take_drain_order(prefix: str) -> DrainOrder | None:
    """The order that was left, which is gone then; None when there is none. Raises OSError."""
    try:
        found = _read(prefix, ORDER_FILE)
        order = DrainOrder(float(found["delay"]), float(found["timeout"]), bool(found["stop"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        order = None
    _forget(prefix, ORDER_FILE)
    return order


def drain_ordered(prefix: str) -> bool:
    """Whether an order is there that the node has not taken."""
    return os.path.exists(os.path.join(prefix, ORDER_FILE))


def write_drained(prefix: str, drained: Drained) -> None:
    """Tell how a drain ended. Raises OSError."""
    _write(prefix, DRAINED_FILE, drained._asdict())


def how_drained(prefix: str) -> Drained | None:
    """How the node's drain ended; None when it did not come to its end. Raises OSError if it cannot be looked at."""
    try:
        found = _read(prefix, DRAINED_FILE)
        return Drained(int(found["streams"]), int(found["connections"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def forget_outcomes(prefix: str) -> None:
    """Take away what was told, and to, a node that ran here before."""
    for name in (RELOAD_FILE, ORDER_FILE, DRAINED_FILE):
        _forget(prefix, name)


def forget_order(prefix: str) -> None:
    """Take back an order that the node has not taken."""
    _forget(prefix, ORDER_FILE)


def _write(prefix: str, name: str, what: dict[str, Any]) -> None:
    path = os.path.join(prefix, name)
    text = json.dumps(what).encode()
    try:
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(text)
        os.replace(f"{path}.new", path)
    except OSError as error:
        if error.errno not in _FULL or not _written_over(path, text):
            raise


def _written_over(path: str, text: bytes) -> bool:
    """Write into the block that a file has, as the disk is full and a command waits for this; whether it could be. Raises OSError."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        padded = text.ljust(os.fstat(fd).st_size)
        return os.pwrite(fd, padded, 0) == len(padded)
    finally:
        os.close(fd)


def _read(prefix: str, name: str) -> dict[str, Any]:
    with open(os.path.join(prefix, name), encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def _forget(prefix: str, name: str) -> None:
    try:
        os.unlink(os.path.join(prefix, name))
    except FileNotFoundError:
        pass
