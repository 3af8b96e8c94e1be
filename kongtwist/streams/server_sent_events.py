"""Server-Sent Events being relayed, as entries of the register of streams.

Events pass like any answer of unknown length: at once, unchanged, with backpressure (proxy/forwarding.py).
What makes them streams is that they last: the register shows them, and a stop or a change of configuration ends them.
That must not happen inside an event, or the client would get half of one (WHATWG HTML 9.2.6: events end with an empty
line), so the piece that was passed on last is kept, and looked at when the stream is to end. Nothing is scanned before.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..core.error_lines import seconds_text
from ..core.message_spans import together
from ..core.message_times import EGRESS, MessageTimes
from ..core.stream_registry import StreamRecord
from ..net.run_steps import run_steps
from .keep_alive import EventComments

if TYPE_CHECKING:
    from ..core.exchange import Exchange
    from ..core.http.head import HeaderBlock
    from .stream_context import StreamContext

__all__ = ["Answering", "EventStream", "is_event_stream"]

_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_CHUNKED_EVENT_ENDS = tuple(end + b"\r\n" for end in _EVENT_ENDS)

_LONGEST_END = 6

_COMMENT = b":\n\n"


class Answering(Protocol):
    """What relays the answer (proxy/forwarding.py)."""

    @property
    def context(self) -> StreamContext: ...

    @property
    def exchange(self) -> Exchange: ...

    def may_end_answer(self) -> bool:
        """Whether the framing of the answer allows an end here."""

    def write_event(self, data: bytes) -> None:
        """Send a piece of our own, with the framing that the answer's pieces have."""

    def end_answer(self) -> None:
        """End the answer here as if the upstream had: complete for the client, cut for the upstream."""

    def fault(self) -> None:
        """Cut both."""


@runtime_checkable
class MovableAnswering(Answering, Protocol):
    """What relays an answer that may go to another process."""

    @property
    def movable(self) -> bool:
        """Whether the answer can go to another process now."""

    def pack(self) -> dict[str, Any]:
        """The answer, as JSON can say it. Raises `core.packed_values.Unpackable`."""

    def give_up(self) -> tuple[tuple[int, ...], bytes, bytes]:
        """Let go of both connections, without an end and without a line in a log: their descriptors, the client's and the
        upstream's, what was not sent to the client, and what it has sent behind its request."""


def is_event_stream(block: HeaderBlock) -> bool:
    """Whether an answer with these headers is an event stream."""
    kind = block.first(b"content-type")
    return kind is not None and kind[:17].lower() == b"text/event-stream"


class EventStream(StreamRecord):
    """One event stream.

    Args:
        answering: relays it.
        raw: pieces come with the framing of their chunks.
        written: of a stream that another process has begun, what it has written down (`written`); None: it begins here.
    """

    __slots__ = (
        "_answering", "_closing", "_comments", "_ends", "_events", "_farewell", "_last", "_raw", "_resumed", "_times",
        "deadline", "wake",
    )  # fmt: skip

    def __init__(self, answering: Answering, raw: bool, written: Mapping[str, Any] | None = None) -> None:
        super().__init__("sse", answering.exchange)
        self._answering = answering
        self._closing = False
        self._comments: EventComments | None = None
        self._farewell = b""
        self._raw = raw
        self._ends = _CHUNKED_EVENT_ENDS if raw else _EVENT_ENDS
        self._last = b""
        self.deadline = self.wake = inf
        self._events = 0
        self._times: MessageTimes | None = None
        self._resumed: Mapping[str, Any] | None = None
        if written is not None:
            self._events, self._last = int(written["events"]), bytes.fromhex(written["last"])
            self._resumed = written["times"]
            answering.context.streams.take_up(self, written["line"])
            return
        answering.exchange.mark_streamed()
        answering.context.streams.add(self)
        if answering.exchange.get_header(b"last-event-id") is not None and self.tally is not None:
            self.tally.resumed += 1

    @property
    def bytes_in(self) -> int:
        return self._answering.exchange.bytes_in

    @property
    def bytes_out(self) -> int:
        return self._answering.exchange.bytes_out

    @property
    def messages_in(self) -> int:
        return 0

    @property
    def messages_out(self) -> int:
        return self._events

    def time_messages(self, times: MessageTimes) -> None:
        """From now on events are counted, too: those whose end comes in one piece."""
        times.begin(self._answering.context.monotonic)
        if self._resumed is not None:
            times.resume(self._resumed)
        self._times = together(self._times, times)

    @property
    def movable(self) -> bool:
        answering = self._answering
        return not self._closing and isinstance(answering, MovableAnswering) and answering.movable

    def pack(self) -> tuple[dict[str, Any], tuple[int, ...]]:
        answering = self._answering
        assert isinstance(answering, MovableAnswering)
        state = answering.pack()
        context = answering.context
        state["events"] = {
            "events": self._events,
            "last": self._last[-_LONGEST_END:].hex(),
            "times": self._resumed if self._times is None else self._times.written(),
            "line": None if self.logged is None else self.logged.deadline,
        }
        context.streams.leave(self)
        run_steps(self._be_still, partial(context.deadlines.drop, self))
        sockets, unsent, early = answering.give_up()
        state["unsent"], state["early"] = (b2a_base64(each, newline=False).decode() for each in (unsent, early))
        return state, sockets

    def passed(self, data: bytes) -> None:
        """A piece was passed on."""
        if self._times is not None:
            events = data.count(b"\n\n") or data.count(b"\r\n\r\n")
            if events:
                self._events += events
                self._times.passed(EGRESS, events)
        self._last = data if len(data) >= _LONGEST_END else (self._last + data)[-_LONGEST_END:]
        if self._closing and self._at_end():
            self._end()

    def keep_alive(self, seconds: float, client: bool = True, upstream: bool = True) -> None:
        """See `StreamInfo.keep_alive`; an event stream's upstream can be told nothing."""
        if not client:
            return
        answering = self._answering
        context, exchange = answering.context, answering.exchange
        exchange.bound_silence(seconds)
        self._comments = EventComments(
            context.deadlines, context.monotonic, seconds, lambda: exchange.bytes_out, self._comment
        )

    def _comment(self) -> None:
        """Nothing has passed for a while."""
        if self._at_end():
            self._say(_COMMENT)

    def _say(self, text: bytes) -> None:
        self._answering.write_event(b"%x\r\n%b\r\n" % (len(text), text) if self._raw else text)

    def _end(self) -> None:
        """End here, with the last words."""
        farewell, self._farewell = self._farewell, b""
        if farewell:
            self._say(farewell)
        self._answering.end_answer()

    def close(self, code: int, reason: str, retry: int | None = None) -> None:
        if self._closing:
            return
        self._closing = True
        self._farewell = _farewell(reason, retry)
        self._be_still()
        if self._at_end():
            self._end()
        else:
            context = self._answering.context
            context.deadlines.set(self, context.monotonic() + context.limits.lingering_timeout)

    def end_idle(self, seconds: float) -> bool:
        """End it because nothing came for so long, complete and with a word why; False: an event is under way, which would be half."""
        if not self._at_end():
            return False
        self.close(0, f"nothing came for {seconds_text(seconds)}")
        return True

    def _at_end(self) -> bool:
        """Whether the client has only whole events, in whole chunks."""
        return not self._last or (self._last.endswith(self._ends) and self._answering.may_end_answer())

    def cut(self) -> None:
        self._answering.fault()

    def expire(self, now: float) -> None:
        """The event under way took too long to end."""
        self.cut()

    def over(self) -> None:
        """The answer has ended, whatever ended it."""
        context = self._answering.context
        run_steps(
            self._be_still,
            partial(context.deadlines.drop, self),
            partial(context.streams.remove, self),
            partial(self.tell_record, self._answering.exchange),
        )

    def _be_still(self) -> None:
        if self._comments is not None:
            self._comments.stop()
            self._comments = None


def _farewell(reason: str, retry: int | None) -> bytes:
    """What a client gets before the end: the reason as a comment, and when to come again (WHATWG HTML 9.2.6)."""
    text = " ".join(reason.split())
    lines = [f": {text}\n"] if text else []
    if retry is not None:
        lines.append(f"retry: {retry}\n")
    return "".join((*lines, "\n")).encode() if lines else b""
