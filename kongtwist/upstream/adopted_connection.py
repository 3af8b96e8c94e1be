"""Connections to upstreams on which another process of the node has begun to read an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..core.http.chunks import ChunkScanner
from .connection import CHUNKED, UNTIL_CLOSE, UpstreamConnection

if TYPE_CHECKING:
    from .connection import ConnectionPool, UpstreamUser

__all__ = ["AdoptedConnection"]


class AdoptedConnection(UpstreamConnection):
    """One of them.

    Args:
        pool: of its address, without TLS.
        written: what `UpstreamConnection.written` gave.
    """

    def __init__(self, pool: ConnectionPool, written: Mapping[str, Any]) -> None:
        super().__init__(pool, None)
        self._raw, self._keep, self._requests = written["raw"], written["keep"], written["requests"]
        self._sent = self._read_any = True
        scanner = written["scanner"]
        if scanner is None:
            self._mode = UNTIL_CLOSE
        else:
            self._mode = CHUNKED
            self._scanner = ChunkScanner(pool.context.limits.trailer_size, upstream=True)
            self._scanner.resume(scanner)

    @property
    def raw(self) -> bool:
        """The body is passed on with the framing of its chunks."""
        return self._raw

    def _usable(self) -> None:
        """It is in use."""
        self._connected()

    def go_on(self, user: UpstreamUser) -> None:
        """Read on for ``user``."""
        self.user = user
        self.expect(user.read_timeout)
