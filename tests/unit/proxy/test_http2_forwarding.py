"""Calls to upstreams that speak HTTP/2: what passes, and what becomes of calls that fail."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.phases import BodyFilter
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Exchange
from kongtwist.core.grpc.grpc_messages import framed
from kongtwist.core.http2 import frames
from kongtwist.observability.plugin_metrics import Metrics

from ..http2.http2_door import HTTP2Client
from ..net.http2_kit import frame
from .http2_relay_kit import OK, Call, HTTP2Server, grpc_gateway
from .relay_kit import Gateway, plugin_row

DONE = (("grpc-status", "0"), ("grpc-message", ""))
AWAY = "An invalid response was received from the upstream server"


def begun(gateway: Gateway | None = None) -> tuple[Gateway, Call, HTTP2Server]:
    """A call whose head the upstream has, and nothing else."""
    gateway = gateway or grpc_gateway()
    call = Call(gateway)
    server = HTTP2Server(gateway)
    _ = server.received
    return gateway, call, server


class PassingTests(SynchronousTestCase):
    def test_a_call(self) -> None:
        """Head, body and trailers, as they come."""
        gateway = grpc_gateway()
        call = Call(gateway, b"/a.B/C", (b"x-key-bin", b"AAH/"), (b"X-Forwarded-For", b"9.9.9.9"))
        server = HTTP2Server(gateway)
        ((kind, stream, fields),) = server.received
        self.assertEqual((kind, stream), ("HEADERS", 1))
        self.assertEqual(
            {name: fields[name] for name in (":method", ":scheme", ":path", ":authority", "te", "content-type", "x-key-bin")},
            {
                ":method": "POST", ":scheme": "http", ":path": "/a.B/C", ":authority": "127.0.0.1:50051", "te": "trailers",
                "content-type": "application/grpc", "x-key-bin": "AAH/",
            },
        )  # fmt: skip
        self.assertEqual(fields["x-forwarded-for"], "9.9.9.9, 127.0.0.1")
        self.assertTrue({"connection", "host", "transfer-encoding", "content-length"}.isdisjoint(fields))
        call.send(b"one")
        call.send(b"two", end=True)
        self.assertEqual(server.received, [("DATA", 1, b"one"), ("DATA", 1, b"two"), ("DATA/", 1, b"")])
        server.send(server.head(1, *OK, ("x-a", "1")), server.data(1, b"answer"), server.head(1, *DONE, end=True))
        head, data, end = call.events
        self.assertEqual((head[1], head[2][b"x-a"], head[2][b"via"]), (200, b"1", b"2 kong/3.9.3"))
        self.assertEqual((data, end), (("data", b"answer"), ("end", [(b"grpc-status", b"0"), (b"grpc-message", b"")])))
        self.assertEqual(gateway.log.lines, [(200, "/a.B/C")])
        self.assertEqual(server.received, [])

    def test_trailers_only(self) -> None:
        _, call, server = begun()
        call.send(b"", end=True)
        server.send(server.head(1, *OK, ("grpc-status", "5"), end=True))
        self.assertEqual(call.told, [("head", 200, b"5"), ("end", None)])

    def test_answers_while_the_client_sends(self) -> None:
        """Early trailers pass, and the upstream is told that the rest is of no use."""
        for head in (True, False):
            _, call, server = begun()
            call.send(b"a")
            if head:
                server.send(server.head(1, *OK))
            server.send(server.head(1, *(() if head else OK), ("grpc-status", "8"), end=True))
            self.assertEqual(call.events[-1], ("end", [(b"grpc-status", b"8")] if head else None))
            self.assertEqual(server.received, [("DATA", 1, b"a"), ("RST", 1, frames.NO_ERROR)])

    def test_the_upstream_ends_first(self) -> None:
        """Half-close of the client behind the answer's head, and messages both ways before."""
        _, call, server = begun()
        server.send(server.head(1, *OK), server.data(1, b"1"))
        call.send(b"a")
        server.send(server.data(1, b"2"))
        call.end()
        server.send(server.head(1, *DONE, end=True))
        self.assertEqual([each[0] for each in call.events], ["head", "data", "data", "end"])
        self.assertEqual(server.received, [("DATA", 1, b"a"), ("DATA/", 1, b"")])

    def test_one_connection_for_all(self) -> None:
        gateway, call, server = begun()
        others = [Call(gateway) for _ in range(5)]
        self.assertEqual(gateway.connects(), 0)
        self.assertEqual([stream for _, stream, _ in server.received], [3, 5, 7, 9, 11])
        server.send(server.head(7, *OK, ("grpc-status", "0"), end=True))
        self.assertEqual([bool(each.events) for each in (call, *others)], [False, False, False, True, False, False])

    def test_equal_requests(self) -> None:
        """Heads made before are used again: for equal requests of other paths and clients they are made anew."""
        gateway, _, server = begun()
        gateway.context.next_id = iter([]).__next__
        seen = []
        for path, ip in (
            (b"/a.B/C", "127.0.0.1"),
            (b"/a.B/C", "127.0.0.1"),
            (b"/a.B/D?x", "127.0.0.1"),
            (b"/a.B/C", "10.0.0.1"),
        ):
            call = Call(gateway, path, ip=ip)
            ((_, _, fields),) = server.received
            seen.append(
                (fields[":path"], fields["x-forwarded-for"], fields["x-kong-request-id"] == call.request_id.decode())
            )
        self.assertEqual(
            seen,
            [("/a.B/C", "127.0.0.1", True)] * 2 + [("/a.B/D?x", "127.0.0.1", True), ("/a.B/C", "10.0.0.1", True)],
        )

    def test_interim_heads(self) -> None:
        _, call, server = begun()
        server.send(server.head(1, (":status", "103")), server.head(1, *OK, ("grpc-status", "0"), end=True))
        self.assertEqual(call.told, [("head", 200, b"0"), ("end", None)])

    def test_a_client_that_leaves(self) -> None:
        gateway, call, server = begun()
        other = Call(gateway)
        _ = server.received
        call.leave()
        self.assertEqual(server.received, [("RST", 1, frames.CANCEL)])
        server.send(server.head(1, *OK), server.data(1, b"late"), server.head(3, *OK, ("grpc-status", "0"), end=True))
        self.assertEqual(other.told, [("head", 200, b"0"), ("end", None)])

    def test_no_more_is_taken_than_the_upstream_takes(self) -> None:
        gateway = grpc_gateway()
        call = Call(gateway)
        server = HTTP2Server(gateway, [(4, 10)])
        _ = server.received
        call.send(b"x" * 25)
        self.assertTrue(call.held_back)
        self.assertEqual(server.received, [("DATA", 1, b"x" * 10)])
        server.send(frames.window_update(1, 100))
        self.assertFalse(call.held_back)
        self.assertEqual(server.received, [("DATA", 1, b"x" * 15)])

    def test_an_end_that_waits(self) -> None:
        """Behind a body that the upstream takes slowly comes one end, whoever has given it; whether the answer had begun or not."""
        for number, early in ((1, True), (1, False), (3, True)):  # the second call goes directly
            gateway = grpc_gateway()
            gateway.automatic = False
            client = HTTP2Client(gateway)
            for stream in range(1, number + 1, 2):
                fields = {"content_type": "application/grpc", "te": "trailers"}
                client.send(client.head("POST", "/a.B/C", False, **fields))
                if stream == 1:
                    server = HTTP2Server(gateway)
                if early:
                    server.send(server.head(stream, *OK))
                pieces = [b"x" * 16384] * 5
                client.send(*(frame(frames.DATA, 0, stream, piece) for piece in pieces))
                client.send(frame(frames.DATA, 1, stream, b""))
                got = server.received
                server.send(frames.window_update(0, 65535), frames.window_update(stream, 65535))
                got += server.received
                data = [(kind, content) for kind, _, content in got if kind.startswith("DATA")]
                self.assertEqual(b"".join(content for _, content in data), b"".join(pieces))
                self.assertEqual([kind for kind, _ in data].index("DATA/"), len(data) - 1, (number, early))
                if not early:
                    server.send(server.head(stream, *OK))
                server.send(server.data(stream, b"ok"), server.head(stream, *DONE, end=True))
                client.read()
                answered = client.streams[stream]
                self.assertEqual((answered.body, answered.ended, answered.code), (b"ok", True, None))
                self.assertEqual(server.received, [])

    def test_requests_that_are_no_calls(self) -> None:
        """Answers of other content, with a length; a client of HTTP/1.1."""
        gateway = grpc_gateway()
        gateway.routes = {"r": {"service": "s", "paths": ["/"], "strip_path": False}}
        gateway.publish()
        gateway.automatic = False
        client = gateway.client()
        client.send(
            b"POST /x?y=1 HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        server = HTTP2Server(gateway)
        (_, _, fields), *rest = server.received
        self.assertEqual((fields[":path"], rest), ("/x?y=1", [("DATA", 1, b"abc"), ("DATA/", 1, b"")]))
        server.send(server.head(1, (":status", "404"), ("content-length", "2")), server.data(1, b"no", end=True))
        self.assertTrue(client.received.startswith(b"HTTP/1.1 404 Not Found\r\n"))
        self.assertTrue(client.received.endswith(b"\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nno"))


class FailureTests(SynchronousTestCase):
    def test_nobody_listens(self) -> None:
        gateway = grpc_gateway(service={"retries": 1})
        call = Call(gateway)
        gateway.fail()
        self.assertEqual((call.events, gateway.connects()), ([], 1))
        gateway.fail()
        self.assertEqual(call.told, [("head", 502, b"14"), ("end", None)])

    def test_no_connection_in_time(self) -> None:
        gateway = grpc_gateway(service={"connect_timeout": 500})
        call = Call(gateway)
        gateway.reactor.advance(0.6)
        self.assertEqual(call.told, [("head", 504, b"4"), ("end", None)])

    def test_resets_before_the_head(self) -> None:
        for code, status in ((1, b"13"), (2, b"13"), (8, b"1"), (11, b"8"), (12, b"7")):
            _, call, server = begun()
            server.send(frames.rst_stream(1, code))
            self.assertEqual(call.told, [("head", 502, status), ("end", None)])

    def test_resets_behind_the_head(self) -> None:
        """The code is passed on."""
        _, call, server = begun()
        server.send(server.head(1, *OK), frames.rst_stream(1, 11))
        self.assertEqual(call.told, [("head", 200, None), ("reset", 11)])

    def test_refused_streams_are_sent_again(self) -> None:
        _, call, server = begun()
        call.send(b"a", end=True)
        _ = server.received
        for number in (1, 3, 5):
            server.send(frames.rst_stream(number, frames.REFUSED_STREAM))
            self.assertEqual([each[:2] for each in server.received], [("HEADERS", number + 2), ("DATA/", number + 2)])
        server.send(frames.rst_stream(7, frames.REFUSED_STREAM))
        self.assertEqual(call.told, [("head", 502, b"14"), ("end", None)])

    def test_goaway(self) -> None:
        """What was not processed goes to another connection, the rest goes on."""
        gateway, call, server = begun()
        other = Call(gateway)
        other.send(b"b")
        server.send(frames.goaway(1, 0))
        second = HTTP2Server(gateway)
        self.assertEqual([each[:2] for each in second.received], [("HEADERS", 1), ("DATA", 1)])
        server.send(server.head(1, *OK, ("grpc-status", "0"), end=True))
        second.send(second.head(1, *OK, ("grpc-status", "0"), end=True))
        self.assertEqual((call.told, other.told), ([("head", 200, b"0"), ("end", None)],) * 2)
        self.assertEqual((server.wire.write_closed, second.wire.write_closed), (True, False))

    def test_a_body_that_is_too_long_to_be_sent_again(self) -> None:
        gateway, call, server = begun()
        call.send(b"x" * 10000)
        server.send(frames.goaway(0, 0))
        self.assertEqual(call.told, [("head", 502, b"14"), ("end", None)])
        self.assertEqual(gateway.connects(), 0)

    def test_the_upstream_dies(self) -> None:
        """Every call ends at once, with or without a head."""
        gateway, call, server = begun()
        other = Call(gateway)
        server.send(server.head(1, *OK), server.data(1, b"1"))
        server.wire.lose(clean=False)
        self.assertEqual(call.told[0:2], [("head", 200, None), ("data", b"1")])
        kind, trailers = call.told[2]
        self.assertEqual((kind, trailers[0]), ("end", (b"grpc-status", b"14")))
        self.assertEqual(other.told, [("head", 502, b"14"), ("end", None)])

    def test_answers_that_are_no_calls_are_cut(self) -> None:
        gateway = grpc_gateway()
        gateway.routes = {"r": {"service": "s", "paths": ["/"], "strip_path": False}}
        gateway.publish()
        call = Call(gateway, grpc=False)
        server = HTTP2Server(gateway)
        server.send(server.head(1, (":status", "200")))
        server.wire.lose()
        self.assertEqual(call.told, [("head", 200, None), ("cut",)])

    def test_malformed_answers(self) -> None:
        for fields in (
            (("content-type", "application/grpc"),),
            ((":status", "101"),),
            ((":status", "200"), ("A", "b")),
        ):
            _, call, server = begun()
            server.send(server.head(1, *fields))
            self.assertEqual(call.told[0][1:2], (502,), fields)
            self.assertIsNone(server.wire.end)

    def test_heads_that_are_too_large(self) -> None:
        _, call, server = begun()
        server.send(server.head(1, *OK, *((f"x-{number}", "y" * 4000) for number in range(4))))
        self.assertEqual([each[0] for each in call.events], ["head"])
        _, call, server = begun()
        for number in range(3):
            big = server.head(1, *OK, *((f"x-{each}", "y" * 12000) for each in range(3)))
            del number
        server.send(big)
        self.assertEqual(call.told, [("head", 502, b"14"), ("end", None)])

    def test_heads_that_the_upstream_takes_not(self) -> None:
        gateway = grpc_gateway()
        Call(gateway)
        server = HTTP2Server(gateway, [(6, 8192)])
        _ = server.received
        call = Call(gateway, b"/a.B/C", *((b"x-%d" % number, b"y" * 1000) for number in range(9)))
        self.assertEqual(call.told, [("head", 431, b"8"), ("end", None)])
        self.assertEqual(server.received, [])

    def test_no_http2(self) -> None:
        _, call, server = begun()
        server.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertEqual(call.told, [("head", 502, b"14"), ("end", None)])


class TimeTests(SynchronousTestCase):
    def test_silence(self) -> None:
        gateway, call, server = begun(grpc_gateway(service={"read_timeout": 2000}))
        call.send(b"a", end=True)
        gateway.reactor.pump([0.1] * 19)
        self.assertEqual(call.events, [])
        gateway.reactor.pump([0.1] * 5)
        self.assertEqual(call.told, [("head", 504, b"4"), ("end", None)])
        self.assertEqual(server.received[-1], ("RST", 1, frames.CANCEL))

    def test_traffic_either_way_keeps_a_call(self) -> None:
        for ours in (True, False):
            gateway, call, server = begun(grpc_gateway(service={"read_timeout": 1000, "write_timeout": 1000}))
            server.send(server.head(1, *OK))
            for _ in range(20):
                if ours:
                    call.send(b"a")
                else:
                    server.send(server.data(1, b"b"))
                gateway.reactor.pump([0.1] * 7)
            self.assertTrue(call.open)
            gateway.reactor.pump([0.1] * 14)
            self.assertEqual(call.events[-1][1][0], (b"grpc-status", b"4"))

    def test_an_upstream_that_does_not_read(self) -> None:
        gateway = grpc_gateway(service={"read_timeout": 60000, "write_timeout": 1000})
        call = Call(gateway)
        server = HTTP2Server(gateway, [(4, 1)])
        call.send(b"abc")
        gateway.reactor.pump([0.1] * 14)
        self.assertEqual(call.told, [("head", 504, b"4"), ("end", None)])
        self.assertEqual(server.received[-1], ("RST", 1, frames.CANCEL))

    def test_deadlines(self) -> None:
        """Enforced here: before there is a connection, before the head, behind it."""
        for step in range(3):
            gateway = grpc_gateway()
            call = Call(gateway, b"/a.B/C", (b"grpc-timeout", b"500m"))
            server = HTTP2Server(gateway) if step else None
            if server is not None and step == 2:
                server.send(server.head(1, *OK))
            gateway.reactor.pump([0.1] * 7)
            if step < 2:
                self.assertEqual(call.told, [("head", 504, b"4"), ("end", None)])
            else:
                self.assertEqual(call.events[-1][1][0], (b"grpc-status", b"4"))
            if server is not None:
                self.assertEqual(server.received[-1], ("RST", 1, frames.CANCEL))

    def test_upstream_keeps_the_deadline(self) -> None:
        """A reset at the end of a call's time is that end; one before it is not."""
        for passed, code in ((0.495, b"4"), (0.3, b"1")):
            gateway = grpc_gateway()
            call = Call(gateway, b"/a.B/C", (b"grpc-timeout", b"500m"))
            server = HTTP2Server(gateway)
            gateway.reactor.rightNow += passed  # no timer has rung
            server.send(frames.rst_stream(1, frames.CANCEL))
            self.assertEqual(call.told[0][2], code)

    def test_deadlines_that_are_over(self) -> None:
        """A call without time is not sent: from the start, or when there is room for it at last."""
        gateway = grpc_gateway()
        call = Call(gateway, b"/a.B/C", (b"grpc-timeout", b"0n"))
        self.assertEqual((call.told, gateway.connects()), ([("head", 504, b"4"), ("end", None)], 0))
        call = Call(gateway, b"/a.B/C", (b"grpc-timeout", b"500m"))
        gateway.reactor.rightNow += 0.6  # no timer has rung
        server = HTTP2Server(gateway)
        self.assertEqual((call.told, server.received), ([("head", 504, b"4"), ("end", None)], []))
        self.assertEqual(gateway.context.calls.of(b"/a.B/C").codes, {4: 2})

    def test_deadlines_pass_on_what_is_left(self) -> None:
        gateway = grpc_gateway()
        Call(gateway, b"/a.B/C", (b"grpc-timeout", b"10S"))
        gateway.reactor.advance(4)
        ((_, _, fields),) = HTTP2Server(gateway).received
        self.assertEqual(fields["grpc-timeout"], "6000000u")
        gateway, *_ = begun()
        server = HTTP2Server(gateway) if gateway.connects() else None
        self.assertIsNone(server)

    def test_deadlines_as_they_came(self) -> None:
        for value in (b"10S", b"nonsense"):
            gateway = grpc_gateway()
            Call(gateway, b"/a.B/C", (b"grpc-timeout", value))
            ((_, _, fields),) = HTTP2Server(gateway).received
            self.assertEqual(fields["grpc-timeout"], value.decode())

    def test_nothing_is_left_of_calls(self) -> None:
        gateway, call, server = begun()
        timed = Call(gateway, b"/a.B/C", (b"grpc-timeout", b"10S"))
        for stream in (1, 3):
            server.send(server.head(stream, *OK, ("grpc-status", "0"), end=True))
        self.assertEqual((call.open, timed.open), (False, False))
        gateway.reactor.advance(30)
        self.assertEqual(server.connection.streams, {})


class Trailing(Plugin):
    """Looks at trailers in its body filter, and may keep them from the client."""

    name, priority, version = "trailing", 10, "1"

    def __init__(self, keep: bool) -> None:
        super().__init__()
        self.keep = keep
        self.seen: list[Any] = []

    def header_filter(self, exchange: Exchange, conf: Any) -> BodyFilter:
        return BodyFilter(lambda chunk, last: self.filtered(exchange, chunk, last))

    def filtered(self, exchange: Exchange, chunk: bytes, last: bool) -> bytes:
        self.seen.append((last, exchange.answer_trailers))
        if not last:
            return chunk
        trailers = exchange.answer_trailers or []
        if not self.keep:
            exchange.answer_trailers = None
        return b"".join([b"%b:%b;" % pair for pair in trailers])


class Naming(Plugin):
    """Says something of its own to the upstream."""

    name, priority, version = "naming", 10, "1"

    def __init__(self, *changes: tuple[bytes, bytes | None]) -> None:
        super().__init__()
        self.changes = iter(changes)

    def access(self, exchange: Exchange, conf: Any) -> None:
        name, value = next(self.changes)
        if value is None:
            exchange.clear_upstream_header(name)
        else:
            exchange.set_upstream_header(name, value)


class PluginTests(SynchronousTestCase):
    def test_heads_are_kept_with_what_plugins_change(self) -> None:
        """Equal changes find the head that was made before; other ones do not."""
        changes = (
            (b"x-a", b"1"),
            (b"x-a", b"1"),
            (b"x-a", b"2"),
            (b"content-type", None),
            (b"x-kong-request-id", b"own"),
        )
        gateway = grpc_gateway(plugins={"naming": Naming(*changes)}, plugin_rows=[plugin_row("naming")])
        server, found = None, []
        for _ in changes:
            call = Call(gateway)
            server = server or HTTP2Server(gateway)
            ((_, _, fields),) = server.received
            own = fields["x-kong-request-id"]
            found.append(
                (fields.get("x-a"), "content-type" in fields, "id" if own == call.request_id.decode() else own)
            )
        self.assertEqual(
            found,
            [("1", True, "id"), ("1", True, "id"), ("2", True, "id"), (None, False, "id"), (None, True, "own")],
        )

    def relayed(self, keep: bool) -> tuple[Call, Trailing]:
        plugin = Trailing(keep)
        _, call, server = begun(grpc_gateway(plugins={"trailing": plugin}, plugin_rows=[plugin_row("trailing")]))
        server.send(server.head(1, *OK), server.data(1, b"a"), server.head(1, ("grpc-status", "0"), end=True))
        return call, plugin

    def test_trailers_are_seen(self) -> None:
        call, plugin = self.relayed(True)
        self.assertEqual(plugin.seen, [(False, None), (True, [(b"grpc-status", b"0")])])
        self.assertEqual(
            call.events[1:], [("data", b"a"), ("data", b"grpc-status:0;"), ("end", [(b"grpc-status", b"0")])]
        )

    def test_deadlines(self) -> None:
        """A plugin that tells trailers in its own way tells of a deadline, too."""
        plugin = Trailing(False)
        gateway = grpc_gateway(plugins={"trailing": plugin}, plugin_rows=[plugin_row("trailing")])
        call = Call(gateway, b"/a.B/C", (b"grpc-timeout", b"500m"))
        server = HTTP2Server(gateway)
        server.send(server.head(1, *OK), server.data(1, b"a"))
        gateway.reactor.pump([0.1] * 7)
        told = b"grpc-status:4;grpc-message:the deadline has passed;"
        self.assertEqual(call.events[1:], [("data", b"a"), ("data", told), ("end", None)])
        self.assertEqual(server.received[-1], ("RST", 1, frames.CANCEL))

    def test_trailers_are_kept_back(self) -> None:
        call, _ = self.relayed(False)
        self.assertEqual(call.events[1:], [("data", b"a"), ("data", b"grpc-status:0;"), ("end", None)])


class CountTests(SynchronousTestCase):
    def test_calls_are_counted(self) -> None:
        gateway, call, server = begun()
        call.send(framed(b"abc")[:4])
        call.send(framed(b"abc")[4:] + framed(b""), end=True)
        server.send(server.head(1, *OK), server.data(1, framed(b"x" * 10)), server.head(1, *DONE, end=True))
        Call(gateway)
        Call(gateway).leave()
        counts = gateway.context.calls.of(b"/a.B/C")
        self.assertEqual((counts.open, counts.codes), (1, {0: 1, 1: 1}))
        self.assertEqual((counts.messages_out, counts.bytes_out), (1, 15))
        self.assertEqual((counts.messages_in,), (2,))
        metrics = Metrics()
        metrics.sources.append(gateway.context.calls.tell)
        self.assertIn("kongtwist_grpc_calls_total", [each[2] for each in metrics.take() if each[0] == "new"])

    def test_failures_are_counted(self) -> None:
        gateway = grpc_gateway()
        Call(gateway)
        gateway.fail(error.TimeoutError())
        Call(gateway)
        gateway.fail()
        self.assertEqual(gateway.context.calls.of(b"/a.B/C").codes, {4: 1, 14: 1})

    def test_many_messages_are_a_stream(self) -> None:
        """How long such a call lasts is no latency: who logs it can tell it from one with a message each way."""
        for asked, answered in ((1, 1), (2, 1), (1, 2)):
            plugin = Streamed()
            gateway = grpc_gateway(plugins={"streamed": plugin}, plugin_rows=[plugin_row("streamed")])
            call = Call(gateway)
            server = HTTP2Server(gateway)
            call.send(framed(b"a") * asked, end=True)
            server.send(server.head(1, *OK), server.data(1, framed(b"b") * answered), server.head(1, *DONE, end=True))
            self.assertEqual(plugin.seen, [asked > 1 or answered > 1])


class Streamed(Plugin):
    """Notes whether what it logs was a stream."""

    name, priority, version = "streamed", 10, "1"

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def log(self, exchange: Exchange, conf: Any) -> None:
        self.seen.append(exchange.streamed)
