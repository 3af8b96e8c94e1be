"""Whom a stream of HTTP/2 serves (`http2_stream` says when each is called)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..core.http2.field_lists import FieldList

__all__ = ["NOBODY", "StreamUser"]


class StreamUser(Protocol):
    """Whoever a stream serves; see the module."""

    def stream_head(self, fields: FieldList, end: bool) -> None:
        """An answer's head came (client's side); interim ones (1xx) first. With ``end`` nothing follows, and `stream_end` is not called."""

    def stream_data(self, data: bytes) -> None:
        """Bytes of the body; never empty."""

    def stream_end(self, trailers: FieldList | None) -> None:
        """The peer has sent all; ``trailers`` where there are some."""

    def stream_lost(self, code: int | None, why: str) -> None:
        """The stream is over before its end: reset by the peer or for an error of its (``code``), or with its connection (None)."""

    def stream_blocked(self) -> None:
        """What was sent has to wait: send no more."""

    def stream_unblocked(self) -> None:
        """It has been sent."""


class _Nobody:
    """The user of a stream of which nobody wants to know anything more: refused, or over. One that is over and keeps its user would be a
    circle for the garbage collector."""

    def stream_head(self, fields: FieldList, end: bool) -> None: ...

    def stream_data(self, data: bytes) -> None: ...

    def stream_end(self, trailers: FieldList | None) -> None: ...

    def stream_lost(self, code: int | None, why: str) -> None: ...

    def stream_blocked(self) -> None: ...

    def stream_unblocked(self) -> None: ...


NOBODY: StreamUser = _Nobody()
