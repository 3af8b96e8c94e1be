"""Pings to the peers of silent WebSockets, comments in silent event streams; who does not answer is given up."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.net.deadlines import Deadlines
from kongtwist.plugins.stream_lifetime import StreamLifetime
from kongtwist.streams.keep_alive import EventComments, PeerPings, ServedPeer
from kongtwist.streams.websocket_frames import encode_close, encode_ping

from ..proxy.relay_kit import Client, Gateway, Upstream, plugin_row
from .test_events import EVENTS, GET, LAST_CHUNK, chunk
from .test_frames import frame
from .test_websocket import MASK, WebSocketGateway, receive, unmasked

PING = encode_ping()
GIVEN_UP = encode_close(1001, "a ping was not answered")


def lifetime(**config: Any) -> dict[str, Any]:
    """Options of a gateway with the plugin."""
    given = dict.fromkeys(StreamLifetime.config) | {
        "ping_sides": "both", "max_stream_age_jitter": 0, "close_code": 1012, **config,
    }  # fmt: skip
    return {
        "plugins": {"stream-lifetime": StreamLifetime()},
        "plugin_rows": [plugin_row("stream-lifetime", config=given)],
    }


def interval(gateway: Gateway) -> None:
    """Ten seconds pass, and the second in which what is due then is looked at."""
    for _ in range(11):
        gateway.work(1)


class PingTests(SynchronousTestCase):
    """A relayed WebSocket."""

    def open(self, **config: Any) -> tuple[WebSocketGateway, Client, Upstream]:
        gateway = WebSocketGateway(**lifetime(ping_interval=10, **config))
        client, upstream = gateway.open()
        self.said = len(client.received)
        self.asked = len(upstream.wire.sent)
        return gateway, client, upstream

    def test_asked_and_answered(self) -> None:
        """Each side is asked after an interval of silence, with and without a mask; its pong passes on, and it stays."""
        gateway, client, upstream = self.open()
        gateway.work(9)
        self.assertEqual(client.received[self.said :], b"")
        for _ in range(5):
            interval(gateway)
            self.assertEqual(client.received[self.said :], PING)
            ping = upstream.wire.sent[self.asked :]
            self.assertEqual((ping[:2], len(ping)), (b"\x89\x80", 6))
            receive(client, frame(10, b"", mask=MASK))
            receive(upstream, frame(10, b""))
            self.assertEqual(client.received[self.said + len(PING) :], frame(10, b""))
            interval(gateway)  # in which something came: nobody is asked
            self.said, self.asked = len(client.received), len(upstream.wire.sent)
        self.assertIsNone(client.wire.end)

    def test_who_speaks_is_not_asked(self) -> None:
        """No pings while messages come."""
        gateway, client, upstream = self.open()
        for _ in range(8):
            gateway.work(5)
            receive(client, frame(1, b"a", mask=MASK))
            receive(upstream, frame(1, b"b"))
        self.assertEqual(client.received[self.said :], frame(1, b"b") * 8)

    def test_vanished(self) -> None:
        """Who does not answer is given up within two intervals; both sides are told, the log says which it was."""
        for silent in ("client", "upstream"):
            gateway, client, upstream = self.open()
            interval(gateway)
            if silent == "upstream":
                receive(client, frame(10, b"", mask=MASK))
            else:
                receive(upstream, frame(10, b""))
            self.said, self.asked = len(client.received), len(upstream.wire.sent)
            interval(gateway)
            self.assertEqual(client.received[self.said :], GIVEN_UP)
            self.assertEqual(unmasked(upstream.wire.sent[self.asked :]), GIVEN_UP)
            gateway.work(6)
            self.assertEqual(len(gateway.context.streams), 0)

    def test_one_side(self) -> None:
        """Only who is to be asked is."""
        gateway, client, upstream = self.open(ping_sides="client")
        interval(gateway)
        self.assertEqual((client.received[self.said :], upstream.wire.sent[self.asked :]), (PING, b""))
        gateway, client, upstream = self.open(ping_sides="upstream")
        interval(gateway)
        self.assertEqual((client.received[self.said :], len(upstream.wire.sent[self.asked :])), (b"", 6))

    def test_between_frames_only(self) -> None:
        """No ping into a message that comes in pieces, nor behind a Close frame."""
        gateway, client, upstream = self.open()
        whole = frame(1, b"a long message")
        receive(upstream, whole[:5])
        interval(gateway)
        interval(gateway)
        self.assertEqual(client.received[self.said :], whole[:5])
        self.assertIsNone(client.wire.end)
        receive(upstream, whole[5:] + encode_close(1000))
        interval(gateway)
        self.assertNotIn(PING, client.received[self.said :])


class ServedTests(SynchronousTestCase):
    """A WebSocket that the gateway serves itself."""

    def test_heard(self) -> None:
        """A client that was heard is not asked; one that does not answer is given up; one that closes is not asked."""

        class Protocol:
            heard, usable, pings = 0, True, 0

            def sendPing(self) -> None:
                self.pings += 1

        clock, protocol, gone = Clock(), Protocol(), []
        deadlines = Deadlines(clock, clock.seconds)
        PeerPings(deadlines, clock.seconds, 1.0, [ServedPeer(protocol, lambda: gone.append(True))])
        for _ in range(20):
            clock.advance(0.1)
            protocol.heard += 1
        self.assertEqual(protocol.pings, 0)
        clock.pump([0.1] * 15)
        self.assertEqual((protocol.pings, gone), (1, []))
        clock.pump([0.1] * 12)
        self.assertEqual((protocol.pings, gone), (1, [True]))
        clock.pump([0.1] * 50)
        self.assertEqual((protocol.pings, gone, clock.getDelayedCalls()), (1, [True], []))
        protocol.usable = False
        PeerPings(deadlines, clock.seconds, 1.0, [ServedPeer(protocol, lambda: gone.append(True))])
        clock.pump([0.1] * 50)
        self.assertEqual((protocol.pings, gone), (1, [True]))


class EndTests(SynchronousTestCase):
    """Asking, or commenting, may find out that the stream is over."""

    def test_no_look_afterwards(self) -> None:
        """Nobody else is asked then, and no look is left."""
        clock, asked = Clock(), []

        class Gone:
            def heard(self) -> int:
                return 0

            def ping(self) -> bool:
                asked.append(self)
                pings.stop()
                return True

            def vanished(self) -> None:
                raise AssertionError

        deadlines = Deadlines(clock, clock.seconds)
        pings = PeerPings(deadlines, clock.seconds, 1.0, [Gone(), Gone()])
        comments = EventComments(deadlines, clock.seconds, 1.0, lambda: 0, lambda: comments.stop())
        clock.pump([0.1] * 50)
        self.assertEqual((len(asked), clock.getDelayedCalls()), (1, []))


class CommentTests(SynchronousTestCase):
    """An event stream."""

    def open(self, **config: Any) -> tuple[Gateway, Client, Upstream]:
        gateway = Gateway(**lifetime(comment_interval=10, **config))
        gateway.answers[b"/x"] = EVENTS + b"Transfer-Encoding: chunked\r\n\r\n"
        client = gateway.client()
        client.send(GET)
        self.said = len(client.received)
        return gateway, client, gateway.upstreams[0]

    def test_comments(self) -> None:
        """One for each silent interval, in a chunk of its own; none while events come, none inside an event."""
        gateway, client, upstream = self.open()
        interval(gateway)
        interval(gateway)
        comment = chunk(b":\n\n")
        self.assertEqual(client.received[self.said :], comment * 2)
        self.said = len(client.received)
        for _ in range(8):
            gateway.work(5)
            upstream.answer(chunk(b"data: 1\n\n"))
        self.assertNotIn(comment, client.received[self.said :])
        upstream.answer(chunk(b"data: be"))
        self.said = len(client.received)
        for _ in range(3):
            interval(gateway)
        self.assertEqual(client.received[self.said :], b"")
        upstream.answer(chunk(b"gun\n\n") + LAST_CHUNK)
        self.assertEqual(len(gateway.context.streams), 0)

    def test_farewell(self) -> None:
        """A polite end says why, and when to come again; the comment follows the event under way."""
        gateway, client, upstream = self.open()
        upstream.answer(chunk(b"data: be"))
        (stream,) = gateway.context.streams
        stream.close(1012, "moving\nhouse", 2500)
        upstream.answer(chunk(b"gun\n\n"))
        self.assertTrue(
            client.received.endswith(chunk(b"gun\n\n") + chunk(b": moving house\nretry: 2500\n\n") + LAST_CHUNK)
        )
