"""What each type of frame does to an HTTP/2 connection (RFC 9113 6): settings, windows, streams that come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import TYPE_CHECKING, Any

from ..core.http2.budgets import Budget
from ..core.http2.field_lists import FieldList
from ..core.http2.frames import (
    ACK,
    COMPRESSION_ERROR,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    LARGEST_WINDOW,
    LEAST_FRAME,
    PADDED,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    HTTP2Error,
    error_name,
    ping,
    rst_stream,
    window_update,
)
from ..core.http2.hpack import Decoder, Encoder, HPACKError
from .http2_output import HTTP2Output
from .http2_stream import RESET_BY_PEER, RESET_BY_US, HTTP2Stream

if TYPE_CHECKING:
    from ..core.limits import Limits

__all__ = ["CONNECT_PROTOCOL", "HTTP2Frames"]

_number_at = Struct(">I").unpack_from
_setting_at = Struct(">HI").unpack_from

_TABLE, _PUSH, _STREAMS, _WINDOW, _FRAME, _LIST = 1, 2, 3, 4, 5, 6
CONNECT_PROTOCOL = 8
"""Identifiers of settings (RFC 9113 6.5.2, RFC 8441 3)."""

_MEMORIES = 64
"""Blocks that a connection remembers with what they mean."""
_LARGEST = 4
"""Times ``http2_max_block_size`` that a field block is taken in for: above the size itself it is decoded and refused."""
_LOOKED_AT = 100
"""Fields of a list that is too large which are kept, for whoever tells of it."""
_GONE = 500
"""Closed streams that are remembered, and as many that were closed before them: frames for them may be on their way."""
ROUND_TRIP = b"kongtwst"
"""Payload of the PING that tells when the peer has seen our first GOAWAY."""


class HTTP2Frames(HTTP2Output):
    """The receiving half of `http2_connection.HTTP2Connection`, frame by frame.

    Args:
        reactor: of the connection.
        limits: the gateway's.
        monotonic: seconds, for budgets.

    Attributes:
        client: we make the requests.
        credit_at_once: DATA that is held counts against its stream's window alone, so that slow streams do not stop the
        others. Else against
            the connection's too, which bounds what a peer makes us hold.
        streams: open streams by id.
        last: the highest id of a stream that the peer has opened.
        next_id: the id of the next stream that we open.
        peer_streams: streams the peer lets us open at a time (SETTINGS_MAX_CONCURRENT_STREAMS); 100 until it says so.
        peer_list_size: bytes of a field list it takes, or None.
        peer_connects: it takes extended CONNECT (RFC 8441).
        list_size: bytes of the largest field list we take (SETTINGS_MAX_HEADER_LIST_SIZE), as far as peers are told.
        draining: no new streams: GOAWAY was sent, or received.
        failed: the connection has ended with an error, or is ending.
    """

    client = False
    credit_at_once = False

    __slots__ = (
        "_data_before", "_gone", "_gone_before", "_idle", "_memory", "_partial", "_preface", "_remembered", "_resets", "_rest", "_settled",
        "_stopping", "connection_window", "decoder", "draining", "encoder", "failed", "hot", "last", "list_size", "monotonic", "next_id",
        "peer_connects", "peer_list_size", "peer_streams", "room", "stream_window", "streams", "ties",
    )  # fmt: skip

    def __init__(self, reactor: Any, limits: Limits, monotonic: Callable[[], float]) -> None:
        HTTP2Output.__init__(self, reactor, limits)
        self.monotonic = monotonic
        self.streams: dict[int, HTTP2Stream] = {}
        self.hot = 0
        self.ties = False
        self.list_size = 65536
        self.stream_window = limits.http2_stream_window_size
        self.room = self.connection_window = max(65535, limits.http2_connection_window_size)
        self.decoder = Decoder()
        self.encoder = Encoder()
        self.last = 0
        self.next_id = 1
        self.peer_streams: float = 100
        self.peer_list_size: int | None = None
        self.peer_connects = self.draining = self.failed = False
        self._gone: dict[int, int] = {}
        self._gone_before: dict[int, int] = {}
        self._rest = b""
        self._preface = not self.client
        self._settled = self._stopping = False
        self._memory: dict[bytes, FieldList] = {}
        self._remembered = 0
        self._partial: list[Any] | None = None
        self._resets = Budget(limits.http2_reset_burst, limits.http2_reset_rate)
        self._idle = Budget(limits.http2_idle_frames, 100.0)
        self._data_before = 0

    # -- what a subclass decides ---------------------------------------------------------------------------------------

    def own_settings(self) -> Mapping[int, int]:
        """Our SETTINGS; a subclass adds its own."""
        values = {_WINDOW: self.stream_window, _LIST: self.list_size}
        if self.client:
            values[_PUSH] = 0
        else:
            values[_STREAMS] = self.limits.http2_max_concurrent_streams
        return values

    def request_received(self, number: int, fields: FieldList, end: bool) -> None:
        """A request's head came (server's side). `open_stream` makes its stream; without one it is refused with INTERNAL_ERROR.

        Raises:
            MalformedFields, HTTP2Error: it is no good request.
        """

    def goaway_received(self, last: int, code: int, why: bytes) -> None:
        """The peer takes no more requests. Streams of ours above ``last`` are lost (REFUSED_STREAM: not processed) after this."""

    def settings_received(self) -> None:
        """The peer's SETTINGS hold from now on."""

    def streams_changed(self) -> None:
        """A stream was closed."""

    def connection_lost(self, why: str) -> None:
        """The connection is gone, and so are its streams."""

    def failing(self, code: int, why: str) -> None:
        """The peer broke a rule that ends the connection; GOAWAY follows. For the log."""

    def fail(self, code: int, why: str) -> None:
        """End the connection with an error (RFC 9113 5.4.1)."""
        raise NotImplementedError

    def stop_now(self) -> None:
        """What comes from now on is not served."""
        raise NotImplementedError

    def _close_if_done(self) -> None:
        raise NotImplementedError

    # -- streams -------------------------------------------------------------------------------------------------------

    def stream_closed(self, stream: HTTP2Stream, how: int) -> None:
        """Forget a stream; see `http2_stream.StreamCarrier`."""
        number = stream.id
        if self.streams.pop(number, None) is None:
            return
        gone = self._gone
        gone[number] = how
        if len(gone) >= _GONE:
            self._gone_before, self._gone = gone, {}
        self.streams_changed()
        if self.draining:
            self._close_if_done()

    def _remember(self, number: int, how: int) -> None:
        gone = self._gone
        gone[number] = how
        if len(gone) >= _GONE:
            self._gone_before, self._gone = gone, {}

    def _how(self, number: int) -> int | None:
        """How a stream was closed, if that is remembered."""
        how = self._gone.get(number)
        return self._gone_before.get(number) if how is None else how

    def _left(self, number: int) -> bool:
        """Whether we have reset a closed stream, so that what still comes for it is ignored (RFC 9113 5.1). One of our own requests
        that is not remembered any more may have been reset too: many can be, before the peer hears of it."""
        how = self._how(number)
        return how == RESET_BY_US or (how is None and self.client)

    def _check_known(self, number: int) -> None:
        """Refuse frames for streams that nobody has opened (RFC 9113 5.1: idle)."""
        ours = bool(number & 1) == self.client
        if number >= self.next_id if ours and self.client else (ours or number > self.last):
            raise HTTP2Error(PROTOCOL_ERROR, f"a frame for stream {number}, which is idle")

    def _took(self, size: int) -> None:
        """DATA came; `credit` follows when it is known what is held of it.

        Raises:
            HTTP2Error: more than the connection's window allows.
        """
        self.room -= size
        if self.room < 0:
            raise HTTP2Error(FLOW_CONTROL_ERROR, "more DATA than the connection's window allows")

    def credit(self) -> None:
        """Give the peer credit for the connection, if that is worth a frame."""
        window = self.connection_window
        owed = window - self.room - (0 if self.credit_at_once else self.held)
        if owed > window >> 1 and not self.failed:
            self.room += owed
            self.put(window_update(0, owed))

    def _end_stream(self, number: int, code: int, why: str) -> None:
        """Reset a stream for what its peer did wrong; that counts as if it had reset it."""
        self._spend(self._resets, "too many streams were reset for errors")
        self.put_answer(rst_stream(number, code))
        stream = self.streams.get(number)
        if stream is not None:
            stream.lose(code, why, RESET_BY_US)
        else:
            self._remember(number, RESET_BY_US)

    def _spend(self, budget: Budget, why: str) -> None:
        if not budget.spend(self.monotonic()):
            raise HTTP2Error(ENHANCE_YOUR_CALM, why)

    def _spend_idle(self) -> None:
        """A frame that brings nothing. Where DATA was sent since the last one, the peer has a reason."""
        if self.sent != self._data_before:
            self._data_before = self.sent
            self._idle.refill()
            return
        if not self._idle.spend(self.monotonic()):
            raise HTTP2Error(ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    # -- frames --------------------------------------------------------------------------------------------------------

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        length = len(payload)
        if not number:
            raise HTTP2Error(PROTOCOL_ERROR, "DATA without a stream")
        self._took(length)
        try:
            self._data_taken(flags, number, payload, length)
        finally:
            self.credit()

    def _data_taken(self, flags: int, number: int, payload: bytes, length: int) -> None:
        stream = self.streams.get(number)
        if flags & PADDED:
            payload = _unpadded(payload)
        end = bool(flags & END_STREAM)
        if payload or end:
            self._idle.refill()
        else:
            self._spend_idle()
        if stream is None:
            self._check_known(number)
            if not self._left(number):
                raise HTTP2Error(STREAM_CLOSED, "DATA on a closed stream", number)
            return
        if stream.ended_in:
            raise HTTP2Error(STREAM_CLOSED, "DATA behind the end", number)
        stream.room -= length
        if stream.room < 0:
            raise HTTP2Error(FLOW_CONTROL_ERROR, "more DATA than the stream's window allows", number)
        if self.client and not stream.head_in:
            raise HTTP2Error(PROTOCOL_ERROR, "DATA before a head", number)
        stream.take(payload, end)

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number:
            raise HTTP2Error(PROTOCOL_ERROR, "HEADERS without a stream")
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & PRIORITY_FLAG:
            if len(payload) < 5:
                raise HTTP2Error(FRAME_SIZE_ERROR, "HEADERS that are too short")
            on_itself = _number_at(payload)[0] & LARGEST_WINDOW == number
            payload = payload[5:]
        else:
            on_itself = False
        if not flags & END_HEADERS:
            self._partial = [number, flags, [payload], len(payload), 0, on_itself]
        else:
            self._block(number, bool(flags & END_STREAM), payload, on_itself)

    def _continuation(self, flags: int, number: int, payload: bytes) -> None:
        partial = self._partial
        if partial is None or partial[0] != number:
            raise HTTP2Error(PROTOCOL_ERROR, "CONTINUATION of nothing")
        partial[2].append(payload)
        partial[3] += len(payload)
        partial[4] += len(payload) < LEAST_FRAME  # full ones are bounded by the size
        if partial[3] > _LARGEST * self.limits.http2_max_block_size:
            raise HTTP2Error(ENHANCE_YOUR_CALM, "a field block that is too large")
        if partial[4] > self.limits.http2_max_continuations:
            raise HTTP2Error(ENHANCE_YOUR_CALM, "too many CONTINUATION frames")
        if flags & END_HEADERS:
            self._partial = None
            self._block(number, bool(partial[1] & END_STREAM), b"".join(partial[2]), partial[5])

    def _block(self, number: int, end: bool, block: bytes, on_itself: bool) -> None:
        """A whole field block came. It is decoded whatever becomes of it: the table has to stay in step."""
        fields = self._memory.get(block) if self.decoder.changes == self._remembered else None
        if fields is None:
            fields = self._fields(block)
        self._idle.left = self._idle.burst
        stream = self.streams.get(number)
        if stream is None:
            self._opened(number, fields, end, on_itself)
            return
        if stream.ended_in:
            raise HTTP2Error(STREAM_CLOSED, "HEADERS behind the end", number)
        if on_itself:
            raise HTTP2Error(PROTOCOL_ERROR, "a stream that depends on itself", number)
        if self.client and not stream.head_in:
            interim = fields.answer.status < 200
            if interim and end:
                raise HTTP2Error(PROTOCOL_ERROR, "an interim answer that ends the stream", number)
            stream.answered(fields, end, interim)
            return
        if not end:
            raise HTTP2Error(PROTOCOL_ERROR, "trailers that do not end the stream", number)
        if fields.size > self.list_size:
            raise HTTP2Error(ENHANCE_YOUR_CALM, "trailers that are too large", number)
        _ = fields.trailers  # refused here where they are malformed
        stream.end(fields)

    def _fields(self, block: bytes) -> FieldList:
        """The fields of a block, decoded; equal blocks are decoded once while the table does not change.

        A block or a list that is too large ends its stream only (RFC 9113 4.3, 10.5.1): it is decoded, most of it is dropped,
        and its size is larger than `list_size`.
        """
        decoder = self.decoder
        memory = self._memory
        try:
            fields = FieldList(decoder.decode(block))
        except HPACKError as error:
            raise HTTP2Error(COMPRESSION_ERROR, str(error)) from error
        large = len(block) > self.limits.http2_max_block_size or fields.size > self.list_size
        if large:
            fields.size = max(fields.size, self.list_size + 1)
            del fields.fields[_LOOKED_AT:]
        if decoder.changes != self._remembered:
            self._remembered = decoder.changes
            memory.clear()
        elif not large:
            if len(memory) >= _MEMORIES:
                memory.clear()
            memory[block] = fields
        return fields

    def _opened(self, number: int, fields: FieldList, end: bool, on_itself: bool) -> None:
        """HEADERS for a stream that is not open."""
        if self.client:
            self._check_known(number)
        elif not number & 1:
            raise HTTP2Error(PROTOCOL_ERROR, "a client's stream with an even id")
        if self.client or number <= self.last:
            if self._left(number):
                return
            how = self._how(number)
            if how is None:
                raise HTTP2Error(PROTOCOL_ERROR, "an id that is too small")
            raise HTTP2Error(STREAM_CLOSED, "HEADERS on a closed stream", number if how == RESET_BY_PEER else 0)
        self.last = number
        if self.draining:
            self._remember(number, RESET_BY_US)
            return
        if on_itself:
            raise HTTP2Error(PROTOCOL_ERROR, "a stream that depends on itself", number)
        if len(self.streams) >= self.limits.http2_max_concurrent_streams:
            self._spend(self._resets, "too many streams were refused")
            self._remember(number, RESET_BY_US)
            self.put_answer(rst_stream(number, 7))
            return
        self.request_received(number, fields, end)

    def _priority(self, flags: int, number: int, payload: bytes) -> None:
        """Ignored (RFC 9113 5.3), but for its form."""
        self._spend_idle()
        if not number:
            raise HTTP2Error(PROTOCOL_ERROR, "PRIORITY without a stream")
        if len(payload) != 5:
            raise HTTP2Error(FRAME_SIZE_ERROR, "PRIORITY of a wrong size", number)
        if _number_at(payload)[0] & LARGEST_WINDOW == number:
            raise HTTP2Error(PROTOCOL_ERROR, "a stream that depends on itself", number)

    def _rst_stream(self, flags: int, number: int, payload: bytes) -> None:
        if not number:
            raise HTTP2Error(PROTOCOL_ERROR, "RST_STREAM without a stream")
        if len(payload) != 4:
            raise HTTP2Error(FRAME_SIZE_ERROR, "RST_STREAM of a wrong size")
        stream = self.streams.get(number)
        if stream is None:
            self._check_known(number)
            self._spend_idle()
            return
        if not self.client:
            self._spend(self._resets, "too many streams were reset")
        code = _number_at(payload)[0]
        stream.lose(code, f"reset by the peer: {error_name(code)}", RESET_BY_PEER)

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise HTTP2Error(PROTOCOL_ERROR, "SETTINGS with a stream")
        if flags & ACK:
            if payload:
                raise HTTP2Error(FRAME_SIZE_ERROR, "SETTINGS with ACK and a payload")
            return
        if len(payload) % 6:
            raise HTTP2Error(FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        self._spend_idle()
        window = self.initial
        for at in range(0, len(payload), 6):
            name, value = _setting_at(payload, at)
            if name == _WINDOW:
                if value > LARGEST_WINDOW:
                    raise HTTP2Error(FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
                window = value
            elif name == _FRAME:
                if not LEAST_FRAME <= value < 1 << 24:
                    raise HTTP2Error(PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE out of bounds")
                self.largest = min(value, 1 << 16)
            elif name == _PUSH:
                if value > (0 if self.client else 1):
                    raise HTTP2Error(PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH out of bounds")
            elif name == _TABLE:
                self.encoder.limit(value)
            elif name == _STREAMS:
                self.peer_streams = value
            elif name == _LIST:
                self.peer_list_size = value
            elif name == CONNECT_PROTOCOL:
                if value > 1 or (self.peer_connects and not value):
                    raise HTTP2Error(PROTOCOL_ERROR, "SETTINGS_ENABLECONNECT_PROTOCOL out of bounds")
                self.peer_connects = bool(value)
        self.put_answer(b"\0\0\0\4\1\0\0\0\0")
        if window != self.initial:
            self._resize(window)
        self.settings_received()

    def _resize(self, window: int) -> None:
        """All streams' windows change, and may become negative (RFC 9113 6.9.2)."""
        change, self.initial = window - self.initial, window
        for stream in list(self.streams.values()):
            try:
                stream.grow(change)
            except HTTP2Error as error:
                raise HTTP2Error(error.code, error.why) from error

    def _push_promise(self, flags: int, number: int, payload: bytes) -> None:
        raise HTTP2Error(PROTOCOL_ERROR, "PUSH_PROMISE, which nobody allowed")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise HTTP2Error(PROTOCOL_ERROR, "PING with a stream")
        if len(payload) != 8:
            raise HTTP2Error(FRAME_SIZE_ERROR, "PING of a wrong size")
        if not flags & ACK:
            self._spend_idle()
            self.put_answer(ping(payload, True), late=True)
        elif payload == ROUND_TRIP and self._stopping:
            self.stop_now()
        else:
            self.ping_answered(payload)

    def ping_answered(self, payload: bytes) -> None:
        """The peer has answered a PING of the subclass's."""

    def _goaway(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise HTTP2Error(PROTOCOL_ERROR, "GOAWAY with a stream")
        if len(payload) < 8:
            raise HTTP2Error(FRAME_SIZE_ERROR, "GOAWAY of a wrong size")
        self._spend_idle()
        last, code = _number_at(payload)[0] & LARGEST_WINDOW, _number_at(payload, 4)[0]
        if self.client:
            self.draining = True
        self.goaway_received(last, code, payload[8:])
        if self.client:
            for stream in [each for each in self.streams.values() if each.id > last]:
                stream.lose(7, "not processed: the peer stops", RESET_BY_PEER)
        self._close_if_done()

    def _window_update(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise HTTP2Error(FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        credit = _number_at(payload)[0] & LARGEST_WINDOW
        if credit < 1024:
            self._spend_idle()
        if not number:
            if not credit:
                raise HTTP2Error(PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            self.window += credit
            if self.window > LARGEST_WINDOW:
                raise HTTP2Error(FLOW_CONTROL_ERROR, "the connection's window grew too large")
            if self.waiting:
                self.send_waiting()
            return
        stream = self.streams.get(number)
        if stream is None:
            self._check_known(number)
        elif not credit:
            raise HTTP2Error(PROTOCOL_ERROR, "WINDOW_UPDATE of nothing", number)
        else:
            stream.grow(credit)

    def _unknown(self, flags: int, number: int, payload: bytes) -> None:
        """A type of a frame that we do not know is ignored (RFC 9113 5.5)."""
        self._spend_idle()

    _methods = (
        _data, _headers, _priority, _rst_stream, _settings, _push_promise, _ping, _goaway, _window_update, _continuation,
    )  # fmt: skip
    """What serves a frame, by its type."""


def _unpadded(payload: bytes) -> bytes:
    """A payload without its padding (RFC 9113 6.1)."""
    padding = payload[0] if payload else 0
    if padding >= len(payload):
        raise HTTP2Error(PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - padding]
