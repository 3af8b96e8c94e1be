"""The end of a connection or a stream: every step of it runs, whatever fails on the way."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

__all__ = ["run_steps"]

_log = Logger(namespace="kongtwist.proxy")


def run_steps(*steps: Callable[[], object]) -> None:
    """Run every step, in order. One that raises is logged with its traceback, and the others still run.

    What a connection took (a descriptor, a counter, a timer, a target) is given back by several steps. Were one of them
    to keep the next from running, what that one gives back would be lost for as long as the process lives.
    """
    for step in steps:
        try:
            step()
        except Exception:  # noqa: BLE001 - the next step must run
            _log.failure("a step of an end failed: {step!r}", step=step)
