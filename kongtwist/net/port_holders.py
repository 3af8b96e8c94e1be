"""Who listens at an address that a start finds taken: the process, as /proc tells it.

Only processes of the same user are seen (all of them by root); whatever cannot be looked at is left out.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from typing import NamedTuple

from ..config.kinds import Listen

__all__ = ["Holder", "holder_of_path", "holder_of_port", "refusal"]

_LISTEN = "0A"
"""State of a listening socket in /proc/net/tcp (include/net/tcp_states.h)."""


class Holder(NamedTuple):
    """A process."""

    pid: int
    name: str  #: of its program, as ps shows it

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name})"


def holder_of_port(host: str, port: int, proc: str = "/proc") -> Holder | None:
    """The process that listens on a TCP port, at this address or at all of them.

    Args:
        host: an IP address, or a name.
        port: the port.
        proc: where /proc is.
    """
    inodes = set()
    for name in ("tcp", "tcp6"):
        for fields in _table(f"{proc}/net/{name}"):
            if len(fields) > 9 and fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add((_overlap(host, fields[1].rpartition(":")[0]), fields[9]))
    for fits in (True, False):
        holder = _holder({inode for same, inode in inodes if same is fits}, proc)
        if holder is not None:
            return holder
    return None


def holder_of_path(path: str, proc: str = "/proc") -> Holder | None:
    """The process that has a unix socket at this path.

    Args:
        path: of the socket.
        proc: where /proc is.
    """
    return _holder({fields[6] for fields in _table(f"{proc}/net/unix") if len(fields) > 7 and fields[7] == path}, proc)


def _table(path: str) -> Iterator[list[str]]:
    """The lines of a table of sockets, without its heading."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        yield line.split()


def _overlap(host: str, address: str) -> bool:
    """Whether a socket bound to ``address`` (hex digits of /proc/net/tcp) keeps others from ``host``."""
    words = [int(address[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(address), 8)]
    theirs = ipaddress.ip_address(b"".join(words))
    try:
        ours = ipaddress.ip_address(host)
    except ValueError:
        return True
    return theirs == ours or theirs.is_unspecified or ours.is_unspecified


def _holder(inodes: set[str], proc: str) -> Holder | None:
    """The process with the lowest number that has one of these sockets: of a server with workers, the first."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    if not wanted:
        return None
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):
        folder = f"{proc}/{pid}"
        try:
            if any(_link(f"{folder}/fd/{fd}") in wanted for fd in os.listdir(f"{folder}/fd")):
                with open(f"{folder}/comm", encoding="utf-8", errors="replace") as file:
                    return Holder(pid, file.read().strip())
        except OSError:
            continue  # it has ended, or is another user's
    return None


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def refusal(name: str, listen: Listen, error: OSError) -> str:
    """Why an address cannot be listened on, and what to do about it.

    Args:
        name: of the property.
        listen: the address.
        error: what the system says.
    """
    if error.errno == errno.EADDRINUSE:
        holder = holder_of_path(listen.path) if listen.path else holder_of_port(listen.host, listen.port)
        what, other = ("socket", "path") if listen.path else ("port", "port")
        why = f"the {what} is in use" + (f" by {holder}" if holder is not None else "")
        why += f"; stop what uses it, or give {name} another {other}"
    elif error.errno == errno.EEXIST:
        why = f"something that is no socket is there; remove it, or give {name} another path"
    elif error.errno in (errno.EACCES, errno.EPERM):
        why = "no permission"
        if 0 < listen.port < 1024:
            why += ", ports below 1024 need it; use another port, or let this user (sysctl net.ipv4.ip_unprivileged_port_start)"
    elif error.errno == errno.EADDRNOTAVAIL:
        why = "this machine has no such address; use one it has, or 0.0.0.0 or [::] for all of them"
    elif isinstance(error, socket.gaierror):
        why = f"{error.strerror}; write an address of this machine instead of a name, or have the name resolved"
    else:
        why = error.strerror or str(error)
    return f"cannot listen on {listen.address} ({name}): {why}"
