"""The WebSocket handshake of a gateway: the upstream's answer, checked, and given to the client by Autobahn.

The client's key, subprotocols and extensions go to the upstream as they are, in an ordinary request of the context
(proxy/forwarding.py); the two ends negotiate with each other. What the gateway must do is hold the upstream
to the rules (`check_answer`), because it vouches for the answer towards the client, and then open its own server side
of the connection: `StreamServerFactory` makes an Autobahn server protocol that is shown a handshake and answers it with
what the upstream said. From then on frames are relayed as bytes (streams/splice.py); the Autobahn object, some ten
kilobytes, never has the transport and is gone as soon as it is open.

The handshake that Autobahn is shown is always the same one, which it cannot refuse. The client's own may have a key of
another length or alphabet, subprotocols offered twice, an odd Host or Origin: that is for the upstream to judge, which
has agreed (Kong 3.9 looks at none of it).
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1
from typing import TYPE_CHECKING, Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ITransport
from zope.interface import implementer

if TYPE_CHECKING:
    from ..core.http.head import HeaderBlock

__all__ = ["BadUpgrade", "Recorder", "StreamServerFactory", "accept_of", "check_answer"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 1.3."""
_OF_THE_HANDSHAKE = frozenset((b"upgrade", b"connection", b"sec-websocket-accept", b"sec-websocket-protocol"))
"""Fields of a 101 that `StreamServerFactory.answer` writes."""
_SHOWN = (
    b"GET / HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
"""The handshake that Autobahn is shown (the key is the example of RFC 6455 1.3)."""


class BadUpgrade(Exception):
    """The upstream's answer to a handshake breaks the rules."""


def accept_of(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that answers ``key`` (RFC 6455 4.2.2)."""
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def check_answer(request: HeaderBlock, answer: HeaderBlock) -> bytes | None:
    """Check an upstream's 101 as a client must (RFC 6455 4.1).

    Args:
        request: the client's header block.
        answer: the upstream's.

    Returns:
        the subprotocol agreed on, or None.

    Raises:
        BadUpgrade: it is none of the client's making; to be answered with 502.
    """
    if not answer.upgrade_websocket:
        raise BadUpgrade("a 101 that is no upgrade to websocket")
    keys = [key for key in request.all(b"sec-websocket-key") if key]
    if keys:  # without one there is nothing to hold the answer against: the upstream and the client agree somehow
        accepts = answer.all(b"sec-websocket-accept")
        if len(accepts) != 1 or accepts[0] not in map(accept_of, (*keys, b", ".join(keys))):
            raise BadUpgrade("Sec-WebSocket-Accept does not fit the key")
    protocols = answer.all(b"sec-websocket-protocol")
    if protocols and (len(protocols) > 1 or protocols[0] not in _offered_protocols(request)):
        raise BadUpgrade("a subprotocol that was not offered")
    unasked = _extension_names(answer) - _extension_names(request)
    if unasked:
        raise BadUpgrade(f"extensions that were not offered: {sorted(unasked)}")
    return protocols[0] if protocols else None


def _offered_protocols(request: HeaderBlock) -> list[bytes]:
    offered = request.joined(b"sec-websocket-protocol") or b""
    return [name.strip(b" \t") for name in offered.split(b",")]


def _extension_names(block: HeaderBlock) -> set[bytes]:
    """Names in Sec-WebSocket-Extensions (RFC 6455 9.1); quoted parameter values hold tokens, so no commas."""
    extensions = block.joined(b"sec-websocket-extensions")
    if extensions is None:
        return set()
    return {name for part in extensions.split(b",") if (name := part.partition(b";")[0].strip(b" \t").lower())}


@implementer(ITransport)
class Recorder:
    """What Autobahn writes its handshake to: kept, so that it reaches the client in one piece with what follows."""

    disconnecting = False

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Nothing here is ever full."""

    def unregisterProducer(self) -> None:
        """Nothing here is ever full."""

    def write(self, data: bytes) -> None:
        """Keep ``data``."""
        self.written.append(data)

    def writeSequence(self, data: Any) -> None:
        """Keep all of ``data``."""
        self.written.extend(data)

    def loseConnection(self) -> None:
        """Autobahn has refused the handshake."""
        self.closed = True

    abortConnection = loseConnection

    def getPeer(self) -> IPv4Address:
        """Who it is does not matter here; Autobahn wants to know for its log lines."""
        return IPv4Address("TCP", "0.0.0.0", 0)

    getHost = getPeer


class StreamServerProtocol(WebSocketServerProtocol):
    """Answers one handshake.

    Attributes:
        opened: the answer has been written.
    """

    opened = False

    def __init__(self, headers: dict[str, list[str]]) -> None:
        super().__init__()
        self._headers = headers

    def onConnect(self, request: Any) -> Any:
        """Agree; the subprotocol is among what the upstream said."""
        return None, self._headers

    def onOpen(self) -> None:
        """The handshake is done, and this with it."""
        self.opened = True

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Autobahn writes header values as UTF-8; they are bytes, which came in as Latin-1."""
        transport: Any = self.transport
        transport.write(data.decode("utf-8").encode("latin-1"))


class StreamServerFactory(WebSocketServerFactory):
    """Makes the server side of handshakes. One per gateway; it listens to nothing itself.

    Args:
        reactor: Autobahn wants one; no timer is started on it.
    """

    protocol: Any = StreamServerProtocol

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor=reactor)
        self.server = None
        self.setProtocolOptions(openHandshakeTimeout=0, allowNullOrigin=True, webStatus=False)

    def answer(self, upstream: HeaderBlock, lines: bytes, otherwise: bytes | None = None) -> bytes:
        """The answer to a client's handshake.

        Args:
            upstream: the upstream's block, which was checked (`check_answer`).
            lines: header lines for the client, each with its CRLF; those a handshake consists of are left out and taken
                from ``upstream``.
            otherwise: the subprotocol that is named where the upstream names none.

        Returns:
            the whole head of the 101.

        Raises:
            BadUpgrade: Autobahn finds the handshake unacceptable.
        """
        headers: dict[str, list[str]] = {}
        for line in lines.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon and name.lower() not in _OF_THE_HANDSHAKE:
                headers.setdefault(name.decode("latin-1"), []).append(value.strip(b" \t").decode("latin-1"))
        written = self._answered(StreamServerProtocol(headers))
        status, *theirs = written.split(b"\r\n")
        said = upstream.first(b"upgrade") or b""
        ours = [status, b"Connection: upgrade", b"Upgrade: " + (said if said.lower() == b"websocket" else b"websocket")]
        for name, spelled in ((b"sec-websocket-accept", b"Accept"), (b"sec-websocket-protocol", b"Protocol")):
            ours += [b"Sec-WebSocket-%b: %b" % (spelled, value) for value in upstream.all(name)]
        if otherwise is not None and b"sec-websocket-protocol" not in upstream:
            ours.append(b"Sec-WebSocket-Protocol: " + otherwise)
        return b"\r\n".join(
            ours + [line for line in theirs if line.partition(b":")[0].lower() not in _OF_THE_HANDSHAKE]
        )

    def _answered(self, protocol: StreamServerProtocol) -> bytes:
        """What Autobahn answers."""
        protocol.factory = self
        recorder = Recorder()
        try:
            protocol.makeConnection(recorder)
            protocol.dataReceived(_SHOWN)
        except Exception as error:  # a fault of Autobahn's is no reason to leave the client without an answer
            raise BadUpgrade(f"the handshake failed: {error!r}") from error
        finally:
            self.countConnections -= 1
        if not protocol.opened or recorder.closed:
            raise BadUpgrade(f"handshake refused: {protocol.wasNotCleanReason}")
        protocol.transport = None
        return b"".join(recorder.written)
