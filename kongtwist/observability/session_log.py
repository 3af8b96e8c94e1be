"""The access log of sessions of stream routes, in Kong's format ``basic`` (Kong 3.9, ``nginx_kong_stream.lua``)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from .access_log import AccessLog
from .log_formats import Times

if TYPE_CHECKING:
    from ..core.exchange import Exchange

__all__ = ["SessionLog"]


class SessionLog(AccessLog):
    """One line for each session that is over: client, time, TCP or UDP, status, bytes to the client, bytes from it, seconds.

    Args:
        destination: a path, ``/dev/stdout``, or ``off``.
        reactor: for the delayed write.
        prefix: directory that relative paths start from.
        wall: epoch seconds.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self, destination: str, reactor: IReactorTime, *, prefix: str = ".", wall: Callable[[], float] = time.time
    ) -> None:
        super().__init__(destination, reactor, prefix=prefix, wall=wall)
        self._times = Times(wall)

    def log(self, exchange: Exchange) -> None:
        """Write the line of a session (`core.stream_session.StreamSession`)."""
        if self.enabled:
            kind = b"UDP" if exchange.scheme == b"udp" else b"TCP"
            lasted: float = getattr(exchange, "lasted", 0.0)
            facts = (exchange.status, exchange.bytes_out, exchange.bytes_in, lasted)
            line = b"%b [%b] %b %d %d %d %.3f\n" % (exchange.client_ip.encode(), self._times.now(), kind, *facts)
            self._append(line)
