"""Tell the service manager how the node is: systemd's notification protocol (sd_notify(3)).

A unit of ``Type=notify`` names a datagram socket in ``NOTIFY_SOCKET``; a path that begins with ``@`` is an abstract one
(unix(7)). What is sent are lines ``NAME=value``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, MutableMapping

__all__ = ["NOTIFY_SOCKET", "ServiceManager"]

NOTIFY_SOCKET = "NOTIFY_SOCKET"
"""Environment variable with the socket's address; absent where nobody wants to know."""


class ServiceManager:
    """Who started the node, as far as it wants to be told.

    Args:
        environ: the process's environment; the socket's variable is taken out, so that no child speaks for the node.
        send: sends a datagram to an address; raises OSError.
    """

    def __init__(self, environ: MutableMapping[str, str], send: Callable[[bytes, str], None] | None = None) -> None:
        self._address = environ.pop(NOTIFY_SOCKET, "")
        self._send = send or _send

    @property
    def address(self) -> str:
        """The socket's address; empty where nobody wants to know."""
        return self._address

    def tell_main(self, pid: int) -> None:
        """Another process is the node from now on; this one is on its way out."""
        self._tell(f"MAINPID={pid}")

    def tell_ready(self) -> None:
        """The node serves: whatever was to start after it may start."""
        self._tell("READY=1")

    def tell_stopping(self) -> None:
        """The node stops and finishes what it has begun."""
        self._tell("STOPPING=1")

    def tell_failed(self, sentence: str) -> None:
        """The node cannot go on; ``systemctl status`` shows the sentence."""
        self._tell("STATUS=" + " ".join(sentence.split()))

    def _tell(self, line: str) -> None:
        if not self._address:
            return
        try:
            self._send(line.encode(), "\0" + self._address[1:] if self._address.startswith("@") else self._address)
        except OSError as error:
            from twisted.logger import Logger  # half of what a command such as `kongtwist health` would load

            Logger(namespace="kongtwist.node").warn(
                "the service manager cannot be told {line}: {why}", line=line, why=error.strerror
            )


def _send(data: bytes, address: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as told:
        told.sendto(data, address)
