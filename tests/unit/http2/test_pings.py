"""Signs of life of HTTP/2 connections: a silent client with open streams is asked, and given up where it does not answer."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http2 import frames
from kongtwist.core.limits import Limits
from kongtwist.net import http2_pings
from kongtwist.net.http2_pings import PAYLOAD, ConnectionPings, silence

from ..proxy.relay_kit import Gateway
from .http2_door import HTTP2Client


class PingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.quiet: float | None = 60.0
        self.patch(http2_pings, "silence", lambda transport: self.quiet)
        self.gateway = Gateway(limits=Limits(http2_ping_interval=10.0))
        self.gateway.automatic = False
        self.client = HTTP2Client(self.gateway)

    def pings(self) -> int:
        return self.client.others.count((frames.PING, PAYLOAD))

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds * 2)):
            self.gateway.work(0.5)
        self.client.read()

    def test_asked_once_and_given_up(self) -> None:
        """One interval of silence: a PING. Another: the end, and the upstream's connection goes with it."""
        self.client.send(self.client.head())
        upstream = self.gateway.accept()
        self.wait(9)
        self.assertEqual(self.pings(), 0)
        self.wait(2)
        self.assertEqual(self.pings(), 1)
        self.assertIsNone(self.client.wire.end)
        self.wait(11)
        self.assertEqual(self.pings(), 1)
        self.assertIsNotNone(self.client.wire.end)
        self.assertIsNotNone(upstream.wire.end)
        self.assertEqual(self.gateway.context.connections, set())

    def test_whoever_says_something_stays(self) -> None:
        """An answer, or anything else; the next PING comes after an interval of silence."""
        self.client.send(self.client.head())
        self.gateway.accept()
        self.wait(11)
        self.client.send(frames.ping(PAYLOAD, True))
        self.quiet = 4.0
        self.wait(12)
        self.assertEqual(self.pings(), 1)
        self.quiet = 60.0
        self.wait(6)
        self.assertEqual((self.pings(), self.client.wire.end), (2, None))

    def test_an_answer_at_once(self) -> None:
        """By the next look, which comes late, it was silent for the interval again: it is asked again, and stays."""
        self.client.send(self.client.head())
        self.gateway.accept()
        clock = self.gateway.reactor
        answered, known = -60.0, 0
        for _ in range(100):
            self.gateway.work(0.5)
            self.client.read()
            if self.pings() > known:
                known, answered = self.pings(), clock.seconds()
            self.quiet = clock.seconds() - answered + 0.01  # as coarse as the kernel's clock
        self.assertGreaterEqual(known, 4)
        self.assertIsNone(self.client.wire.end)
        self.quiet = 60.0
        self.wait(11)
        self.assertIsNotNone(self.client.wire.end)

    def test_not_without_streams(self) -> None:
        """Nor where nobody can tell how long it was silent."""
        self.wait(30)
        self.client.send(self.client.head())
        self.gateway.accept()
        self.quiet = None
        self.wait(40)
        self.assertEqual((self.pings(), self.client.wire.end), (0, None))

    def test_not_behind_what_it_does_not_take(self) -> None:
        """A client that reads nothing is bounded by ``send_timeout``; a PING would wait behind all that."""
        self.client.send(self.client.head())
        self.gateway.accept()
        self.client.channel.stopped = True
        self.wait(9.5 * 3)
        self.assertEqual(self.pings(), 0)

    def test_nothing_is_left(self) -> None:
        self.client.send(self.client.head())
        self.gateway.accept()
        pings = self.client.channel._pings
        self.assertIsInstance(pings, ConnectionPings)
        self.client.wire.lose(clean=True)
        self.wait(30)
        self.assertEqual(pings.wake, float("inf"))

    def test_off_by_default(self) -> None:
        self.assertIsNone(HTTP2Client(Gateway()).channel._pings)


class SilenceTests(SynchronousTestCase):
    def test_sockets_that_have_none(self) -> None:
        class Unix:
            family = 1

        class Plain:
            socket: Any = Unix()

        self.assertIsNone(silence(Plain()))
        self.assertIsNone(silence(object()))
