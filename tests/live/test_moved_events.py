"""Event streams that move while they are relayed, byte by byte: every framing, slow clients, and every way to end behind a move."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from tests.live.ends_kit import read_head, reset
from tests.live.moving_kit import MovingTestCase
from tests.live.support import PATIENCE, wait_until
from tests.unit.core.routing.router_rows import route_row, service_row

from .test_moving import plugin

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BARE = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Stream:
    """A client, its upstream, and between them the two processes.

    Attributes:
        client, upstream: sockets of the test's.
        child, other: the process that has the stream, and the one that does not.
    """

    def __init__(
        self, test: MovedEventTests, minor: int = 1, answer: bytes = CHUNKED, first: bytes = b"", **service: Any
    ) -> None:
        self.test = test
        listener = socket.create_server(("127.0.0.1", 0))
        test.addCleanup(listener.close)
        self.log = os.path.join(test.folder(), "records")
        rows = {
            "services": {"s": service_row("s", port=listener.getsockname()[1], **service)},
            "routes": {"r": route_row("r", "s", paths=["/e"])},
            "plugins": {"file-log": plugin("file-log", path=self.log, reopen=True, custom_fields_by_lua=None)},
        }
        self.child, self.other = test.children(rows)
        self.client = socket.create_connection(("127.0.0.1", self.child.port), PATIENCE)
        test.addCleanup(self.client.close)
        self.client.sendall(b"GET /e/x HTTP/1.%d\r\nHost: h\r\n\r\n" % minor)
        self.upstream, _ = listener.accept()
        test.addCleanup(self.upstream.close)
        self.upstream.settimeout(PATIENCE)
        read_head(self.upstream)
        self.upstream.sendall(answer)
        self.head = read_head(self.client)
        self.upstream.sendall(first)

    def move(self) -> None:
        """To the other process."""
        answer = self.child.move(self.other)
        self.test.assertEqual((answer["moved"], answer["left"]), (1, 0))
        self.child, self.other = self.other, self.child

    def expect(self, data: bytes) -> None:
        """The client gets just this next."""
        got = b""
        while len(got) < len(data):
            piece = self.client.recv(min(65536, len(data) - len(got)))
            if not piece:
                break
            got += piece
        if got != data:
            at = next(
                (at for at, (a, b) in enumerate(zip(got, data, strict=False)) if a != b), min(len(got), len(data))
            )
            raise AssertionError(f"at {at} of {len(data)}: {got[at : at + 60]!r} in place of {data[at : at + 60]!r}")

    def rest(self) -> bytes:
        """What comes until the connection ends."""
        got = b""
        try:
            while piece := self.client.recv(65536):
                got += piece
        except ConnectionResetError:
            got += b"RESET"
        return got

    def record(self) -> dict[str, Any]:
        """The one record of the request."""
        wait_until(lambda: os.path.exists(self.log) and os.path.getsize(self.log), "the record")
        with open(self.log, encoding="utf-8") as file:
            found: list[dict[str, Any]] = [each for each in map(json.loads, file) if each["response"]["status"] == 200]
        self.test.assertEqual(len(found), 1)
        return found[0]

    def over(self) -> None:
        """Neither process has anything of it."""
        for child in (self.child, self.other):
            wait_until(lambda child=child: child.tell()["streams"] == 0, "it is over")  # type: ignore[misc]
            told = child.tell()
            self.test.assertEqual((told["users"], told["totals"]["sse"]), (0, 0))


class MovedEventTests(MovingTestCase):
    """One stream each."""

    def test_every_place_in_a_chunk(self) -> None:
        """Moved between any two bytes of a chunk's framing, which passes as it is; then the answer ends, and the request that its client
        has sent behind it is served by the process that has the connection."""
        s = Stream(self)
        data = chunk(b"data: one\n\n") + b"0C;ext=1\r\n" + b"data: three\n\n"[:12] + b"\r\n" + chunk(b"\n")
        for at in range(len(data)):
            s.upstream.sendall(data[at : at + 1])
            s.move()
        s.client.sendall(b"GET /nowhere HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        s.move()
        s.upstream.sendall(b"0\r\n")
        s.move()
        s.upstream.sendall(b"\r\n")
        s.expect(data + b"0\r\n\r\n")
        self.assertTrue(s.rest().startswith(b"HTTP/1.1 404"))
        record = s.record()
        self.assertEqual(record["response"]["size"], len(s.head) + len(data))
        self.assertEqual((record["response"]["status"], record["upstream_status"]), (200, "200"))
        s.over()

    def test_framed_here(self) -> None:
        """An upstream without framing: chunks are made here, in both processes; its end is the end."""
        s = Stream(self, answer=BARE)
        for number in range(4):
            event = b"data: %d\n\n" % number
            s.upstream.sendall(event)
            s.expect(chunk(event))
            s.move()
        s.upstream.shutdown(socket.SHUT_WR)
        s.expect(b"0\r\n\r\n")
        self.assertEqual(s.record()["response"]["size"], len(s.head) + 36)
        s.over()

    def test_old_client(self) -> None:
        """A client of HTTP/1.0 gets what is in the chunks, until the connection ends."""
        s = Stream(self, minor=0)
        for number in range(4):
            s.upstream.sendall(chunk(b"data: %d\n\n" % number)[:6])
            s.move()
            s.upstream.sendall(chunk(b"data: %d\n\n" % number)[6:])
            s.expect(b"data: %d\n\n" % number)
        s.upstream.sendall(b"0\r\n\r\n")
        self.assertEqual(s.rest(), b"")
        s.record()
        s.over()

    def test_slow_client(self) -> None:
        """A client that does not read while its stream moves, again and again, gets all of it afterwards."""
        s = Stream(self)
        data = b"".join(chunk(b"data: " + bytes([65 + number % 26]) * 50_000 + b"\n\n") for number in range(400))
        s.upstream.setblocking(False)
        sent = 0
        for _ in range(6):
            for _ in range(200):
                try:
                    sent += s.upstream.send(data[sent : sent + 65536])
                except BlockingIOError:
                    break
            s.move()
        self.assertLess(sent, len(data))
        got = 0
        while got < len(data):
            if sent < len(data):
                try:
                    sent += s.upstream.send(data[sent : sent + 65536])
                except BlockingIOError:
                    pass
            size = min(20_000, sent - got)
            s.expect(data[got : got + size])
            got += size

    def test_upstream_cut(self) -> None:
        """An upstream that breaks off behind a move: the client's answer cannot look complete."""
        s = Stream(self, first=chunk(b"data: 1\n\n"))
        s.expect(chunk(b"data: 1\n\n"))
        s.move()
        reset(s.upstream)
        self.assertNotIn(b"0\r\n\r\n", s.rest())
        s.record()
        s.over()

    def test_client_gone(self) -> None:
        """A client that leaves behind a move: the upstream is told, the record is written."""
        s = Stream(self, first=chunk(b"data: 1\n\n"))
        s.expect(chunk(b"data: 1\n\n"))
        s.move()
        s.client.close()
        try:
            self.assertEqual(s.upstream.recv(10), b"")
        except ConnectionResetError:
            pass
        s.record()
        s.over()

    def test_time_out(self) -> None:
        """The service's read_timeout goes on behind a move, and ends the stream politely."""
        s = Stream(self, first=chunk(b"data: 1\n\n"), read_timeout=1500)
        s.expect(chunk(b"data: 1\n\n"))
        s.move()
        s.expect(chunk(b": nothing came for 1.5 seconds\n\n") + b"0\r\n\r\n")
        s.record()
        s.over()

    def test_filtered_stays(self) -> None:
        """An answer that has a length, and one that is no event stream, stay where they are and go on."""
        s = Stream(self, answer=CHUNKED.replace(b"text/event-stream", b"text/plain"), first=chunk(b"a"))
        s.expect(chunk(b"a"))
        answer = s.child.move(s.other)
        self.assertEqual((answer["moved"], answer["left"]), (0, 0))
        s.upstream.sendall(chunk(b"b") + b"0\r\n\r\n")
        s.expect(chunk(b"b") + b"0\r\n\r\n")
