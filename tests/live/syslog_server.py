"""A real syslog daemon for tests: rsyslogd (apt rsyslog), on UDP, TCP and a Unix socket of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.live.programs import find_program
from tests.live.support import LiveTestCase, Process, free_port, wait_until

__all__ = ["SyslogServer"]

_CONF = """\
global(workDirectory="{folder}" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off")
module(load="imudp")
module(load="imtcp")
module(load="imuxsock" SysSock.Use="off")
input(type="imudp" address="127.0.0.1" port="{udp}")
input(type="imtcp" address="127.0.0.1" port="{tcp}")
input(type="imuxsock" Socket="{path}" CreatePath="off" UseSysTimeStamp="off")
template(name="line" type="list") {{
  constant(value="{{") property(name="inputname" format="jsonf") constant(value=",")
  property(name="syslogseverity-text" format="jsonf") constant(value=",")
  property(name="syslogfacility-text" format="jsonf") constant(value=",")
  property(name="programname" format="jsonf") constant(value=",")
  property(name="structured-data" format="jsonf") constant(value=",")
  property(name="rawmsg-after-pri" format="jsonf") constant(value=",")
  property(name="msg" format="jsonf") constant(value="}}\\n")
}}
action(type="omfile" file="{taken}" template="line")
"""


class SyslogServer:
    """A daemon.

    Args:
        case: ends it.

    Attributes:
        udp, tcp: its ports.
        path: its Unix socket.
    """

    def __init__(self, case: LiveTestCase) -> None:
        self._case = case
        folder = case.folder()
        self.udp, self.tcp = free_port(), free_port()
        self.path, self._taken = os.path.join(folder, "log"), Path(folder, "taken")
        self._conf, self._pid = Path(folder, "rsyslog.conf"), os.path.join(folder, "pid")
        self._conf.write_text(
            _CONF.format(folder=folder, udp=self.udp, tcp=self.tcp, path=self.path, taken=self._taken), encoding="utf-8"
        )
        self.process: Process | None = None
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        self.process = self._case.start(
            [find_program("rsyslogd"), "-n", "-f", str(self._conf), "-i", self._pid], "rsyslogd"
        )
        self._case.wait_for_port(self.tcp, self.process)
        wait_until(lambda: os.path.exists(self.path), "the Unix socket")

    def kill(self) -> None:
        """Kill it."""
        assert self.process is not None
        self.process.kill()
        for name in (self.path, self._pid):
            if os.path.exists(name):
                os.unlink(name)

    def lines(self) -> list[dict[str, Any]]:
        """What it took, in order. A line that is being written is not there yet; one that a kill has torn never will be."""
        if not self._taken.exists():
            return []
        found = []
        for line in self._taken.read_text(encoding="utf-8").split("\n")[:-1]:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def of(self, source: str) -> list[dict[str, Any]]:
        """What came by one of its inputs (``imudp`` ...)."""
        return [line for line in self.lines() if line["inputname"] == source]
