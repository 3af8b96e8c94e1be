"""TLS for gRPC's own library, spoken by us: it cannot leave a certificate unchecked, nor bound a chain, as Services may ask.

The library connects to a socket of this process in plain text; behind it a connection of ours goes to the server, with the TLS
that the target asks for. Nobody else gets in: a peer of the socket has to be this process (unix(7), SO_PEERCRED).
"""

from __future__ import annotations

import os
import socket
from struct import Struct
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from ..core.chain.host import ConnectFailed, GRPCTarget
from .connections import Connector, Link

__all__ = ["TLSBridge"]

_CREDENTIALS = Struct("3i")


class _Outer(Link):
    """Our connection to the server."""

    def __init__(self, inner: _Inner) -> None:
        super().__init__()
        self._inner = inner

    def dataReceived(self, data: bytes) -> None:
        self._inner.transport.write(data)

    def lost(self, reason: Failure) -> None:
        self._inner.transport.loseConnection()


class _Inner(Protocol):
    """The library's connection to us."""

    transport: Any
    factory: TLSBridge

    def connectionMade(self) -> None:
        handle = self.transport.getHandle()
        pid, _, _ = _CREDENTIALS.unpack(handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if pid != os.getpid():
            self.transport.abortConnection()
            return
        self.transport.pauseProducing()
        self._outer = _Outer(self)
        self.factory.links[self] = opening = Deferred.fromCoroutine(self.factory.open(self._outer))
        opening.addCallbacks(self._opened, self._failed)  # type: ignore[unused-awaitable]

    def _opened(self, link: Link) -> None:
        theirs, ours = link.transport, self.transport
        ours.registerProducer(theirs, True)
        theirs.registerProducer(ours, True)
        ours.resumeProducing()

    def _failed(self, reason: Failure) -> None:
        reason.trap(ConnectFailed, CancelledError)
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        self._outer.transport.write(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionClosed())) -> None:  # noqa: B008 - Twisted's signature
        opening = self.factory.links.pop(self, None)
        if opening is not None:
            opening.cancel()
            if self._outer.transport is not None:
                self._outer.transport.loseConnection()


class TLSBridge(Factory):
    """A socket that leads to one target.

    Args:
        reactor: listens.
        connector: connects.
        target: the server; it has TLS.

    Attributes:
        address: the socket, as the library writes it.
        fault: why there was no connection to the server the last time; "" where there was one.
        links: the library's connections, and what connects them.
    """

    protocol: Any = _Inner
    noisy = False

    def __init__(self, reactor: Any, connector: Connector, target: GRPCTarget) -> None:
        self._connector = connector
        self._target = target
        self.fault = ""
        self.links: dict[_Inner, Deferred[Any]] = {}
        name = f"kongtwist-{os.getpid()}-{os.urandom(16).hex()}"
        self.address = f"unix-abstract:{name}"
        self._port = reactor.listenUNIX(f"\0{name}", self)

    async def open(self, link: Link) -> Link:
        """Connect ``link`` to the server. Raises ConnectFailed."""
        target = self._target
        try:
            await self._connector.open(target.host, target.port, link, tls=target.tls, timeout=target.connect_timeout)
        except ConnectFailed as error:
            self.fault = str(error)
            raise
        self.fault = ""
        return link

    def close(self) -> None:
        """Listen no more; what is connected is cut."""
        maybeDeferred(self._port.stopListening)  # type: ignore[unused-awaitable]
        for inner in list(self.links):
            inner.transport.abortConnection()
