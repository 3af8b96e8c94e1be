"""The client's half of a stream on our own listeners: one request, and its answer as it goes out."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol

from ..core.http.chunks import LAST_CHUNK, last_chunk
from ..net.hangups import bound_silence
from ..net.run_steps import run_steps
from .client_facts import ClientFacts, ConnectedExchange

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..core.http.head import HeaderBlock

__all__ = ["ClientConnection", "HTTP1Exchange"]

_KEEP = b"Connection: keep-alive\r\n\r\n"
_CLOSE = b"Connection: close\r\n\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"

NOT_BEGUN, WITH_LENGTH, CHUNKED, UNTIL_CLOSE, BODYLESS = range(5)


@lru_cache(maxsize=1024)
def _status_line(status: int, reason: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


@lru_cache(maxsize=1024)
def _length_lines(length: int, keep: bool) -> bytes:
    """The end of a head."""
    return b"Content-Length: %d\r\n%b" % (length, _KEEP if keep else _CLOSE)


class ClientConnection(ClientFacts, Protocol):
    """What an exchange needs of its connection (`channel.HTTP1Channel`).

    Attributes:
        send: sends bytes, soon.
        send_now: sends bytes at once.
    """

    send: Any
    send_now: Any

    def keeps_alive(self, exchange: HTTP1Exchange) -> bool:
        """Whether the connection stays open behind the answer of ``exchange``."""

    def answered(self, keep: bool, body_complete: bool, until_close: bool) -> None:
        """The answer is complete."""

    def cut_short(self, reset: bool) -> None:
        """The answer cannot be completed: end so that the client notices."""

    def hold_body(self) -> None:
        """Nobody takes the body yet, and enough of it is here."""

    def release_body(self) -> None:
        """Somebody takes it now."""

    def pause_body(self) -> None:
        """The upstream reads slower than the client sends."""

    def resume_body(self) -> None:
        """It has caught up."""

    def detach(self, exchange: HTTP1Exchange) -> tuple[Any, bytes]:
        """Give the transport away, and what was read behind the head."""

    def released(self) -> None:
        """The connection has ended with whom its transport was given to."""


class HTTP1Exchange(ConnectedExchange):
    """See `Exchange`."""

    __slots__ = (
        "_continued", "_keep", "_left", "_mode",
    )  # fmt: skip

    channel: ClientConnection

    def __init__(self, channel: ClientConnection, method: bytes, target: bytes, minor: int, block: HeaderBlock) -> None:
        ConnectedExchange.__init__(self)
        context = channel.context
        monotonic, wall, next_id = context.monotonic, context.wall, context.next_id
        self.channel = channel
        self.method = method
        self.target = target
        self.minor = minor
        self.block = block
        self.gateway = context.host
        self.started = monotonic()
        self.wall_started = wall()
        self.request_id = next_id()
        self.open = True
        self.body_complete = True
        self._mode = NOT_BEGUN
        self._keep = self._continued = False
        self._left = 0
        self._pending = self._reader = None

    # -- the answer ----------------------------------------------------------------------------------------------------

    def start(self, status: int, reason: bytes, headers: bytes, length: int | None) -> None:
        self.begin(status, reason, headers, length, b"")

    def begin(
        self, status: int, reason: bytes, headers: bytes, length: int | None, first: bytes, raw: bool = False
    ) -> None:
        if not self.open:
            return
        head = self._head(status, reason, headers, length)
        if first:
            self.bytes_out += len(first)
            self._left -= len(first)
            if self._mode == CHUNKED and not raw:
                first = b"%x\r\n%b\r\n" % (len(first), first)
            head += first
        self.channel.send(head)

    def answer(
        self, status: int, reason: bytes, headers: bytes, length: int | None, body: bytes, raw: bool = False
    ) -> None:
        if not self.open:
            return
        channel = self.channel
        head = self._head(status, reason, headers, length)
        self.bytes_out = len(body)
        mode = self._mode
        if mode == CHUNKED:
            if body and not raw:
                body = b"%x\r\n%b\r\n" % (len(body), body)
            body += LAST_CHUNK
        channel.send(head + body if body else head)
        self.open = False
        self.body_sink = self._pending = None
        channel.context.finished(self)
        channel.answered(self._keep, self.body_complete, mode == UNTIL_CLOSE)

    def _head(self, status: int, reason: bytes, headers: bytes, length: int | None) -> bytes:
        """The head's bytes; decides about framing and what becomes of the connection."""
        self.status = status
        self._keep = keep = self.channel.keeps_alive(self)
        if length is not None:
            self._mode = WITH_LENGTH if self.method != b"HEAD" else BODYLESS
            self._left = length
            self.sent_head = head = _status_line(status, reason) + headers + _length_lines(length, keep)
            return head
        framing = b""
        if status in (204, 304) or self.method == b"HEAD":
            self._mode = BODYLESS
        elif self.minor:
            framing = _CHUNKED
            self._mode = CHUNKED
        else:
            keep = False
            self._mode = UNTIL_CLOSE
        self._keep = keep
        self.sent_head = head = b"".join((_status_line(status, reason), headers, framing, _KEEP if keep else _CLOSE))
        return head

    def write(self, data: bytes) -> None:
        if self.open and data:
            self.bytes_out += len(data)
            if self._mode == CHUNKED:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            else:
                self._left -= len(data)
            self.channel.send(data)

    def takes_raw_chunks(self) -> bool:
        return self.minor > 0 and self.method != b"HEAD"

    def write_raw(self, data: bytes) -> None:
        if self.open and data:
            self.bytes_out += len(data)
            self.channel.send(data)

    def raw_sender(self) -> Callable[[bytes], None]:
        send = self.channel.send_now

        def send_counted(data: bytes) -> None:
            self.bytes_out += len(data)
            send(data)

        return send_counted

    def finish(self, trailers: list[tuple[bytes, bytes]] | None = None) -> None:
        if not self.open:
            return
        if self._mode == WITH_LENGTH and self._left:
            self.abort()  # less (or more) than was promised
            return
        if self._mode == CHUNKED:
            self.channel.send(last_chunk(trailers))
        self._end(self._keep)

    def bound_silence(self, seconds: float) -> None:
        bound_silence(self.channel.transport, seconds)

    def abort(self) -> None:
        if self.open:
            # Where the end of the connection is the end of the body, only a reset tells that it is not complete.
            reset = self._mode in (NOT_BEGUN, UNTIL_CLOSE) or not self.minor
            sink, self.answer_sink = self.answer_sink, None
            steps: list[Callable[[], object]] = [self._finished, partial(self.channel.cut_short, reset)]
            if sink is not None:  # it was not the producer of the answer who cut it
                steps.append(partial(sink.client_gone, "the answer was cut"))
            run_steps(*steps)

    def interim(self, status: int, reason: bytes, headers: bytes, never: frozenset[bytes] = frozenset()) -> None:
        if self.open and self.minor and self._mode == NOT_BEGUN:
            self.channel.send(b"%b%b\r\n" % (_status_line(status, reason), headers))

    def _end(self, keep: bool) -> None:
        """The answer is complete."""
        self._finished()
        self.channel.answered(keep, self.body_complete, self._mode == UNTIL_CLOSE)

    def _finished(self) -> None:
        self.open = False
        self.body_sink = None
        self._pending = None
        self.channel.context.finished(self)

    @property
    def begun(self) -> bool:  # type: ignore[override]
        """Whether anything of the answer has been sent."""
        return self._mode != NOT_BEGUN

    # -- the request body ----------------------------------------------------------------------------------------------

    def expect_body(self) -> None:
        """A body follows the head."""
        self.body_complete = False
        self._pending = []
        self._pending_size = 0
        self._trailers = []

    def _hold_body(self) -> None:
        self.channel.hold_body()

    def _release_body(self) -> None:
        self.channel.release_body()

    def continue_request(self) -> None:
        if self.block.expect_continue and self.minor and not self._continued and self._mode == NOT_BEGUN and self.open:
            self._continued = True
            self.channel.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    @property
    def awaits_continue(self) -> bool:
        """The client may hold its body back until it is asked for it."""
        return self.block.expect_continue and not self._continued and not self.bytes_in

    def pause_request(self) -> None:
        if self.open:
            self.channel.pause_body()

    def resume_request(self) -> None:
        if self.open:
            self.channel.resume_body()

    # -- another process ---------------------------------------------------------------------------------------------------

    def written(self) -> list[Any]:
        """How its answer is framed, and what becomes of the connection behind it, as JSON can say it."""
        return [self._mode, self._keep, self._left]

    def resume(self, written: Sequence[Any]) -> None:
        """Go on with an answer that another process has begun, and has `written`."""
        self._mode, self._keep, self._left = written
        self.body_complete = True

    # -- another protocol ----------------------------------------------------------------------------------------------

    def take_transport(self) -> tuple[Any, bytes]:
        """See `Exchange.take_transport`. Whoever takes it calls `released` when the connection has ended.

        Bytes of a request body can only be handed over from within ``serve``, before any of it was read.
        """
        self.open = False
        return self.channel.detach(self)

    def released(self) -> None:
        """The transport that was taken has ended: log phase, counters."""
        self.channel.context.finished(self)
        self.channel.released()
