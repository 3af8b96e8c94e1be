"""HTTP/2 frame by frame, for tests that play one side, or both, of a connection themselves (RFC 9113).

Nothing is done behind the test's back but what keeps a connection alive: SETTINGS and PING are answered while reading, and what
the other side allows is counted. A test that wants windows to stay shut gives no credit.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hpack import Decoder, Encoder

from .support import PATIENCE

__all__ = [
    "ACK", "CANCEL", "CONTINUATION", "DATA", "END_HEADERS", "END_STREAM", "GOAWAY", "HEADERS", "PING", "REFUSED", "RST", "SETTINGS",
    "WINDOW_UPDATE", "Frame", "HTTP2Peer", "HTTP2Server", "grpc_fields", "message",
]  # fmt: skip

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
"""Flags."""
REFUSED, CANCEL = 7, 8
"""Codes of RST_STREAM: REFUSED_STREAM, CANCEL."""
MAX_CONCURRENT, INITIAL_WINDOW = 3, 4
"""Settings."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass
class Frame:
    """A frame that came.

    Attributes:
        fields: of HEADERS, names and values, with those of CONTINUATION.
        pairs: the same, with names that come more than once.
    """

    kind: int
    flags: int
    stream: int
    payload: bytes
    fields: dict[str, str]
    pairs: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ends(self) -> bool:
        """Whether it is the last one of its stream."""
        return self.kind == RST or (self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM))

    @property
    def code(self) -> int:
        """The error code of RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[4:8] if self.kind == GOAWAY else self.payload[:4])


def message(body: bytes) -> bytes:
    """A gRPC message, not compressed."""
    return struct.pack(">BI", 0, len(body)) + body


def grpc_fields(method: str = "/sensor.DataService/StreamSensorData", *more: tuple[str, str]) -> list[tuple[str, str]]:
    """The head of a call."""
    pseudo = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost")]
    return [*pseudo, ("content-type", "application/grpc"), ("te", "trailers"), *more]


class HTTP2Peer:
    """One side of a connection.

    Args:
        sock: connected; TLS, if any, is done.
        client: whether to begin as a client does.
        settings: what to tell the other side, by number.

    Attributes:
        window: bytes of DATA that the other side takes on the connection.
        windows: the same of each stream; one that is not there has `initial`.
        settings: what the other side told.
        sent: bytes of DATA that were sent, by stream.
        received: bytes of DATA that came, by stream.
        deaf: it answers no PING.
    """

    deaf = False

    def __init__(self, sock: socket.socket, *, client: bool, settings: Sequence[tuple[int, int]] = ()) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._kept = b""
        self._decoder, self._encoder = Decoder(), Encoder()
        self._decoder.max_header_list_size = 1 << 24
        self.window = self.initial = 65535
        self.windows: dict[int, int] = {}
        self.settings: dict[int, int] = {}
        self.sent: dict[int, int] = {}
        self.received: dict[int, int] = {}
        self._next_stream = 1
        if client:
            sock.sendall(PREFACE)
        self.send(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *each) for each in settings))

    @classmethod
    def connect(cls, port: int, settings: Sequence[tuple[int, int]] = ()) -> HTTP2Peer:
        """A client with prior knowledge."""
        return cls(socket.create_connection(("127.0.0.1", port), PATIENCE), client=True, settings=settings)

    # -- sending -----------------------------------------------------------------------------------------------------

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        """Send a frame as it is."""
        head = len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4)
        self.sock.sendall(head + payload)

    def headers(self, stream: int, fields: Iterable[tuple[str, str]], *, end: bool = False) -> None:
        """Send a block of fields, in frames of at most 16,384 bytes."""
        block = self._encoder.encode(list(fields))
        kind, flags = HEADERS, END_STREAM * end
        while True:
            piece, block = block[:16384], block[16384:]
            self.send(kind, flags | (0 if block else END_HEADERS), stream, piece)
            kind, flags = CONTINUATION, 0
            if not block:
                return

    def open(self, fields: Iterable[tuple[str, str]], *, end: bool = False) -> int:
        """Begin a stream; returns its number."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self.headers(stream, fields, end=end)
        return stream

    def data(self, stream: int, payload: bytes = b"", *, end: bool = False) -> None:
        """Send DATA, whatever the windows say, in frames of at most 16,384 bytes."""
        while True:
            piece, payload = payload[:16384], payload[16384:]
            self.send(DATA, END_STREAM if end and not payload else 0, stream, piece)
            self.window -= len(piece)
            self.windows[stream] = self.windows.get(stream, self.initial) - len(piece)
            self.sent[stream] = self.sent.get(stream, 0) + len(piece)
            if not payload:
                return

    def allowed(self, stream: int) -> int:
        """Bytes of DATA that may be sent on a stream."""
        return min(self.window, self.windows.get(stream, self.initial))

    def fill(self, stream: int, silence: float = 1.0, limit: int = 1 << 28) -> int:
        """Send DATA as long as the windows allow and the other side goes on opening them; returns how much was sent."""
        before = self.sent.get(stream, 0)
        while self.sent.get(stream, 0) - before < limit:
            room = min(self.allowed(stream), 16384)
            if room > 0:
                self.data(stream, bytes(room))
            elif self.read(silence) is None:
                break
        return self.sent.get(stream, 0) - before

    def credit(self, stream: int, size: int) -> None:
        """Let the other side send more, on a stream and on the connection."""
        for each in (stream, 0):
            self.send(WINDOW_UPDATE, 0, each, size.to_bytes(4))

    def reset(self, stream: int, code: int = CANCEL) -> None:
        """End a stream at once."""
        self.send(RST, 0, stream, code.to_bytes(4))

    def close(self) -> None:
        """Leave."""
        self.sock.close()

    # -- receiving ---------------------------------------------------------------------------------------------------

    def read(self, patience: float = PATIENCE) -> Frame | None:
        """The next frame; None when nothing comes in time.

        Raises:
            ConnectionError: the other side has left.
        """
        until = time.monotonic() + patience
        head = self._take(9, until)
        if head is None:
            return None
        payload = self._take(int.from_bytes(head[:3]), until + PATIENCE) or b""
        frame = Frame(head[3], head[4], int.from_bytes(head[5:9]) & 0x7FFFFFFF, payload, {})
        if frame.kind == HEADERS:
            block, last = payload, frame
            while not last.flags & END_HEADERS:
                following = self.read()
                assert following is not None and following.kind == CONTINUATION
                block, last = block + following.payload, following
            frame.pairs = [(str(name), str(value)) for name, value in self._decoder.decode(block)]
            frame.fields = dict(frame.pairs)
        self._note(frame)
        return frame

    def _take(self, size: int, until: float) -> bytes | None:
        while len(self._kept) < size:
            left = until - time.monotonic()
            if left <= 0:
                return None
            self.sock.settimeout(left)
            try:
                piece = self.sock.recv(1 << 18)
            except TimeoutError:
                return None
            finally:
                self.sock.settimeout(PATIENCE)
            if not piece:
                raise ConnectionError("the other side has closed the connection")
            self._kept += piece
        taken, self._kept = self._kept[:size], self._kept[size:]
        return taken

    def _note(self, frame: Frame) -> None:
        """Answer what has to be answered, and count what is allowed."""
        if frame.kind == SETTINGS and not frame.flags & ACK:
            told = dict(struct.iter_unpack(">HI", frame.payload))
            if INITIAL_WINDOW in told:
                change = told[INITIAL_WINDOW] - self.initial
                self.initial += change
                self.windows = {stream: size + change for stream, size in self.windows.items()}
            self.settings |= told
            self.send(SETTINGS, ACK, 0)
        elif frame.kind == PING and not frame.flags & ACK and not self.deaf:
            self.send(PING, ACK, 0, frame.payload)
        elif frame.kind == DATA:
            self.received[frame.stream] = self.received.get(frame.stream, 0) + len(frame.payload)
        elif frame.kind == WINDOW_UPDATE:
            size = int.from_bytes(frame.payload)
            if frame.stream:
                self.windows[frame.stream] = self.windows.get(frame.stream, self.initial) + size
            else:
                self.window += size

    def expect(self, *kinds: int, stream: int | None = None) -> Frame:
        """The next frame of one of these kinds, on a stream or on any; those that come before it are dropped.

        Raises:
            AssertionError: none came in time.
        """
        while (frame := self.read()) is not None:
            if frame.kind in kinds and stream in (None, frame.stream):
                return frame
        raise AssertionError(f"no frame of the kinds {kinds} came")

    def answer(self, stream: int) -> tuple[dict[str, str], bytes, dict[str, str], int | None]:
        """All that comes on a stream until its end: fields, body, trailers (the fields, where there is nothing else), and the code
        of the RST_STREAM that ended it, if one did. Credit is given for what comes."""
        fields: dict[str, str] | None = None
        body, trailers = b"", dict[str, str]()
        while True:
            frame = self.expect(HEADERS, DATA, RST, stream=stream)
            if frame.kind == RST:
                return fields or {}, body, trailers, frame.code
            if frame.kind == DATA:
                body += frame.payload
                if frame.payload and not frame.ends:
                    self.credit(stream, len(frame.payload))
            elif not frame.fields.get(":status", "200").startswith("1"):
                fields, trailers = (frame.fields if fields is None else fields), frame.fields
            if frame.ends:
                return fields or {}, body, trailers, None

    def status(self, stream: int) -> tuple[str | None, str | None]:
        """How a call ended: its status and message."""
        _, _, trailers, _ = self.answer(stream)
        return trailers.get("grpc-status"), trailers.get("grpc-message")

    def closed(self) -> bool:
        """Wait until the other side closes the connection."""
        try:
            while self.read() is not None:
                pass
        except ConnectionError:
            return True
        return False


class HTTP2Server:
    """A listening socket of an upstream that the test plays.

    Args:
        settings: what each connection begins with.
    """

    def __init__(self, *settings: tuple[int, int]) -> None:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._server.settimeout(PATIENCE)
        self._settings = settings
        self.port: int = self._server.getsockname()[1]
        self._open: list[HTTP2Peer] = []

    def accept(self) -> HTTP2Peer:
        """The next connection, its preface read."""
        sock, _ = self._server.accept()
        peer = HTTP2Peer(sock, client=False, settings=self._settings)
        self._open.append(peer)
        preface = peer._take(len(PREFACE), time.monotonic() + PATIENCE)
        assert preface == PREFACE, preface
        return peer

    def close(self) -> None:
        """Serve no more."""
        self._server.close()
        for each in self._open:
            each.close()
