"""``request_buffering`` of routes: a chunked request body is looked at until its length is known, or it is too long.

Servers that know no chunked requests (WSGI and CGI ones above all) see an empty body where there is no Content-Length.
So the upstream is asked only when such a body has ended, and is sent it with its length, as Kong does. What is longer
than ``client_body_buffer_size`` is passed on as chunks, as it comes: nothing is put on a disk here. Bodies that come
with their length need none of this, and pass at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.exchange import BodySink, Exchange

__all__ = ["RequestBuffer"]


class RequestBuffer:
    """Takes the beginning of a request body in place of an upstream.

    Args:
        exchange: the request. A body that ends in time becomes its ``upstream_body``.
        limit: bytes held; more is passed on.
        decided: called once, when the body has ended or grown too long.

    Attributes:
        whole: the body has ended and is the exchange's ``upstream_body``.
    """

    __slots__ = ("_decided", "_exchange", "_known", "_limit", "_pieces", "_sink", "_size", "_trailers", "whole")

    def __init__(self, exchange: Exchange, limit: int, decided: Callable[[], None]) -> None:
        self._exchange = exchange
        self._limit = limit
        self._decided = decided
        self._pieces: list[bytes] = []
        self._size = 0
        self._known = self.whole = False
        self._sink: BodySink | None = None
        self._trailers: list[tuple[bytes, bytes]] | None = None

    def start(self) -> None:
        """Ask the client for its body, and take it."""
        self._exchange.continue_request()
        self._exchange.receive_body(self)

    def body_chunk(self, data: bytes) -> None:
        """A piece came."""
        if self._sink is not None:
            self._sink.body_chunk(data)
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._limit:
            self._exchange.pause_request()  # until there is a connection to send it on
            self._know()

    def body_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The body is complete. Trailers have no place behind a body with a length (Kong drops them anyway)."""
        if self._sink is not None:
            self._sink.body_end(trailers)
            return
        self._trailers = trailers
        if not self._known:
            self.whole = True
            self._exchange.set_upstream_body(b"".join(self._pieces))
        self._know()

    def _know(self) -> None:
        if not self._known:
            self._known = True
            self._decided()

    def receive_body(self, sink: BodySink) -> None:
        """Give ``sink`` the body, from its first byte on; the rest of it comes from the exchange. Not if it is `whole`."""
        self._sink = sink
        self._exchange.body_sink = sink
        pieces, self._pieces = self._pieces, []
        sink.body_chunk(b"".join(pieces))
        if self._trailers is not None:
            sink.body_end(self._trailers)
        else:
            self._exchange.resume_request()
