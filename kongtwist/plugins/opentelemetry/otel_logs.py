"""Lines of the log for a collector: those about a request with its trace, and those about none."""

from __future__ import annotations

from collections.abc import Callable

from ...core.chain.host import LogLine, Queue, Scope
from ...core.exchange import Exchange
from .otel_trace import OwnTrace

__all__ = ["LineSender"]

_SEVERITIES = {
    "debug": (5, "DEBUG"), "info": (9, "INFO"), "notice": (11, "NOTICE"), "warn": (13, "WARN"), "error": (17, "ERR"),
    "crit": (19, "CRIT"), "alert": (21, "ALERT"), "emerg": (23, "EMERG"),
}  # fmt: skip
"""Levels -> OpenTelemetry's severities, as Kong maps them (Kong 3.9.3, ``kong/observability/otlp``)."""


class LineSender:
    """Puts lines into the queue of a configuration. A full queue keeps what it has: newer lines are not worth more.

    Args:
        host: gives the lines.
        queue: of the configuration.
        encode: `otlp_encoding.encoded_line`.
    """

    def __init__(self, host: Scope, queue: Queue, encode: Callable[..., bytes]) -> None:
        self._queue, self._encode = queue, encode
        self._lines = host.log_lines(self._take)

    def _take(self, line: LogLine) -> None:
        self._send(line, (b"", b"", 0))

    def _send(self, line: LogLine, trace: tuple[bytes, bytes, int]) -> None:
        attributes = {"request.id": line.request_id.decode() or None, "code.namespace": line.namespace}
        severity = _SEVERITIES.get(line.level, (9, "INFO"))
        self._queue.offer(self._encode(line.time, severity, line.text, attributes, trace))

    def request_over(self, exchange: Exchange, own: OwnTrace | None) -> None:
        """Send the lines about a request.

        Args:
            exchange: the request.
            own: its trace; None where it has none.
        """
        lines = self._lines.of_request(exchange.request_id)
        if lines:
            trace = (b"", b"", 0) if own is None else (own.trace_id, own.root_id if own.sampled else b"", own.flags)
            for line in lines:
                self._send(line, trace)

    def close(self) -> None:
        """No more lines."""
        self._lines.release()
