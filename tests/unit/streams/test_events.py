"""Event streams in the register: known while they last, ended between two events."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.limits import Limits
from kongtwist.core.message_spans import MessageSpans
from kongtwist.core.message_times import EGRESS
from kongtwist.streams.server_sent_events import EventStream

from ..proxy.relay_kit import Client, Gateway, Upstream

GET = b"GET /st/x HTTP/1.1\r\nHost: h\r\n\r\n"
HTTP10 = b"GET /st/x HTTP/1.0\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class EventStreamTests(SynchronousTestCase):
    """`EventStream`."""

    def open(
        self, request: bytes = GET, head: bytes = EVENTS + b"Transfer-Encoding: chunked\r\n\r\n", **options: Any
    ) -> tuple[Gateway, Client, Upstream]:
        """An answer under way."""
        gateway = Gateway(**options)
        gateway.answers[b"/x"] = head
        client = gateway.client()
        client.send(request)
        return gateway, client, gateway.upstreams[0]

    def test_registered(self) -> None:
        """It is in the register from its head on, with its owner, until its end; other answers are not."""
        gateway, client, upstream = self.open()
        (record,) = gateway.context.streams
        self.assertEqual((record.kind, record.route_id, record.service_id), ("sse", "r", "s"))
        upstream.answer(chunk(b"data: 1\n\n"))
        self.assertEqual(record.bytes_out, len(chunk(b"data: 1\n\n")))
        upstream.answer(LAST_CHUNK)
        self.assertEqual(len(gateway.context.streams), 0)
        self.assertIn(b"data: 1\n\n", client.received)
        plain = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.assertEqual(len(self.open(head=plain)[0].context.streams), 0)

    def test_timed(self) -> None:
        """Whoever times messages hears of each event as its last byte comes, however it was cut."""
        gateway, _, upstream = self.open()
        (record,) = gateway.context.streams
        self.assertIsInstance(record, EventStream)
        spans = MessageSpans()
        record.time_messages(spans)
        framed = (
            chunk(b"data: 1\r\n\r\ndata: 2\r\n") + chunk(b"\r\n: nothing\r\n\r\n") + chunk(b"data: 3\n") + chunk(b"\n")
        )
        counts = []
        for at in range(0, len(framed), 3):
            upstream.answer(framed[at : at + 3])
            counts.append(record.messages_out)
        self.assertEqual(sorted(set(counts)), [0, 1, 2, 3])
        self.assertGreaterEqual(spans.first[EGRESS], 0.0)
        upstream.answer(LAST_CHUNK)
        self.assertEqual(record.messages_out, 3)

    def test_clientGone(self) -> None:
        """A client that leaves takes its record along."""
        gateway, client, upstream = self.open()
        client.wire.lose()
        self.assertEqual(len(gateway.context.streams), 0)
        self.assertEqual(upstream.wire.end, "abort")

    def test_closedBetweenEvents(self) -> None:
        """Told to end between two events, it ends at once and complete; the upstream is cut."""
        for ending in (b"\n\n", b"\r\n\r\n", b"\r\r"):
            gateway, client, upstream = self.open()
            upstream.answer(chunk(b"data: 1" + ending))
            self.assertEqual(gateway.context.streams.close_all(), 1)
            self.assertTrue(client.received.endswith(chunk(b"data: 1" + ending) + LAST_CHUNK))
            self.assertEqual((upstream.wire.end, len(gateway.context.streams)), ("abort", 0))

    def test_closedBeforeTheFirstEvent(self) -> None:
        """A stream that has not said anything ends at once."""
        gateway, client, _ = self.open()
        gateway.context.streams.close_all()
        self.assertTrue(client.received.endswith(b"\r\n\r\n" + LAST_CHUNK))

    def test_closedInsideAnEvent(self) -> None:
        """An event under way is finished first, whether it comes in several chunks or one chunk in pieces."""
        gateway, client, upstream = self.open()
        upstream.answer(chunk(b"data: begun"))
        gateway.context.streams.close_all()
        self.assertFalse(client.received.endswith(LAST_CHUNK))
        piece = chunk(b" and ended\n\n")
        upstream.answer(piece[:-2])
        self.assertFalse(client.received.endswith(LAST_CHUNK))
        upstream.answer(piece[-2:])
        self.assertTrue(client.received.endswith(piece + LAST_CHUNK), client.received)

    def test_payloadThatLooksLikeAnEnd(self) -> None:
        """An empty line and a CRLF inside a chunk are no end of a chunk."""
        gateway, client, upstream = self.open()
        gateway.context.streams.close_all(which=lambda record: False)
        whole = chunk(b"data: 1\n\n\r\ndata: 2\n\n")
        cut = whole.index(b"\r\ndata: 2") + 2
        upstream.answer(whole[:cut])
        gateway.context.streams.close_all()
        self.assertFalse(client.received.endswith(LAST_CHUNK))
        upstream.answer(whole[cut:])
        self.assertTrue(client.received.endswith(whole + LAST_CHUNK))

    def test_endlessEvent(self) -> None:
        """An event that does not end in time is cut, and does not look complete."""
        gateway, client, upstream = self.open(limits=Limits(lingering_timeout=5.0))
        upstream.answer(chunk(b"data: begun"))
        gateway.context.streams.close_all()
        gateway.work(4)
        self.assertFalse(client.closed)
        gateway.work(2)
        self.assertTrue(client.closed)
        self.assertFalse(client.received.endswith(LAST_CHUNK))
        self.assertEqual(len(gateway.context.streams), 0)

    def test_idle(self) -> None:
        """One on which nothing comes for the Service's read_timeout is told so, and ends complete; half an event does not."""
        services = {"s": {"host": "127.0.0.1", "port": 18100, "retries": 0, "read_timeout": 3000}}
        for piece, told in ((b"data: 1\n\n", True), (b"", True), (b"data: be", False)):
            gateway, client, upstream = self.open(services=services)
            if piece:
                upstream.answer(chunk(piece))
            for _ in range(6):
                gateway.work(1)
            farewell = chunk(b": nothing came for 3 s\n\n") + LAST_CHUNK
            self.assertEqual(client.received.endswith(farewell), told, client.received)
            self.assertEqual((upstream.wire.end, len(gateway.context.streams)), ("abort", 0))
            self.assertEqual(client.closed, not told)

    def test_oldClient(self) -> None:
        """HTTP/1.0 gets events without framing; the end of the connection is the end."""
        gateway, client, upstream = self.open(HTTP10)
        upstream.answer(chunk(b"data: 1\n\n"))
        gateway.context.streams.close_all()
        gateway.work()
        self.assertTrue(client.received.endswith(b"\r\n\r\ndata: 1\n\n"))
        self.assertEqual(client.wire.end, "close")

    def test_stop(self) -> None:
        """A gateway that stops ends its event streams, and the connections behind them."""
        gateway, client, upstream = self.open()
        upstream.answer(chunk(b"data: 1\n\n"))
        gateway.context.drain()
        gateway.work()
        self.assertTrue(client.received.endswith(LAST_CHUNK))
        self.assertTrue(client.closed)
        self.assertEqual(len(gateway.context.connections), 0)
