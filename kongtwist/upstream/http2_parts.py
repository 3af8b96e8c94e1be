"""What the parts of HTTP/2 to upstreams need of each other: the pool, its connections, their streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sized

    from twisted.python.failure import Failure

    from ..core.http.field_lines import FieldLines
    from ..net.http2_stream import HTTP2Stream
    from .client_tls import TLSFacts
    from .connection import UpstreamContext

__all__ = ["StreamsConnection", "StreamsPool"]


class StreamsPool(Protocol):
    """What a connection needs of its pool (`http2_pool.HTTP2Pool`, which says what these are)."""

    context: UpstreamContext
    address: str
    port: int
    tls: TLSFacts | None
    size: int
    max_requests: float
    idle_timeout: float
    assumed: float

    @property
    def waiting(self) -> Sized: ...

    @property
    def idle(self) -> int: ...

    def ready(self, connection: Any) -> None: ...

    def not_ready(self, connection: Any, reason: Failure) -> None: ...

    def retire(self, connection: Any) -> None: ...

    def serve(self) -> None: ...

    def lost(self, connection: Any) -> None: ...


class StreamsConnection(Protocol):
    """What a request's stream needs of its connection (`http2_upstream.HTTP2Upstream`)."""

    field_lines: FieldLines

    @property
    def pool(self) -> StreamsPool: ...

    def open_stream(self, number: int = 0, user: Any = None) -> HTTP2Stream: ...

    def opened(self) -> None: ...

    def checked(self, block: bytes) -> bytes: ...
