"""tcp-log: send a record of every request as a line over TCP. Kong 3.9 `tcp-log`.

Kong connects for each record and gives up at a failure. Here lines wait in a queue beside the traffic, which is bounded, and go over one
connection, which is made anew when it has ended.
"""

from __future__ import annotations

from hashlib import sha256

from ..core.chain.host import QueueSettings, Scope, TLSSettings
from ..core.exchange import Exchange, Row
from ..core.log_record import LogRecords
from ..entities.schema import Boolean, Integer, Number, String
from ..entities.typedefs import host
from ._custom_fields import CustomFields, LogPlugin, custom_fields_by_lua
from ._kept_connection import KeptConnection

__all__ = ["TCPLog"]

_NO_TIMEOUT = 60_000
"""Milliseconds in place of 0: what Kong's sockets then take (lua_socket_read_timeout)."""

_QUEUE = QueueSettings(max_batch_size=200, max_coalescing_delay=0)


class Sender:
    """A configuration with its queue and its connection."""

    def __init__(self, conf: Row, row: Row, scope: Scope) -> None:
        self.records = LogRecords(scope.workspace_id)
        self.fields = CustomFields(row, scope)
        host, port, timeout, keepalive = conf["host"], conf["port"], conf["timeout"], conf["keepalive"]
        self.connection = KeptConnection(
            scope, host, port,
            # Kong does not look at the server's certificate.
            tls=TLSSettings(server_name=conf["tls_sni"] or "") if conf["tls"] else None,
            timeout=(10000 if timeout is None else timeout if timeout > 0 else _NO_TIMEOUT) / 1000.0,
            keepalive=(60000 if keepalive is None else keepalive) / 1000.0,
        )  # fmt: skip
        same = ":".join(str(conf[field]) for field in ("timeout", "keepalive", "tls", "tls_sni"))
        key = f"tcp-log:{host}:{port}:{sha256(same.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
        self.queue = scope.queue(key, _QUEUE, self.send)

    async def send(self, lines: list[bytes]) -> None:
        """Send lines. Raises HostError."""
        await self.connection.write(b"".join(lines))


class TCPLog(LogPlugin):
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
        return Sender(conf, plugin, host)

    def log(self, exchange: Exchange, conf: Sender) -> None:
        if conf.fields.put(exchange):
            conf.queue.add(conf.records.text(exchange) + b"\n")

    async def close(self, conf: Sender) -> None:
        conf.connection.end()
