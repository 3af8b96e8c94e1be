"""A node's way out of rotation: monitors first, then listeners, then what is open, then the node.

Behind a load balancer a node that stops at once refuses connections until the balancer has noticed. So it first answers
503 at ``/status/ready`` and goes on accepting for a while, each connection ending behind its answer. Then it stops to
listen; requests and streams go on until they end by themselves, or until their time is over: what is still open then is
ended as by any graceful stop (WebSockets with 1001; see `goodbyes`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..observability.error_log import notice
from .outcomes import Drained, DrainOrder

__all__ = ["Drain", "Draining"]

_log = Logger(namespace="kongtwist.node")


class Draining(Protocol):
    """What is needed of a gateway (gateway.Gateway)."""

    counters: Any

    def leave(self) -> None: ...

    def finish(self) -> Deferred[None]: ...


class Drain:
    """One node's drain.

    Args:
        reactor: keeps the time.
        gateway: what is drained.
        stop_listening: closes the node's own copies of the proxy's listening sockets.
        done: told how it ended, when the node is to stop.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        gateway: Draining,
        stop_listening: Callable[[], None],
        done: Callable[[Drained], None],
    ) -> None:
        self._reactor = reactor
        self._gateway = gateway
        self._stop_listening = stop_listening
        self._done = done
        self._timer: IDelayedCall | None = None
        self._finishing: Deferred[None] | None = None
        self._timeout = 0.0
        self._over = False

    def begin(self, order: DrainOrder) -> None:
        """Begin, or go on by another order from now on."""
        if self._over:
            return
        self._timeout = order.timeout
        if self._finishing is not None:
            notice(_log, "draining: what is open has {seconds:g} s from now on", seconds=order.timeout)
            self._later(order.timeout, self._late)
            return
        notice(
            _log,
            "draining: new connections are accepted for {delay:g} s, then what is open has {seconds:g} s to end",
            delay=order.delay,
            seconds=order.timeout,
        )
        self._gateway.leave()
        self._later(order.delay, self._finish)

    def stop(self) -> None:
        """The node stops: this is over."""
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._reactor.callLater(seconds, call)

    def _finish(self) -> None:
        notice(_log, "draining: no new connections are accepted any more")
        self._later(self._timeout, self._late)
        finishing = self._finishing = self._gateway.finish()
        self._stop_listening()
        self._finishing = finishing.addCallbacks(lambda _: self._end(Drained(0, 0)), self._failed)

    def _late(self) -> None:
        counts = self._gateway.counters.totals()
        drained = Drained(counts["websocket"] + counts["sse"], counts["active"])
        notice(
            _log,
            "draining: {streams} streams on {connections} connections are still open, and are ended",
            **drained._asdict(),
        )
        self._end(drained)

    def _failed(self, failure: Failure) -> None:
        _log.failure("draining failed", failure)
        self._end(Drained(0, 0))

    def _end(self, drained: Drained) -> None:
        if not self._over:
            self.stop()
            self._done(drained)
