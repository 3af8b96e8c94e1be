"""The ways of bytes through the modules: how many there are from socket to socket and back, and in which order.

`docs/architecture.md` lists these ways. A module more on one of them is a decision, not an accident.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import kongtwist

from ..streams.test_websocket import GET as ASK
from ..streams.test_websocket import YES, WebSocketGateway, receive
from .relay_kit import Gateway

PACKAGE = str(Path(kongtwist.__file__).parent)

GET = b"GET /st/x HTTP/1.1\r\nHost: h\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 5\r\n\r\nabcde"

SMALL = frozenset((
    "core/exchange.py", "core/limits.py", "core/stream_registry.py", "core/error_lines.py", "http1/client_facts.py",
))  # fmt: skip
"""The record of a request, of its connection, and what is looked up in records: no stations."""

WAY_OF_A_GET = [
    "http1/channel.py",
    "http1/http1_exchange.py",
    "proxy/tree.py",
    "core/routing",
    "proxy/route.py",
    "proxy/forwarding.py",
    "core/http",
    "upstream/connection.py",
    "proxy/finish.py",
]
"""Between `net/reactor.py`, which reads, and `net/sending.py`, which writes: eleven modules, the pure ones of a room as one."""


def stations(call: Callable[[], object]) -> list[str]:
    """The modules a call passes through, each where it is met first."""
    seen: dict[str, None] = {}

    def look(frame: FrameType, event: str, argument: Any) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(PACKAGE):
            name = path[len(PACKAGE) + 1 :]
            if name not in SMALL:
                first, second = name.split("/")[:2]
                seen[f"core/{second}" if first == "core" else name] = None

    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(seen)


class WayTests(SynchronousTestCase):
    """One method for each kind of traffic."""

    def test_get(self) -> None:
        """A request on a connection that has served one before, to an upstream whose connection is kept."""
        gateway = Gateway()
        client = gateway.client()
        client.channel.dataReceived(GET)
        upstream = gateway.accept()
        upstream.protocol.dataReceived(ANSWER)

        def exchange() -> None:
            client.channel.dataReceived(GET)
            upstream.protocol.dataReceived(ANSWER)

        self.assertEqual(stations(exchange), WAY_OF_A_GET)
        self.assertEqual(client.wire.sent.count(b"abcde"), 2)

    def test_websocket(self) -> None:
        """The handshake, its connection included; afterwards bytes pass the two ends and the frame tracker only."""
        gateway = WebSocketGateway()
        gateway.open()
        gateway.answers[b"/x"] = YES + b"\r\n"
        client = gateway.client()

        def handshake() -> None:
            client.send(ASK)

        found = stations(handshake)
        opened = [each for each in found if each.startswith(("proxy/", "streams/", "upstream/", "http1/"))]
        self.assertEqual(
            opened,
            [
                "http1/channel.py",
                "http1/http1_exchange.py",
                "proxy/tree.py",
                "proxy/websocket_route.py",
                "proxy/route.py",
                "proxy/forwarding.py",
                "proxy/tries.py",
                "upstream/pool.py",
                "upstream/connection.py",
                "streams/websocket_handshake.py",
                "streams/splice.py",
                "http1/moving_channel.py",
                "streams/transport_end.py",
                "streams/stream_end.py",
                "streams/websocket_frames.py",
            ],
        )
        passed = stations(lambda: receive(client, b"\x81\x82abcd\x00\x00"))
        self.assertEqual(passed, ["streams/transport_end.py", "streams/websocket_frames.py"])
