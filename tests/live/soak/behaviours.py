"""What upstreams of the soak do with a request: the last segment of its path says it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import re
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from tests.live.soak.wire import Wire

__all__ = ["BEHAVIOURS", "Gone", "Serving", "accept_of", "echo", "frame"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE).search
_KEY = re.compile(rb"\r\nsec-websocket-key:[ \t]*([^\r\n]*)", re.IGNORECASE).search
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE).search


def accept_of(key: bytes) -> bytes:
    """RFC 6455 4.2.2."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def frame(opcode: int, data: bytes, mask: bytes = b"") -> bytes:
    """A whole WebSocket frame; ``mask``: four bytes, of a client's."""
    size, bit = len(data), 0x80 if mask else 0
    head = bytes([0x80 | opcode])
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + size.to_bytes(2)
    else:
        head += bytes([bit | 127]) + size.to_bytes(8)
    if mask and data:
        keys = (mask * (size // 4 + 1))[:size]
        data = (int.from_bytes(data) ^ int.from_bytes(keys)).to_bytes(size)
    return head + mask + data


class Gone(Exception):
    """The connection is over."""


class Serving:
    """One connection from the gateway, and the request it is at.

    Args:
        wire: the connection.
        working: unset while nobody sends or reads.
        seed: of what is left to chance.

    Attributes:
        head: of the request.
        query: its arguments.
    """

    def __init__(self, wire: Wire, working: asyncio.Event, seed: int) -> None:
        self.wire = wire
        self._working = working
        self.random = random.Random(seed)
        self.head = b""
        self.query: dict[str, str] = {}
        self._buffer = b""
        self._body_ahead = False

    def number(self, name: str, default: int) -> int:
        """An argument that is a number."""
        return int(self.query.get(name, default))

    async def send(self, data: bytes) -> None:
        """Send, unless the upstreams rest."""
        await self._working.wait()
        await self.wire.send(data)

    async def receive(self) -> bytes:
        """Some bytes. Raises `Gone` at the end."""
        await self._working.wait()
        if self._buffer:
            data, self._buffer = self._buffer, b""
            return data
        data = await self.wire.receive()
        if not data:
            raise Gone
        return data

    async def pause(self, milliseconds: int) -> None:
        """Wait."""
        await asyncio.sleep(milliseconds / 1000)

    async def request(self) -> str:
        """Read a head, behind whatever body nobody has read; gives the behaviour asked for."""
        await self.body()
        head = await self._until(b"\r\n\r\n")
        self.head = head[:-2]
        self._body_ahead = True
        target = head.split(b" ", 2)[1].decode("latin-1")
        path, _, query = target.partition("?")
        self.query = dict(parse_qsl(query))
        return path.rpartition("/")[2]

    async def _until(self, end: bytes) -> bytes:
        """Everything up to and with ``end``."""
        data = b""
        while end not in data:
            data += await self.receive()
        found, _, self._buffer = data.partition(end)
        return found + end

    async def body(self) -> int:
        """Read the request's body; gives its size."""
        if not self._body_ahead:
            return 0
        self._body_ahead = False
        length = _LENGTH(self.head)
        if _CHUNKED(self.head):
            return await self._chunked()
        return await self._skip(int(length[1])) if length else 0

    async def _chunked(self) -> int:
        whole = 0
        while size := int(await self._until(b"\r\n"), 16):
            whole += await self._skip(size + 2) - 2
        while await self._until(b"\r\n") != b"\r\n":
            pass  # a trailer
        return whole

    async def _skip(self, size: int) -> int:
        """Read so many bytes."""
        left = size
        while left > 0:
            data = await self.receive()
            self._buffer = data[left:]
            left -= len(data)
        return size

    async def chunk(self, data: bytes) -> None:
        """Send a chunk."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

# Each gives whether the connection goes on.


async def echo(x: Serving) -> bool:
    """Reads the body, then says how long it was."""
    said = b"%d" % await x.body()
    await x.send(OK + b"Content-Length: %d\r\n\r\n%b" % (len(said), said))
    return True


async def big(x: Serving) -> bool:
    """``n`` bytes with their length."""
    left = x.number("n", 1_000_000)
    await x.send(OK + b"Content-Length: %d\r\n\r\n" % left)
    while left > 0:
        piece = min(left, 65536)
        await x.send(b"x" * piece)
        left -= piece
    return True


async def slow(x: Serving) -> bool:
    """An answer that takes its time."""
    await x.pause(x.number("ms", 300))
    return await echo(x)


async def trickle(x: Serving) -> bool:
    """An answer byte by byte, its head too."""
    for each in OK + b"Content-Length: 20\r\n\r\n" + b"y" * 20:
        await x.send(bytes([each]))
        await x.pause(2)
    return True


async def chunks(x: Serving) -> bool:
    """Chunks, with trailers."""
    await x.send(CHUNKED)
    for _ in range(x.number("n", 10)):
        await x.chunk(b"z" * x.random.choice((1, 100, 10_000)))
        await x.pause(1)
    await x.send(b"0\r\nX-Trailer: 1\r\n\r\n")
    return True


async def until_close(x: Serving) -> bool:
    """An answer that ends with the connection."""
    await x.send(OK + b"\r\n")
    for _ in range(x.number("n", 5)):
        await x.send(b"c" * 10_000)
    return False


async def half_close(x: Serving) -> bool:
    """Half an answer, a FIN, and reading goes on."""
    await x.send(OK + b"Content-Length: 1000\r\n\r\n" + b"h" * 500)
    x.wire.half_close()
    while True:
        await x.receive()


async def reset_head(x: Serving) -> bool:
    """A reset in the middle of the head."""
    await x.send(OK[: x.random.randrange(1, len(OK))])
    x.wire.reset()
    raise Gone


async def reset_at_once(x: Serving) -> bool:
    """A reset in place of an answer."""
    x.wire.reset()
    raise Gone


async def reset_body(x: Serving) -> bool:
    """A reset in the middle of the body."""
    await x.send(OK + b"Content-Length: 1000000\r\n\r\n" + b"r" * x.random.randrange(200_000))
    x.wire.reset()
    raise Gone


async def reset_chunks(x: Serving) -> bool:
    """A reset in the middle of a chunk."""
    await x.send(CHUNKED + b"5\r\nabcde\r\n100\r\nabc")
    await x.pause(x.random.choice((0, 20)))
    x.wire.reset()
    raise Gone


async def never(x: Serving) -> bool:
    """No answer, ever; whatever comes is read."""
    while True:
        await x.receive()


async def deaf(x: Serving) -> bool:
    """No answer and no reading."""
    await asyncio.sleep(3600)
    return False


async def early(x: Serving) -> bool:
    """An answer before the body is read, and the end of the connection."""
    await x.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    return False


async def early_kept(x: Serving) -> bool:
    """An answer before the body, which is read afterwards."""
    await x.send(OK + b"Content-Length: 2\r\n\r\nok")
    await x.body()
    return True


async def informs(x: Serving) -> bool:
    """100, 103, then an answer."""
    await x.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await x.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    return await echo(x)


async def empty(x: Serving) -> bool:
    """204."""
    await x.body()
    await x.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    return True


async def garbage(x: Serving) -> bool:
    """What is no HTTP."""
    await x.send(x.random.randbytes(300))
    return False


async def bad_chunk(x: Serving) -> bool:
    """Chunks that are none."""
    await x.send(CHUNKED + b"5\r\nabcde\r\nxyz\r\n")
    return False


async def huge_head(x: Serving) -> bool:
    """A head beyond all limits."""
    await x.send(OK + b"".join(b"X-%d: %b\r\n" % (n, b"v" * 1000) for n in range(60)) + b"\r\n")
    return False


async def drop(x: Serving) -> bool:
    """A good answer, and soon afterwards the end of the connection that was to stay open."""
    await echo(x)
    await x.pause(x.random.choice((0, 1, 5, 50)))
    return False


async def drop_reset(x: Serving) -> bool:
    """The same with a reset."""
    await echo(x)
    await x.pause(x.random.choice((0, 1, 5, 50)))
    x.wire.reset()
    raise Gone


async def chatter(x: Serving) -> bool:
    """A good answer, and bytes nobody asked for."""
    await echo(x)
    await x.pause(x.random.choice((0, 5)))
    await x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    return True


async def events(x: Serving) -> bool:
    """Server-Sent Events for ever, of ``n`` bytes every ``ms``."""
    await x.send(EVENTS)
    number = 0
    while True:
        number += 1
        await x.chunk(b"id: %d\ndata: %b\n\n" % (number, b"e" * x.number("n", 50)))
        await x.pause(x.number("ms", 20))


async def events_end(x: Serving) -> bool:
    """Server-Sent Events that end."""
    await x.send(EVENTS)
    for number in range(x.number("count", 5)):
        await x.chunk(b"id: %d\ndata: x\n\n" % number)
        await x.pause(5)
    await x.send(b"0\r\n\r\n")
    return True


async def events_cut(x: Serving) -> bool:
    """Server-Sent Events until the end of the connection, which comes within an event."""
    await x.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\ndata: tw")
    await x.pause(20)
    return False


# -- WebSockets --------------------------------------------------------------------------------------------------------


async def _upgrade(x: Serving, more: bytes = b"") -> None:
    key = _KEY(x.head)
    if key is None:
        await x.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        raise Gone
    accept = accept_of(key[1])
    lines = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n" % accept
    await x.send(b"HTTP/1.1 101 Switching Protocols\r\n" + lines + more)


async def ws_echo(x: Serving) -> bool:
    """Sends every frame back, unmasked; a Close too, and then the end."""
    await _upgrade(x)
    data = b""
    while True:
        data += await x.receive()
        while len(data) >= 2:
            size, at = data[1] & 0x7F, 2
            if size > 125:
                at += 2 if size == 126 else 8
                if len(data) < at:
                    break
                size = int.from_bytes(data[2:at])
            mask = data[at : at + 4] if data[1] & 0x80 else b""
            at += len(mask)
            if len(data) < at + size:
                break
            payload = data[at : at + size]
            if mask and size:
                keys = (mask * (size // 4 + 1))[:size]
                payload = (int.from_bytes(payload) ^ int.from_bytes(keys)).to_bytes(size)
            opcode = data[0] & 0x0F
            await x.send(frame(10 if opcode == 9 else opcode, payload))
            data = data[at + size :]
            if opcode == 8:
                return False


async def ws_push(x: Serving) -> bool:
    """Pushes for ever, ``n`` bytes every ``ms``, and reads nothing."""
    await _upgrade(x, frame(1, b"early"))
    while True:
        await x.send(frame(2, b"p" * x.number("n", 1000)))
        await x.pause(x.number("ms", 5))


async def ws_sink(x: Serving) -> bool:
    """Reads for ever and says nothing."""
    await _upgrade(x)
    while True:
        await x.receive()


async def ws_deaf(x: Serving) -> bool:
    """Neither reads nor says anything."""
    await _upgrade(x)
    return await deaf(x)


async def ws_reset(x: Serving) -> bool:
    """A few frames, the last one cut, and a reset."""
    await _upgrade(x, frame(1, b"one"))
    await x.pause(x.random.choice((0, 5, 50)))
    await x.send(frame(2, b"r" * 50_000)[: x.random.randrange(1, 50_000)])
    x.wire.reset()
    raise Gone


async def ws_half(x: Serving) -> bool:
    """A frame, a FIN, and reading goes on."""
    await _upgrade(x, frame(1, b"last"))
    await x.pause(x.random.choice((0, 20)))
    x.wire.half_close()
    while True:
        await x.receive()


async def ws_close(x: Serving) -> bool:
    """A Close frame; whatever comes then is read for a while."""
    await _upgrade(x)
    await x.pause(x.random.choice((0, 20)))
    await x.send(frame(8, b"\x03\xe8bye"))
    try:
        async with asyncio.timeout(0.5):
            while True:
                await x.receive()
    except TimeoutError:
        return False


async def ws_notify(x: Serving) -> bool:
    """A close_notify (a FIN without TLS) in the middle of a frame, and nothing more."""
    await _upgrade(x, frame(2, b"n" * 2000)[:1000])
    if x.wire.secure:
        await x.wire.notify()
    else:
        x.wire.half_close()
    return await deaf(x)


async def ws_refuse(x: Serving) -> bool:
    """403."""
    await x.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    return True


async def ws_bad(x: Serving) -> bool:
    """A 101 that answers another key."""
    await x.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: bm9uc2Vuc2U=\r\n\r\n"
    )
    return await never(x)


async def ws_slow(x: Serving) -> bool:
    """The handshake takes its time."""
    await x.pause(x.number("ms", 300))
    return await ws_echo(x)


BEHAVIOURS: dict[str, Callable[[Serving], Awaitable[bool]]] = {
    each.__name__: each
    for each in (
        echo, big, slow, trickle, chunks, until_close, half_close, reset_head, reset_at_once, reset_body, reset_chunks, never,
        deaf, early, early_kept, informs, empty, garbage, bad_chunk, huge_head, drop, drop_reset, chatter, events, events_end,
        events_cut, ws_echo, ws_push, ws_sink, ws_deaf, ws_reset, ws_half, ws_close, ws_notify, ws_refuse, ws_bad, ws_slow,
    )
}  # fmt: skip
"""By the last segment of a path; others are answered as by `echo`."""
