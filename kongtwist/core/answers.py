"""Answers made here instead of by the upstream: whole ones, and those that are made while they are sent."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from .http.headers import check_field

__all__ = ["Answer", "StreamedAnswer"]


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
