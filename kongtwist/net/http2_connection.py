"""One HTTP/2 connection, either side of it (RFC 9113): frames in, windows, settings, streams, their ends.

A subclass says which side it is (`client`), what becomes of a request (`request_received`) and of the peer's GOAWAY,
and when the connection ends by itself. What streams offer their users stands in `http2_stream`. Bytes come by
`dataReceived`, or from a bare socket into memory that all connections share; what is sent waits for the end of the
reactor's round, unless there is much of it (`http2_output`).

DATA of tied streams is passed on where it lies: the stream's id is changed in the received bytes, and neighbouring
frames for one connection go out as one slice. All other frames go through a method for their type."""

from __future__ import annotations

from functools import partial
from struct import Struct
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.http2.field_lists import MalformedFields
from ..core.http2.frames import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE_ERROR,
    HEADER,
    HEADERS,
    INTERNAL_ERROR,
    LARGEST_WINDOW,
    LEAST_FRAME,
    NO_ERROR,
    PREFACE,
    PROTOCOL_ERROR,
    SETTINGS,
    HTTP2Error,
    goaway,
    ping,
    settings,
    window_update,
)
from .http2_frames import ROUND_TRIP, HTTP2Frames
from .http2_output import MOST
from .http2_stream import RESET_BY_PEER, HTTP2Stream
from .run_steps import run_steps
from .sending import end_writing

__all__ = ["HTTP2Connection"]

_log = Logger(namespace="kongtwist.proxy")

_unpack = HEADER.unpack_from
_id_into = Struct(">I").pack_into
_number_at = Struct(">I").unpack_from
_KINDS = len(HTTP2Frames._methods)
_WHOLE = END_HEADERS | END_STREAM
_NO_STREAMS: dict[int, HTTP2Stream] = {}

_buffer = bytearray(MOST + LEAST_FRAME + 9)
_view = memoryview(_buffer)
"""Where bare sockets are read into, one after the other: with the beginning of a frame that was there before."""


class HTTP2Connection(HTTP2Frames):
    """See the module; arguments and attributes are those of `HTTP2Frames`."""

    _linger: IDelayedCall | None = None

    # -- beginning and end ---------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Send what a connection begins with."""
        HTTP2Frames.connectionMade(self)
        if self._socket is not None:
            self.transport.doRead = self._receive  # type: ignore[union-attr]
        if self.client:
            self.put(PREFACE)
        self.put(settings(self.own_settings().items()))
        if self.connection_window > 65535:
            self.put(window_update(0, self.connection_window - 65535))
        self.flush()

    def open_stream(self, number: int = 0, user: Any = None) -> HTTP2Stream:
        """A new stream: with the id of a request that came, or (client's side) with the next id of ours.

        The client's side opens it with its request's head, at once: ids must reach the peer in order.
        """
        if not number:
            number, self.next_id = self.next_id, self.next_id + 2
        stream = self.streams[number] = HTTP2Stream(self, number, self.initial, user)
        return stream

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the streams, and the subclass."""
        self.failed = True
        self._socket = None
        self.lose_transport()
        self.out.clear()
        linger, self._linger = self._linger, None
        if linger is not None and linger.active():
            linger.cancel()
        why = reason.getErrorMessage()
        lost = [partial(stream.lose, None, why, RESET_BY_PEER) for stream in list(self.streams.values())]
        run_steps(*lost, partial(self.connection_lost, why))

    def lose_transport(self) -> None:
        """There is no transport any more."""
        self.transport = None

    def tls_ended(self) -> None:
        """The peer has ended TLS: nothing more reaches it."""
        self.abort()

    def abort(self) -> None:
        """End now, whatever is going on."""
        self.failed = True
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Send what is there, and close; what still comes is thrown away."""
        self.failed = True
        self.flush()
        if self.transport is not None:
            # Closing a socket with unread bytes resets the connection, and the peer would not see why.
            end_writing(self.transport)
            self._linger = self.reactor.callLater(self.limits.lingering_timeout, self.abort)

    def shut_down(self) -> None:
        """Take no more requests, and close when those that are open are done (RFC 9113 6.8: in two steps, so that none is lost that is
        on its way)."""
        if self._stopping or self.failed:
            return
        self._stopping = True
        if self.client:
            self.draining = True
            self.put(goaway(0, NO_ERROR))
            self._close_if_done()
        else:
            self.put(goaway(LARGEST_WINDOW, NO_ERROR))
            self.put(ping(ROUND_TRIP, False))

    def stop_now(self) -> None:
        """The second step: what comes from now on is not served."""
        if not self.draining and not self.failed:
            self._stopping = self.draining = True
            self.put(goaway(self.last, NO_ERROR))
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self.draining and not self.streams and not self.failed:
            self.close()

    def fail(self, code: int, why: str) -> None:
        """End the connection with an error (RFC 9113 5.4.1), and its streams at once."""
        if self.failed:
            return
        self.failing(code, why)
        self.put(goaway(self.last, code, why.encode()))
        self.close()
        # What is asked on them is of no use from now on, and the connection is there for a while yet.
        run_steps(*(partial(each.lose, None, why, RESET_BY_PEER) for each in list(self.streams.values())))

    def vanish(self, why: str) -> None:
        """The peer does not answer any more: end the connection without a word, and its streams at once."""
        if self.failed:
            return
        self.failed = True
        run_steps(*(partial(each.lose, None, why, RESET_BY_PEER) for each in list(self.streams.values())), self.abort)

    # -- reading -------------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Go through the frames that are complete."""
        if self.failed:
            return
        if self._rest:
            data = self._rest + data
            self._rest = b""
        frames = bytearray(data) if self.ties else data
        self._received(frames, memoryview(frames), len(data))

    def _receive(self) -> Exception | None:
        """Read from a bare socket: in place of its transport's `doRead`, without memory of our own for what comes."""
        rest = self._rest
        begin = len(rest)
        try:
            size = self._socket.recv_into(_view[begin:] if begin else _view, self._most)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not size:
            return CONNECTION_DONE
        if not self.failed:
            if begin:
                _buffer[:begin] = rest
                self._rest = b""
            self._received(_buffer, _view, begin + size)
        return None

    def _received(self, data: Any, view: memoryview, size: int) -> None:
        """Serve what is in the first ``size`` bytes of ``data``; the beginning of a frame is kept."""
        at = 0
        if self._preface:
            if not PREFACE.startswith(bytes(view[: min(size, 24)])):
                self.fail(PROTOCOL_ERROR, "no preface of HTTP/2")
                return
            if size < 24:
                self._rest = bytes(view[:size])
                return
            self._preface = False
            at = 24
        try:
            at = self._read(data, view, at, size)
        except HTTP2Error as error:
            self.fail(error.code, error.why)
        if at < size and not self.failed:
            self._rest = bytes(view[at:size])

    def _read(self, data: Any, view: memoryview, at: int, size: int) -> int:
        """Serve frames from ``data``, which ``view`` shows, from ``at`` to ``size``; where the first one that is not complete begins.

        Raises:
            HTTP2Error: the connection ends.
        """
        patched = type(data) is bytearray
        half = self.stream_window >> 1
        streams = self.streams if patched else _NO_STREAMS
        between = self._settled and self._partial is None
        hot = streams if between else _NO_STREAMS
        run: Any = None  # connection whose frames stand side by side from ``begin`` to ``at``
        begin = total = 0
        while size - at >= 9:
            kind, flags, number = _unpack(data, at)
            length = kind >> 8
            end = at + 9 + length
            if length > LEAST_FRAME:
                raise HTTP2Error(FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            if end > size:
                break
            if not kind & 0xFF and length and flags < 2 and (stream := hot.get(number)) is not None and stream.hot:
                peer: Any = stream.peer
                onto = peer.connection
                room = stream.room - length
                if (
                    length <= peer.window and length <= onto.window and length <= onto.largest and room >= 0
                    and peer.queue is None and not onto.stopped and not peer.ended_out
                ):  # fmt: skip
                    peer.window -= length
                    onto.window -= length
                    _id_into(data, at + 5, peer.id)
                    if run is not onto:
                        if run is not None:
                            run.pass_on(view[begin:at])
                        run, begin = onto, at
                    left = stream.left_of_message
                    if left >= length:
                        stream.left_of_message = left - length
                    elif length > 4 and not left and length == 5 + _number_at(data, at + 10)[0]:
                        stream.messages += 1
                    else:
                        stream.count(view[at + 9 : end])
                    stream.received += length
                    if stream.copy is not None:
                        stream.keep_copy(bytes(view[at + 9 : end]))
                    peer.sent += length
                    total += length
                    at = end
                    if room < half and not flags:
                        self.put(window_update(number, self.stream_window - room - stream.held))
                        room = self.stream_window - stream.held
                    stream.room = room
                    if flags:
                        self._pass_end(stream, run, view[begin:at], length)
                        run = None
                    continue
            if run is not None:
                run.pass_on(view[begin:at])
                run = None
            kind &= 0xFF
            payload = bytes(view[at + 9 : end])
            at = end
            if kind == HEADERS and flags | END_STREAM == _WHOLE and between and 0 < number <= LARGEST_WINDOW:
                try:  # as most are
                    self._block(number, flags == _WHOLE, payload, False)
                except Exception as error:  # noqa: BLE001 - one stream of many
                    self._frame_failed(number, error)
            else:
                self._frame(kind, flags, number, payload)
                between = self._settled and self._partial is None
                hot = streams if between else _NO_STREAMS
            if self.failed:
                return at
        if run is not None:
            run.pass_on(view[begin:at])
        if total:
            self._relayed(total)
        return at

    def _relayed(self, size: int) -> None:
        """So many bytes of DATA were passed on. Raises HTTP2Error: more than the connection's window allows."""
        self._idle.left = self._idle.burst
        self._took(size)
        if self.room < self.connection_window >> 1:
            self.credit()

    def _pass_end(self, stream: HTTP2Stream, onto: Any, frames: memoryview, length: int) -> None:
        """Pass on a run whose last frame is DATA with END_STREAM.

        Args:
            stream: whose end that is.
            onto: the connection of the stream it is tied to.
            frames: the run.
            length: bytes of payload of the last frame.
        """
        kept = stream.ends and stream.keeps_end()
        if kept:
            frames[-length - 5] = 0
        onto.pass_on(frames)
        peer = stream.peer
        assert peer is not None
        try:
            if kept:
                stream.end_kept()
            else:
                peer._end_out()
                stream.end_relayed()
        except HTTP2Error:
            raise
        except Exception:  # noqa: BLE001 - one stream of many
            _log.failure("serving an HTTP/2 stream failed")
            stream.reset(INTERNAL_ERROR)

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """One frame. Raises HTTP2Error where the connection ends."""
        if number >> 31:
            number &= LARGEST_WINDOW  # the reserved bit is ignored (RFC 9113 4.1)
        if self._partial is not None and kind != CONTINUATION:
            raise HTTP2Error(PROTOCOL_ERROR, "a frame in the middle of a field block")
        if not self._settled:
            if kind != SETTINGS or flags & ACK:
                raise HTTP2Error(PROTOCOL_ERROR, "the first frame is no SETTINGS")
            self._settled = True
        try:
            if kind < _KINDS:
                self._methods[kind](self, flags, number, payload)
            else:
                self._unknown(flags, number, payload)
        except Exception as error:  # noqa: BLE001 - one stream of many
            self._frame_failed(number, error)

    def _frame_failed(self, number: int, error: Exception) -> None:
        """Serving a frame of stream ``number`` raised ``error``, which is being handled. Raises HTTP2Error where the connection ends."""
        if isinstance(error, HTTP2Error):
            if not error.stream:
                raise error
            self._end_stream(error.stream, error.code, error.why)
        elif isinstance(error, MalformedFields):
            self._end_stream(number, PROTOCOL_ERROR, str(error))
        else:
            _log.failure("serving a frame of HTTP/2 failed")
            if not number:
                raise HTTP2Error(INTERNAL_ERROR, "our own fault") from None
            self._end_stream(number, INTERNAL_ERROR, "our own fault")
