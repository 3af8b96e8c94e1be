"""The node's working directory: who owns it, and the process id that commands look for there.

``<prefix>/kongtwist.pid`` is lock and process id in one: the node holds an advisory lock on it as long as it lives, so
a number left behind by a killed node is never mistaken for a running one.
"""

from __future__ import annotations

import fcntl
import os

from .conf_kinds import ConfError

__all__ = ["PID_FILE", "Prefix", "running_pid"]

PID_FILE = "kongtwist.pid"


class Prefix:
    """The working directory, held by this node. Made by `claim`.

    Args:
        path: the directory.
        fd: descriptor of the locked process id file.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def claim(cls, path: str) -> Prefix:
        """Make the directory if it is not there and take it for this node.

        Raises:
            ConfError: another node has it, or it cannot be made or written.
        """
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            fd = _open_locked(os.path.join(path, PID_FILE))
        except OSError as error:
            raise ConfError(f"cannot use prefix {path}: {error.strerror}") from error
        if fd is None:
            raise ConfError(f"kongtwist is already running in {path}")
        prefix = cls(path, fd)
        prefix.write_pid()
        return prefix

    def write_pid(self) -> None:
        """Say which process runs; once more after going to the background, which changes it."""
        text = f"{os.getpid()}\n".encode()
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))

    def release(self) -> None:
        """Give the directory up: the file goes, and with it the lock."""
        if self._fd >= 0:
            try:
                os.unlink(os.path.join(self.path, PID_FILE))
            except FileNotFoundError:
                pass
            os.close(self._fd)
            self._fd = -1


def _open_locked(path: str) -> int | None:
    """A descriptor of ``path`` with the lock on it, or None if another process has the lock."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        try:
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)  # the owner removed the file between our open and our lock: take the new one


def running_pid(path: str) -> int | None:
    """The process id of the node that runs in prefix ``path``, or None. Raises OSError if it cannot be looked at."""
    try:
        fd = os.open(os.path.join(path, PID_FILE), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(fd)
    return None
