"""The end of every request, and what becomes of one on which our own code fails.

Whoever ends a request (its connection, its Site, the stream it became) calls `Finish.finished` once, whatever ended it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.error_lines import request_line
from ..core.exchange import Answer, Exchange

__all__ = ["AccessLogging", "Finish", "NoAccessLog", "ends_request"]

_log = Logger(namespace="kongtwist.proxy")

_Call = TypeVar("_Call", bound=Callable[..., None])


class AccessLogging(Protocol):
    """An access log (observability/logs.py)."""

    enabled: bool
    notes: bool  #: its lines tell what is only noted where somebody asks for it: tries, and the answer's head

    def log(self, exchange: Exchange) -> None: ...

    def log_refused(self, peer: str, start_line: bytes, status: int, sent: int, request_id: bytes) -> None: ...


class NoAccessLog:
    """``proxy_access_log = off``."""

    enabled = notes = False

    def log(self, exchange: Exchange) -> None:
        """Nothing."""

    def log_refused(self, peer: str, start_line: bytes, status: int, sent: int, request_id: bytes) -> None:
        """Nothing."""


class Finish:
    """Ends requests.

    Args:
        access_log: where finished requests are written.
        send_answer: sends an answer of our own.
        batches: of the reactor (`net.reactor.LeanEPollReactor.to_flush_last`): what is in it is flushed when a round is over; None: plugins
            log each request at once.
    """

    def __init__(
        self, access_log: AccessLogging, send_answer: Callable[[Exchange, Answer], None], batches: list[Any] | None
    ) -> None:
        self._access_log = access_log
        self._send_answer = send_answer
        self._batches = batches
        self._batch: list[tuple[Exchange, Any]] = []

    def finished(self, exchange: Exchange) -> None:
        """A request is over, whatever became of it: its target is let go, log phase, access log, and then what its plugins opened may
        close. Called once.

        Plugins that only tell of a request do so when the reactor has served a round of events, for all requests that ended in it: each by
        itself would run code, and look at memory, that what relays the next request has to drive out of the processor's caches again. A
        record of file-log costs 12 us in a row, and cost 45 between requests.
        """
        if exchange.upstream_peer is not None:
            exchange.let_go()
        route = exchange.route
        snapshot = exchange.snapshot
        chain = route.chain if route is not None else (snapshot.global_chain if snapshot is not None else None)
        waits = False
        try:
            if chain is not None and chain.logs:
                batches = self._batches
                if batches is None or not chain.logs_in_batches:
                    chain.run_log(exchange)
                else:
                    waits = True
                    if not self._batch:
                        batches.append(self)
                    self._batch.append((exchange, chain))
            if self._access_log.enabled:
                self._access_log.log(exchange)
        except Exception:  # noqa: BLE001 - its connection must go on, or end, as if it had been logged
            _log.failure("{line}", line=request_line(exchange, "logging failed"))
        finally:
            if exchange.held is not None and not waits:
                exchange.release()

    def flush(self) -> None:
        """Have plugins log the requests that wait for it."""
        batch, self._batch = self._batch, []
        for exchange, chain in batch:
            try:
                chain.run_log(exchange)
            except Exception:  # noqa: BLE001 - as above
                _log.failure("{line}", line=request_line(exchange, "logging failed"))
            finally:
                if exchange.held is not None:
                    exchange.release()

    def fault(self, exchange: Exchange, failure: Failure | None = None) -> None:
        """Our own code failed on a request: log it, stop who produces its answer, answer 500, or cut what has begun.

        Args:
            exchange: the request.
            failure: what was raised; by default the exception being handled.
        """
        _log.failure("{line}", failure, line=request_line(exchange, "serving failed"))
        sink, exchange.answer_sink = exchange.answer_sink, None
        if sink is not None:
            sink.client_gone("the gateway failed")
        if exchange.begun:
            exchange.abort()
        elif exchange.open:
            self._send_answer(exchange, Answer.error(500, "An unexpected error occurred"))


def ends_request(call: _Call) -> _Call:
    """A method (of what has a ``context`` and an ``exchange``) that ends the request when it raises: `Finish.fault`.

    For what the reactor calls, where nobody would notice for the request that it will not go on.
    """

    @wraps(call)
    def guarded(self: Any, *arguments: Any, **named: Any) -> None:
        try:
            call(self, *arguments, **named)
        except Exception:  # noqa: BLE001 - logged there
            self.context.fault(self.exchange)

    return cast("_Call", guarded)
