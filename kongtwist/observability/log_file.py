"""Where logs go: a file that several processes may append to, or a standard stream.

Files are opened with ``O_APPEND``, and every write is one ``write(2)`` of whole lines. Files are opened anew on request
(``kongtwist reload``, SIGUSR1), which is what logrotate needs; nothing here rotates.
"""

from __future__ import annotations

import os

__all__ = ["STANDARD_STREAMS", "LogFile"]

STANDARD_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
"""Destinations that are no files, and their descriptors."""


class LogFile:
    """Where a log goes: a file that is appended to, or one of the standard streams.

    Args:
        destination: a path, ``/dev/stdout`` or ``/dev/stderr``, as in kong.conf; a ``log_format`` name after the path is
            left aside.
        prefix: directory that relative paths start from; folders that lack are made.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, destination: str, prefix: str = ".") -> None:
        path = destination.split()[0]
        self.path = path if path in STANDARD_STREAMS else os.path.join(prefix, path)
        self._fd = self._open()

    def _open(self) -> int:
        if self.path in STANDARD_STREAMS:
            # Not opened by name: under systemd the standard streams are sockets, which open(2) refuses.
            return os.dup(STANDARD_STREAMS[self.path])
        os.makedirs(os.path.dirname(self.path) or ".", mode=0o700, exist_ok=True)
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(self, data: bytes) -> int:
        """Append ``data`` with one system call.

        Returns:
            bytes taken; fewer than given when the destination is a full pipe.

        Raises:
            OSError: the disk is full, the pipe has no reader, ...
        """
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    def reopen(self) -> None:
        """Go on in the file that now has our name. If it cannot be opened, the old one is kept and OSError raised."""
        fd = self._open()
        old, self._fd = self._fd, fd
        os.close(old)

    def close(self) -> None:
        """Give the descriptor back; nothing may be written after it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
