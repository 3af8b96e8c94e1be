"""Notes the longest round of the gateway's reactor, as CPU time of its thread: how long everything else had to wait.

Unlike waiting times as clients see them this does not depend on what else the machine does. Where another thread has the
interpreter the reactor's own time stands still; for that it notes too how late a timer of 2 ms came at the most, which means
something on a machine that does nothing else. Python imports this module at its start where its folder is on the path; what
was noted goes into ``$KONGTWIST_ROUNDS/<process id>`` at SIGUSR2, and is forgotten then.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from kongtwist.net.reactor import LeanEPollReactor

_do_poll: Any = LeanEPollReactor.doPoll
_noted = {"longest": 0.0, "last": 0.0, "late": 0.0, "due": 0.0}
TICK = 0.002


def _measured(reactor: Any, timeout: float | None) -> None:
    now = time.thread_time()
    if _noted["last"]:
        _noted["longest"] = max(_noted["longest"], now - _noted["last"])
    _noted["last"] = now
    if not _noted["due"]:
        _tick(reactor)
    _do_poll(reactor, timeout)


def _tick(reactor: Any) -> None:
    now = time.monotonic()
    if _noted["due"]:
        _noted["late"] = max(_noted["late"], now - _noted["due"])
    _noted["due"] = now + TICK
    reactor.callLater(TICK, _tick, reactor)


def _tell(*_: Any) -> None:
    Path(os.environ["KONGTWIST_ROUNDS"], str(os.getpid())).write_text(
        f"{_noted['longest']!r} {_noted['late']!r}", encoding="ascii"
    )
    _noted["longest"] = _noted["late"] = 0.0


if "KONGTWIST_ROUNDS" in os.environ:
    LeanEPollReactor.doPoll = _measured  # type: ignore[assignment,method-assign]
    signal.signal(signal.SIGUSR2, _tell)
