"""The plugin syslog with another socket than the machine's, loaded by a gateway as ``tests.live.syslog_aside:SyslogAside``."""

from __future__ import annotations

from typing import Any

from kongtwist.core.chain.host import Scope
from kongtwist.core.exchange import Row
from kongtwist.entities.schema import String
from kongtwist.plugins import syslog

__all__ = ["SyslogAside"]


class SyslogAside(syslog.Syslog):
    """`Syslog`, whose daemon listens elsewhere."""

    name = "syslog-aside"
    config = {**syslog.Syslog.config, "path": String(required=True)}

    def open(self, conf: Row, plugin: Row, host: Scope) -> Any:
        before, syslog.SOCKET = syslog.SOCKET, conf["path"]
        try:
            return super().open(conf, plugin, host)
        finally:
            syslog.SOCKET = before
