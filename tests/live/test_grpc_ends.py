"""gRPC calls whose ends are played frame by frame: who ends what, when, and what the other side then sees."""

from __future__ import annotations

from tests.live.grpc_kit import METHOD, GRPCTestCase
from tests.live.http2_peer import (
    CANCEL,
    DATA,
    GOAWAY,
    HEADERS,
    REFUSED,
    RST,
    WINDOW_UPDATE,
    HTTP2Peer,
    HTTP2Server,
    grpc_fields,
    message,
)

OK = [("grpc-status", "0")]
HEAD = [(":status", "200"), ("content-type", "application/grpc")]
UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED, RESOURCE_EXHAUSTED = "14", "4", "1", "8"

WINDOW = 262_144
"""Default of http2_stream_window_size: bytes of one stream that the gateway may hold for a side that does not read."""
SMALLEST = 65_535
"""The window that a side gives that says nothing of it (RFC 9113 6.9.2)."""


class PlayedTestCase(GRPCTestCase):
    """The test is the client and the upstream."""

    def setUp(self) -> None:
        self.server = HTTP2Server()
        self.addCleanup(self.server.close)
        self.proxy = self.front(self.server.port)
        self.client = self.connect()
        self.up: HTTP2Peer | None = None

    def connect(self) -> HTTP2Peer:
        client = HTTP2Peer.connect(self.proxy.proxy_port)
        self.addCleanup(client.close)
        return client

    def call(self, *more: tuple[str, str], end: bool = False) -> tuple[int, HTTP2Peer, int]:
        """Begin a call; returns its stream, the upstream's connection and the stream there."""
        stream = self.client.open(grpc_fields(METHOD, *more), end=end)
        if self.up is None:
            self.up = self.server.accept()
        return stream, self.up, self.up.expect(HEADERS).stream

    def still_serves(self) -> None:
        """A further call on the same connections, from its beginning to its end."""
        stream, up, there = self.call()
        self.client.data(stream, message(b"ask"), end=True)
        while not up.expect(DATA, stream=there).ends:
            pass
        up.headers(there, HEAD)
        up.data(there, message(b"answer"))
        up.headers(there, OK, end=True)
        fields, body, trailers, code = self.client.answer(stream)
        self.assertEqual(
            (fields[":status"], body, trailers["grpc-status"], code), ("200", message(b"answer"), "0", None)
        )


class CallEndsTests(PlayedTestCase):
    """Who ends what, when."""

    # -- ends that are as they should be -----------------------------------------------------------------------------

    def test_half_close_first(self) -> None:
        """The client has said all; the upstream goes on for as long as it likes."""
        stream, up, there = self.call()
        self.client.data(stream, message(b"one"), end=True)
        while not up.expect(DATA).ends:
            pass
        up.headers(there, HEAD)
        for number in range(3):
            up.data(there, message(bytes([number])))
            self.assertEqual(self.client.expect(DATA, stream=stream).payload, message(bytes([number])))
        up.headers(there, [*OK, ("x-after", "all")], end=True)
        self.assertEqual(self.client.expect(HEADERS).fields, {"grpc-status": "0", "x-after": "all"})
        self.still_serves()

    def test_trailers_only(self) -> None:
        """An answer that is an end is passed on as one frame."""
        stream, up, there = self.call()
        up.headers(there, [*HEAD, ("grpc-status", "7"), ("grpc-message", "no%20way")], end=True)
        frame = self.client.expect(HEADERS, stream=stream)
        self.assertTrue(frame.ends)
        self.assertEqual((frame.fields["grpc-status"], frame.fields["grpc-message"]), ("7", "no%20way"))
        self.assertNotIn("content-length", frame.fields)

    def test_early_trailers(self) -> None:
        """The upstream has said all while the client still sends: the client is told, and need not go on (RFC 9113 8.1).
        What it sends all the same is dropped, and the connection's window opens again."""
        stream, up, there = self.call()
        self.client.data(stream, message(b"one"))
        up.expect(DATA)
        up.headers(there, HEAD)
        up.headers(there, [("grpc-status", "9")], end=True)
        fields = self.client.expect(HEADERS, stream=stream).fields
        if "grpc-status" not in fields:
            fields = self.client.expect(HEADERS, stream=stream).fields
        self.assertEqual(fields["grpc-status"], "9")
        self.assertEqual(self.client.expect(RST, stream=stream).code, 0)
        self.assertIn(up.expect(RST, stream=there).code, (0, CANCEL))
        self.client.data(stream, bytes(30_000))  # was on its way when the stream ended
        self.still_serves()

    # -- ends that come too soon -------------------------------------------------------------------------------------

    def test_client_cancels(self) -> None:
        """The upstream hears of it on that stream alone; the other calls on its connection go on."""
        kept, up, kept_there = self.call()
        stream, _, there = self.call()
        self.client.reset(stream)
        self.assertEqual(up.expect(RST, stream=there).code, CANCEL)
        up.headers(kept_there, HEAD)
        up.headers(kept_there, OK, end=True)
        self.assertEqual(self.client.status(kept)[0], "0")
        self.still_serves()

    def test_client_leaves(self) -> None:
        """All of its calls are cancelled."""
        _, up, first = self.call()
        _, _, second = self.call()
        self.client.close()
        ended = {frame.stream: frame.code for frame in (up.expect(RST), up.expect(RST))}
        self.assertEqual(ended, {first: CANCEL, second: CANCEL})
        self.client = self.connect()
        self.still_serves()

    def test_upstream_resets(self) -> None:
        """Before an answer: a status in its place. After its head: the status in trailers, or the same code."""
        for code, status in ((CANCEL, CANCELLED), (11, RESOURCE_EXHAUSTED), (2, "13")):
            stream, up, there = self.call()
            up.reset(there, code)
            self.assertEqual(self.client.status(stream)[0], status, code)
        stream, up, there = self.call()
        up.headers(there, HEAD)
        self.client.expect(HEADERS, stream=stream)
        up.reset(there, CANCEL)
        _, _, trailers, code_seen = self.client.answer(stream)
        self.assertTrue(code_seen == CANCEL or trailers.get("grpc-status") == CANCELLED, (trailers, code_seen))
        self.still_serves()

    def test_upstream_is_lost(self) -> None:
        """Every call on its connection is UNAVAILABLE, whether its answer had begun or not; the next one connects anew."""
        begun, up, begun_there = self.call()
        up.headers(begun_there, HEAD)
        self.client.expect(HEADERS, stream=begun)
        up.data(begun_there, message(b"some"))
        self.client.expect(DATA, stream=begun)
        waiting, _, _ = self.call()
        self.client.data(waiting, message(b"sent"))  # so that it cannot be asked again
        up.expect(DATA)
        up.close()
        self.up = None
        ended: dict[int, str | None] = {}
        while len(ended) < 2:
            frame = self.client.expect(HEADERS, RST)
            if frame.kind == RST and frame.code == 0 and frame.stream in ended:
                continue  # it need not send the rest
            ended[frame.stream] = frame.fields.get("grpc-status")
        self.assertEqual(ended, {begun: UNAVAILABLE, waiting: UNAVAILABLE})
        self.still_serves()

    def test_deadline(self) -> None:
        """The gateway ends a call whose time is over, and cancels it at the upstream, which was told how much was left."""
        stream = self.client.open(grpc_fields(METHOD, ("grpc-timeout", "400m")))
        self.up = self.server.accept()
        head = self.up.expect(HEADERS)
        self.assertRegex(head.fields["grpc-timeout"], r"^\d{1,8}[HMSmun]$")
        self.assertEqual(self.client.status(stream)[0], DEADLINE_EXCEEDED)
        self.assertEqual(self.up.expect(RST, stream=head.stream).code, CANCEL)
        self.still_serves()

    def test_deadline_after_the_head(self) -> None:
        """Where the answer has begun the status comes in trailers."""
        stream, up, there = self.call(("grpc-timeout", "1S"))
        up.headers(there, HEAD)
        self.assertEqual(self.client.expect(HEADERS, stream=stream).fields[":status"], "200")
        self.assertEqual(self.client.expect(HEADERS, stream=stream).fields["grpc-status"], DEADLINE_EXCEEDED)
        self.still_serves()

    # -- an upstream that goes away ----------------------------------------------------------------------------------

    def test_goaway(self) -> None:
        """Streams above the last one that the upstream has taken go to a new connection; the others end where they are."""
        taken, up, taken_there = self.call(end=True)
        left, _, _ = self.call(end=True)
        up.send(GOAWAY, 0, 0, taken_there.to_bytes(4) + bytes(4))
        self.up = self.server.accept()
        again = self.up.expect(HEADERS)
        self.assertEqual(again.fields[":path"], METHOD)
        self.up.headers(again.stream, HEAD)
        self.up.headers(again.stream, OK, end=True)
        self.assertEqual(self.client.status(left)[0], "0")
        up.headers(taken_there, HEAD)
        up.headers(taken_there, [("grpc-status", "3")], end=True)
        self.assertEqual(self.client.status(taken)[0], "3")
        self.still_serves()

    def test_refused(self) -> None:
        """A stream that the upstream refuses unseen is tried again (RFC 9113 8.7)."""
        stream, up, there = self.call(end=True)
        up.reset(there, REFUSED)
        again = up.expect(HEADERS)
        up.headers(again.stream, HEAD)
        up.headers(again.stream, OK, end=True)
        self.assertEqual(self.client.status(stream)[0], "0")


class WindowTests(PlayedTestCase):
    """Who does not read: the gateway holds a window for it and no more."""

    def test_client_does_not_read(self) -> None:
        """The upstream may send what the client's window and the gateway's hold; other calls on both connections go on; what was
        held comes when the client reads."""
        stream, up, there = self.call(end=True)
        up.headers(there, HEAD)
        held = up.fill(there, silence=2.0)
        self.assertLessEqual(held, SMALLEST + WINDOW)
        self.assertGreaterEqual(held, SMALLEST)
        # The client's connection window is used up as well: only heads pass, until it gives credit.
        other, _, other_there = self.call(end=True)
        up.headers(other_there, [*HEAD, *OK], end=True)
        self.assertEqual(self.client.expect(HEADERS, stream=other).fields["grpc-status"], "0")
        self.client.credit(stream, 1 << 24)
        while self.client.received.get(stream, 0) < held:
            self.client.expect(DATA, stream=stream)
        up.headers(there, OK, end=True)
        self.assertEqual(self.client.expect(HEADERS, stream=stream).fields["grpc-status"], "0")

    def test_upstream_does_not_read(self) -> None:
        """The same the other way."""
        stream, up, there = self.call()
        held = self.client.fill(stream, silence=2.0)
        self.assertLessEqual(held, SMALLEST + WINDOW)
        self.assertGreaterEqual(held, SMALLEST)
        other, _, other_there = self.call(end=True)
        up.headers(other_there, [*HEAD, *OK], end=True)
        self.assertEqual(self.client.status(other)[0], "0")
        up.credit(there, 1 << 24)
        while up.received.get(there, 0) < held:
            up.expect(DATA, stream=there)
        self.client.data(stream, b"", end=True)
        while not up.expect(DATA, stream=there).ends:
            pass

    def test_one_slow_call_beside_others(self) -> None:
        """A call that nobody reads does not stop another one on the same two connections."""
        slow, up, slow_there = self.call()
        self.client.send(WINDOW_UPDATE, 0, 0, (1 << 24).to_bytes(4))  # only the slow stream's own window shuts
        up.headers(slow_there, HEAD)
        up.fill(slow_there, silence=1.0)
        self.still_serves()
        self.client.reset(slow)
        self.assertEqual(up.expect(RST, stream=slow_there).code, CANCEL)
        self.still_serves()


class BadClientTests(PlayedTestCase):
    """Clients that do what they should not: a clear answer, and the connection survives where it may."""

    def test_other_content_type(self) -> None:
        """What is no gRPC gets what Kong says, and never reaches the upstream."""
        for fields in (
            [(":method", "POST"), ("content-type", "application/json")],
            [(":method", "GET")],
        ):
            pseudo = [(":scheme", "http"), (":path", METHOD), (":authority", "localhost")]
            stream = self.client.open([fields[0], *pseudo, *fields[1:]], end=True)
            answer, body, _, _ = self.client.answer(stream)
            self.assertEqual(answer[":status"], "415")
            self.assertIn(b"Non-gRPC request matched gRPC route", body)
        self.still_serves()

    def test_oversize_metadata(self) -> None:
        """More fields than may be: the call is refused, the compression state stays in step."""
        for size in (40_000, 60_000):
            fields = [(f"x-{number}", "v" * 1000) for number in range(size // 1000)]
            stream = self.client.open(grpc_fields(METHOD, *fields), end=True)
            answer, _, trailers, _ = self.client.answer(stream)
            self.assertTrue(
                answer[":status"] == "431" or trailers.get("grpc-status") == RESOURCE_EXHAUSTED, (answer, trailers)
            )
        self.still_serves()

    def test_stream_errors(self) -> None:
        """An error of one stream ends that one (RFC 9113 5.4.2): a window that grows by nothing, a field with capitals."""
        stream, up, there = self.call()
        self.client.send(WINDOW_UPDATE, 0, stream, bytes(4))
        self.assertEqual(self.client.expect(RST, stream=stream).code, 1)
        up.expect(RST, stream=there)
        self.client.open(grpc_fields(METHOD, ("X-Upper", "a")))
        self.assertEqual(self.client.expect(RST).code, 1)
        self.still_serves()

    def test_connection_errors(self) -> None:
        """An error of the connection ends it, with a GOAWAY that says which (RFC 9113 5.4.1); the next one is served."""
        for kind, stream, payload, code in (
            (DATA, 99, b"x", 1),  # an idle stream
            (WINDOW_UPDATE, 0, bytes(4), 1),
            (RST, 1, b"abc", 6),  # not four bytes
            (0x1, 101, b"\xff\xff\xff\xff", 9),  # no HPACK
        ):
            client = self.connect()
            client.send(kind, 4 if kind == 1 else 0, stream, payload)
            self.assertEqual(client.expect(GOAWAY).code, code, (kind, stream))
            self.assertTrue(client.closed())
        self.still_serves()
