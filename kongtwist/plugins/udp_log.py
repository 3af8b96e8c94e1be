"""udp-log: send a record of every request as a datagram. Kong 3.9 `udp-log`.

There is no queue, as in Kong: a datagram is sent or dropped at once.
"""

from __future__ import annotations

from ..core.chain.host import Datagrams, Scope
from ..core.exchange import Exchange, Row
from ..core.log_record import LogRecords
from ..entities.schema import Integer, Number, String
from ..entities.typedefs import host
from ._custom_fields import CustomFields, LogPlugin, custom_fields_by_lua

__all__ = ["UDPLog"]


class Sender:
    """A configuration with its socket."""

    __slots__ = ("fields", "records", "socket")

    def __init__(self, conf: Row, row: Row, scope: Scope) -> None:
        self.records = LogRecords(scope.workspace_id)
        self.fields = CustomFields(row, scope)
        self.socket: Datagrams = scope.datagrams(conf["host"], conf["port"])


class UDPLog(LogPlugin):
    """Send a record of every request as a datagram by UDP."""

    name = "udp-log"
    priority = 8
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    example = {"host": "logs.internal", "port": 9999}
    config = {
        "host": String(required=True, checks=(host,), text="Host that records are sent to."),
        "port": Integer(required=True, between=[0, 65535], text="Its UDP port."),
        "timeout": Number(default=10000, text="Milliseconds. Has no effect: sending a datagram does not wait."),
        "custom_fields_by_lua": custom_fields_by_lua(),
    }

    def open(self, conf: Row, plugin: Row, host: Scope) -> Sender:
        return Sender(conf, plugin, host)

    def log(self, exchange: Exchange, conf: Sender) -> None:
        if conf.fields.put(exchange):
            conf.socket.send(conf.records.text(exchange))
