"""A WebSocket that the gateway serves, whose messages a feeder gives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from txaio.tx import config as txaio_config

from kongtwist.core.answers import AnswerWriter, WebSocketAnswer, WebSocketPeer
from kongtwist.core.message_spans import MessageSpans
from kongtwist.core.message_times import EGRESS
from kongtwist.core.stream_registry import StreamRegistry
from kongtwist.kafka.feed_forms import text_frame
from kongtwist.net.deadlines import Deadlines
from kongtwist.streams.served_websocket import ServedWebSocket
from tests.unit.streams.test_websocket_server import frame

IDLE, SLOW = 60.0, 20.0
CLOSE = b"\x88\x02\x03\xe8"


class Wire(StringTransport):
    """A client's transport, which ends when it is told to."""

    aborted = False
    dataBuffer = b""
    offset = _tempDataLen = 0

    def unregisterProducer(self) -> None:
        self.producer = None

    def abortConnection(self) -> None:
        self.aborted = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass


class Feeder:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, writer: AnswerWriter) -> None:
        self.writer: Any = writer

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def gone(self, why: str) -> None:
        self.told.append(why)


class Context:
    """What it needs of the gateway."""

    def __init__(self, clock: Clock) -> None:
        self.reactor = clock
        self.monotonic = clock.seconds
        self.deadlines = Deadlines(clock, clock.seconds)
        self.limits = SimpleNamespace(read_timeout=lambda configured: IDLE, send_timeout=SLOW)
        self.hangups = SimpleNamespace(watch=lambda *_: None, unwatch=lambda *_: None)
        self.streams = StreamRegistry()


class FedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.patch(txaio_config, "loop", self.clock)  # Autobahn's timers go where txaio says
        route = SimpleNamespace(row={"id": "r"}, service=None, read_timeout=60000)
        exchange: Any = SimpleNamespace(
            route=route, request_id=b"i", wall_started=1.0, client_ip="::1", upstream_peer=None, consumer=None, credential=None,
            method=b"GET", target=b"/", minor=1, report=lambda *_, **__: None,
        )  # fmt: skip
        self.feeder = Feeder()
        self.over: list[str] = []
        self.served = ServedWebSocket(
            Context(self.clock),  # type: ignore[arg-type]
            self.clock,
            exchange,
            WebSocketAnswer(self.serve),
            lambda: self.over.append(self.served.why),
        )
        self.wire = Wire()
        self.served.begin(self.wire, b"", b"", lambda _: True)
        self.wire.clear()

    async def serve(self, peer: WebSocketPeer) -> None:
        peer.feed(self.feeder)
        while await peer.receive() is not None:
            pass

    def comes(self, text: bytes) -> bytes:
        """Have an event come, and pass the time of a tenth of a second; its frame."""
        data = text_frame(text)
        self.feeder.writer.write_chunk(data)
        self.clock.advance(0.1)
        return data

    def test_figures(self) -> None:
        self.comes(b"a")
        self.feeder.writer.write(text_frame(b"b") + text_frame(b"c"))
        self.assertEqual((self.served.messages_out, self.served.bytes_out), (3, 9))
        sent: list[bool] = []
        Deferred.fromCoroutine(self.served.send("d")).addCallback(sent.append)  # type: ignore[unused-awaitable]
        self.assertEqual((sent, self.served.messages_out, self.served.bytes_out), ([True], 4, 10))
        self.served.close()
        self.assertEqual((self.served.messages_out, self.served.bytes_out), (4, 10))

    def test_message_times_that_are_asked_for_later(self) -> None:
        spans = MessageSpans()
        self.served.time_messages(spans)
        for seconds in (2.0, 3.0, 1.0):
            self.clock.advance(seconds)
            self.feeder.writer.write_chunk(text_frame(b"a"))
        self.assertEqual((spans.first[EGRESS], spans.longest[EGRESS]), (2.0, 3.0))

    def test_it_is_not_idle_while_events_come(self) -> None:
        """Its deadline is behind the last one, neither earlier nor much later."""
        last = 0.0
        for _ in range(10):
            last = self.clock.seconds()
            self.comes(b"a")
            self.clock.pump([1.0] * 17)
        while not self.feeder.told:
            self.clock.advance(0.5)
        self.assertEqual(self.feeder.told, ["idle for too long"])
        self.assertTrue(IDLE <= self.clock.seconds() - last < IDLE + 2)
        self.assertTrue(self.wire.value().endswith(b"\x88\x13\x03\xe9idle for too long"))

    def test_idle_without_events(self) -> None:
        self.clock.pump([1.0] * int(IDLE - 1))
        self.assertEqual(self.feeder.told, [])
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.feeder.told, ["idle for too long"])

    def test_a_client_that_takes_nothing_is_cut_though_events_came(self) -> None:
        self.comes(b"a")
        self.served.pauseProducing()
        self.assertEqual(self.feeder.told, ["pause"])
        self.clock.pump([1.0] * int(SLOW + 2))
        self.assertTrue(self.wire.aborted)

    def test_a_client_that_takes_little_at_a_time_is_not_cut(self) -> None:
        """As long as it takes something (nginx's ``send_timeout``)."""
        self.comes(b"a")
        self.wire.dataBuffer = b"a" * 100
        self.served.pauseProducing()
        for _ in range(5):
            self.clock.pump([1.0] * int(SLOW - 1))
            self.wire.offset += 1
        self.assertFalse(self.wire.aborted)
        self.clock.pump([1.0] * int(2 * SLOW + 2))
        self.assertTrue(self.wire.aborted)

    def test_nothing_behind_our_close(self) -> None:
        one = self.comes(b"a")
        self.served.close()
        self.assertEqual(self.feeder.told, ["client closed"])
        self.comes(b"b")
        self.assertEqual(self.wire.value(), one + CLOSE)

    def test_nothing_behind_the_answer_to_the_clients_close(self) -> None:
        """The transport may still have much to send by then, and is asked by nobody any more how much."""
        one = self.comes(b"a")
        self.wire.protocol.dataReceived(frame(0x88, b"\x03\xe8"))  # type: ignore[attr-defined]
        self.assertEqual(self.feeder.told, ["client closed"])
        self.feeder.writer.write(text_frame(b"b"))
        self.assertEqual(self.wire.value(), one + CLOSE)
        self.assertTrue(self.wire.disconnecting)
        self.clock.pump([1.0] * 7)  # it does not take what it was sent
        self.assertTrue(self.wire.aborted)

    def test_nothing_behind_the_close_that_says_what_the_client_broke(self) -> None:
        one = self.comes(b"a")
        self.wire.protocol.dataReceived(frame(0x81, b"\xff"))  # type: ignore[attr-defined]
        self.assertEqual(self.feeder.told, ["client closed"])
        self.feeder.writer.write(text_frame(b"b"))
        self.comes(b"c")
        self.assertEqual(self.wire.value()[: len(one) + 1], one + b"\x88")
        self.assertEqual(len(self.wire.value()), len(one) + 2 + self.wire.value()[len(one) + 1])

    def test_others_that_write_are_looked_after(self) -> None:
        """A pong that waits in the transport is not overtaken: the writer asks the transport again."""
        asked = []
        self.served._protocol.written = lambda: asked.append(True)
        self.wire.protocol.dataReceived(frame(0x89, b"p"))  # type: ignore[attr-defined]
        self.assertEqual((self.wire.value(), asked), (b"\x8a\x01p", [True]))

    def test_the_writer_hears_of_others(self) -> None:
        """See `test_fed_frames` for what it does then."""
        self.assertEqual(self.served._protocol.written, self.feeder.writer.others_wrote)

    def test_a_lost_connection(self) -> None:
        self.wire.protocol.connectionLost(Failure(ConnectionLost()))  # type: ignore[attr-defined]
        self.assertEqual((self.feeder.told, self.over), (["client closed"], ["client closed"]))
        self.assertEqual(self.served.end, ("gateway", 0))
