"""Frames and field blocks made up by chance: no exception, nothing kept, whatever a peer sends.

Each run takes some hundred sessions; where ``CI`` is set as many as fit into a minute. A failure names the seed it was found with:
``SEEDS`` keeps those that found something.
"""

from __future__ import annotations

import os
import random
import time
from itertools import chain
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http2 import frames
from kongtwist.core.limits import Limits
from tests.unit.http2.http2_door import HTTP2Client
from tests.unit.net.http2_kit import Recorder, frame, make_client, make_server
from tests.unit.proxy.relay_kit import Gateway

SECONDS = 20.0 if os.environ.get("CI") else 0.0
"""Time for each of the four kinds of session; at least one round is made."""
ROUND = 60
"""Sessions of a round."""
SEEDS: tuple[int, ...] = (1, 2, 3)
"""Tried first."""

LIMITS = Limits(http2_stream_window_size=70000, http2_connection_window_size=100000, http2_max_concurrent_streams=20)

REQUEST = b"\x83\x86\x84\x41\x01a"
BLOCKS = st.one_of(
    st.sampled_from(
        [REQUEST, b"\x82\x86\x84\x41\x01a", b"\x88", b"\x40\x01a\x01b", b"\xbe", b"\x20", REQUEST + b"\x0f\x0d\x013"]
    ),
    st.binary(max_size=40),
    st.binary(max_size=20).map(lambda more: REQUEST + more),
)
NUMBERS = st.sampled_from([0, 1, 2, 3, 5, 7, 9, 11, 2**31 - 1]) | st.integers(0, 40)
FLAGS = st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D]) | st.integers(0, 255)
PAYLOADS = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [
            b"",
            b"\0\0\0\0\3abc",
            b"\0\0\0\1",
            b"\x7f\xff\xff\xff",
            b"\0\4\0\0\0\0",
            b"\0\4\x7f\xff\xff\xff",
            b"x" * 16384,
        ]
    ),
)
FRAMES = st.one_of(
    st.builds(lambda number, flags, block: frame(frames.HEADERS, flags, number, block), NUMBERS, FLAGS, BLOCKS),
    st.builds(
        lambda number, end, block: frame(frames.HEADERS, 4 | end, number, block), NUMBERS, st.integers(0, 1), BLOCKS
    ),
    st.builds(lambda number, flags, data: frame(frames.DATA, flags & 9, number, data), NUMBERS, FLAGS, PAYLOADS),
    st.builds(
        lambda kind, flags, number, data: frame(kind, flags, number, data), st.integers(0, 11), FLAGS, NUMBERS, PAYLOADS
    ),
    st.builds(lambda number, credit: frames.window_update(number, credit), NUMBERS, st.integers(0, 2**31 - 1)),
    st.builds(lambda number, code: frames.rst_stream(number, code), NUMBERS, st.integers(0, 14)),
    st.builds(lambda value: frames.settings([(4, value), (1, value % 5000)]), st.integers(0, 200000)),
)
SESSIONS = st.tuples(st.lists(FRAMES | st.binary(max_size=20), max_size=25), st.integers(1, 400))
"""Frames, and bytes of the pieces they come in."""


class FuzzTests(SynchronousTestCase):
    """Each kind of connection."""

    def rounds(self, play: Any) -> None:
        """Play sessions until the time is up."""
        until = time.monotonic() + SECONDS
        for number in chain(SEEDS, iter(lambda: random.randrange(2**32), None)):
            test = given(SESSIONS)(lambda session: self._played(play, session))
            test = settings(
                max_examples=ROUND,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            )(test)
            try:
                seed(number)(test)()
            except Exception as error:
                raise AssertionError(f"seed {number}") from error
            if time.monotonic() >= until and number not in SEEDS[:-1]:
                return

    def _played(self, play: Any, session: tuple[list[bytes], int]) -> None:
        play(b"".join(session[0]), session[1])
        self.assertEqual(self.flushLoggedErrors(), [])

    def check(self, *connections: Any) -> None:
        """Nothing is held, and nobody is left, when the connections are gone."""
        for connection in connections:
            self.assertGreaterEqual(connection.held, 0)
            self.assertLessEqual(
                connection.held, connection.stream_window * max(1, len(connection.streams)) + (1 << 20)
            )
            self.assertLessEqual(len(connection.streams), 40)
        for connection in connections:
            connection.connectionLost(Failure(ConnectionLost()))
        for connection in connections:
            self.assertEqual((connection.held, connection.streams, connection.waiting, connection.hot), (0, {}, {}, 0))

    def test_server(self) -> None:
        """A client's connection, whose streams answer at once."""

        def play(data: bytes, size: int) -> None:
            peer = make_server(LIMITS)
            for at in range(0, len(data), size):
                peer.connection.dataReceived(data[at : at + size])
                for stream, _, _ in peer.connection.requests[-2:]:
                    stream.send_headers(b"\x88")
                    stream.send_data(b"y" * 3000, at % 2 == 1)
            peer.clock.advance(0)
            for stream, _, _ in peer.connection.requests:
                stream.resume()
            self.check(peer.connection)

        self.rounds(play)

    def test_client(self) -> None:
        """An upstream's."""

        def play(data: bytes, size: int) -> None:
            peer = make_client(LIMITS)
            for _ in range(4):
                peer.connection.open_stream(0, Recorder()).send_headers(b"\x82", True)
            for at in range(0, len(data), size):
                peer.connection.dataReceived(data[at : at + size])
            self.check(peer.connection)

        self.rounds(play)

    def test_tied(self) -> None:
        """Both, with streams that are tied to each other."""

        def play(data: bytes, size: int) -> None:
            server = make_server(LIMITS)
            client = make_client(LIMITS, server.clock)
            for number in (1, 3, 5):
                server.send(frame(frames.HEADERS, 4, number, REQUEST))
                stream = client.connection.open_stream(0, Recorder())
                stream.send_headers(b"\x83")
                server.connection.requests[-1][0].tie(stream)
            half = len(data) // 2
            for at in range(0, half, size):
                server.connection.dataReceived(data[at : at + size])
                client.connection.dataReceived(data[half + at : half + at + size])
            server.clock.advance(0)
            self.check(server.connection, client.connection)

        self.rounds(play)

    def test_gateway(self) -> None:
        """All of the gateway behind it."""

        def play(data: bytes, size: int) -> None:
            gateway = Gateway(limits=LIMITS)
            client = HTTP2Client(gateway)
            channel = client.channel
            for at in range(0, len(data), size):
                channel.dataReceived(data[at : at + size])
                gateway.work()
                gateway.reactor.advance(0)
            client.wire.lose()
            gateway.reactor.advance(200)
            self.assertEqual(channel.streams, {})
            self.assertEqual(gateway.context.connections, set())
            self.assertEqual(channel.held, 0)

        self.rounds(play)
