"""What stands for connections and sockets while plugins are tested."""

from __future__ import annotations

from collections.abc import Awaitable

from twisted.internet.defer import Deferred

from ..core.chain.host import ConnectionLost, TLSSettings

__all__ = ["StandInConnection", "StandInDatagrams"]


class StandInDatagrams:
    """A socket for datagrams; keeps what is ``sent``."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        """See `kongtwist.core.chain.host.Datagrams`."""
        self.sent.append(data)


class StandInConnection:
    """A connection to a server.

    Attributes:
        address: (host, port) as asked for.
        tls: as asked for, at first or later.
        written: bytes the plugin sent.
        closed: it has ended.
    """

    def __init__(self, host: str, port: int, tls: TLSSettings | None) -> None:
        self.address = (host, port)
        self.tls = tls
        self.written = b""
        self.closed = False
        self._come: list[bytes] = []
        self._reader: Deferred[bytes] | None = None

    def feed(self, data: bytes) -> None:
        """The server sends; b"" ends what it sends."""
        self._come.append(data)
        if self._reader is not None:
            reader, self._reader = self._reader, None
            reader.callback(self._come.pop(0))

    async def write(self, data: bytes) -> None:
        """See `kongtwist.core.chain.host.Connection`."""
        self._check()
        self.written += data

    def read(self, limited: bool = True) -> Awaitable[bytes]:
        """See `kongtwist.core.chain.host.Connection`."""
        self._check()
        self._reader = Deferred()
        reader = self._reader
        if self._come:
            self._reader = None
            reader.callback(self._come.pop(0))
        return reader

    async def start_tls(self, settings: TLSSettings) -> None:
        """See `kongtwist.core.chain.host.Connection`."""
        self._check()
        self.tls = settings

    async def close(self) -> None:
        """See `kongtwist.core.chain.host.Connection`."""
        self.cut()

    def cut(self) -> None:
        """End it."""
        self.closed = True
        if self._reader is not None:
            reader, self._reader = self._reader, None
            reader.errback(ConnectionLost("the connection was closed"))

    def _check(self) -> None:
        if self.closed:
            raise ConnectionLost("the connection was closed")
