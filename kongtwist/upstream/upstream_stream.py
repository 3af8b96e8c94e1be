"""One request on a stream of a connection over HTTP/2: what a connection over HTTP/1.1 is to its user, and a little more.

Its user is an `UpstreamUser` as of `upstream.connection`, whose request it carries alone. It watches the silence of the upstream by
looking, four times in the time that is allowed, whether bytes have passed either way: so relayed bytes need not be told to it, and a
stream that has traffic is not ended.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from twisted.python.failure import Failure

from ..core.http.head import HeadError, parse_response_block
from ..core.http.reasons import REASONS
from ..core.http2.frames import CANCEL, NO_ERROR, REFUSED_STREAM
from ..net.http2_stream import HTTP2Stream
from ..net.stream_user import NOBODY
from .connection import ResponseHead
from .upstream_errors import ENDED, LARGE, MALFORMED

if TYPE_CHECKING:
    from ..core.http2.field_lists import FieldList
    from .http2_parts import StreamsConnection, StreamsPool

__all__ = ["StreamingUser", "UpstreamStream"]

_LOOKS = 4
"""Looks in the time of silence that is allowed."""


class _NotOpen:
    """Stands for a stream until there is one."""

    stream_window = held = 0
    waiting: dict[HTTP2Stream, None] = {}

    def credit(self) -> None:
        """Nothing is held."""


def _not_open() -> HTTP2Stream:
    stream = HTTP2Stream(_NotOpen(), 0, 0)  # type: ignore[arg-type]
    stream.closed = stream.ended_out = True
    return stream


_NOT_OPEN = _not_open()


class StreamingUser(Protocol):
    """Who uses a stream for one request: an `UpstreamUser` that also takes these."""

    method: bytes

    def reset(self, code: int, why: str) -> None:
        """The stream was reset (RFC 9113 6.4): by the upstream, or here for what it sent, as ``why`` tells. Raises nothing."""

    def refused(self, why: str) -> None:
        """The upstream says that it has not processed the request (RFC 9113 8.7). Raises nothing."""


class UpstreamStream:
    """See the module.

    Args:
        connection: whose stream it is.

    Attributes:
        stream: the stream itself; a closed one until `open` is called, as ids are used in the order of heads.
        user: whose request is on it; None when it is over.
        reused: as of connections: a stream is never the first use of one that may be stale.
    """

    __slots__ = (
        "_interims", "_quiet_since", "_read_timeout", "_seen", "_write_timeout", "connection", "deadline", "stream", "user", "wake",
    )  # fmt: skip

    reused = False
    may_end_here = True

    def __init__(self, connection: StreamsConnection) -> None:
        self.connection = connection
        self.stream: HTTP2Stream = _NOT_OPEN
        self.user: Any = None
        self.deadline = self.wake = inf
        self._interims = self._seen = 0

    @property
    def pool(self) -> StreamsPool:
        """Of its connection."""
        return self.connection.pool

    # -- the user's calls ----------------------------------------------------------------------------------------------

    def begin(self, user: StreamingUser, read_timeout: float, write_timeout: float) -> None:
        """A request is about to be sent for ``user``; the time-outs are seconds."""
        self.user = user
        self._read_timeout = read_timeout
        self._write_timeout = write_timeout
        context = self.connection.pool.context
        monotonic = context.monotonic
        self._quiet_since = now = monotonic()
        context.deadlines.set(self, now + min(read_timeout, write_timeout) / _LOOKS)

    def go_on(self, user: StreamingUser, stream: HTTP2Stream, read_timeout: float, write_timeout: float) -> None:
        """Take up a request that was sent on ``stream`` by somebody else; else as `begin`."""
        self.begin(user, read_timeout, write_timeout)
        self.stream = stream
        self._seen = stream.received + stream.sent
        if not stream.closed:
            stream.user = self

    def open(self, block: bytes, end: bool) -> None:
        """Send the head, encoded; ``end``: there is no body."""
        connection = self.connection
        self.stream = stream = connection.open_stream(user=self)
        stream.send_headers(block, end)
        connection.opened()

    def send(self, data: bytes) -> None:
        """Send a piece of the body."""
        self.stream.send_data(data)

    def send_last(self, data: bytes) -> None:
        """Send the last piece, which may be empty."""
        stream = self.stream
        stream.send_data(data, True)
        monotonic = self.connection.pool.context.monotonic
        self._seen = stream.received + stream.sent
        self._quiet_since = monotonic()

    def pause(self) -> None:
        """Read no more for now."""
        self.stream.pause()

    def resume(self) -> None:
        """Read on."""
        self.stream.resume()

    def abort(self, code: int = CANCEL) -> None:
        """The user has no use for it any more, and hears nothing more of it."""
        self._over()
        self.stream.reset(code)

    def _over(self) -> Any:
        """Nobody's any more; who it was."""
        user, self.user = self.user, None
        if self.stream is not _NOT_OPEN:
            self.stream.user = NOBODY
        if self.wake != inf:
            self.connection.pool.context.deadlines.drop(self)
        return user

    # -- silence -------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Look whether bytes have passed; end what was silent for too long."""
        stream, context = self.stream, self.connection.pool.context
        if self.user is None:
            return
        seen = stream.received + stream.sent
        if (
            seen != self._seen or stream.paused or stream.held
        ):  # what is held waits for the client, not for the upstream
            self._seen = seen
            self._quiet_since = now
        allowed = self._write_timeout if stream.blocked else self._read_timeout
        late = self._quiet_since + allowed
        if now < late:
            context.deadlines.set(self, min(late, now + allowed / _LOOKS))
            return
        self.give_up()

    def give_up(self) -> None:
        """The upstream was silent for too long."""
        user, stream = self._over(), self.stream
        if user is None:
            return
        stream.reset(CANCEL)
        user.broken("no answer in time", timeout=True, unread=not stream.head_in and not stream.received)

    # -- what comes (net.http2_stream.StreamUser) ------------------------------------------------------------------------

    def stream_head(self, fields: FieldList, end: bool) -> None:
        """A head."""
        user = self.user
        if user is None:
            return
        try:
            head = self.head_of(fields)
            if head.status < 200:
                self._informational(head, end)
                return
        except HeadError as error:
            self._fail(str(error), MALFORMED)
            return
        try:
            if end or head.bodyless or user.method == b"HEAD":
                self._finish(end)
                user.answered(head, head.length, b"", True)
            else:
                self.stream.expect(head.length)
                user.answered(head, head.length, b"", False)
        except Exception:  # noqa: BLE001 - a fault of ours must not leave the client waiting for ever
            self._fault(user)

    def head_of(self, fields: FieldList) -> ResponseHead:
        """The head in the form that HTTP/1.1 has; kept with the fields.

        Raises:
            HeadError: it is none.
        """
        made: ResponseHead | None = fields.made
        if made is None:
            made = fields.made = self._made(fields)
        return made

    def _made(self, fields: FieldList) -> ResponseHead:
        limit = self.connection.pool.context.limits.proxy_buffer_size
        if fields.size > limit:
            raise HeadError(502, None, f"the head is larger than {limit} bytes")
        answer = fields.answer
        block = parse_response_block(answer.raw, self.connection.field_lines)
        block.http2, block.never = True, answer.never
        return ResponseHead(1, answer.status, REASONS.get(answer.status, b""), block)

    def _informational(self, head: ResponseHead, end: bool) -> None:
        self._interims += 1
        if head.status == 101 or end or self._interims > self.connection.pool.context.limits.max_interim:
            raise HeadError(502, None, "a wrong or one of too many informational heads from the upstream")
        if head.status != 100:
            self.user.interim(head)

    def stream_data(self, data: bytes) -> None:
        """A piece of the body."""
        user = self.user
        if user is not None:
            try:
                user.answer_chunk(data)
            except Exception:  # noqa: BLE001 - as in stream_head
                self._fault(user)

    def stream_end(self, trailers: FieldList | None) -> None:
        """The end of the body."""
        user = self.user
        if user is None:
            return
        try:
            self._finish(True)
            user.answer_end([] if trailers is None else trailers.trailers)
        except Exception:  # noqa: BLE001 - as in stream_head
            self._fault(user)

    def _finish(self, end: bool) -> None:
        """The answer is complete; whatever of the request is still to come is of no use to the upstream."""
        self._over()
        stream = self.stream
        if not end or not stream.ended_out:
            stream.reset(NO_ERROR if end else CANCEL)

    def _fault(self, user: Any) -> None:
        failure = Failure()
        self._over()
        self.stream.reset(CANCEL)
        user.fault(failure)

    def _fail(self, why: str, fault: str) -> None:
        """What came is no good answer."""
        user = self._over()
        self.stream.reset(CANCEL)
        if user is not None:
            user.broken(why, fault=LARGE if "larger than" in why else fault)

    def stream_lost(self, code: int | None, why: str) -> None:
        """The stream is over before its end."""
        user = self._over()
        if user is None:
            return
        unread = not self.stream.head_in
        if code == REFUSED_STREAM and unread:
            user.refused(why)
        elif code is None:
            user.broken(why, fault=ENDED, unread=unread)
        else:
            user.reset(code, why)

    def stream_blocked(self) -> None:
        """The upstream takes less than comes."""
        if self.user is not None:
            self.user.request_blocked()

    def stream_unblocked(self) -> None:
        """It has taken what was held back."""
        if self.user is not None:
            self.user.request_unblocked()
