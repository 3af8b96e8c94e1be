"""How many connections there are to an upstream that speaks HTTP/2, and who waits for a stream."""

from __future__ import annotations

from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http2 import frames
from kongtwist.core.limits import Limits

from .http2_relay_kit import OK, Call, HTTP2Server, grpc_gateway
from .relay_kit import Gateway

MOST = 3
"""SETTINGS_MAX_CONCURRENT_STREAMS."""


def answer(server: HTTP2Server, stream: int) -> None:
    """End a call."""
    server.send(server.head(stream, *OK, ("grpc-status", "0"), end=True))


def calls(gateway: Gateway, count: int) -> list[Call]:
    """Calls without a body."""
    return [Call(gateway, body=False) for _ in range(count)]


def streams(server: HTTP2Server) -> list[int]:
    """Streams that were opened since the last look."""
    return [stream for kind, stream, _ in server.received if kind.startswith("HEADERS")]


class RoomTests(SynchronousTestCase):
    def test_one_connection_is_made_for_many(self) -> None:
        gateway = grpc_gateway()
        calls(gateway, 50)
        self.assertEqual(gateway.connects(), 1)
        self.assertEqual(len(streams(HTTP2Server(gateway))), 50)
        self.assertEqual(gateway.connects(), 0)

    def test_a_hundred_before_the_settings(self) -> None:
        gateway = grpc_gateway()
        calls(gateway, 150)
        server = HTTP2Server(gateway, None)
        self.assertEqual((len(streams(server)), gateway.connects()), (100, 0))
        server.send(frames.settings([(3, 2**31 - 1)]))
        self.assertEqual((len(streams(server)), gateway.connects()), (50, 0))

    def test_more_connections_where_they_are_full(self) -> None:
        gateway = grpc_gateway()
        calls(gateway, 1)
        server = HTTP2Server(gateway, [(3, MOST)])
        calls(gateway, 7)
        self.assertEqual((len(streams(server)), gateway.connects()), (3, 2))
        others = [HTTP2Server(gateway, [(3, MOST)]) for _ in range(2)]
        self.assertEqual([len(streams(each)) for each in others], [3, 2])
        calls(gateway, 1)
        self.assertEqual((len(streams(others[1])), gateway.connects()), (1, 0))

    def test_no_more_connections_than_allowed(self) -> None:
        """What has no stream waits for one to end, the longest first."""
        gateway = grpc_gateway(Limits(upstream_http2_connections=1))
        first = calls(gateway, 1)
        server = HTTP2Server(gateway, [(3, 1)])
        first += calls(gateway, 2)
        self.assertEqual((streams(server), gateway.connects()), ([1], 0))
        answer(server, 1)
        self.assertEqual(streams(server), [3])
        answer(server, 3)
        answer(server, 5)
        self.assertEqual([each.open for each in first], [False] * 3)

    def test_the_queue_is_bounded(self) -> None:
        gateway = grpc_gateway(Limits(upstream_http2_queue=2))
        made = calls(gateway, 3)
        self.assertEqual([each.told for each in made], [[], [], [("head", 503, b"14"), ("end", None)]])

    def test_who_waits_for_too_long_or_leaves(self) -> None:
        gateway = grpc_gateway(Limits(upstream_http2_connections=1), {"connect_timeout": 1000})
        first = calls(gateway, 1)
        server = HTTP2Server(gateway, [(3, 1)])
        first += calls(gateway, 2)
        first[1].leave()
        gateway.reactor.pump([0.1] * 12)
        self.assertEqual(first[2].told, [("head", 504, b"4"), ("end", None)])
        answer(server, 1)
        self.assertEqual(streams(server), [1])

    def test_an_upstream_that_takes_nothing(self) -> None:
        gateway = grpc_gateway(service={"connect_timeout": 1000})
        (call,) = calls(gateway, 1)
        HTTP2Server(gateway, [(3, 0)])
        (other,) = calls(gateway, 1)
        self.assertEqual(gateway.connects(), 0)
        gateway.reactor.pump([0.1] * 12)
        self.assertEqual((call.open, other.told), (True, [("head", 504, b"4"), ("end", None)]))

    def test_connections_that_fail(self) -> None:
        """Who waits hears of it when there is no other connection."""
        gateway = grpc_gateway()
        first = calls(gateway, 3)
        gateway.fail()
        self.assertEqual([each.told for each in first], [[("head", 502, b"14"), ("end", None)]] * 3)
        second = calls(gateway, 1)
        self.assertEqual(gateway.connects(), 1)
        HTTP2Server(gateway)
        self.assertEqual(second[0].told, [])

    def test_what_the_log_is_told(self) -> None:
        """A connection that an upstream ends, or breaks: where, why, and what to do about it."""
        for sent, level, line in (
            (frames.goaway(0, 11, b"too many pings"), "warn",
             "the upstream 127.0.0.1:50051 ends an HTTP/2 connection: ENHANCE_YOUR_CALM too many pings; see its own log"),
            (b"\0\0\5\x08\0\0\0\0\0\0\0\0\0\0", "error",
             "the upstream 127.0.0.1:50051 broke HTTP/2: FRAME_SIZE_ERROR, WINDOW_UPDATE of a wrong size; correct it, or what stands"),
        ):  # fmt: skip
            gateway = grpc_gateway()
            calls(gateway, 1)
            server = HTTP2Server(gateway)
            with capturedLogs() as events:
                server.send(sent)
            told = [
                (each["log_level"].name, eventAsText(each, includeTimestamp=False, includeSystem=False))
                for each in events
            ]
            self.assertTrue(any(name == level and line in text for name, text in told), told)


class LifeTests(SynchronousTestCase):
    def test_idle_connections_are_closed(self) -> None:
        gateway = grpc_gateway(Limits(upstream_keepalive_idle_timeout=10))
        calls(gateway, 1)
        server = HTTP2Server(gateway)
        gateway.reactor.pump([1] * 30)
        answer(server, 1)
        gateway.reactor.pump([1] * 9)
        self.assertFalse(server.wire.write_closed)
        gateway.reactor.pump([1] * 3)
        self.assertTrue(server.wire.write_closed)
        self.assertEqual(server.received[-1], ("GOAWAY", 0, 0))
        calls(gateway, 1)
        self.assertEqual(gateway.connects(), 1)

    def test_none_is_kept(self) -> None:
        gateway = grpc_gateway(Limits(upstream_keepalive_pool_size=0))
        calls(gateway, 1)
        server = HTTP2Server(gateway)
        answer(server, 1)
        self.assertTrue(server.wire.write_closed)

    def test_so_many_requests_and_no_more(self) -> None:
        """A connection that has had its number ends behind its last stream."""
        gateway = grpc_gateway(Limits(upstream_keepalive_max_requests=2))
        calls(gateway, 3)
        server = HTTP2Server(gateway)
        self.assertEqual((streams(server), gateway.connects()), ([1, 3], 1))
        self.assertEqual(streams(HTTP2Server(gateway)), [1])
        answer(server, 1)
        self.assertFalse(server.wire.write_closed)
        answer(server, 3)
        self.assertTrue(server.wire.write_closed)

    def test_ids_run_out(self) -> None:
        gateway = grpc_gateway()
        calls(gateway, 1)
        server = HTTP2Server(gateway)
        _ = server.received
        server.connection.next_id = 2**31 - 3
        calls(gateway, 3)
        self.assertEqual(streams(server), [2**31 - 3, 2**31 - 1])
        self.assertEqual(streams(HTTP2Server(gateway)), [1])

    def test_pings_are_answered_and_none_are_sent(self) -> None:
        gateway = grpc_gateway()
        calls(gateway, 1)
        server = HTTP2Server(gateway)
        server.send(frames.ping(b"12345678", False))
        gateway.reactor.pump([1] * 50)
        pings = [content for kind, _, content in server.received if kind == "PING"]
        self.assertEqual(pings, [b"12345678"])

    def test_the_gateway_stops(self) -> None:
        gateway = grpc_gateway()
        first = calls(gateway, 1)
        server = HTTP2Server(gateway)
        gateway.context.close()
        gateway.reactor.advance(0)
        self.assertEqual(server.wire.end, "abort")
        self.assertEqual(first[0].told, [("head", 502, b"14"), ("end", None)])
        gateway = grpc_gateway()
        first = calls(gateway, 1)
        gateway.context.close()
        self.assertEqual(first[0].told, [("head", 502, b"14"), ("end", None)])
