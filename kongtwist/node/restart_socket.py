"""The Unix socket in a node's prefix by which its successor finds it, and who may use it.

``<prefix>/restart.sock`` belongs to the node that serves. Only its own user may connect (the file's mode), and who has connected is
looked at once more (SO_PEERCRED, unix(7)): whoever gets the listening sockets of a node can serve in its place.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["connect", "forget", "is_ours", "listen"]

NAME = "restart.sock"

_AGAIN = 0.05
"""Seconds until a full backlog is tried again."""

_CREDENTIALS = struct.Struct("3i")


@contextmanager
def _reached(prefix: str, name: str) -> Iterator[str]:
    """A short path to a file in the prefix: the address of a Unix socket has 107 bytes at the most, a prefix may be longer."""
    folder = os.open(prefix, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{name}"
    finally:
        os.close(folder)


def listen(prefix: str) -> socket.socket:
    """Listen in a prefix, in place of whoever did. Raises OSError."""
    made = f"{NAME}.new"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        path = os.path.join(prefix, made)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        with _reached(prefix, made) as address:
            sock.bind(address)
        os.chmod(path, 0o600)
        sock.listen(8)
        os.rename(path, os.path.join(prefix, NAME))
    except OSError:
        sock.close()
        raise
    return sock


def forget(prefix: str) -> None:
    """Take the file away: nobody listens any more."""
    try:
        os.unlink(os.path.join(prefix, NAME))
    except FileNotFoundError:
        pass


def connect(prefix: str, patience: float) -> socket.socket | None:
    """Connect to the node that runs in a prefix; None when none can be reached that way.

    Args:
        prefix: its directory.
        patience: seconds for each step from now on.

    Raises:
        PermissionError: another user's node runs there.
        TimeoutError: a node listens there, and does not come to accept.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(patience)
    late = time.monotonic() + patience
    try:
        with _reached(prefix, NAME) as address:
            while not _connected(sock, address):
                if time.monotonic() > late:
                    raise TimeoutError
                time.sleep(_AGAIN)
    except (PermissionError, TimeoutError):
        sock.close()
        raise
    except OSError:
        sock.close()
        return None
    if not is_ours(sock):
        sock.close()
        raise PermissionError
    return sock


def _connected(sock: socket.socket, address: str) -> bool:
    """Connect; whether there was room in the backlog (unix(7): EAGAIN where there is none)."""
    try:
        sock.connect(address)
    except BlockingIOError:
        return False
    return True


def is_ours(sock: socket.socket) -> bool:
    """Whether the process at the other end runs as the same user."""
    told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(told)[1] == os.geteuid())
