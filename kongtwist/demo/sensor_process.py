"""The sensor service as a process of its own: grpcio brings threads of its own, which a gateway is better off without."""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["SensorProcess"]

_log = Logger()

KEPT = 2000
"""Bytes of its output that are kept, to tell of its end."""
PATIENCE = 3.0
"""Seconds after which it is killed, where it does not end when it is told."""


class SensorProcess(ProcessProtocol):
    """The process, from its start to its end. It ends by itself when we do, for its standard input ends then.

    Args:
        reactor: starts it.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._output = b""
        self._ended: Deferred[None] | None = None
        self._stopping = False
        self.transport: IProcessTransport | None = None

    def start(self, port: int) -> None:
        """Start it; it listens on this port of 127.0.0.1 in a moment, or says in the log why it does not."""
        program = str(files(__package__) / "sensors" / "sensor_service.py")
        words = [sys.executable, program, str(port), "--bound"]
        self._ended = Deferred()
        self._reactor.spawnProcess(self, sys.executable, words, env=dict(os.environ), childFDs={0: "w", 1: "r", 2: "r"})

    def stop(self) -> Deferred[None]:
        """Have it end, and wait for that."""
        if self._ended is None or self._stopping:
            return succeed(None)
        self._stopping = True
        transport: Any = self.transport
        transport.closeStdin()
        late = self._reactor.callLater(PATIENCE, self._kill)

        def ended(_: None) -> None:
            if late.active():
                late.cancel()

        return self._ended.addCallback(ended)

    def _kill(self) -> None:
        transport: Any = self.transport
        transport.signalProcess("KILL")

    def outReceived(self, data: bytes) -> None:
        self._output = (self._output + data)[-KEPT:]

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        if not self._stopping:
            said = self._output.decode(errors="replace").strip().rpartition("\n")[2]
            how = "0" if reason.check(ProcessDone) else reason.getErrorMessage()
            _log.warn("the demo's sensor service has ended ({how}): {said}", how=how, said=said)
        ended, self._ended = self._ended, None
        if ended is not None:
            ended.callback(None)
