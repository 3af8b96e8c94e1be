"""What streams need of the gateway around them (`proxy.context.ProxyContext` is one)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..core.limits import Limits
from ..core.stream_registry import StreamRegistry
from ..net.deadlines import Deadlines
from ..net.hangups import HangUpWatch
from ..net.pipes import Pipe

__all__ = ["StreamContext"]


class StreamContext(Protocol):
    """See the attributes of the same name of `proxy.context.ProxyContext`."""

    @property
    def reactor(self) -> Any: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def deadlines(self) -> Deadlines: ...

    @property
    def hangups(self) -> HangUpWatch: ...

    @property
    def pipe(self) -> Pipe | None: ...

    @property
    def streams(self) -> StreamRegistry: ...

    @property
    def monotonic(self) -> Callable[[], float]: ...
