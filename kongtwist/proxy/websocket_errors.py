"""What the error log is told of WebSockets that never came to be: one line for each, in which ``websocket handshake failed`` stands.

What becomes of those that were open is told by `streams.stream_errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from ..core.error_lines import request_line

if TYPE_CHECKING:
    from ..core.answers import Answer
    from ..core.exchange import Exchange

__all__ = ["refused_by_upstream", "refused_here", "tell_failed"]

_log = Logger(namespace="kongtwist.proxy")

_TOLD = "\0websocket"
"""Stands among the plugins' names; no plugin has it."""

_REMEDIES = {
    400: "have the client send a handshake as RFC 6455 4.1 has it",
    401: "have the client bring the credentials that the route's plugins ask for",
    403: "see which of the route's plugins keeps this client out",
    404: "add a route that matches, or correct the client's address",
    426: "have the client speak the protocol that the route asks for",
    429: "raise the limit of the route's plugin, or have clients come back later",
    503: "add a service to the route, or a configuration to the gateway",
}


def tell_failed(exchange: Exchange, what: str, remedy: str = "", *, upstream: str = "", level: str = "error") -> None:
    """Write the line, unless there is one for this request.

    Args:
        exchange: the request that asked for a WebSocket.
        what: why there is none.
        remedy: what to do about it.
        upstream: where it went, if it went anywhere (`upstream.upstream_errors.where`).
        level: ``error``, ``warn``, or ``notice`` for what clients do.
    """
    own = exchange.own(_TOLD)
    if own:
        return
    own["told"] = True
    line = request_line(exchange, f"websocket handshake failed: {what}", remedy, upstream=upstream)
    if level == "error":
        _log.error("{line}", line=line)
    elif level == "warn":
        _log.warn("{line}", line=line)
    else:
        _log.info("{line}", line=line, kong_level="notice")


def refused_here(exchange: Exchange, answer: Answer) -> None:
    """The gateway, or one of its plugins, answered with something else."""
    status = answer.status
    what = f"the gateway answered {status}" + (f", {answer.message}" if answer.message else "")
    fault = status >= 500
    tell_failed(
        exchange, what, _REMEDIES.get(status, "see the lines of the log before"), level="warn" if fault else "notice"
    )


def refused_by_upstream(exchange: Exchange, status: int, upstream: str) -> None:
    """The upstream answered with something else than 101."""
    what = f"the upstream answered {status} where 101 opens a WebSocket"
    remedy = "see the upstream's own log, and whether it serves WebSockets at this path"
    tell_failed(exchange, what, remedy, upstream=upstream, level="warn")
