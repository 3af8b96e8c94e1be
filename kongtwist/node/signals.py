"""What signals do to a node: graceful stop, forced stop, reload, opening logs anew.

SIGTERM, SIGINT and SIGQUIT end the node gracefully; a second one of them ends it at once. SIGHUP reads the
configuration again, SIGUSR1 opens the log files again (after rotation). SIGWINCH has the node look whether
``kongtwist drain`` has left it an order (nginx's signal for letting workers finish; a terminal that is resized sends it,
too, and leaves none). All have handlers of ours, so that they also
work where the kernel gives a process no default ones (process id 1 of a container).
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.logger import Logger

from ..observability.error_log import notice

__all__ = ["SignalDuties"]

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

_log = Logger(namespace="kongtwist.node")


class SignalDuties:
    """Installs the handlers and does what they ask for, in the reactor's thread.

    Args:
        reactor: the running reactor (IReactorFromThreads).
        stop: begins a graceful stop.
        force: ends the graceful stop at once.
        reload: reads the configuration again.
        reopen_logs: opens the log files again.
        drain: looks for an order of ``kongtwist drain``.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        stop: Callable[[], None],
        force: Callable[[], None],
        reload: Callable[[], None],
        reopen_logs: Callable[[], None],
        drain: Callable[[], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._stop = stop
        self._force = force
        self._others: dict[int, Callable[[], None]] = {signal.SIGHUP: reload, signal.SIGUSR1: reopen_logs}
        self._quiet: dict[int, Callable[[], None]] = {} if drain is None else {signal.SIGWINCH: drain}
        self._stopping = False
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Take the signals over: before the reactor runs, so that a start can be stopped, and once more when it runs, as
        that installs its own handlers."""
        for number in (*_STOPPING, *self._others, *self._quiet):
            self._before.setdefault(number, signal.signal(number, self._caught))
            signal.siginterrupt(number, False)

    def uninstall(self) -> None:
        """Give them back."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()

    def _caught(self, number: int, frame: FrameType | None) -> None:
        # Between any two bytecodes of whatever runs: only hand it over to the reactor.
        self._reactor.callFromThread(self.received, number)

    def received(self, number: int) -> None:
        """Do what signal ``number`` asks for."""
        if number in self._quiet:
            self._quiet[number]()
            return
        name = signal.Signals(number).name
        if number in self._others:
            notice(_log, "{signal} received", signal=name)
            self._others[number]()
        elif not self._stopping:
            self._stopping = True
            notice(_log, "{signal} received: stopping, a second one stops at once", signal=name)
            self._stop()
        else:
            _log.warn("{signal} received again: stopping at once", signal=name)
            self._force()
