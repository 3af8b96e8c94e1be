"""syslog: send a record of every request to the syslog daemon of this machine. Kong 3.9 `syslog`.

The socket is spoken to without the C library, which waits for a daemon that hangs; lines are as glibc's (RFC 3164 4.1), with Kong's
name and the process.
"""

from __future__ import annotations

from datetime import datetime

from ..core.chain.host import Scope
from ..core.exchange import Exchange, Row
from ..core.log_record import LogRecords
from ..entities.schema import String
from ._custom_fields import CustomFields, LogPlugin, custom_fields_by_lua
from ._severities import Severities, severity_fields

__all__ = ["Syslog"]

SOCKET = "/dev/log"
"""Where daemons listen (``_PATH_LOG``)."""

_FACILITIES = {
    "auth": 4, "authpriv": 10, "cron": 9, "daemon": 3, "ftp": 11, "kern": 0, "lpr": 6, "mail": 2, "news": 7, "syslog": 5, "user": 1,
    "uucp": 8, **{f"local{number}": 16 + number for number in range(8)},
}  # fmt: skip
"""Numbers of facilities (RFC 5424 6.2.1), in Kong's order."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Sender:
    """A configuration with its socket."""

    __slots__ = ("_facility", "_fields", "_host", "_ident", "_records", "_severities", "_socket")

    def __init__(self, conf: Row, row: Row, scope: Scope) -> None:
        self._records = LogRecords(scope.workspace_id)
        self._fields = CustomFields(row, scope)
        self._severities = Severities(conf)
        self._facility = _FACILITIES[conf["facility"]] << 3
        self._ident = f"kong[{scope.worker_pid}]"
        self._host = scope
        self._socket = scope.datagrams(SOCKET)

    def log(self, exchange: Exchange) -> None:
        """Send the record of a request, if its severity is high enough."""
        if not self._fields.put(exchange):
            return
        severity = self._severities.of(exchange.status)
        if severity is None:
            return
        when = datetime.fromtimestamp(self._host.now())
        stamp = f"{_MONTHS[when.month - 1]} {when.day:2} {when:%H:%M:%S}"
        head = f"<{self._facility | severity}>{stamp} {self._ident}: "
        self._socket.send(head.encode() + self._records.text(exchange))


class Syslog(LogPlugin):
    """Send a record of every request to the machine's syslog daemon."""

    name = "syslog"
    priority = 4
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    config = {
        **severity_fields(True),
        "custom_fields_by_lua": custom_fields_by_lua(),
        "facility": String(
            required=True, default="user", one_of=list(_FACILITIES), text="Facility that the records are of."
        ),
    }

    def open(self, conf: Row, plugin: Row, host: Scope) -> Sender:
        return Sender(conf, plugin, host)

    def log(self, exchange: Exchange, conf: Sender) -> None:
        conf.log(exchange)
