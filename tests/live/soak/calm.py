"""The client that behaves, beside those that do not: none of its requests may fail, its streams never end.

    python -m tests.live.soak.calm CONTROL JSON

The second argument: ``{"doors": {name: [address, secure, mount]}, "admin": [host, port, mount]}``. It asks for paths of the
route ``/calm`` at every door, holds a WebSocket and an event stream at each, and changes the configuration all the time
through the Admin API. Words on the control socket: ``pause`` (no more requests, no idle connections; the streams go on),
``go``, ``report``.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from tests.live.soak.behaviours import frame
from tests.live.soak.control import serve
from tests.live.soak.wire import Wire, client_context

__all__ = ["Calm"]

PATIENCE = 60.0
"""Seconds that anything may take."""
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE).search
_HANDSHAKE = (
    b"GET %b/calm/ws_echo HTTP/1.1\r\nHost: calm\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Failed(Exception):
    """Something went wrong that must not."""


class Reader:
    """Reads answers from a wire."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.buffer = b""

    async def more(self) -> None:
        """Some more bytes."""
        async with asyncio.timeout(PATIENCE):
            data = await self.wire.receive()
        if not data:
            raise Failed(f"the connection ended; before its end: {self.buffer[-200:]!r}")
        self.buffer += data

    async def until(self, end: bytes) -> bytes:
        """Everything up to and with ``end``."""
        while end not in self.buffer:
            await self.more()
        found, _, self.buffer = self.buffer.partition(end)
        return found + end

    async def exactly(self, size: int) -> bytes:
        """So many bytes."""
        while len(self.buffer) < size:
            await self.more()
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    async def answer(self) -> tuple[int, bytes]:
        """A whole answer: its status and its body."""
        head = await self.until(b"\r\n\r\n")
        status = int(head[9:12])
        length = _LENGTH(head)
        if length is not None:
            return status, await self.exactly(int(length[1]))
        if b"chunked" not in head.lower():
            return status, b""
        pieces = []
        while True:
            size = int(await self.until(b"\r\n"), 16)
            pieces.append((await self.exactly(size + 2))[:-2])
            if not size:
                return status, b"".join(pieces)


class Calm:
    """Everything the client does.

    Attributes:
        failures: what went wrong.
        done: how often what went right.
    """

    def __init__(self, what: dict[str, Any]) -> None:
        self._doors: dict[str, tuple[Any, bool, str]] = {name: tuple(door) for name, door in what["doors"].items()}
        self._admin = what["admin"]
        self._context = client_context()
        self._going = asyncio.Event()
        self._busy = 0
        self.failures: list[str] = []
        self.done: Counter[str] = Counter()

    async def _connect(self, door: str) -> tuple[Reader, bytes]:
        """A connection to a door; the mount there."""
        address, secure, mount = self._doors[door]
        context: ssl.SSLContext | None = self._context if secure else None
        async with asyncio.timeout(PATIENCE):
            wire = await Wire.connect(tuple(address) if isinstance(address, list) else address, context)
        return Reader(wire), mount.encode()

    async def watched(self, what: str, act: Callable[[], Awaitable[None]]) -> None:
        """Do something; when it fails, say so."""
        try:
            await act()
        except (OSError, ssl.SSLError, TimeoutError, Failed, ValueError) as error:
            self.failures.append(f"{what}: {error!r}")

    # -- requests ------------------------------------------------------------------------------------------------------

    async def requests(self, door: str) -> None:
        """A few requests on a connection, then another connection."""
        while True:
            await self._going.wait()
            self._busy += 1
            try:
                await self.watched(f"a request at {door}", lambda: self._some(door))
            finally:
                self._busy -= 1
            await asyncio.sleep(0.02)

    async def _some(self, door: str) -> None:
        reader, mount = await self._connect(door)
        try:
            for number in range(random.randrange(1, 8)):
                try:
                    await self._request(reader, mount)
                except Failed as error:
                    raise Failed(f"{error}, number {number} of its connection") from error
                self.done[f"requests at {door}"] += 1
                if not self._going.is_set():
                    break
        finally:
            reader.wire.close()

    async def _request(self, reader: Reader, mount: bytes) -> None:
        kind = random.choice(("get", "sized", "chunked", "big", "chunks"))
        size = random.choice((0, 10, 9000, 200_000))
        what = f"{kind} of {size} bytes"
        expected = b"%d" % size
        if kind == "get":
            sent, expected = b"GET %b/calm/echo HTTP/1.1\r\nHost: calm\r\n\r\n" % mount, b"0"
        elif kind == "big":
            sent = b"GET %b/calm/big?n=%d HTTP/1.1\r\nHost: calm\r\n\r\n" % (mount, size)
            expected = b"x" * size
        elif kind == "chunks":
            sent = b"GET %b/calm/chunks?n=3 HTTP/1.1\r\nHost: calm\r\n\r\n" % mount
        else:
            head = b"POST %b/calm/echo HTTP/1.1\r\nHost: calm\r\n" % mount
            if kind == "sized":
                sent = head + b"Content-Length: %d\r\n\r\n" % size + b"s" * size
            else:
                body = b"%x\r\n%b\r\n" % (size, b"c" * size) if size else b""
                body += b"0\r\n\r\n"
                sent = head + b"Transfer-Encoding: chunked\r\n\r\n" + body
        try:
            async with asyncio.timeout(PATIENCE):
                await reader.wire.send(sent)
            status, body = await reader.answer()
        except (OSError, Failed) as error:
            raise Failed(f"{what}: {error!r}") from error
        right = set(body) == {ord("z")} if kind == "chunks" else body == expected
        if status != 200 or not right:
            raise Failed(f"{what} was answered {status} {body[:100]!r} ({len(body)} bytes)")

    # -- streams -------------------------------------------------------------------------------------------------------

    async def events(self, door: str) -> None:
        """An event stream in which no number is missing."""
        reader, mount = await self._connect(door)
        await reader.wire.send(b"GET %b/calm/events?n=100&ms=50 HTTP/1.1\r\nHost: calm\r\n\r\n" % mount)
        head = await reader.until(b"\r\n\r\n")
        if b" 200 " not in head[:15]:
            raise Failed(f"the event stream was answered {head[:200]!r}")
        number = 0
        data = b""
        while True:
            size = int(await reader.until(b"\r\n"), 16)
            data += (await reader.exactly(size + 2))[:-2]
            *events, data = data.split(b"\n\n")
            for event in events:
                number += 1
                if event != b"id: %d\ndata: %b" % (number, b"e" * 100):
                    raise Failed(f"event {number} is {event[:50]!r}")
                self.done[f"events at {door}"] += 1

    async def messages(self, door: str) -> None:
        """A WebSocket whose every message comes back."""
        reader, mount = await self._connect(door)
        await reader.wire.send(_HANDSHAKE % mount)
        head = await reader.until(b"\r\n\r\n")
        if b" 101 " not in head[:15]:
            raise Failed(f"the WebSocket was answered {head[:200]!r}")
        while True:
            text = b"m" * random.choice((1, 100, 1000, 70_000, 300_000 if random.random() < 0.1 else 10))
            async with asyncio.timeout(PATIENCE):
                await reader.wire.send(frame(1, text, random.randbytes(4)))
            expected = frame(1, text)
            back = await reader.exactly(len(expected))
            if back != expected:
                raise Failed(f"a message of {len(text)} bytes came back as {back[:50]!r}")
            self.done[f"messages at {door}"] += 1
            await asyncio.sleep(0.05)

    # -- configuration -------------------------------------------------------------------------------------------------

    async def changes(self) -> None:
        """Change rows that all the traffic hangs on, and one that nothing does."""
        targets = 0
        while True:
            await self._going.wait()
            self._busy += 1
            targets += 1
            try:
                await self.watched("a change", lambda number=targets: self._change(number))  # type: ignore[misc]
            finally:
                self._busy -= 1
            await asyncio.sleep(0.2)

    async def _change(self, number: int) -> None:
        changes: list[tuple[str, str, dict[str, Any]]] = [
            ("PATCH", "/services/aside", {"tags": [f"t{number}"]}),
            ("PATCH", "/upstreams/least-pool", {"tags": [f"t{number}"]}),
            ("PATCH", "/services/least", {"tags": [f"t{number}"]}),
            ("PATCH", "/routes/secure", {"tags": [f"t{number}"]}),
        ]
        method, path, fields = changes[number % len(changes)]
        host, port, mount = self._admin
        async with asyncio.timeout(PATIENCE):
            reader = Reader(await Wire.connect((host, port)))
        try:
            body = json.dumps(fields).encode()
            await reader.wire.send(
                b"%b %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (method.encode(), (mount + path).encode(), len(body), body)
            )
            status, answer = await reader.answer()
        finally:
            reader.wire.close()
        if status != 200:
            raise Failed(f"{method} {path} was answered {status} {answer[:200]!r}")
        self.done["changes"] += 1

    # -- words ---------------------------------------------------------------------------------------------------------

    async def go(self) -> None:
        """Begin, or go on, with requests and changes."""
        self._going.set()

    async def pause(self) -> None:
        """Finish the requests under way, make no more; returns when nothing but streams is open."""
        self._going.clear()
        while self._busy:
            await asyncio.sleep(0.01)

    async def report(self) -> dict[str, Any]:
        """What was done, and what went wrong."""
        return {"done": dict(self.done), "failures": self.failures[:20], "failed": len(self.failures)}

    async def run(self) -> None:
        """Everything, for ever."""
        streams: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        for door in self._doors:
            streams.append((f"the events at {door}", lambda door=door: self.events(door)))  # type: ignore[misc]
            streams.append((f"the WebSocket at {door}", lambda door=door: self.messages(door)))  # type: ignore[misc]
        await asyncio.gather(
            *(self.watched(what, act) for what, act in streams),
            *(self.requests(door) for door in self._doors),
            self.changes(),
        )


async def main(control: str, what: dict[str, Any]) -> None:
    """Serve until killed."""
    calm = Calm(what)
    await asyncio.gather(serve(control, {"go": calm.go, "pause": calm.pause, "report": calm.report}), calm.run())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
