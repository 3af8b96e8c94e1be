"""A WebSocket chat room: the kind of server one puts behind a gateway. It knows nothing of the gateway.

Run it and talk to it, directly or through a gateway whose service points at it::

    python examples/chat.py            # listens on 127.0.0.1:9100
    python examples/chat.py 9101       # or on another port

Whatever a client sends as text is said in the room. A client that wants more sends JSON objects:

======================================  ==============================================================
client sends                            and gets
======================================  ==============================================================
``{"type": "join", "name": "Ada"}``     ``presence`` messages, as everyone else
``{"type": "say", "text": "hello"}``    ``message``, as everyone else: id, name, text, at
``{"type": "echo", "token": 1}``        ``echo`` with the same token: measures the round trip
======================================  ==============================================================

The first message a client gets is ``welcome``: its id and name, who is there, and the last lines said. ``at`` is in
milliseconds since the epoch.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import LoopingCall, react
from zope.interface import implementer

__all__ = ["ChatFactory", "ChatMember", "ChatRoom", "chat_factory"]

HISTORY = 30
"""Lines a newcomer is shown."""
LONGEST = 1000
"""Characters of one line; the rest is cut off."""
LARGEST = 16 * 1024
"""Bytes of one WebSocket message; a larger one closes the connection with code 1009 (RFC 6455 7.4.1)."""
BEHIND = 200
"""Messages that may wait for a member who reads slowly; beyond them the member is dropped."""
HOST = "Concierge"
"""Who speaks in the room when nobody else does."""
HOST_EVERY = 4.0
"""Seconds between two lines of the host; only while somebody is there."""


class ChatRoom:
    """Who is in the room and what was said.

    Args:
        now: epoch seconds.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._opened = now()
        self._last_id = 0
        self._visitors = 0
        self._sayings = 0
        self.members: dict[ChatMember, str] = {}
        self.history: deque[dict[str, Any]] = deque(maxlen=HISTORY)

    def enter(self, member: ChatMember) -> None:
        """Let someone in and show them around."""
        self._visitors += 1
        name = self.members[member] = f"guest-{self._visitors}"
        member.tell({"type": "welcome", "name": name, "members": self._names(), "history": list(self.history)})
        self._tell_presence()

    def leave(self, member: ChatMember) -> None:
        """Someone left, or was dropped."""
        if self.members.pop(member, None) is not None:
            self._tell_presence()

    def rename(self, member: ChatMember, name: str) -> None:
        """Give a member the name they asked for, made unique."""
        wanted = " ".join(name.split())[:32] or self.members[member]
        taken = set(self.members.values()) - {self.members[member]} | {HOST}
        unique, number = wanted, 2
        while unique in taken:
            unique, number = f"{wanted} {number}", number + 1
        self.members[member] = unique
        self._tell_presence()

    def say(self, name: str, text: str) -> None:
        """Say a line in the room."""
        text = text.strip()[:LONGEST]
        if not text:
            return
        self._last_id += 1
        line = {"type": "message", "id": self._last_id, "name": name, "text": text, "at": round(self._now() * 1000)}
        self.history.append(line)
        self._tell_all(line)

    def host_says(self) -> None:
        """Keep the room alive: the host tells what is going on, while somebody is there to hear it."""
        if not self.members:
            return
        here = len(self.members)
        open_for = round(self._now() - self._opened)
        sayings = (
            f"{here} {'person is' if here == 1 else 'people are'} here. Open this page twice to talk to yourself.",
            f"The room has been open for {open_for // 60} min {open_for % 60} s.",
            f"{self._last_id} lines were said so far, each carried to everyone by the gateway.",
            "Write something: your line travels browser, gateway, chat server, and back to everyone here.",
        )
        self.say(HOST, sayings[self._sayings % len(sayings)])
        self._sayings += 1

    def _names(self) -> list[str]:
        return sorted(self.members.values())

    def _tell_presence(self) -> None:
        self._tell_all({"type": "presence", "members": self._names()})

    def _tell_all(self, message: dict[str, Any]) -> None:
        for member in list(self.members):
            member.tell(message)


@implementer(IPushProducer)
class ChatMember(WebSocketServerProtocol):
    """One connection. It is told by its transport when its client reads more slowly than the room talks."""

    factory: ChatFactory
    transport: Any

    def onOpen(self) -> None:
        self._paused = False
        self._waiting: deque[dict[str, Any]] = deque()
        self.transport.registerProducer(self, True)
        self.factory.room.enter(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if isBinary:
            self.sendClose(1003, "text only")  # RFC 6455 7.4.1: a kind of data that cannot be accepted
            return
        text = payload.decode()
        message = _object_of(text)
        room = self.factory.room
        if message.get("type") == "join":
            room.rename(self, str(message.get("name", "")))
        elif message.get("type") == "echo":
            self.tell({"type": "echo", "token": message.get("token")})
        else:
            room.say(room.members[self], str(message.get("text", "")) if message else text)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.factory.room.leave(self)

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message, or keep it until the client has read what was sent before."""
        if not self._paused:
            self.sendMessage(json.dumps(message, ensure_ascii=False).encode())
        elif len(self._waiting) < BEHIND:
            self._waiting.append(message)
        else:
            self.transport.abortConnection()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while self._waiting and not self._paused:
            self.tell(self._waiting.popleft())

    def stopProducing(self) -> None:
        self._waiting.clear()


def _object_of(text: str) -> dict[str, Any]:
    """The JSON object ``text`` is, or an empty one when it is something else: then it is a plain line."""
    try:
        message = json.loads(text)
    except ValueError:
        return {}
    return message if isinstance(message, dict) and "type" in message else {}


class ChatFactory(WebSocketServerFactory):
    """Makes a member of the room for each connection."""

    protocol: Any = ChatMember

    def __init__(self, reactor: Any, now: Callable[[], float] = time.time) -> None:
        super().__init__(reactor=reactor)
        self.setProtocolOptions(
            maxMessagePayloadSize=LARGEST,
            maxFramePayloadSize=LARGEST,
            openHandshakeTimeout=10,
            # A client that vanished is noticed by unanswered pings.
            autoPingInterval=20,
            autoPingTimeout=10,
            tcpNoDelay=True,
        )
        self.room = ChatRoom(now)
        self._host = LoopingCall(self.room.host_says)
        self._host.clock = reactor

    def startFactory(self) -> None:
        super().startFactory()
        self._talking = self._host.start(HOST_EVERY, now=False)

    def stopFactory(self) -> None:
        if self._host.running:
            self._host.stop()
        super().stopFactory()


def chat_factory(reactor: Any) -> ChatFactory:
    """A factory to listen with: ``reactor.listenTCP(9100, chat_factory(reactor))``."""
    return ChatFactory(reactor)


def main(reactor: Any, port: str = "9100") -> Deferred[None]:
    """Serve until interrupted."""
    try:
        reactor.listenTCP(int(port), chat_factory(reactor), interface="127.0.0.1")
    except CannotListenError as error:
        raise SystemExit(f"chat.py: {error} Name another port: python examples/chat.py PORT") from None
    print(f"chat room at ws://127.0.0.1:{port}", flush=True)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
