"""Calls relayed directly: whatever happens to them, they end as those that went the general way, and nothing is left of them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, cast

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.grpc.grpc_messages import framed
from kongtwist.core.http.real_ip import RealIP
from kongtwist.core.http2 import frames
from kongtwist.core.limits import Limits
from kongtwist.core.names import Address
from kongtwist.http2.http2_exchange import HTTP2Exchange
from kongtwist.net.http2_stream import HTTP2Stream
from kongtwist.net.resolver import NameNotResolved
from kongtwist.proxy.direct_calls import DirectCall
from kongtwist.proxy.http2_forwarding import HTTP2UpstreamExchange
from kongtwist.proxy.tree import TellingTree

from ..http2.http2_door import HTTP2Client
from ..net.http2_kit import frame
from .http2_relay_kit import OK, HTTP2Server, grpc_gateway, kept, new
from .relay_kit import plugin_row

MESSAGE = framed(b"abc")
DONE = ("grpc-status", "0")
METADATA = {"content_type": "application/grpc", "te": "trailers"}


class Both:
    """A client, the gateway, and an upstream; the first call has gone the general way.

    Attributes:
        number, at: streams of the call that is played, the client's and the upstream's.
    """

    def __init__(self, limits: Limits | None = None, service: dict[str, Any] | None = None, **more: Any) -> None:
        self.metadata = more.pop("metadata", METADATA)
        self.gateway = gateway = more.pop("gateway", None) or grpc_gateway(limits, service, **more)
        gateway.automatic = False
        self.client = HTTP2Client(gateway)
        self.number = self.at = 1
        self.client.send(self.client.head("POST", "/a.B/C", False, **self.metadata), self.piece(MESSAGE, True))
        self.server = HTTP2Server(gateway)
        self.received = self.server.received

    def piece(self, data: bytes, end: bool = False) -> bytes:
        """DATA of the client."""
        return frame(frames.DATA, int(end), self.number, data)

    def answer(self) -> None:
        """Answer the call as most are."""
        at, server = self.at, self.server
        self.serve(server.head(at, *OK), server.data(at, MESSAGE), server.head(at, DONE, end=True))

    def begin(self, *pieces: bytes, **fields: str) -> None:
        """Begin another call, with these pieces of its body."""
        self.server.received  # noqa: B018 - what was before does not matter
        self.number, self.at = self.client._next, self.at + 2
        head = self.client.head("POST", "/a.B/C", False, **self.metadata, **fields)
        self.client.send(head, *(self.piece(piece) for piece in pieces))
        self.received = self.server.received

    def serve(self, *data: bytes) -> None:
        """The upstream sends."""
        self.server.send(*data)
        self.client.read()

    def wait(self, seconds: float) -> None:
        """Time passes."""
        for _ in range(round(seconds * 4)):
            self.gateway.reactor.advance(0.25)
        self.client.read()

    @property
    def direct(self) -> list[DirectCall]:
        """Calls that are relayed directly at the moment."""
        found: list[DirectCall] = []
        for resource in self.gateway.tree._http.values():
            if resource.direct is not None:
                found += resource.direct.calls
        return found

    def told(self) -> Any:
        """What the client was told, but for what is different each time."""
        answered = self.client.streams.get(self.number)
        if answered is None:
            return None
        different = ("x-kong-request-id", "date", "x-kong-upstream-latency", "x-kong-proxy-latency")
        heads = [{name: value for name, value in head.items() if name not in different} for head in answered.heads]
        return heads, answered.body, answered.ended, answered.code


Play = Callable[[Both], None]


def whole(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    both.answer()


def piece_by_piece(both: Both) -> None:
    both.client.send(both.piece(MESSAGE[:2]))
    both.client.send(both.piece(MESSAGE[2:]))
    both.serve(both.server.head(both.at, *OK))
    both.client.send(both.piece(MESSAGE))
    both.serve(both.server.data(both.at, MESSAGE))
    both.serve(both.server.data(both.at, MESSAGE[:3]))
    both.client.send(both.piece(b"", True))
    both.serve(both.server.data(both.at, MESSAGE[3:]))
    both.serve(both.server.head(both.at, ("grpc-status", "5"), ("grpc-message", "no"), ("x-bin", "AA"), end=True))


def like_a_message(both: Both) -> None:
    """The middle of a message looks like one: what is counted is not led astray."""
    message = framed(bytes(8))
    pieces = message[:4], message[4:9], message[9:]
    both.client.send(*(both.piece(piece) for piece in pieces), both.piece(message, True))
    both.serve(both.server.head(both.at, *OK), *(both.server.data(both.at, piece) for piece in pieces))
    both.serve(both.server.head(both.at, DONE, end=True))


def too_long(both: Both) -> None:
    both.client.send(both.piece(MESSAGE), both.piece(MESSAGE))


def too_long_behind_the_head(both: Both) -> None:
    both.serve(both.server.head(both.at, *OK), both.server.data(both.at, MESSAGE))
    both.client.send(both.piece(2 * MESSAGE, True))


def too_short(both: Both) -> None:
    both.client.send(both.piece(MESSAGE[:7], True))


def too_short_with_trailers(both: Both) -> None:
    both.client.send(both.piece(MESSAGE[:7]), frames.headers(both.number, b"\x00\x01a\x01b", True))


def trailers_of_the_client(both: Both) -> None:
    both.client.send(both.piece(MESSAGE), frames.headers(both.number, b"\x00\x01a\x01b", True))
    both.answer()


def trailers_only(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    both.serve(both.server.head(both.at, *OK, ("grpc-status", "12"), end=True))


def early_trailers(both: Both) -> None:
    both.serve(both.server.head(both.at, *OK), both.server.head(both.at, ("grpc-status", "7"), end=True))


def early_trailers_only(both: Both) -> None:
    both.serve(both.server.head(both.at, *OK, ("grpc-status", "7"), end=True))


def no_trailers(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    both.serve(both.server.head(both.at, *OK), both.server.data(both.at, MESSAGE, True))


def another_status(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    head = both.server.head(both.at, (":status", "503"), ("content-length", "2"))
    both.serve(head, both.server.data(both.at, b"no", True))


def interim(both: Both) -> None:
    both.serve(both.server.head(both.at, (":status", "103"), ("link", "x")))
    whole(both)


def malformed(both: Both) -> None:
    both.serve(both.server.head(both.at, (":status", "200"), ("connection", "close")))


def reset(both: Both) -> None:
    both.serve(frames.rst_stream(both.at, frames.ENHANCE_YOUR_CALM))


def reset_behind_the_head(both: Both) -> None:
    both.serve(both.server.head(both.at, *OK), both.server.data(both.at, MESSAGE))
    both.serve(frames.rst_stream(both.at, frames.INTERNAL_ERROR))


def refused(both: Both) -> None:
    both.client.send(both.piece(MESSAGE))
    both.serve(frames.rst_stream(both.at, frames.REFUSED_STREAM))
    both.received += both.server.received
    both.client.send(both.piece(MESSAGE, True))
    both.at += 2
    both.answer()


def refused_again(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    for _ in range(4):
        both.serve(frames.rst_stream(both.at, frames.REFUSED_STREAM))
        both.at += 2


def refused_with_a_long_body(both: Both) -> None:
    both.client.send(both.piece(b"\0\0\1\0\0" + bytes(9000)))
    both.serve(frames.rst_stream(both.at, frames.REFUSED_STREAM))


def lost(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    both.server.wire.lose()


def lost_behind_the_head(both: Both) -> None:
    both.serve(both.server.head(both.at, *OK))
    both.server.wire.lose()


def left(both: Both) -> None:
    both.client.send(frames.rst_stream(both.number, frames.CANCEL))


def left_behind_the_head(both: Both) -> None:
    both.serve(both.server.head(both.at, *OK), both.server.data(both.at, MESSAGE))
    both.client.send(frames.rst_stream(both.number, frames.CANCEL))


def gone(both: Both) -> None:
    both.client.wire.lose()


def silent(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    both.wait(8)


def silent_behind_the_head(both: Both) -> None:
    both.serve(both.server.head(both.at, *OK))
    both.wait(8)


def no_body(both: Both) -> None:
    both.wait(8)


def small_windows(both: Both) -> None:
    """The upstream takes less than is sent."""
    both.client.send(both.piece(b"\0\0\1\0\0" + bytes(16000), False))
    for _ in range(4):
        both.client.send(both.piece(bytes(16384)))
    both.serve(both.server.head(both.at, *OK))
    both.serve(frames.window_update(both.at, 100_000), frames.window_update(0, 100_000))
    both.received += both.server.received
    both.client.send(both.piece(b"", True))
    both.serve(both.server.data(both.at, MESSAGE), both.server.head(both.at, DONE, end=True))


def reset_while_held(both: Both) -> None:
    """The upstream ends a call of which something still waits for it."""
    both.client.send(both.piece(framed(bytes(100_000))[:16384]))
    for _ in range(4):
        both.client.send(both.piece(bytes(16384)))
    both.serve(frames.rst_stream(both.at, frames.INTERNAL_ERROR))


def by_stream(received: list[Any]) -> dict[int, tuple[dict[str, str], bytes, bool, int | None]]:
    """What came on each stream: fields of the head but for the request's id, body, whether it has ended, code of a reset."""
    found: dict[int, tuple[dict[str, str], bytes, bool, int | None]] = {}
    for kind, stream, what in received:
        head, body, ended, code = found.get(stream, ({}, b"", False, None))
        if kind.startswith("HEADERS"):
            head = {name: value for name, value in what.items() if name != "x-kong-request-id"}
        elif kind.startswith("DATA"):
            body += what
        elif kind == "RST":
            code = what
        found[stream] = head, body, ended or kind.endswith("/"), code
    return found


def large_head(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    both.serve(both.server.head(both.at, *OK, ("x-large", "a" * 40000)))


def larger_head(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    both.serve(both.server.head(both.at, *OK, ("x-large", "a" * 70_000)))


def large_trailers(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    large = ("x-large", "a" * 40_000)
    both.serve(both.server.head(both.at, *OK), both.server.head(both.at, DONE, ("x-kept", "b"), large, end=True))


class EndsTests(SynchronousTestCase):
    """Each is played twice: with a call that goes the general way, and with one that is relayed directly."""

    def both(self, limits: Limits | None = None) -> Both:
        """What a play begins with."""
        return Both(limits or Limits(), {"read_timeout": 5000, "write_timeout": 5000})

    def answered(self, told: Any) -> tuple[bytes, dict[str, str]]:
        """The messages that a client was sent, and how the call ended."""
        return told[1], told[0][-1]

    def play(self, play: Play, *, limits: Limits | None = None, **fields: str) -> Any:
        """What came of it: for the client, the upstream, the log and the counters."""
        found = []
        for direct in (False, True):
            both = self.both(limits)
            if direct:
                both.answer()
            else:
                both.client.send(frames.rst_stream(1, frames.CANCEL))
                both.client.channel._direct = False
            log, counts = len(both.gateway.log.lines), both.gateway.context.calls.of(b"/a.B/C")
            before = counts.messages_in, counts.bytes_in, counts.messages_out, counts.bytes_out
            counts.codes.clear()
            both.begin(**fields)
            self.assertEqual(len(both.direct), int(direct), "the way it goes")
            play(both)
            both.wait(0.5)
            after = counts.messages_in, counts.bytes_in, counts.messages_out, counts.bytes_out
            received = by_stream(both.received + both.server.received)
            added = tuple(new - old for new, old in zip(after, before, strict=True))
            found.append((both.told(), received, both.gateway.log.lines[log:], counts.codes, added, counts.open))
            channel, connection = both.client.channel, both.server.connection
            for each in (channel, connection):
                self.assertEqual((each.streams, each.hot, each.waiting, each.held), ({}, 0, {}, 0), play.__name__)
            self.assertEqual(both.direct, [])
        self.assertEqual(found[1], found[0], play.__name__)
        return found[1]

    def test_answered(self) -> None:
        told, received, log, codes, counted, _ = self.play(whole, x_a="b")
        body, end = self.answered(told)
        self.assertEqual((body, told[2], end["grpc-status"]), (MESSAGE, True, "0"))
        self.assertEqual(received[3][0]["x-a"], "b")
        self.assertEqual((log, codes, counted), ([(200, "/a.B/C")], {0: 1}, (1, 8, 1, 8)))
        for play in (piece_by_piece, trailers_of_the_client, no_trailers, early_trailers, small_windows):
            self.play(play)

    def test_answers_of_other_kinds(self) -> None:
        for play in (trailers_only, early_trailers_only, another_status, interim, malformed):
            self.play(play)

    def test_upstreams_that_fail(self) -> None:
        for play in (reset, reset_behind_the_head, lost, lost_behind_the_head, reset_while_held):
            self.play(play)

    def test_heads_and_trailers_that_are_too_large(self) -> None:
        """They end their own call, and nothing else; the table of HPACK stays in step."""
        limits = Limits(http2_max_block_size=20000, proxy_buffer_size=25000)
        for play in (large_head, larger_head):
            told, _, _, codes, _, _ = self.play(play, limits=limits)
            self.assertEqual((self.answered(told)[1]["grpc-status"], codes), ("14", {14: 1}))
        events: list[Any] = []
        observer = cast(Any, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        told, _, _, codes, _, _ = self.play(large_trailers, limits=limits)
        self.assertEqual(len([each for each in events if "trailers that are too large" in each.get("line", "")]), 2)
        self.assertEqual((told[2:], codes), ((False, frames.ENHANCE_YOUR_CALM), {8: 1}))
        both = self.both(limits)
        both.answer()
        both.begin()
        other = both.number, both.at
        both.begin()
        large_trailers(both)
        both.begin()
        larger_head(both)
        both.number, both.at = other
        both.client.send(both.piece(MESSAGE, True))
        both.serve(both.server.head(both.at, *OK), both.server.head(both.at, DONE, ("x-kept", "b"), end=True))
        end = self.answered(both.told())[1]
        self.assertEqual((end["grpc-status"], end["x-kept"]), ("0", "b"))
        self.assertFalse(both.server.connection.failed)

    def test_not_processed(self) -> None:
        told, received, *_ = self.play(refused)
        self.assertEqual(self.answered(told)[1]["grpc-status"], "0")
        self.assertEqual([each[1:] for each in received.values()], [(MESSAGE, False, None), (2 * MESSAGE, True, None)])
        self.play(refused_again)
        told, *_ = self.play(refused_with_a_long_body)
        self.assertEqual(self.answered(told)[1]["grpc-status"], "14")

    def test_clients_that_leave(self) -> None:
        for play in (left, left_behind_the_head, gone):
            *_, codes, _, _ = self.play(play)
            self.assertEqual(codes, {1: 1})

    def test_silence(self) -> None:
        for play in (silent, silent_behind_the_head):
            *_, codes, _, _ = self.play(play)
            self.assertEqual(codes, {4: 1})
        told, *_ = self.play(no_body, limits=Limits(client_body_timeout=2))
        self.assertEqual(self.answered(told)[1]["grpc-message"].replace("%20", " "), "Request timeout")

    def test_counted(self) -> None:
        told, _, _, _, counted, _ = self.play(like_a_message)
        self.assertEqual((self.answered(told)[1]["grpc-status"], counted), ("0", (2, 26, 1, 13)))

    def test_announced_lengths(self) -> None:
        """What does not add up ends the call, and is not passed on as if it was whole."""
        for play in (whole, trailers_of_the_client, refused, early_trailers, left, silent):
            _, received, *_ = self.play(play, content_length="16" if play is refused else "8")
            self.assertEqual(received[3][0]["content-length"], "16" if play is refused else "8")
        for play in (too_long, too_long_behind_the_head, too_short, too_short_with_trailers):
            told, received, *_ = self.play(play, content_length="8")
            self.assertEqual(told[2:], (False, frames.PROTOCOL_ERROR), play.__name__)
            self.assertEqual(received[3][2:], (False, frames.CANCEL), play.__name__)

    def test_deadlines(self) -> None:
        for play in (silent, silent_behind_the_head, whole):
            *_, codes, _, _ = self.play(play, grpc_timeout="1500m")
            self.assertEqual(codes, {0 if play is whole else 4: 1})


class PlanTests(SynchronousTestCase):
    """Which calls are relayed directly."""

    def relayed(self, both: Both, **fields: str) -> bool:
        """Whether a call with these fields is."""
        both.begin(**fields)
        direct = bool(both.direct)
        both.client.send(frames.rst_stream(both.number, frames.CANCEL))
        return direct

    def test_what_differs(self) -> None:
        """Fields that nobody looks at may differ, and come as they are; with those that are looked at, the first call is asked about."""
        both = Both()
        both.answer()
        for value in ("a", "b", "c"):
            both.begin(x_id=value, authorization=f"Bearer {value}", grpc_timeout="10S")
            self.assertEqual(len(both.direct), 1)
            fields = both.received[0][2]
            self.assertEqual((fields["x-id"], fields["authorization"]), (value, f"Bearer {value}"))
            self.assertEqual((fields["grpc-timeout"], fields["content-type"]), ("10S", "application/grpc"))
            self.assertEqual((fields["te"], fields["x-forwarded-for"]), ("trailers", "127.0.0.1"))
            both.client.send(both.piece(MESSAGE, True))
            both.answer()
        for fields in ({"x_forwarded_for": "10.0.0.1"}, {"cookie": "a=b"}, {"via": "1.1 x"}):
            self.assertEqual([self.relayed(both, **fields) for _ in range(2)], [False, "cookie" not in fields])

    def test_lengths(self) -> None:
        """Those that are announced differ from call to call. The general way has a look at malformed ones, and at calls without a body."""
        both = Both()
        both.answer()
        for size in (1, 2, 1, 3):
            both.begin(content_length=str(size * len(MESSAGE)))
            self.assertEqual(len(both.direct), 1)
            self.assertEqual(both.received[0][2]["content-length"], str(size * len(MESSAGE)))
            both.client.send(both.piece(size * MESSAGE, True))
            both.answer()
            self.assertEqual(both.told()[0][-1], {"grpc-status": "0"})
        for length in ("0", "a", "-1"):
            self.assertFalse(self.relayed(both, content_length=length), length)

    def test_equal_fields(self) -> None:
        """A call that came with the same block needs no other reason."""
        both = Both()
        both.answer()
        self.assertEqual([self.relayed(both, cookie="a=b") for _ in range(3)], [False, False, True])

    def test_calls_without_time(self) -> None:
        """They are answered here."""
        both = Both()
        both.answer()
        for _ in range(2):
            both.begin(grpc_timeout="0n")
            self.assertEqual((both.direct, both.received), ([], []))
            self.assertEqual(both.told()[0][0]["grpc-status"], "4")

    def test_malformed_values(self) -> None:
        """What a proxy may not pass on is refused, as ever."""
        both = Both()
        both.answer()
        both.begin(x_id="a\x01b")
        self.assertEqual((both.direct, both.received), ([], []))

    def test_another_configuration(self) -> None:
        both = Both()
        both.answer()
        self.assertTrue(self.relayed(both))
        both.gateway.services = {"s": {"host": "127.0.0.1", "port": 50099, "protocol": "grpc"}}
        both.gateway.publish()
        self.assertFalse(self.relayed(both))
        both.gateway.routes = {"r": {"service": "s", "paths": ["/other"], "protocols": ["grpc"]}}
        both.gateway.publish()
        both.begin()
        self.assertEqual(both.told()[0][0]["grpc-message"], "no Route matched with those values")

    def test_no_connection(self) -> None:
        """Where there is none with room, calls wait as others do."""
        both = Both()
        both.answer()
        both.server.send(frames.settings([(3, 1)]))
        both.begin()
        self.assertEqual(len(both.direct), 1)
        both.begin()
        self.assertEqual((len(both.direct), both.gateway.connects()), (1, 1))

    def test_names(self) -> None:
        """A service with a name: its address as it is known at the moment."""
        gateway = grpc_gateway(service={"host": "localhost"})
        answers: list[str | Exception | None] = ["127.0.0.1"]

        def place(name: str, again: bool = False) -> Address | None:
            answer = answers[-1]
            if isinstance(answer, Exception):
                raise answer
            return None if answer is None else Address(answer, None, None, name)

        self.patch(gateway.context.resolver, "place", place)
        both = Both(gateway=gateway)
        both.answer()
        self.assertTrue(self.relayed(both))
        answers.append("127.0.0.2")
        self.assertFalse(self.relayed(both))
        self.assertEqual(gateway.reactor.tcpClients[-1][0], "127.0.0.2")
        for unknown in (None, NameNotResolved("localhost")):
            answers.append(unknown)
            self.assertFalse(self.relayed(both))
        answers.append("127.0.0.1")
        self.assertTrue(self.relayed(both))

    def test_heads_the_upstream_takes_not(self) -> None:
        both = Both()
        both.answer()
        both.server.send(frames.settings([(6, 200)]))
        both.begin()
        self.assertEqual((both.direct, both.told()[0][0][":status"]), ([], "431"))

    def test_who_is_looked_at(self) -> None:
        """Plugins, limits and trusted peers have their say with each call."""
        for both in (
            Both(plugins={"p": Watching()}, plugin_rows=[plugin_row("p")]),
            Both(Limits(client_max_body_size=1000)),
        ):
            both.client.send(frames.rst_stream(1, frames.CANCEL))
            self.assertEqual([self.relayed(both) for _ in range(3)], [False] * 3)
        both = Both(real_ip=RealIP(["0.0.0.0/0"], "x-real-ip"))
        self.assertEqual([self.relayed(both, x_a=value) for value in "aabb"], [False, False, False, False])

    def test_debugging(self) -> None:
        """The answer to Kong-Debug tells the route."""
        both = Both(tree=TellingTree)
        both.answer()
        both.begin(kong_debug="1")
        both.client.send(both.piece(MESSAGE, True))
        both.answer()
        self.assertEqual(both.told()[0][0]["kong-route-id"], "r")

    def test_the_last_request(self) -> None:
        """A connection ends behind so many of them, whichever way they go."""
        both = Both(Limits(keepalive_requests=3))
        both.answer()
        self.assertEqual(both.client.goaways(), [])
        for _ in range(2):
            both.begin()
        self.assertEqual(both.client.goaways()[:1], [(frames.LARGEST_WINDOW, 0)])

    def test_nothing_is_left(self) -> None:
        """Nothing waits for the garbage collector."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        kinds = (DirectCall, HTTP2Exchange, HTTP2UpstreamExchange, HTTP2Stream)
        others = kept(kinds)
        both = Both()
        both.answer()
        for play in (whole, trailers_only, left, reset, piece_by_piece):
            both.begin()
            play(both)
        both.wait(1)
        self.assertEqual(new(kinds, others), [])


class Watching(Plugin):
    """A plugin that looks at requests."""

    name, priority, version = "p", 10, "1"

    def access(self, exchange: Any, conf: Any) -> None:
        """Nothing is wrong with them."""
