"""A stream of HTTP/2 as a transport: what a WebSocket over HTTP/2 (RFC 8441) is relayed through.

The relay knows WebSockets as HTTP/1.1 has them. So the request was given the fields of a handshake (`handshake_lines`), and the first thing
written here is the answer to it, 101; the client gets the same answer as RFC 8441 has it, 200 and no Sec-WebSocket-Accept.
"""

from __future__ import annotations

import os
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from ..core.http2.frames import CANCEL
from ..core.http2.hpack import Encoder, encode_field

if TYPE_CHECKING:
    from ..core.http2.field_lists import FieldList
    from ..net.http2_stream import HTTP2Stream

__all__ = ["StreamTransport", "handshake_lines"]

_OK = encode_field(b":status", b"200")
_OF_HTTP1 = (b"connection:", b"upgrade:", b"sec-websocket-accept:")


def handshake_lines() -> bytes:
    """The fields that a handshake of HTTP/1.1 has and an extended CONNECT has not (RFC 6455 4.1)."""
    key = b64encode(os.urandom(16))
    return b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: %b\r\n" % key


@implementer(ITransport)
class StreamTransport:
    """The user of a stream, and the transport of whoever sets ``protocol``. Reading is paused at first.

    Args:
        reactor: of the connection.
        stream: the client's.
        encoder: the connection's.
        peer, host: the connection's addresses.
    """

    disconnecting = False
    bufferSize = 65536
    dataBuffer = b""
    offset = 0

    def __init__(self, reactor: Any, stream: HTTP2Stream, encoder: Encoder, peer: Any, host: Any) -> None:
        self.reactor = reactor
        self.protocol: Any = None
        self.producer: Any = None
        self._stream = stream
        self._encoder = encoder
        self._peer, self._host = peer, host
        self._answered = self._lost = self._losing = False
        stream.pause()
        stream.user = self

    # -- the transport -------------------------------------------------------------------------------------------------

    @property
    def _tempDataLen(self) -> int:
        """Bytes that wait for the client (`net.sending.unsent`)."""
        return self._stream.queued

    def write(self, data: bytes) -> None:
        """Send bytes; first of all the answer to the handshake."""
        if self._answered:
            self._stream.send_data(data)
            return
        self._answered = True
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n")[1:] if not line.lower().startswith(_OF_HTTP1)]
        self._stream.send_headers(self._encoder.block(_OK, lines))
        if rest:
            self._stream.send_data(rest)

    def writeSequence(self, data: Any) -> None:
        """See ITransport."""
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See ITransport."""
        self.producer = producer
        if self._stream.blocked:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """See ITransport."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Read no more for now."""
        self._stream.pause()

    def resumeProducing(self) -> None:
        """Read on."""
        self._stream.resume()

    def loseConnection(self) -> None:
        """Send our end behind what was written; the connection of the protocol is lost when the client has sent its own."""
        if not self._losing and not self._lost:
            self._losing = self.disconnecting = True
            self._stream.send_data(b"", True)
            self._check_over()

    def abortConnection(self) -> None:
        """Reset the stream."""
        self._stream.reset(CANCEL)
        self.reactor.callLater(0, self._lose, ConnectionAborted())

    def getPeer(self) -> Any:
        """See ITransport."""
        return self._peer

    def getHost(self) -> Any:
        """See ITransport."""
        return self._host

    def _check_over(self) -> None:
        if self._losing and self._stream.closed:
            self.reactor.callLater(0, self._lose, ConnectionDone())

    def _lose(self, why: Exception) -> None:
        if not self._lost:
            self._lost = True
            self.producer = None
            self.protocol.connectionLost(Failure(why))

    # -- the stream's calls --------------------------------------------------------------------------------------------

    def stream_head(self, fields: FieldList, end: bool) -> None:
        """Not on this side."""

    def stream_data(self, data: bytes) -> None:
        """Bytes came."""
        if not self._lost:
            self.protocol.dataReceived(data)

    def stream_end(self, trailers: FieldList | None) -> None:
        """The client has sent all. A protocol with ``read_ended`` may still write; of others it is the end."""
        told = None if self._losing else getattr(self.protocol, "read_ended", None)
        if told is not None:
            told()
            return
        self._stream.send_data(b"", True)
        self._lose(ConnectionDone())

    def stream_lost(self, code: int | None, why: str) -> None:
        """The stream is over."""
        self._lose(ConnectionLost(why))

    def stream_blocked(self) -> None:
        """The client takes no more for now."""
        if self.producer is not None:
            self.producer.pauseProducing()

    def stream_unblocked(self) -> None:
        """It has taken what there was."""
        self._check_over()
        if self.producer is not None:
            self.producer.resumeProducing()
