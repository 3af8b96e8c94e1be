"""One connection over HTTP/2: rules of RFC 9113 with their errors, windows, streams' ends, floods."""

from __future__ import annotations

import struct
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http2 import frames
from kongtwist.core.http2.frames import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
)
from kongtwist.core.limits import Limits

from .http2_kit import Frame, PeerSide, Recorder, frame, make_client, make_server


def goaway_code(found: list[Frame]) -> int | None:
    """The code of GOAWAY, or None."""
    return next((int.from_bytes(payload[4:8], "big") for kind, _, _, payload in found if kind == frames.GOAWAY), None)


def reset_codes(found: list[Frame]) -> dict[int, int]:
    """Stream -> the code of its RST_STREAM."""
    return {number: int.from_bytes(payload, "big") for kind, _, number, payload in found if kind == frames.RST_STREAM}


def data_of(found: list[Frame], stream: int) -> bytes:
    """Payload of a stream's DATA."""
    return b"".join([payload for kind, _, number, payload in found if kind == frames.DATA and number == stream])


def stream_of(peer: PeerSide, index: int = -1) -> Any:
    """A stream that a server has."""
    return peer.connection.requests[index][0]


class RuleTests(SynchronousTestCase):
    """What is wrong, and what it is answered with."""

    def test_connection_errors(self) -> None:
        """GOAWAY with the code of the rule; the connection ends."""
        number = struct.Struct(">I").pack
        open_stream = make_server().request(1)
        cases: list[tuple[bytes, int]] = [
            (frame(frames.DATA, 0, 0, b"x"), PROTOCOL_ERROR),
            (frame(frames.DATA, 0, 3, b"x"), PROTOCOL_ERROR),  # idle
            (frame(frames.HEADERS, 4, 0, b"\x82"), PROTOCOL_ERROR),
            (frame(frames.HEADERS, 4, 2, b"\x82"), PROTOCOL_ERROR),
            (frame(frames.HEADERS, 4, 1, b"\x80"), COMPRESSION_ERROR),
            (frame(frames.HEADERS, 0, 1, b"\x82") + frame(frames.PING, 0, 0, b"12345678"), PROTOCOL_ERROR),
            (frame(frames.HEADERS, 0, 1, b"\x82") + frame(frames.CONTINUATION, 4, 3), PROTOCOL_ERROR),
            (frame(frames.CONTINUATION, 4, 1), PROTOCOL_ERROR),
            (frame(frames.HEADERS, 4 | 8, 1, b"\x05\x82"), PROTOCOL_ERROR),  # padding
            (frame(frames.PRIORITY, 0, 0, b"\0\0\0\0\1"), PROTOCOL_ERROR),
            (frame(frames.RST_STREAM, 0, 0, number(8)), PROTOCOL_ERROR),
            (frame(frames.RST_STREAM, 0, 9, number(8)), PROTOCOL_ERROR),
            (open_stream + frame(frames.RST_STREAM, 0, 1, b"\0"), FRAME_SIZE_ERROR),
            (frame(frames.SETTINGS, 0, 1), PROTOCOL_ERROR),
            (frame(frames.SETTINGS, 0, 0, b"x"), FRAME_SIZE_ERROR),
            (frame(frames.SETTINGS, 1, 0, b"x" * 6), FRAME_SIZE_ERROR),
            (frames.settings([(2, 2)]), PROTOCOL_ERROR),
            (frames.settings([(4, 2**31)]), FLOW_CONTROL_ERROR),
            (frames.settings([(5, 100)]), PROTOCOL_ERROR),
            (frames.settings([(8, 2)]), PROTOCOL_ERROR),
            (frame(frames.PUSH_PROMISE, 4, 1, number(2)), PROTOCOL_ERROR),
            (frame(frames.PING, 0, 1, b"12345678"), PROTOCOL_ERROR),
            (frame(frames.PING, 0, 0, b"1"), FRAME_SIZE_ERROR),
            (frame(frames.GOAWAY, 0, 1, b"12345678"), PROTOCOL_ERROR),
            (frame(frames.GOAWAY, 0, 0, b"1"), FRAME_SIZE_ERROR),
            (frame(frames.WINDOW_UPDATE, 0, 0, number(0)), PROTOCOL_ERROR),
            (frame(frames.WINDOW_UPDATE, 0, 0, b"1"), FRAME_SIZE_ERROR),
            (frames.window_update(0, 2**31 - 1), FLOW_CONTROL_ERROR),
            (frames.header(16385, frames.DATA, 0, 1), FRAME_SIZE_ERROR),
        ]
        for data, code in cases:
            peer = make_server()
            found = peer.send(data)
            self.assertEqual(goaway_code(found), code, data)
            self.assertTrue(peer.wire.closed)
            self.assertEqual(peer.send(frame(frames.PING, 0, 0, b"12345678")), [])

    def test_connection_errors_end_streams(self) -> None:
        """At once: the connection itself stays until the peer has read why."""
        for peer in (make_server(), make_client()):
            if peer.connection.client:
                stream = peer.connection.open_stream(0, Recorder())
            else:
                peer.send(peer.request(1))
                stream = stream_of(peer)
            self.assertIsNotNone(goaway_code(peer.send(frame(frames.PING, 0, 0, b"1"))))
            self.assertEqual((stream.user.calls, peer.connection.streams), ([("lost", None)], {}))

    def test_stream_errors(self) -> None:
        """RST_STREAM with the code of the rule; the connection goes on."""
        number = struct.Struct(">I").pack
        for data, code in (
            (frame(frames.PRIORITY, 0, 1, b"x"), FRAME_SIZE_ERROR),
            (frame(frames.PRIORITY, 0, 1, number(1) + b"x"), PROTOCOL_ERROR),
            (frame(frames.WINDOW_UPDATE, 0, 1, number(0)), PROTOCOL_ERROR),
            (frames.window_update(1, 2**31 - 1), FLOW_CONTROL_ERROR),
            (frame(frames.DATA, 1, 1) + frame(frames.DATA, 0, 1, b"x"), STREAM_CLOSED),
        ):
            peer = make_server()
            peer.send(peer.request(1))
            found = peer.send(data)
            self.assertEqual((reset_codes(found), goaway_code(found)), ({1: code}, None), data)
            self.assertEqual(peer.connection.streams, {})
            self.assertEqual(peer.send(frame(frames.PING, 0, 0, b"12345678"))[0][0], frames.PING)

    def test_malformed_requests(self) -> None:
        """RFC 9113 8.1.1: the stream ends, and the table stays in step."""
        for extra in ({":status": "200"}, {"te": "gzip"}, {"upgrade": "x"}, {":path": ""}, {"X-A": "b"}):
            peer = make_server()
            fields = {":method": "GET", ":scheme": "http", ":path": "/", ":authority": "a"} | extra
            found = peer.send(peer.headers(1, fields, 1), peer.request(3))
            self.assertEqual((reset_codes(found), goaway_code(found)), ({1: PROTOCOL_ERROR}, None), extra)
            self.assertEqual([stream.id for stream, _, _ in peer.connection.requests], [3])

    def test_first_frame(self) -> None:
        """Behind the preface come SETTINGS (RFC 9113 3.4)."""
        peer = make_server()
        peer.connection._settled = False
        self.assertEqual(goaway_code(peer.send(frame(frames.PING, 0, 0, b"12345678"))), PROTOCOL_ERROR)

    def test_closed_streams(self) -> None:
        """What is late for a stream that we reset is ignored; for one that is complete it is an error."""
        peer = make_server()
        peer.send(peer.request(1), peer.request(3))
        stream_of(peer, 0).reset()
        peer.read()
        found = peer.send(
            frame(frames.DATA, 0, 1, b"late"), peer.headers(1, {"a": "b"}, 1), frames.window_update(1, 9999)
        )
        self.assertEqual(found, [])
        late = stream_of(peer, 1)
        peer.send(frame(frames.DATA, 1, 3))
        late.send_headers(b"\x88", True)
        peer.read()
        self.assertEqual(reset_codes(peer.send(frame(frames.DATA, 0, 3, b"x"))), {3: STREAM_CLOSED})

    def test_padding(self) -> None:
        """It is taken off, and counts for windows."""
        peer = make_server()
        peer.send(peer.request(1), frame(frames.DATA, 8, 1, b"\x03abc\0\0\0"))
        stream = stream_of(peer)
        self.assertEqual(stream.user.calls, [("data", b"abc")])
        self.assertEqual(stream.room, peer.connection.stream_window - 7)

    def test_our_own_fault(self) -> None:
        """An exception of a stream's user ends that stream; others go on."""
        peer = make_server()
        peer.send(peer.request(1), peer.request(3))

        def fail(data: bytes) -> None:
            raise RuntimeError("a fault")

        stream_of(peer, 0).user.on_data = fail
        found = peer.send(frame(frames.DATA, 0, 1, b"x"), frame(frames.DATA, 0, 3, b"y"))
        self.assertEqual(reset_codes(found), {1: frames.INTERNAL_ERROR})
        self.assertEqual(stream_of(peer, 1).user.calls, [("data", b"y")])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_pieces(self) -> None:
        """Bytes may be cut anywhere."""
        peer = make_server()
        for byte in peer.request(1) + frame(frames.DATA, 1, 1, b"hello"):
            peer.send(bytes((byte,)))
        self.assertEqual(stream_of(peer).user.calls, [("data", b"hello"), ("end", None)])

    def test_trailers(self) -> None:
        """They come with the end, and must end the stream."""
        peer = make_server()
        peer.send(peer.request(1), frame(frames.DATA, 0, 1, b"x"), peer.headers(1, {"a": "b"}, 1))
        self.assertEqual(stream_of(peer).user.calls, [("data", b"x"), ("end", [(b"a", b"b")])])
        peer.send(peer.request(3))
        self.assertEqual(reset_codes(peer.send(peer.headers(3, {"a": "b"}))), {3: PROTOCOL_ERROR})


class WindowTests(SynchronousTestCase):
    """Flow control (RFC 9113 5.2, 6.9)."""

    def test_smaller_windows(self) -> None:
        """SETTINGS may make a window negative; nothing is sent before it is positive again."""
        peer = make_server()
        peer.send(peer.request(1))
        stream = stream_of(peer)
        stream.send_headers(b"\x88")
        stream.send_data(b"x" * 100)
        peer.read()
        peer.send(frames.settings([(4, 10)]))
        self.assertEqual(stream.window, -90)
        stream.send_data(b"y" * 30, True)
        self.assertEqual(stream.user.calls, [("blocked",)])
        self.assertEqual(data_of(peer.send(frames.window_update(1, 90)), 1), b"")
        self.assertEqual(data_of(peer.send(frames.window_update(1, 10)), 1), b"y" * 10)
        found = peer.send(frames.settings([(4, 100)]))
        self.assertEqual((data_of(found, 1), found[-1][1]), (b"y" * 20, 1))
        self.assertEqual(stream.user.calls, [("blocked",), ("unblocked",)])

    def test_turns(self) -> None:
        """Streams that wait for the connection's window share it."""
        peer = make_server()
        peer.send(*(peer.request(number) for number in (1, 3, 5)))
        for stream, _, _ in peer.connection.requests:
            stream.send_headers(b"\x88")
            stream.send_data(b"x" * 60000, True)
        peer.read()
        found = peer.send(frames.window_update(0, 3 * 16384))
        self.assertEqual({number: len(data_of(found, number)) for number in (1, 3, 5)}, {1: 0, 3: 32768, 5: 16384})

    def test_transport(self) -> None:
        """A transport that takes nothing stops DATA, and resumes it."""
        peer = make_server()
        peer.send(peer.request(1))
        stream = stream_of(peer)
        peer.connection.pauseProducing()
        stream.send_headers(b"\x88")
        stream.send_data(b"abc")
        stream.send_headers(b"\x00\x01a\x01b", True)
        self.assertEqual([kind for kind, _, _, _ in peer.read()], [frames.HEADERS])
        peer.connection.resumeProducing()
        found = peer.read()
        self.assertEqual([(kind, flags) for kind, flags, _, _ in found], [(frames.DATA, 0), (frames.HEADERS, 5)])

    def test_credit(self) -> None:
        """It is given in lumps of half a window, for what was taken; not for what is held."""
        peer = make_server(Limits(http2_stream_window_size=65535, http2_connection_window_size=65535))
        peer.send(peer.request(1), peer.request(3))
        piece = frame(frames.DATA, 0, 1, b"x" * 16000)
        self.assertEqual(peer.send(piece, piece), [])
        found = peer.send(piece)
        self.assertEqual([each[2] for each in found], [1, 0])
        self.assertEqual(int.from_bytes(found[0][3], "big"), 48000)
        held = stream_of(peer, 1)
        held.pause()
        piece = frame(frames.DATA, 0, 3, b"y" * 16000)
        self.assertEqual(peer.send(piece, piece, piece, piece), [])
        self.assertEqual(held.user.calls, [])
        self.assertEqual((held.held, peer.connection.held), (64000, 64000))
        held.resume()
        found = peer.read()
        self.assertEqual({each[2]: int.from_bytes(each[3], "big") for each in found}, {0: 64000, 3: 64000})
        self.assertEqual(len(held.user.calls), 4)

    def test_overrun(self) -> None:
        """More than the window: the stream ends, or the connection."""
        peer = make_server(Limits(http2_stream_window_size=65535, http2_connection_window_size=1 << 20))
        peer.send(peer.request(1))
        stream_of(peer).pause()
        found = peer.send(*[frame(frames.DATA, 0, 1, b"x" * 16384)] * 4)
        self.assertEqual(reset_codes(found), {1: FLOW_CONTROL_ERROR})
        self.assertEqual(peer.connection.held, 0)
        peer = make_server(Limits(http2_stream_window_size=1 << 20, http2_connection_window_size=65535))
        peer.send(peer.request(1))
        stream_of(peer).pause()
        self.assertEqual(goaway_code(peer.send(*[frame(frames.DATA, 0, 1, b"x" * 16384)] * 4)), FLOW_CONTROL_ERROR)

    def test_credit_for_dropped_data(self) -> None:
        """DATA of reset streams counts for the connection's window, and is given back."""
        peer = make_server(Limits(http2_connection_window_size=65535))
        peer.send(peer.request(1))
        stream_of(peer).reset()
        peer.read()
        found = peer.send(*[frame(frames.DATA, 0, 1, b"x" * 16384)] * 3)
        self.assertEqual([each[2] for each in found], [0])

    def test_frame_size(self) -> None:
        """Large frames where the peer takes them."""
        peer = make_server()
        peer.send(frames.settings([(5, 20000), (4, 100000)]), frames.window_update(0, 100000), peer.request(1))
        stream = stream_of(peer)
        stream.send_data(b"x" * 20000)
        self.assertEqual([len(each[3]) for each in peer.read()], [20000])


class FloodTests(SynchronousTestCase):
    """Each costs the peer its connection: ENHANCE_YOUR_CALM."""

    LIMITS = Limits(
        http2_idle_frames=10,
        http2_reset_burst=5,
        http2_reset_rate=1,
        http2_max_continuations=3,
        http2_max_block_size=20000,
    )

    def flood(self, data: bytes, least: int = 1, begin: bytes = b"") -> None:
        """Send ``data`` until the connection ends, which must not be before the ``least``-th time."""
        peer = make_server(self.LIMITS)
        peer.send(begin or peer.request(1))
        for count in range(1, 100):
            code = goaway_code(peer.send(data))
            if code is not None:
                self.assertEqual(code, ENHANCE_YOUR_CALM)
                self.assertGreaterEqual(count, least)
                return
        self.fail("nothing happened")

    def test_frames_that_bring_nothing(self) -> None:
        """PING, SETTINGS, PRIORITY, WINDOW_UPDATE of a byte, empty DATA, unknown types, RST_STREAM of closed streams."""
        for data in (
            frame(frames.PING, 0, 0, b"12345678"),
            frames.settings([(4, 70000)]),
            frame(frames.PRIORITY, 0, 1, b"\0\0\0\0\1"),
            frames.window_update(1, 1),
            frames.window_update(0, 1),
            frame(frames.DATA, 0, 1),
            frame(99, 0, 0, b"x"),
            frame(frames.GOAWAY, 0, 0, b"12345678"),
        ):
            self.flood(data, 10)

    def test_traffic_in_between(self) -> None:
        """Who sends or is sent DATA may ping; and time heals."""
        peer = make_server(self.LIMITS)
        peer.send(peer.request(1))
        for _ in range(30):
            self.assertIsNone(
                goaway_code(peer.send(frame(frames.PING, 0, 0, b"12345678"), frame(frames.DATA, 0, 1, b"x")))
            )
        stream = stream_of(peer)
        stream.send_headers(b"\x88")
        for _ in range(30):
            stream.send_data(b"x")
            self.assertIsNone(goaway_code(peer.send(frames.window_update(1, 1))))
        for _ in range(30):
            peer.clock.advance(0.1)
            self.assertIsNone(goaway_code(peer.send(frame(frames.PING, 0, 0, b"12345678"))))

    def test_rapid_reset(self) -> None:
        """CVE-2023-44487, and streams that the peer has us reset (CVE-2025-8671)."""
        for bad in (lambda n: frames.rst_stream(n, 8), lambda n: frame(frames.WINDOW_UPDATE, 0, n, b"\0\0\0\0")):
            peer = make_server(self.LIMITS)
            codes = [goaway_code(peer.send(peer.request(n), bad(n))) for n in range(1, 15, 2)]
            self.assertEqual(codes[:6], [None] * 5 + [ENHANCE_YOUR_CALM])

    def test_continuation(self) -> None:
        """CVE-2024-27316: many of them, empty or not."""
        peer = make_server(self.LIMITS)
        peer.send(frame(frames.HEADERS, 0, 1, b""))
        found = [goaway_code(peer.send(frame(frames.CONTINUATION, 0, 1))) for _ in range(4)]
        self.assertEqual(found, [None] * 3 + [ENHANCE_YOUR_CALM])
        peer = make_server(self.LIMITS)
        peer.send(frame(frames.HEADERS, 0, 1, b"x" * 16384))
        more = frame(frames.CONTINUATION, 0, 1, b"x" * 16384)
        found = [goaway_code(peer.send(more)) for _ in range(4)]
        self.assertEqual(found, [None] * 3 + [ENHANCE_YOUR_CALM])

    def test_blocks_that_are_too_large(self) -> None:
        """They are decoded, so that the table stays in step, count as too large, and little of them is kept."""
        peer = make_server(self.LIMITS)
        head = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]
        block = peer.encoder.encode(head + [(f"x-{number}", "a" * 100) for number in range(300)])
        peer.send(frames.headers(1, block, True))
        peer.send(frames.headers(3, peer.encoder.encode([*head, ("x-299", "a" * 100)]), True))
        large, small = (fields for _, fields, _ in peer.connection.requests)
        self.assertEqual((large.size, len(large.fields)), (peer.connection.list_size + 1, 100))
        self.assertEqual((len(small.fields), small.fields[-1].name), (5, b"x-299"))

    def test_answers_that_nobody_reads(self) -> None:
        """Answers are held for a peer that does not read, up to a number."""
        peer = make_server(Limits(http2_unsent_answers=5))
        peer.connection.pauseProducing()
        data = frame(frames.PING, 0, 0, b"12345678")
        codes = [goaway_code(peer.send(data)) for _ in range(6)]
        self.assertEqual(codes, [None] * 5 + [ENHANCE_YOUR_CALM])


class ClientSideTests(SynchronousTestCase):
    """The side that asks."""

    def test_answer(self) -> None:
        """Ids are odd; interim answers, the head, DATA, trailers."""
        peer = make_client()
        user = Recorder()
        stream = peer.connection.open_stream(0, user)
        stream.send_headers(b"\x82", True)
        self.assertEqual([(kind, number) for kind, _, number, _ in peer.read()], [(frames.HEADERS, 1)])
        peer.send(
            peer.answer(1, status=103), peer.answer(1), frame(frames.DATA, 0, 1, b"x"), peer.headers(1, {"a": "b"}, 1)
        )
        self.assertEqual(
            user.calls, [("head", 103, False), ("head", 200, False), ("data", b"x"), ("end", [(b"a", b"b")])]
        )
        self.assertEqual((peer.connection.streams, peer.connection.next_id), ({}, 3))

    def test_trailers_only(self) -> None:
        """A head that ends the stream; the server resets behind it while we still send (RFC 9113 8.1)."""
        peer = make_client()
        user = Recorder()
        stream = peer.connection.open_stream(0, user)
        stream.send_headers(b"\x83")
        peer.send(peer.answer(1, 1), frames.rst_stream(1, frames.NO_ERROR))
        self.assertEqual(user.calls, [("head", 200, True), ("lost", 0)])

    def test_answers_to_many_that_were_reset(self) -> None:
        """What is on its way for requests that we have reset ends nothing, however many there were."""
        peer = make_client()
        peer.send(frames.settings([(3, 5000)]))
        for _ in range(1500):
            stream = peer.connection.open_stream(0, Recorder())
            stream.send_headers(b"\x83")
            stream.reset(frames.CANCEL)
        peer.read()
        user = Recorder()
        peer.connection.open_stream(0, user).send_headers(b"\x82", True)
        peer.read()
        for number in range(1, 3000, 2):
            found = peer.send(
                peer.answer(number), frame(frames.DATA, 0, number, b"x"), peer.headers(number, {"a": "b"}, 1)
            )
            self.assertNotIn(frames.GOAWAY, [kind for kind, *_ in found], number)
            self.assertNotIn(frames.RST_STREAM, [kind for kind, *_ in found], number)
        peer.send(peer.answer(3001, 1))
        self.assertEqual(user.calls, [("head", 200, True)])
        self.assertFalse(peer.connection.failed)

    def test_push(self) -> None:
        """Nobody asked for it."""
        peer = make_client()
        self.assertEqual(goaway_code(peer.send(frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2"))), PROTOCOL_ERROR)

    def test_goaway(self) -> None:
        """Streams above the last are lost as not processed; the others go on, and then the connection closes."""
        peer = make_client()
        one, two = Recorder(), Recorder()
        for user in (one, two):
            peer.connection.open_stream(0, user).send_headers(b"\x82", True)
        peer.send(frames.goaway(1, 0))
        self.assertEqual((one.calls, two.calls), ([], [("lost", frames.REFUSED_STREAM)]))
        self.assertFalse(peer.wire.closed)
        peer.send(peer.answer(1, 1))
        self.assertTrue(peer.wire.closed)

    def test_lost(self) -> None:
        """Every stream hears of the connection's end."""
        from twisted.internet.error import ConnectionLost
        from twisted.python.failure import Failure

        peer = make_client()
        user = Recorder()
        peer.connection.open_stream(0, user).send_headers(b"\x82", True)
        peer.connection.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(user.calls, [("lost", None)])
        self.assertEqual(peer.connection.streams, {})


class TiedTests(SynchronousTestCase):
    """DATA that passes from stream to stream."""

    def setUp(self) -> None:
        self.server = make_server()
        self.client = make_client(clock=self.server.clock)
        self.pairs = [self.pair(number) for number in (1, 3, 5)]
        self.client.read()

    def pair(self, number: int) -> tuple[Any, Any]:
        """A request, and the stream to an upstream it is tied to."""
        self.server.send(self.server.request(number))
        one = stream_of(self.server)
        two = self.client.connection.open_stream(0, Recorder())
        two.send_headers(b"\x83")
        one.tie(two)
        return one, two

    def test_run(self) -> None:
        """Frames that stand side by side go out as they are, with other ids, in one piece; messages are counted."""
        message = b"\0\0\0\0\3abc"
        sends = self.client.wire.sends
        self.server.send(*(frame(frames.DATA, 0, number, message) for number in (5, 1, 3, 5)))
        found = self.client.read()
        self.assertEqual([(number, payload) for _, _, number, payload in found], [(n, message) for n in (5, 1, 3, 5)])
        self.assertEqual(self.client.wire.sends, sends + 1)
        self.assertEqual([one.messages for one, _ in self.pairs], [1, 1, 2])
        self.assertEqual([one.received for one, _ in self.pairs], [8, 8, 16])

    def test_messages(self) -> None:
        """However they are cut."""
        one = self.pairs[0][0]
        data = b"\0\0\0\0\3abc" * 3 + b"\0\0\0\0\0"
        for byte in data:
            self.server.send(frame(frames.DATA, 0, 1, bytes((byte,))))
        self.assertEqual(one.messages, 4)
        self.server.send(frame(frames.DATA, 0, 1, data))
        self.assertEqual(one.messages, 8)
        self.assertEqual(data_of(self.client.read(), 1), data * 2)

    def test_end(self) -> None:
        """The end goes on with the last DATA; the users hear of it."""
        one, two = self.pairs[0]
        self.server.send(frame(frames.DATA, 1, 1, b"x"))
        self.assertEqual([each[:3] for each in self.client.read()], [(frames.DATA, 1, 1)])
        self.assertEqual((one.user.calls, two.ended_out), ([("end", None)], True))
        self.client.send(
            self.client.answer(1), frame(frames.DATA, 0, 1, b"y"), self.client.headers(1, {"grpc-status": "0"}, 1)
        )
        self.assertEqual(two.user.calls[-1], ("end", [(b"grpc-status", b"0")]))
        self.assertEqual(data_of(self.server.read(), 1), b"y")
        one.send_headers(b"\x00\x01a\x01b", True)
        self.assertEqual((one.closed, two.closed), (True, True))

    def test_window(self) -> None:
        """What the other side does not take is held, without credit, and passed on in order when it does."""
        one, two = self.pairs[0]
        self.client.send(frames.settings([(4, 0)]))
        two.window = 10
        self.server.send(
            frame(frames.DATA, 0, 1, b"a" * 8), frame(frames.DATA, 0, 1, b"b" * 8), frame(frames.DATA, 1, 1, b"c")
        )
        found = self.client.read()
        self.assertEqual(data_of(found, 1), b"a" * 8 + b"b" * 2)
        self.assertEqual((one.held, two.queued), (7, 7))
        found = self.client.send(frames.window_update(1, 100))
        self.assertEqual((data_of(found, 1), found[-1][1]), (b"b" * 6 + b"c", 1))
        self.assertEqual((one.held, self.server.connection.held), (0, 0))
        self.assertEqual(one.user.calls, [("end", None)])

    def test_transport(self) -> None:
        """Nor is more sent to a transport that takes nothing than a window."""
        one, _ = self.pairs[0]
        self.client.connection.pauseProducing()
        window = self.server.connection.stream_window
        sent = 0
        while one.room >= 16384:
            found = self.server.send(frame(frames.DATA, 0, 1, b"x" * 16384))
            self.assertEqual([each for each in found if each[0] == frames.WINDOW_UPDATE], [])
            sent += 16384
        self.assertEqual(one.held, sent)
        self.assertLessEqual(sent, window)
        self.client.connection.resumeProducing()
        self.client.send(frames.window_update(1, 1 << 20), frames.window_update(0, 1 << 20))
        self.assertEqual(one.held, 0)
        self.assertIn(frames.WINDOW_UPDATE, [each[0] for each in self.server.read()])

    def test_credit(self) -> None:
        """What passes is credited in lumps."""
        self.client.send(frames.window_update(1, 1 << 20), frames.window_update(0, 1 << 20))
        found: list[Frame] = []
        for _ in range(9):
            found += self.server.send(frame(frames.DATA, 0, 1, b"x" * 16384))
        self.assertEqual([each[2] for each in found], [1])
        self.assertEqual(len(data_of(self.client.read(), 1)), 9 * 16384)

    def test_reset(self) -> None:
        """Either end: the other is let go, and its user decides."""
        one, two = self.pairs[0]
        self.client.send(frames.settings([(4, 0)]))
        two.window = 0
        self.server.send(frame(frames.DATA, 0, 1, b"held"))
        self.client.send(frames.rst_stream(1, 2))
        self.assertEqual(two.user.calls, [("lost", 2)])
        self.assertEqual((one.peer, one.held, self.server.connection.held), (None, 0, 0))
        self.server.send(frame(frames.DATA, 0, 1, b"more"))
        self.assertEqual(one.user.calls, [("data", b"more")])
        self.server.send(frames.rst_stream(3, 8))
        self.assertEqual(self.pairs[1][0].user.calls, [("lost", 8)])
        self.assertIsNone(self.pairs[1][1].peer)

    def test_what_was_held_before(self) -> None:
        """It goes first."""
        self.server.send(self.server.request(7))
        one = stream_of(self.server)
        one.pause()
        self.server.send(frame(frames.DATA, 0, 7, b"one"), frame(frames.DATA, 1, 7, b"two"))
        two = self.client.connection.open_stream(0, Recorder())
        two.send_headers(b"\x83")
        one.tie(two)
        found = self.client.read()
        self.assertEqual((data_of(found, two.id), found[-1][1] & 1), (b"onetwo", 1))
        self.assertEqual((one.user.calls, one.held), ([("end", None)], 0))

    def test_what_waits_before(self) -> None:
        """It counts as held: its side gets no credit before the other one has taken it, and no more than it sent."""
        self.server.send(self.server.request(7))
        one = stream_of(self.server)
        two = self.client.connection.open_stream(0, Recorder())
        two.send_headers(b"\x83")
        two.window = 0
        one.user.on_data = two.send_data
        self.server.send(frame(frames.DATA, 0, 7, bytes(16384)))
        one.tie(two)
        self.assertEqual((one.held, self.server.connection.held), (16384, 16384))
        self.client.send(frames.window_update(two.id, 16384))
        self.assertEqual((two.queued, one.held, self.server.connection.held), (0, 0, 0))

    def test_pings_beside_it(self) -> None:
        """Who measures the line while DATA passes to it has a reason, on either side."""
        two = self.pairs[0][1]
        self.client.send(self.client.answer(two.id))
        for sender, number, receiver in ((self.client, two.id, self.server), (self.server, 1, self.client)):
            for _ in range(2 * Limits().http2_idle_frames):
                sender.send(frame(frames.DATA, 0, number, b"\0\0\0\0\3abc"))
                self.assertIsNone(goaway_code(receiver.send(frames.ping(b"12345678", False))))
