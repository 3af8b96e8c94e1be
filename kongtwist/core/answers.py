"""Answers made here instead of by the upstream: whole ones, and those that are made while they are sent."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Protocol

from .http.headers import check_field

__all__ = [
    "Answer", "AnswerFeeder", "AnswerWriter", "BrokenOff", "FedAnswer", "StreamedAnswer", "WebSocketAnswer", "WebSocketPeer",
]  # fmt: skip


class Answer:
    """A complete answer made here instead of by the upstream (``kong.response.exit`` and ``error``).

    Args:
        status: HTTP status code.
        headers: (name, value) pairs to add.
        body: the body; for ``message`` answers ``None``, the body is then made from the Accept header.
        message: text for Kong's error templates (``kong.response.error``), or ``None``.
        source: ``exit`` (a plugin) or ``error`` (the gateway itself), as Kong's ``kong.response.get_source``.

    Raises:
        ValueError: CR, LF or NUL in a header.
    """

    __slots__ = ("body", "headers", "message", "source", "status")

    def __init__(
        self,
        status: int,
        body: bytes | None = None,
        headers: list[tuple[bytes, bytes]] | None = None,
        message: str | None = None,
        source: str = "exit",
    ) -> None:
        self.status = status
        self.body = body
        self.headers = headers or []
        for name, value in self.headers:
            check_field(name, value)
        self.message = message
        self.source = source

    @classmethod
    def error(cls, status: int, text: str, headers: list[tuple[bytes, bytes]] | None = None) -> Answer:
        """The gateway's own error: ``text`` in the form the client accepts."""
        return Answer(status, None, headers, text, "error")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status} {self.message or self.body!r}>"


class BrokenOff(Exception):
    """Raised by what makes a streamed answer, for an end before its end that is nobody's mistake here: the connection is cut, and the
    text is in the log without a traceback."""


class StreamedAnswer(Answer):
    """An answer whose body is made while it is sent.

    The next chunk is asked for when the client has taken the one before. A client that leaves ends the iteration: an
    asynchronous one that waits gets `CancelledError` there, and either kind is closed. What the iteration raises cuts
    the connection, so that the answer cannot look complete. For HEAD nothing is asked for.

    Args:
        status: HTTP status code.
        chunks: the body's chunks; empty ones are skipped. Iterated once.
        headers: (name, value) pairs to add.
        length: bytes of the whole body, sent as Content-Length; None: unknown, the body is chunked. More or fewer bytes
            than promised cut the connection.
        source: as of `Answer`.
    """

    __slots__ = ("chunks", "length")

    def __init__(
        self,
        status: int,
        chunks: AsyncIterable[bytes] | Iterable[bytes],
        headers: list[tuple[bytes, bytes]] | None = None,
        length: int | None = None,
        source: str = "exit",
    ) -> None:
        super().__init__(status, b"", headers, None, source)
        self.chunks = chunks
        self.length = length


class AnswerWriter(Protocol):
    """Where the body of a `FedAnswer` goes, or the frames that a WebSocket is fed."""

    @property
    def write_chunk(self) -> Callable[[bytes], None] | None:
        """Takes a piece as a chunk, or frames, by the shortest way there is, until the feeder is told that the answer has ended; None:
        there is only `write`."""
        ...

    def write(self, data: bytes, chunk: bytes | None = None) -> None:
        """Send a piece, whole events where the answer is an event stream. Never waits; `AnswerFeeder.pause` may be called meanwhile.

        Args:
            data: the piece.
            chunk: the same as a chunk (RFC 9112 7.1), for who sends one piece to many; None: it is made where it is needed.
        """
        ...

    def finish(self) -> None:
        """The body is complete; no harm if the answer has ended before."""
        ...


class AnswerFeeder(Protocol):
    """What gives the body of a `FedAnswer`."""

    def begin(self, writer: AnswerWriter) -> None:
        """The head has been sent; from now on ``writer`` takes the body."""
        ...

    def pause(self) -> None:
        """The client has enough for now: give nothing more. What is given all the same is held in memory."""
        ...

    def resume(self) -> None:
        """It has taken that."""
        ...

    def gone(self, why: str) -> None:
        """The answer has ended, or nobody wants its body. Called once, also where it was never begun."""
        ...


class FedAnswer(StreamedAnswer):
    """A streamed answer whose body is given when it is there, instead of being asked for: the way for what many clients get at once.

    Args:
        status: HTTP status code.
        feeder: gives the body.
        headers: (name, value) pairs to add.
    """

    __slots__ = ("feeder",)

    def __init__(self, status: int, feeder: AnswerFeeder, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        super().__init__(status, (), headers)
        self.feeder = feeder


class WebSocketPeer(Protocol):
    """The client of a WebSocket whose server is the gateway itself."""

    def receive(self) -> Awaitable[str | bytes | None]:
        """The next message, text or binary; None when the client has closed, or is gone. One at a time."""
        ...

    def send(self, message: str | bytes) -> Awaitable[bool]:
        """Send a message, as text or as binary; waits while the client reads slower. False: it is gone, and nothing was sent."""
        ...

    def feed(self, feeder: AnswerFeeder) -> None:
        """Have ``feeder`` give messages when they are there, as whole frames of a server (RFC 6455 5.2): the way for what many clients get
        at once. From now on it is told as that of a `FedAnswer`; its end closes with 1001. Nothing is sent by `send` meanwhile."""
        ...

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close (RFC 6455 7.4); no harm when it is closed. A reason is cut to what a Close frame holds (123 bytes)."""
        ...


class WebSocketAnswer(Answer):
    """An answer to a request that asks for a WebSocket: it is opened, and served here.

    Args:
        serve: takes the client, and serves it until it returns, whereupon the WebSocket is closed with 1000; with 1011 when it
            raises. It is cancelled when the client is gone.
        limit: bytes of the largest message taken; one that is larger closes with 1009.
        subprotocol: the one of those offered that is chosen (RFC 6455 1.9).
        headers: (name, value) pairs to add to the handshake's answer.
    """

    __slots__ = ("limit", "serve", "subprotocol")

    def __init__(
        self,
        serve: Callable[[WebSocketPeer], Awaitable[None]],
        *,
        limit: int = 1024 * 1024,
        subprotocol: str | None = None,
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        super().__init__(101, b"", headers, None, "service")
        self.serve = serve
        self.limit = limit
        self.subprotocol = subprotocol
