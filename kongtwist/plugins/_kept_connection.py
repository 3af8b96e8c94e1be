"""A TCP connection that a log plugin sends over, kept between batches and made anew when it has ended."""

from __future__ import annotations

from ..core.chain.host import Connection, ConnectionLost, Scope, TLSSettings

__all__ = ["KeptConnection"]


class KeptConnection:
    """One batch is written at a time.

    Args:
        scope: of the configuration.
        host, port: the server.
        tls: how TLS is spoken; None: it is not.
        timeout: seconds for connecting, and for each write.
        keepalive: seconds an idle connection is kept at least, and at most twice that.
    """

    def __init__(
        self, scope: Scope, host: str, port: int, *, tls: TLSSettings | None = None, timeout: float, keepalive: float
    ) -> None:
        self._scope, self._host, self._port, self._tls = scope, host, port, tls
        self._timeout, self._keepalive = timeout, keepalive
        self._connection: Connection | None = None
        self._used = self._looking = self._ending = False

    async def write(self, data: bytes) -> None:
        """Send. Raises HostError: there is no connection, or it has ended."""
        connection = self._connection
        if connection is None:
            connection = await self._scope.connect(self._host, self._port, tls=self._tls, timeout=self._timeout)
            self._keep(connection)
        try:
            await connection.write(data)
        except ConnectionLost:
            self._forget(connection)
            raise
        self._used = True
        if self._ending:
            self._forget(connection)
            await connection.close()

    def end(self) -> None:
        """The configuration closes: what waits may still be sent, but nothing is kept any more."""
        self._ending = True

    def _keep(self, connection: Connection) -> None:
        if self._ending:
            return
        self._connection = connection
        self._scope.spawn(f"connection to {self._host}:{self._port}", self._watch(connection))
        if not self._looking:
            self._looking = True
            self._scope.later(self._keepalive, self._look)

    async def _watch(self, connection: Connection) -> None:
        """Notice when the server ends the connection; what it says is of no interest."""
        try:
            while await connection.read(limited=False):  # servers of logs say nothing
                pass
        except ConnectionLost:
            pass
        if self._forget(connection):
            await connection.close()

    async def _look(self) -> None:
        """End a connection that nothing was sent over for a while."""
        self._looking = False
        connection = self._connection
        if connection is not None and self._used:
            self._used, self._looking = False, True
            self._scope.later(self._keepalive, self._look)
        elif connection is not None and self._forget(connection):
            await connection.close()

    def _forget(self, connection: Connection) -> bool:
        known = self._connection is connection
        if known:
            self._connection = None
        return known
