"""loggly: send a record of every request to Loggly, as a line of syslog by UDP (RFC 5424). Kong 3.9 `loggly`."""

from __future__ import annotations

from datetime import UTC, datetime

from ..core.chain.host import Scope
from ..core.exchange import Exchange, Row
from ..core.log_record import LogRecords
from ..entities.schema import Integer, Number, Set, String
from ..entities.typedefs import host
from ._custom_fields import CustomFields, LogPlugin, custom_fields_by_lua
from ._severities import Severities, severity_fields

__all__ = ["Loggly"]

_USER = 8
"""The facility "user", as it stands in a priority (RFC 5424 6.2.1)."""
_ENTERPRISE = 41058
"""Loggly's number (RFC 5424 6.3.2)."""


def _quoted(value: str) -> str:
    """The value of a parameter (RFC 5424 6.3.3)."""
    return "".join(f"\\{each}" if each in '"\\]' else each for each in value)


class Sender:
    """A configuration with its socket."""

    __slots__ = ("_data", "_fields", "_host", "_name", "_records", "_severities", "_socket")

    def __init__(self, conf: Row, row: Row, scope: Scope) -> None:
        self._records = LogRecords(scope.workspace_id)
        self._fields = CustomFields(row, scope)
        self._severities = Severities(conf)
        tags = " ".join(f'tag="{_quoted(each)}"' for each in conf["tags"] or ())
        self._data = f"[{conf['key']}@{_ENTERPRISE}{f' {tags}' if tags else ''}]"
        self._name = scope.hostname
        self._host = scope
        self._socket = scope.datagrams(conf["host"] or "logs-01.loggly.com", conf["port"] or 514)

    def log(self, exchange: Exchange) -> None:
        """Send the record of a request, if its severity is high enough."""
        if not self._fields.put(exchange):
            return
        severity = self._severities.of(exchange.status)
        if severity is None:
            return
        when = datetime.fromtimestamp(self._host.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        head = f"<{_USER + severity}>1 {when} {self._name} kong - - {self._data} "
        self._socket.send(head.encode() + self._records.text(exchange))


class Loggly(LogPlugin):
    """Send a record of every request to Loggly."""

    name = "loggly"
    priority = 6
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    example = {"key": "your-token"}
    config = {
        "host": String(default="logs-01.loggly.com", checks=(host,), text="Host that records are sent to."),
        "port": Integer(default=514, between=[0, 65535], text="Its UDP port."),
        "key": String(required=True, encrypted=True, referenceable=True, text="The customer's token."),
        "tags": Set(String(), default=["kong"], text="Tags of the records."),
        **severity_fields(False),
        "timeout": Number(default=10000, text="Milliseconds. Has no effect: sending a datagram does not wait."),
        "custom_fields_by_lua": custom_fields_by_lua(),
    }

    def open(self, conf: Row, plugin: Row, host: Scope) -> Sender:
        return Sender(conf, plugin, host)

    def log(self, exchange: Exchange, conf: Sender) -> None:
        conf.log(exchange)
