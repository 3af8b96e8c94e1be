"""Faults of our own in what the reactor calls, where nobody would notice for the request that it will not go on."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

__all__ = ["ends_request"]

_Call = TypeVar("_Call", bound=Callable[..., None])


def ends_request(call: _Call) -> _Call:
    """A method (of what has a ``relay`` and an ``exchange``) that ends the request when it raises: `Relay.fault`."""

    @wraps(call)
    def guarded(self: Any, *arguments: Any, **named: Any) -> None:
        try:
            call(self, *arguments, **named)
        except Exception:  # noqa: BLE001 - logged there
            self.relay.fault(self.exchange)

    return cast("_Call", guarded)
