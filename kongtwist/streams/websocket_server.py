"""The server's side of a WebSocket that the gateway answers itself: Autobahn speaks the protocol, messages are given on in pieces as
they come, and nothing waits for the end of one.

Who has it (`SocketUser`) holds what it needs, bounds it, and keeps the times; what Autobahn is told of them are its factory's arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol

__all__ = ["ServerFactory", "ServerSide", "SocketUser"]

LONGEST_REASON = 123
"""Bytes of a Close frame's reason (RFC 6455 5.5)."""


class SocketUser(Protocol):
    """Who has a WebSocket (`ServerSide`)."""

    def message_begins(self, binary: bool) -> None:
        """A message begins; else than ``binary`` it is text, which is checked to be UTF-8."""

    def message_piece(self, data: bytes) -> None:
        """A piece of it; never an empty one."""

    def message_ends(self) -> None:
        """It is whole."""

    def broken(self, why: str) -> None:
        """The client has broken the protocol; Autobahn ends the connection."""

    def closing(self) -> None:
        """The client wants to close, or has left."""

    def dropping(self) -> None:
        """The transport is about to be closed."""

    def closed(self) -> None:
        """The connection is gone. Called once, after `closing`."""


class _Silent:
    """Autobahn's log: what a client does wrong is told by who has the WebSocket."""

    def _nothing(self, *arguments: Any, **named: Any) -> None:
        """Write no line."""

    trace = debug = info = warn = error = critical = failure = _nothing


class ServerSide(WebSocketServerProtocol):
    """One WebSocket.

    Args:
        factory: says how it ends.
        user: who has it.
        subprotocol: agreed on; None: there is none, or it was agreed on elsewhere.

    Attributes:
        refused: HTTP status with which Autobahn refused the handshake; 0: it did not.
        heard: grows with whatever comes from the client.
        written: called when something was written to the transport; None: nobody asks.
    """

    log = _Silent()

    def __init__(self, factory: ServerFactory, user: SocketUser, subprotocol: str | None = None) -> None:
        super().__init__()
        self.factory = factory
        self.user: SocketUser | None = user
        self.refused = 0
        self.heard = 0
        self.written: Callable[[], None] | None = None
        self._subprotocol = subprotocol

    def onConnect(self, request: Any) -> str | None:
        """Agree."""
        return self._subprotocol

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """The handshake breaks the rules (RFC 6455 4.2.1)."""
        self.refused = code
        super().failHandshake(reason, code, responseHeaders)

    @property
    def close_code(self) -> int:
        """The code of the first Close frame, the client's or ours; nought before."""
        return int(self.remoteCloseCode or self.localCloseCode or 0)

    @property
    def closed_by_peer(self) -> bool:
        """Whether it was the client that began to close."""
        return self.remoteCloseCode is not None and not self.closedByMe

    @property
    def usable(self) -> bool:
        """Messages can be sent."""
        return bool(self.state == self.STATE_OPEN)

    # -- what comes ---------------------------------------------------------------------------------------------------

    def onMessageBegin(self, isBinary: bool) -> None:
        """A message begins; its length is counted from here."""
        super().onMessageBegin(isBinary)
        self.heard += 1
        if self.user is not None:
            self.user.message_begins(isBinary)

    def onMessageFrameData(self, payload: bytes) -> None:
        """A piece of a message."""
        self.heard += 1
        if self.user is not None and payload and not self.failedByMe:
            self.user.message_piece(bytes(payload))

    def onPing(self, payload: bytes) -> None:
        """The client asks whether we are here."""
        self.heard += 1
        super().onPing(payload)

    def onPong(self, payload: bytes) -> None:
        """The client is there."""
        self.heard += 1
        super().onPong(payload)

    def onMessageFrameEnd(self) -> None:
        """Frames have no meaning of their own."""

    def onMessageEnd(self) -> None:
        """A message is whole."""
        if self.user is not None and not self.failedByMe:
            self.user.message_ends()

    def onCloseFrame(self, code: Any, reasonRaw: Any) -> Any:
        """The client begins to close, or answers our Close."""
        failed = super().onCloseFrame(code, reasonRaw)
        if self.user is not None:
            self.user.closing()
        return failed

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """`connectionLost` tells."""

    def connectionLost(self, reason: Any = None) -> None:
        """The connection is gone."""
        try:
            super().connectionLost(reason)
        finally:
            user, self.user = self.user, None
            if user is not None:
                user.closing()
                user.closed()

    # -- how it ends ----------------------------------------------------------------------------------------------------

    def _fail_connection(self, *arguments: Any, **named: Any) -> None:
        """Autobahn's word that the client has broken the protocol: (code, reason)."""
        if self.user is not None and not self.failedByMe and self.state != self.STATE_CLOSED:
            self.user.broken(str(named.get("reason", arguments[-1] if arguments else "")))
        super()._fail_connection(*arguments, **named)

    def dropConnection(self, abort: bool = False) -> None:
        """Autobahn closes the transport."""
        if self.user is not None:
            self.user.dropping()
        super().dropConnection(abort)

    # -- what is sent ---------------------------------------------------------------------------------------------------

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """All that Autobahn writes goes this way: pings, pongs and Close frames, too."""
        super().sendData(data, sync, chopsize)
        if self.written is not None:
            self.written()

    def send(self, data: bytes, binary: bool = True) -> None:
        """Send a message, of bytes or of text, in one frame. Autobahn's way bounds it by what the client may send."""
        if self.usable:
            self.sendFrame(opcode=2 if binary else 1, payload=data)

    def close(self, code: int, reason: str = "") -> None:
        """Begin to close; any code of RFC 6455 7.4.1 may be given. What is too long of the reason is left out."""
        if self.usable:
            cut = reason.encode()[:LONGEST_REASON].decode("utf-8", "ignore").encode()
            self.sendCloseFrame(code=code, reasonUtf8=cut or None)


class ServerFactory(WebSocketServerFactory):
    """What Autobahn's protocols need of a factory. It listens to nothing itself, and may serve any number of them.

    Args:
        reactor: Autobahn wants one; a timer is started on it only for ``close_time``.
        limit: bytes of the longest message; a longer one breaks the protocol (Close 1009). 0: none is too long.
        close_time: seconds that a client which broke the protocol has to answer the Close frame; 0: it gets none, and is cut.
    """

    protocol: Any = ServerSide
    log = _Silent()

    def __init__(self, reactor: Any, limit: int = 0, close_time: float = 0) -> None:
        super().__init__(reactor=reactor)
        self.server = None
        self.setProtocolOptions(
            openHandshakeTimeout=0,
            closeHandshakeTimeout=close_time,
            failByDrop=not close_time,
            maxMessagePayloadSize=limit,
            maxFramePayloadSize=limit,
            allowNullOrigin=True,
            webStatus=False,
        )
