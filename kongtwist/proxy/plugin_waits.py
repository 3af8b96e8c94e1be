"""Requests whose plugins wait: what they wait in is run here, and ends when the client leaves.

Twisted's own driver of coroutines (`twisted.internet.defer.ensureDeferred`) makes a Deferred for the coroutine, and walks through several
functions each time one fires. This one does only what a request needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.error_lines import request_line
from ..core.exchange import Answer, Exchange

if TYPE_CHECKING:
    from .context import ProxyContext

__all__ = ["GoOn", "waiting_for"]

_log = Logger(namespace="kongtwist.proxy")

GoOn = Callable[[Exchange], None]


def waiting_for(context: ProxyContext, exchange: Exchange, outcome: Awaitable[Answer | None], go_on: GoOn) -> None:
    """Go on when plugins have waited.

    Args:
        context: sends their answer.
        exchange: the request.
        outcome: an answer, or None to go on.
        go_on: called with ``exchange`` to go on.
    """
    run: Any = outcome if isinstance(outcome, CoroutineType) else _awaited(outcome)
    waiting = exchange.answer_sink = PluginWait(context, exchange, run, go_on)
    waiting.resume(None)


async def _awaited(outcome: Awaitable[Answer | None]) -> Answer | None:
    return await outcome


class PluginWait:
    """Stands in for the producer of an answer while plugins wait; the client going away ends their wait.

    Args: see `waiting_for`; ``run`` is the coroutine.
    """

    __slots__ = ("_cancels", "_context", "_exchange", "_go_on", "_is_left", "_run", "_waits_for", "_within")

    def __init__(
        self, context: ProxyContext, exchange: Exchange, run: CoroutineType[Any, Any, Answer | None], go_on: GoOn
    ) -> None:
        self._context, self._exchange, self._run, self._go_on = context, exchange, run, go_on
        self._within = copy_context()  # what it sets of context variables is its own
        self._waits_for: Deferred[Any] | None = None
        self._is_left = self._cancels = False

    def resume(self, result: object) -> None:
        """Begin to run it, or go on when it has waited.

        Args:
            result: what it has waited for; only failures are looked at, since whoever awaits a Deferred takes the result from there.
        """
        self._waits_for = None
        try:
            if isinstance(result, Failure):
                waits_for = self._within.run(result.throwExceptionIntoGenerator, self._run)
            else:
                waits_for = self._within.run(self._run.send, None)
        except StopIteration as stop:
            answer: Answer | None = stop.value
        except BaseException:  # noqa: BLE001 - whatever it was, the request has to end
            self._failed(Failure())
            return
        else:
            self._wait(waits_for)
            return
        self._decided(answer)

    def _wait(self, waits_for: object) -> None:
        """Go on when it has fired."""
        if not isinstance(waits_for, Deferred):
            self.resume(Failure(TypeError(f"only a Deferred can be waited for here, not {waits_for!r}")))
            return
        self._waits_for = waits_for
        waits_for.addCallbacks(self.resume, self.resume)  # type: ignore[unused-awaitable]
        if self._cancels:
            self._cancels = False
            waits_for.cancel()

    def _decided(self, answer: Answer | None) -> None:
        exchange = self._exchange
        if exchange.answer_sink is self:
            exchange.answer_sink = None
        try:
            if answer is not None:
                self._context.send_answer(exchange, answer)
            else:
                self._go_on(exchange)
        except Exception:  # noqa: BLE001 - a fault of ours: the client gets an answer, the log the traceback
            self._fault(Failure())

    def _failed(self, failure: Failure) -> None:
        if self._is_left and failure.check(CancelledError):
            return  # its connection knows
        self._exchange.answer_sink = None
        self._fault(failure)

    def _fault(self, failure: Failure) -> None:
        try:
            self._context.fault(self._exchange, failure)
        except Exception:  # noqa: BLE001 - whoever made it go on has nothing to do with it
            _log.failure("{line}", line=request_line(self._exchange, "serving failed"))

    # -- AnswerSink --------------------------------------------------------------------------------------------------------

    def pause_answer(self) -> None:
        """There is no answer yet."""

    def resume_answer(self) -> None:
        """There is no answer yet."""

    def client_gone(self, reason: str) -> None:
        """Nobody waits any more."""
        self._is_left = True
        if self._waits_for is None:
            self._cancels = True  # it is running: the next wait ends
        else:
            self._waits_for.cancel()
