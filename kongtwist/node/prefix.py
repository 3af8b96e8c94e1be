"""The node's working directory: who owns it, and the process id that commands look for there.

``<prefix>/kongtwist.pid`` is lock and process id in one: the node holds an advisory lock on it as long as it lives, so
a number left behind by a killed node is never mistaken for a running one.
"""

from __future__ import annotations

import fcntl
import os
from uuid import UUID, uuid4

from ..config.kinds import ConfError

__all__ = ["PID_FILE", "Prefix", "already_running", "kept_node_id", "running_pid", "try_file", "unusable"]

PID_FILE = "kongtwist.pid"


class Prefix:
    """The working directory, held by this node. Made by `claim`.

    Args:
        path: the directory.
        fd: descriptor of the locked process id file.

    Attributes:
        shared: another process has the lock, too, and the file is its own: `release` leaves it there.
    """

    def __init__(self, path: str, fd: int, shared: bool = False) -> None:
        self.path = path
        self._fd = fd
        self.shared = shared

    def fileno(self) -> int:
        """The locked file, for a process that takes over."""
        return self._fd

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
            raise ConfError(unusable(path, error)) from error
        if fd is None:
            raise ConfError(already_running(path, running_pid(path)))
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
                if not self.shared:
                    os.unlink(os.path.join(self.path, PID_FILE))
            except FileNotFoundError:
                pass
            os.close(self._fd)
            self._fd = -1


def already_running(path: str, pid: int | None) -> str:
    """What a start is refused with where a node runs; the first line is Kong's."""
    who = "another process" if pid is None else f"process {pid}"
    return (
        f"kongtwist is already running in {path}\n"
        f"It is {who}. End it with 'kongtwist stop -p {path}', or give this node a prefix of its own (-p, or the"
        " property prefix)."
    )


def unusable(path: str, error: OSError) -> str:
    """What a start is refused with where the directory cannot be made or written."""
    return (
        f"cannot use prefix {path}: {error.strerror}; make a directory there that this user may write,"
        " or name another one (-p, or the property prefix)"
    )


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


def try_file(path: str) -> None:
    """See whether a file can be written, made together with its folders where it is not there; nothing of that is left.

    Raises:
        OSError: it cannot.
    """
    made: list[str] = []
    folder = os.path.dirname(os.path.abspath(path))
    try:
        while not os.path.lexists(folder):
            made.append(folder)
            folder = os.path.dirname(folder)
        os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
        there = os.path.lexists(path)
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600))
        if not there:
            os.unlink(path)
    finally:
        for each in made:
            try:
                os.rmdir(each)
            except FileNotFoundError:
                continue
            except OSError:
                break  # somebody else has put something there meanwhile


def kept_node_id(prefix: str | None) -> str:
    """The node's UUID: kept in ``<prefix>/node_id``; a new one without a prefix."""
    if prefix is None:
        return str(uuid4())
    path = os.path.join(prefix, "node_id")
    try:
        with open(path, encoding="ascii") as file:
            return str(UUID(file.read().strip()))
    except (OSError, ValueError):
        made = str(uuid4())
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(made + "\n")
    except OSError as error:
        raise ConfError(f"prefix cannot be written: {error}") from error
    return made
