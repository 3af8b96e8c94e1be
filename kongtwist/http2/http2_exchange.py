"""One request over HTTP/2, and its answer as it goes out."""

from __future__ import annotations

from functools import lru_cache, partial
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from ..core.exchange import Answer
from ..core.grpc.grpc_text import is_grpc
from ..core.http2.frames import CANCEL, INTERNAL_ERROR, NO_ERROR
from ..core.http2.hpack import Encoder, encode_field
from ..http1.client_errors import log_timeout
from ..http1.client_facts import ClientFacts, ConnectedExchange
from ..net.run_steps import run_steps
from ..net.stream_user import NOBODY
from .stream_transport import StreamTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.http.head import HeaderBlock
    from ..core.http2.field_lists import FieldList
    from ..net.http2_stream import HTTP2Stream

__all__ = ["HTTP2Exchange", "RequestConnection"]

_log = Logger(namespace="kongtwist.proxy")

_LINGER = 0.1
"""Seconds from the end of an answer to RST_STREAM, where the request has not ended: clients that read both at once (curl 7) see no more
than the reset. What comes meanwhile is thrown away."""

_NOT_BEGUN, _WITH_LENGTH, _OPEN_END, _BODYLESS = range(4)
_UNMARKED: frozenset[bytes] = frozenset()


@lru_cache(maxsize=1024)
def _status_field(status: int) -> bytes:
    return encode_field(b":status", b"%d" % status)


@lru_cache(maxsize=1024)
def _length_field(length: int) -> bytes:
    return encode_field(b"content-length", b"%d" % length)


class RequestConnection(ClientFacts, Protocol):
    """What an exchange needs of its connection (`http2_channel.HTTP2Channel`).

    Attributes:
        encoder: of what the client is sent.
    """

    encoder: Encoder


class HTTP2Exchange(ConnectedExchange):
    """See `Exchange`. It is the user of its stream, and has a deadline: for the next piece of the body, or for the client to
    take more of the answer.

    Attributes:
        stream: the request's.
    """

    __slots__ = (
        "_continued", "_held", "_length", "_mode", "_progress", "_reset_behind", "deadline", "stream", "wake",
    )  # fmt: skip

    channel: RequestConnection
    minor = 1

    def __init__(
        self, channel: RequestConnection, stream: HTTP2Stream, method: bytes, target: bytes, block: HeaderBlock
    ) -> None:
        ConnectedExchange.__init__(self)
        context = channel.context
        monotonic, wall, next_id = context.monotonic, context.wall, context.next_id
        self.channel = channel
        self.stream = stream
        self.method = method
        self.target = target
        self.block = block
        self.gateway = context.host
        self.started = monotonic()
        self.wall_started = wall()
        self.request_id = next_id()
        self.open = True
        self.body_complete = stream.ended_in
        self.deadline = self.wake = inf
        self._mode = _NOT_BEGUN
        self._continued = self._held = self._reset_behind = False
        self._length = self._progress = self._pending_size = self._reader_limit = 0
        self._pending = None if stream.ended_in else []
        self._reader = None
        self._trailers = []

    def was_begun(self, status: int, headers: bytes) -> None:
        """Somebody else has sent the answer's head, with these lines."""
        self._mode = _OPEN_END
        self.status = status
        self.sent_head = b"HTTP/2 %d\r\n%b\r\n" % (status, headers)

    def go_on(self, relay: Any) -> None:
        """Take up a request whose body has gone its way so far, and goes to ``relay`` from now on, who gives the answer."""
        self._pending = None
        self.body_sink = self.answer_sink = relay
        self.bytes_in = self.stream.received
        if self._mode == _NOT_BEGUN and not self.body_complete:
            self._within(self.channel.context.limits.client_body_timeout)
        if not self.stream.closed:
            self.stream.user = self

    def was_answered(self) -> None:
        """Somebody else has sent the whole answer: the request is over."""
        self._finished()

    # -- facts of the connection ---------------------------------------------------------------------------------------

    @property
    def http_version(self) -> str:
        return "2"

    @property
    def http2_stream(self) -> Any:
        return self.stream

    # -- the answer ----------------------------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:  # type: ignore[override]
        """Whether anything of the answer has been sent."""
        return self._mode != _NOT_BEGUN

    def start(self, status: int, reason: bytes, headers: bytes, length: int | None) -> None:
        self.begin(status, reason, headers, length, b"")

    def begin(
        self, status: int, reason: bytes, headers: bytes, length: int | None, first: bytes, raw: bool = False
    ) -> None:
        if self.open:
            self._head(status, headers, length)
            if first:
                self.write(first)

    def answer(
        self, status: int, reason: bytes, headers: bytes, length: int | None, body: bytes, raw: bool = False
    ) -> None:
        if not self.open:
            return
        stream = self.stream
        self._head(status, headers, length, not body)
        if body and not stream.ended_out:
            stream.send_data(body, True)
        self._end()

    def _head(self, status: int, headers: bytes, length: int | None, whole: bool = False) -> None:
        self.status = status
        start = _status_field(status)
        if length is not None:
            start += _length_field(length)
            self._mode, self._length = _WITH_LENGTH, length
        else:
            self._mode = _OPEN_END
        if status in (204, 304) or self.method == b"HEAD":
            self._mode = _BODYLESS
        route = self.route
        if route is None or route.chain.logs or self.channel.context.notes:  # nobody else asks for it
            self.sent_head = b"HTTP/2 %d\r\n%b\r\n" % (status, headers)
        fields = self.response_fields
        never = _UNMARKED if fields is None else fields.never
        block = self.channel.encoder.block(start, headers.split(b"\r\n")[:-1], never)
        self.stream.send_headers(
            block, whole or self._mode == _BODYLESS or (length == 0 and self._mode == _WITH_LENGTH)
        )

    def write(self, data: bytes) -> None:
        if self.open and data and self._mode != _BODYLESS:
            self.stream.send_data(data)

    def finish(self, trailers: list[tuple[bytes, bytes]] | None = None) -> None:
        if not self.open:
            return
        stream = self.stream
        if not stream.ended_out and not stream.closed:
            if self._mode == _WITH_LENGTH and stream.sent + stream.queued != self._length:
                self.abort()  # less (or more) than was promised
                return
            if trailers:
                stream.send_headers(self.channel.encoder.trailers(trailers), True)
            else:
                stream.send_data(b"", True)
        self._end()

    def interim(self, status: int, reason: bytes, headers: bytes, never: frozenset[bytes] = frozenset()) -> None:
        if self.open and self._mode == _NOT_BEGUN:
            lines = headers.split(b"\r\n")[:-1]
            self.stream.send_headers(self.channel.encoder.block(_status_field(status), lines, never))

    def abort(self) -> None:
        self.reset(INTERNAL_ERROR)

    def reset(self, code: int) -> None:
        """See `Exchange.reset`."""
        if self.open:
            sink, self.answer_sink = self.answer_sink, None
            steps: list[Callable[[], object]] = [partial(self.stream.reset, code), self._finished]
            if sink is not None:  # it was not the producer of the answer who cut it
                steps.append(partial(sink.client_gone, "the answer was cut"))
            run_steps(*steps)

    def _end(self) -> None:
        """The answer is complete. What the client still sends of its request is not wanted any more (RFC 9113 8.1)."""
        stream = self.stream
        self._finished()
        if stream.closed or stream.ended_in:
            return
        self._reset_behind = True
        if stream.ended_out:
            self._reset_soon()

    def _finished(self) -> None:
        """The request is over, however: the one place where it gives back what it has."""
        stream = self.stream
        self.open = False
        self.bytes_in = max(self.bytes_in, stream.received)
        self.bytes_out = stream.sent + stream.queued if self._mode != _NOT_BEGUN else 0
        self.body_sink = self.answer_sink = self._pending = None
        if stream.closed:
            stream.user = NOBODY
        reader, self._reader = self._reader, None
        context = self.channel.context
        if reader is None and self.wake == inf:
            context.finished(self)
            return
        run_steps(
            *(() if stream.blocked and not stream.closed else (partial(context.deadlines.drop, self),)),
            *(() if reader is None else (reader.cancel,)),
            partial(context.finished, self),
        )

    def gone(self, why: str) -> None:
        """The client went away in the middle, or its stream ended."""
        if not self.open:
            return
        if self._mode == _NOT_BEGUN:
            self.status = 499
        sink, self.answer_sink = self.answer_sink, None
        run_steps(*(() if sink is None else (partial(sink.client_gone, why),)), self._finished)

    # -- the stream's calls --------------------------------------------------------------------------------------------

    def stream_head(self, fields: FieldList, end: bool) -> None:
        """Not on this side."""

    def stream_data(self, data: bytes) -> None:
        """A piece of the body came."""
        if not self.open:
            return
        context = self.channel.context
        limits = context.limits
        size = self.bytes_in + len(data)
        if limits.client_max_body_size and size > limits.client_max_body_size:
            self.bytes_in = size
            self.too_large()
            return
        self.deadline = when = context.monotonic() + limits.client_body_timeout
        if when < self.wake:
            context.deadlines.set(self, when)
        self.body_received(data)

    def stream_end(self, trailers: FieldList | None) -> None:
        """The body is complete."""
        if not self.open:
            self._reset_behind = False
            if not self.stream.blocked:
                self._let_go()
            return
        if not self.stream.blocked:
            self.deadline = inf
        self.body_ended([] if trailers is None else trailers.trailers)

    def stream_lost(self, code: int | None, why: str) -> None:
        """The stream is over."""
        self.channel.context.deadlines.drop(self)
        self.gone(why)

    def stream_blocked(self) -> None:
        """The client reads slower than it is sent to."""
        self._progress = self.stream.sent
        self._within(self.channel.context.limits.send_timeout)
        if self.answer_sink is not None:
            self.answer_sink.pause_answer()

    def stream_unblocked(self) -> None:
        """It has taken what there was."""
        self.deadline = inf
        if not self.open:
            if self._reset_behind:
                self._reset_soon()
            else:
                self._let_go()
        else:
            if self.answer_sink is not None:
                self.answer_sink.resume_answer()
            self._await_body()

    # -- time ----------------------------------------------------------------------------------------------------------

    def _within(self, seconds: float) -> None:
        context = self.channel.context
        context.deadlines.set(self, context.monotonic() + seconds)

    def expect_body(self) -> None:
        """A body follows the head: check what is announced, and watch the time."""
        limits = self.channel.context.limits
        if limits.client_max_body_size and (self.block.content_length or 0) > limits.client_max_body_size:
            self.too_large()
        else:
            self._within(limits.client_body_timeout)

    def _await_body(self) -> None:
        """Give the client its time for the next piece, if one is waited for."""
        if not self.body_complete and not self.stream.paused and self._mode == _NOT_BEGUN:
            self._within(self.channel.context.limits.client_body_timeout)

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        limits, stream = self.channel.context.limits, self.stream
        if self._reset_behind and not stream.blocked:
            stream.reset(NO_ERROR)
            self._let_go()
        elif stream.blocked:
            if stream.sent != self._progress:  # slow, but reading
                self._progress = stream.sent
                self._within(limits.send_timeout)
                return
            log_timeout(self if self.open else None, self.peer_ip, "while it was sent the answer", limits.send_timeout)
            stream.reset(CANCEL)
            self.gone("timed out")
        elif self.open and self._mode == _NOT_BEGUN and not self.body_complete and stream.peer is None:
            log_timeout(self, self.peer_ip, "while its request body was read", limits.client_body_timeout)
            self.refuse(Answer.error(408, "Request timeout"), "body timed out")

    def _reset_soon(self) -> None:
        """The answer is sent, and the request goes on."""
        if is_grpc(self.block.first(b"content-type")):
            # Clients of gRPC take the trailers that came before; and thousands of calls end at once when an upstream dies.
            self.stream.reset(NO_ERROR)
            self._let_go()
        else:
            self._within(_LINGER)

    def _let_go(self) -> None:
        """The request is over, and nothing of its stream is waited for any more."""
        self.stream.user = NOBODY
        self.channel.context.deadlines.drop(self)

    # -- the request body ----------------------------------------------------------------------------------------------

    def _hold_body(self) -> None:
        self._held = True
        self._pause()

    def continue_request(self) -> None:
        if self.block.expect_continue and not self._continued and self._mode == _NOT_BEGUN and self.open:
            self._continued = True
            self.stream.send_headers(_status_field(100))

    def _release_body(self) -> None:
        if self._held:
            self._held = False
            self.stream.resume()
            self._await_body()

    def _pause(self) -> None:
        self.stream.pause()
        if not self.stream.blocked:
            self.deadline = inf

    def pause_request(self) -> None:
        if self.open and not self.body_complete:
            self._pause()

    def resume_request(self) -> None:
        if self.open and self.stream.paused:
            self.stream.resume()
            if self.open:
                self._await_body()

    # -- another protocol ----------------------------------------------------------------------------------------------

    def take_transport(self) -> tuple[Any, bytes]:
        """See `Exchange.take_transport`: the stream as a transport, for a WebSocket over HTTP/2."""
        self.open = False
        channel = self.channel
        context, connection = channel.context, channel.transport
        context.deadlines.drop(self)
        pending, self._pending = self._pending, None
        peer, host = connection.getPeer(), connection.getHost()
        transport = StreamTransport(context.reactor, self.stream, channel.encoder, peer, host)
        return transport, b"".join(pending or ())

    def released(self) -> None:
        """The transport that was taken has ended: log phase, counters."""
        self.channel.context.finished(self)
