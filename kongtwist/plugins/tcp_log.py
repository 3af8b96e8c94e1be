"""tcp-log: send a record of every request as a line over TCP. Kong 3.9 `tcp-log`.

Kong connects for each record and gives up at a failure. Here lines wait in a queue beside the traffic, which is bounded, and go over one
connection, which is made anew when it has ended.
"""

from __future__ import annotations

from hashlib import sha256

from ..core.chain.host import Connection, ConnectionLost, QueueSettings, Scope, TLSSettings
from ..core.chain.plugin import Plugin
from ..core.exchange import Exchange, Row
from ..core.log_record import LogRecords
from ..entities.schema import Boolean, Integer, Number, String
from ..entities.typedefs import host
from ._custom_fields import custom_fields_by_lua

__all__ = ["TCPLog"]

_NO_TIMEOUT = 60_000
"""Milliseconds in place of 0: what Kong's sockets then take (lua_socket_read_timeout)."""

_QUEUE = QueueSettings(max_batch_size=200, max_coalescing_delay=0)


class Sender:
    """A configuration with its queue and its connection."""

    def __init__(self, conf: Row, scope: Scope) -> None:
        self.records = LogRecords(scope.workspace_id)
        self._host: str = conf["host"]
        self._port: int = conf["port"]
        timeout, keepalive = conf["timeout"], conf["keepalive"]
        self._timeout = (10000 if timeout is None else timeout if timeout > 0 else _NO_TIMEOUT) / 1000.0
        self._keepalive = (60000 if keepalive is None else keepalive) / 1000.0
        self._tls = TLSSettings(server_name=conf["tls_sni"] or "") if conf["tls"] else None
        self._scope = scope
        self._connection: Connection | None = None
        self._used = False
        self._looking = False
        self.ending = False  #: nothing may be kept any more
        same = ":".join(str(conf[field]) for field in ("timeout", "keepalive", "tls", "tls_sni"))
        key = f"tcp-log:{self._host}:{self._port}:{sha256(same.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
        self.queue = scope.queue(key, _QUEUE, self.send)

    async def send(self, lines: list[bytes]) -> None:
        """Send lines. Raises HostError: there is no connection, or it has ended."""
        connection = self._connection
        if connection is None:
            # Kong does not look at the server's certificate.
            connection = await self._scope.connect(self._host, self._port, tls=self._tls, timeout=self._timeout)
            self._keep(connection)
        try:
            await connection.write(b"".join(lines))
        except ConnectionLost:
            self._forget(connection)
            raise
        self._used = True
        if self.ending:
            self._forget(connection)
            await connection.close()

    def _keep(self, connection: Connection) -> None:
        if self.ending:  # what waits is still sent, and then it is over
            return
        self._connection = connection
        self._scope.spawn(f"tcp-log to {self._host}:{self._port}", self._watch(connection))
        if not self._looking:
            self._looking = True
            self._scope.later(self._keepalive, self._look)

    async def _watch(self, connection: Connection) -> None:
        """Notice when the server ends the connection; what it says is of no interest."""
        try:
            while await connection.read():
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


class TCPLog(Plugin):
    """Send a record of every request as a line over TCP."""

    name = "tcp-log"
    priority = 7
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    example = {"host": "logs.internal", "port": 9999}
    config = {
        "host": String(required=True, checks=(host,), text="Host that records are sent to."),
        "port": Integer(required=True, between=[0, 65535], text="Its TCP port."),
        "timeout": Number(default=10000, text="Milliseconds for connecting, and for each write; 0: 60,000."),
        "keepalive": Number(
            default=60000, text="Milliseconds an idle connection is kept at least, and at most twice that."
        ),
        "tls": Boolean(required=True, default=False, text="Speak TLS; the server's certificate is not looked at."),
        "tls_sni": String(text="Name that the server is asked for in TLS (SNI)."),
        "custom_fields_by_lua": custom_fields_by_lua(),
    }

    def open(self, conf: Row, plugin: Row, host: Scope) -> Sender:
        return Sender(conf, host)

    def log(self, exchange: Exchange, conf: Sender) -> None:
        conf.queue.add(conf.records.text(exchange) + b"\n")

    async def close(self, conf: Sender) -> None:
        conf.ending = True
