"""The server's side of a WebSocket that the gateway takes itself: Autobahn speaks the protocol, messages are given on in pieces as
they come, and nothing waits for the end of one.

Time-outs are the user's: none of Autobahn's timers runs.
"""

from __future__ import annotations

from typing import Any, Protocol

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol

__all__ = ["CarryingFactory", "CarryingProtocol", "SocketUser"]


class SocketUser(Protocol):
    """Who has a WebSocket (`CarryingProtocol`)."""

    def message_begins(self) -> None: ...

    def message_piece(self, data: bytes) -> None: ...

    def message_ends(self) -> None: ...

    def closing(self) -> None:
        """The client wants to close, or has left."""

    def closed(self) -> None:
        """The connection is gone. Called once, after `closing`."""


class _Silent:
    """Autobahn's log: what a client does wrong is told by who has the WebSocket."""

    def _nothing(self, *arguments: Any, **named: Any) -> None:
        """Write no line."""

    trace = debug = info = warn = error = critical = failure = _nothing


class CarryingProtocol(WebSocketServerProtocol):
    """One WebSocket.

    Args:
        factory: makes it.
        user: who has it.
        subprotocol: agreed on.

    Attributes:
        refused: HTTP status with which Autobahn refused the handshake; 0: it did not.
    """

    log = _Silent()

    def __init__(self, factory: CarryingFactory, user: SocketUser, subprotocol: str) -> None:
        super().__init__()
        self.factory = factory
        self.user: SocketUser | None = user
        self.refused = 0
        self._subprotocol = subprotocol

    def onConnect(self, request: Any) -> str:
        """Agree."""
        return self._subprotocol

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """The handshake breaks the rules (RFC 6455 4.2.1)."""
        self.refused = code
        super().failHandshake(reason, code, responseHeaders)

    @property
    def usable(self) -> bool:
        """Messages can be sent."""
        return bool(self.state == self.STATE_OPEN)

    # -- what comes ---------------------------------------------------------------------------------------------------

    def onMessageBegin(self, isBinary: bool) -> None:
        """A message begins; of text ones the content counts too."""
        if self.user is not None:
            self.user.message_begins()

    def onMessageFrameBegin(self, length: int) -> None:
        """A frame may have any length: it is not kept."""

    def onMessageFrameData(self, payload: bytes) -> None:
        """A piece of a message."""
        if self.user is not None and payload and not self.failedByMe:
            self.user.message_piece(bytes(payload))

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

    def connectionLost(self, reason: Any = None) -> None:
        """The connection is gone."""
        super().connectionLost(reason)
        user, self.user = self.user, None
        if user is not None:
            user.closing()
            user.closed()

    # -- what is sent ---------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send a message."""
        if self.usable:
            self.sendMessage(data, isBinary=True)

    def close(self, code: int, reason: str = "") -> None:
        """Begin to close; any code of RFC 6455 7.4.1 may be given."""
        if self.usable:
            self.sendCloseFrame(code=code, reasonUtf8=reason.encode()[:123] or None)


class CarryingFactory(WebSocketServerFactory):
    """What Autobahn's protocols need of a factory. One per gateway; it listens to nothing itself.

    Args:
        reactor: Autobahn wants one; no timer is started on it.
    """

    protocol: Any = CarryingProtocol
    log = _Silent()

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor=reactor)
        self.server = None
        self.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0, allowNullOrigin=True, webStatus=False)
