"""What HTTP/1.1 with clients needs of the gateway around it (`proxy.context.ProxyContext` is one), and of what serves requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..core.address_caps import AddressCaps
    from ..core.chain.host import Host
    from ..core.counters import Cells
    from ..core.exchange import Answer, Exchange
    from ..core.http.head import BlockCache, HeadError
    from ..core.http.real_ip import RealIP
    from ..core.limits import Limits
    from ..net.deadlines import Deadlines
    from ..net.hangups import HangUpWatch

__all__ = ["HTTP1Context", "RefusalLog", "Serves", "TakeOver", "Tree"]

TakeOver = Callable[[Any, bytes], None]
"""Goes on with a connection whose client speaks HTTP/2: its `HTTP1Channel`, and what the client sent."""


class Serves(Protocol):
    """What a request is given to (proxy/route.py)."""

    direct: Any  #: makes plans for calls that are relayed directly, or None (proxy/direct_calls.py)

    def serve(self, exchange: Exchange) -> None:
        """Serve one request: now or later, its answer is sent through ``exchange``."""


class Tree(Protocol):
    """What knows the routes (proxy/tree.py)."""

    @property
    def snapshot(self) -> Any:
        """The configuration of the moment."""

    def find(self, exchange: Exchange) -> Serves:
        """What serves ``exchange``."""

    def plans_of(self, peer_ip: str, local_port: int) -> dict[Any, Any]:
        """How calls are relayed, for connections over HTTP/2."""


class RefusalLog(Protocol):
    """Writes a line about a request that was refused before there was one."""

    def log_refused(self, peer: str, start_line: bytes, status: int, sent: int, request_id: bytes) -> None: ...


class HTTP1Context(Protocol):
    """See the attributes and methods of the same name of `proxy.context.ProxyContext`."""

    @property
    def successor(self) -> tuple[Any, Any] | None: ...

    @property
    def reactor(self) -> Any: ...

    @property
    def host(self) -> Host: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def small_head(self) -> int: ...

    @property
    def notes(self) -> bool: ...

    @property
    def access_log(self) -> RefusalLog: ...

    @property
    def real_ip(self) -> RealIP: ...

    @property
    def caps(self) -> AddressCaps | None: ...

    @property
    def monotonic(self) -> Callable[[], float]: ...

    @property
    def wall(self) -> Callable[[], float]: ...

    @property
    def next_id(self) -> Callable[[], bytes]: ...

    @property
    def cells(self) -> Cells: ...

    @property
    def blocks(self) -> BlockCache: ...

    @property
    def deadlines(self) -> Deadlines: ...

    @property
    def hangups(self) -> HangUpWatch: ...

    @property
    def connections(self) -> set[Any]: ...

    @property
    def stopping(self) -> bool: ...

    @property
    def finished(self) -> Callable[[Exchange], None]:
        """Called once by whoever ends a request."""

    def fault(self, exchange: Exchange) -> None:
        """Our own code failed on a request: what was raised is being handled."""

    def send_answer(
        self, exchange: Exchange, answer: Answer, *, filtered: bool = False, upstream: bool = False
    ) -> None:
        """Send an answer made here."""

    def refusal(
        self, error: HeadError, request_id: bytes, accept: bytes | None, kind: bytes | None, http2: bool = False
    ) -> tuple[bytes, int]:
        """The whole answer to a head that was refused, and its body's size."""
