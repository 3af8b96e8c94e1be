"""What becomes of a request when a plugin raises: it fails closed."""

from __future__ import annotations

import traceback

from ..answers import Answer
from ..exchange import Exchange

__all__ = ["UNEXPECTED", "PluginFailed", "failed", "is_cancelled"]

UNEXPECTED = "An unexpected error occurred"
"""What clients are told."""


class PluginFailed(Exception):
    """A body filter raised: the answer has begun, so the client's connection must be cut, not ended."""


def is_cancelled(error: BaseException) -> bool:
    """Whether ``error`` is some event loop's CancelledError, which is never an error of a plugin.

    By name, because core imports no event loop: Twisted's is an ordinary Exception, asyncio's a BaseException.
    """
    return any(kind.__name__ == "CancelledError" for kind in type(error).__mro__)


def failed(exchange: Exchange, name: str, phase: str, error: Exception) -> Answer:
    """Report what a plugin raised and give the answer for it."""
    text = "".join(traceback.format_exception(error))
    exchange.report(f"plugin {name} failed in phase {phase}: {error!r}", detail=text)
    return Answer.error(500, UNEXPECTED)
