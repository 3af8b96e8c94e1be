"""Programs of the demo that are processes of their own: they bring threads, which a gateway is better off without, or are no Python."""

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

__all__ = ["DemoProcess"]

_log = Logger()

KEPT = 2000
"""Bytes of its output that are kept, to tell of its end."""
PATIENCE = 3.0
"""Seconds after which it is killed, where it does not end when it is told."""


class DemoProcess(ProcessProtocol):
    """The process, from its start to its end. It ends by itself when we do, for its standard input ends then.

    Args:
        reactor: starts it.
        name: what it is, for the log.
        program: path of its source, in this folder.
    """

    def __init__(self, reactor: Any, name: str, program: str) -> None:
        self._reactor = reactor
        self._name = name
        self._program = program
        self._output = b""
        self._ended: Deferred[None] | None = None
        self._stopping = False
        self.transport: IProcessTransport | None = None

    def start(self, *words: str) -> None:
        """Start it with these arguments; when it ends before it should, the log says so."""
        program = str(files(__package__) / self._program)
        command = [sys.executable, program, *words]
        self._ended = Deferred()
        self._reactor.spawnProcess(
            self, sys.executable, command, env=dict(os.environ), childFDs={0: "w", 1: "r", 2: "r"}
        )

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
            _log.warn("the demo's {name} has ended ({how}): {said}", name=self._name, how=how, said=said)
        ended, self._ended = self._ended, None
        if ended is not None:
            ended.callback(None)
