"""Calls of gRPC that plugins watch, and that are ended politely: behind whole messages, in gRPC's words, and nothing is left of them."""

from __future__ import annotations

import gc
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.chain.stream_watch import StreamInfo, StreamWatch
from kongtwist.core.grpc.grpc_messages import framed
from kongtwist.core.http2 import frames
from kongtwist.http2.http2_exchange import HTTP2Exchange
from kongtwist.net.http2_stream import HTTP2Stream
from kongtwist.plugins.grpc_web import GRPCWeb
from kongtwist.plugins.stream_lifetime import StreamLifetime
from kongtwist.proxy.http2_forwarding import HTTP2UpstreamExchange

from .http2_relay_kit import OK, Call, HTTP2Server, grpc_gateway, kept, new
from .relay_kit import Gateway, plugin_row
from .test_direct_calls import MESSAGE, METADATA, Both
from .test_formed_calls import CONFIG, WEB, parted

LONG = framed(bytes(300))
MOVED = {"grpc-status": "14", "grpc-message": "move"}


class Watching(Plugin, StreamWatch):
    """Keeps calls, and hears of their ends."""

    name, priority, version = "watching", 10, "1"

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.calls: list[StreamInfo] = []
        self.ends: list[str] = []

    def on_call(self, call: StreamInfo, conf: Any) -> StreamWatch:
        if self.fails:
            raise ValueError("fails")
        self.calls.append(call)
        return self

    def on_close(self, why: str) -> None:
        self.ends.append(why)


class CallTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.plugin = Watching()

    def both(self, **more: Any) -> Both:
        """A client's second call, over the general way."""
        both = Both(plugins={"watching": self.plugin}, plugin_rows=[plugin_row("watching")], **more)
        both.answer()
        both.begin()
        self.assertEqual(both.direct, [])
        return both

    def close(self, both: Both) -> None:
        """Have the last call ended."""
        self.plugin.calls[-1].close(1012, "move")
        both.gateway.reactor.advance(0)
        both.client.read()

    def ended(self, both: Both, body: bytes) -> None:
        """The client got this, and the upstream was told."""
        heads, got, ended, code = both.told()
        trailers = {name: heads[-1].get(name) for name in MOVED}
        self.assertEqual((len(heads), got, trailers, ended, code), (2, body, MOVED, True, frames.NO_ERROR))
        self.assertEqual(both.server.received[-1], ("RST", both.at, frames.CANCEL))
        self.assertEqual(self.plugin.ends[1:], ["closed by the gateway"])


class WatchTests(CallTestCase):
    def test_what_is_told(self) -> None:
        """Whose call it is, what has passed, and how it ended."""
        both = self.both()
        call = self.plugin.calls[-1]
        both.client.send(both.piece(MESSAGE))
        both.serve(both.server.head(both.at, *OK), both.server.data(both.at, MESSAGE + MESSAGE))
        self.assertEqual((call.kind, call.route_id, call.service_id, call.consumer_id), ("grpc", "r", "s", None))
        figures = call.messages_in, call.messages_out, call.bytes_in, call.bytes_out
        self.assertEqual(figures, (1, 2, len(MESSAGE), 2 * len(MESSAGE)))
        self.assertEqual(self.plugin.ends, ["ended"])
        both.client.send(frames.rst_stream(both.number, frames.CANCEL))
        self.assertEqual(len(self.plugin.ends), 2)

    def test_a_plugin_that_fails(self) -> None:
        """It refuses the call, which does not reach the upstream."""
        failing = Watching(fails=True)
        gateway = grpc_gateway(plugins={"watching": failing}, plugin_rows=[plugin_row("watching")])
        call = Call(gateway)
        self.assertEqual((call.told, gateway.connects()), ([("head", 500, b"13"), ("end", None)], 0))
        self.assertIn("phase on_call", gateway.reports[0])

    def test_cut(self) -> None:
        both = self.both()
        both.serve(both.server.head(both.at, *OK), both.server.data(both.at, MESSAGE))
        self.plugin.calls[-1].cut()
        both.gateway.reactor.advance(0)
        both.client.read()
        self.assertEqual(both.told()[2:], (False, frames.INTERNAL_ERROR))
        self.assertEqual((both.server.received[-1], self.plugin.ends[1:]), (("RST", both.at, frames.CANCEL), ["cut"]))


class EndTests(CallTestCase):
    def test_before_the_head(self) -> None:
        """Whether there is a connection, or not yet."""
        for connected in (False, True):
            gateway = grpc_gateway(plugins={"watching": self.plugin}, plugin_rows=[plugin_row("watching")])
            call = Call(gateway)
            server = HTTP2Server(gateway) if connected else None
            self.plugin.calls[-1].close(1012, "move")
            self.assertEqual(call.told, [("head", 503, b"14"), ("end", None)])
            self.assertEqual(call.events[0][2][b"grpc-message"], b"move")
            if server is not None:
                self.assertEqual(server.received[-1], ("RST", 1, frames.CANCEL))

    def test_between_messages(self) -> None:
        """Behind a head or a message, at once."""
        for body in (b"", MESSAGE + LONG):
            self.setUp()
            both = self.both()
            both.serve(both.server.head(both.at, *OK), both.server.data(both.at, body))
            self.close(both)
            self.ended(both, body)

    def test_within_a_message(self) -> None:
        """What is missing still passes, in whatever pieces, and nothing behind it; requests go on meanwhile."""
        for cut in (2, 5, 100):
            for step in (1, 50, 1000):
                self.setUp()
                both = self.both()
                both.serve(both.server.head(both.at, *OK), both.server.data(both.at, MESSAGE + LONG[:cut]))
                self.close(both)
                self.close(both)  # once more changes nothing
                self.assertEqual((both.told()[2], self.plugin.ends), (False, ["ended"]))
                both.client.send(both.piece(MESSAGE))
                self.assertIn(("DATA", both.at, MESSAGE), both.server.received)
                rest = LONG[cut:] + MESSAGE
                for at in range(0, len(rest), step):
                    if both.told()[2]:
                        break
                    both.serve(both.server.data(both.at, rest[at : at + step]))
                self.ended(both, MESSAGE + LONG)
                self.assertEqual(self.plugin.calls[-1].messages_out, 2)

    def test_a_rest_that_does_not_come(self) -> None:
        """The call ends all the same, after a while."""
        both = self.both()
        both.serve(both.server.head(both.at, *OK), both.server.data(both.at, LONG[:100]))
        self.close(both)
        both.wait(4)
        self.assertFalse(both.told()[2])
        both.wait(2)
        self.ended(both, LONG[:100])

    def test_the_upstream_ends_first(self) -> None:
        """Its own status stays, and nothing is left to ring."""
        both = self.both()
        both.serve(both.server.head(both.at, *OK), both.server.data(both.at, LONG[:100]))
        self.close(both)
        both.serve(both.server.head(both.at, ("grpc-status", "9"), end=True))
        both.wait(10)
        self.assertEqual(both.told()[0][-1], {"grpc-status": "9"})
        self.assertEqual(self.plugin.ends[1:], ["ended"])

    def test_a_client_that_does_not_read(self) -> None:
        """What it has not taken yet comes before the end."""
        both = self.both()
        big = framed(bytes(100_000))
        both.serve(both.server.head(both.at, *OK))
        for at in range(0, 90_000, 15_000):
            both.serve(both.server.data(both.at, big[at : at + 15_000]))
        self.close(both)
        self.assertFalse(both.told()[2])
        both.client.send(frames.window_update(0, 1 << 20), frames.window_update(both.number, 1 << 20))
        both.serve(both.server.data(both.at, big[90_000:] + MESSAGE))
        self.ended(both, big)

    def test_web(self) -> None:
        """gRPC-Web is told in its frame."""
        rows = [plugin_row("grpc-web", config=CONFIG), plugin_row("watching")]
        gateway = Gateway(
            routes={"r": {"service": "s", "paths": ["/"], "protocols": ["grpc", "http"], "strip_path": False}},
            services={"s": {"host": "127.0.0.1", "port": 50051, "protocol": "grpc", "retries": 0}},
            plugins={"grpc-web": GRPCWeb(), "watching": self.plugin},
            plugin_rows=rows,
        )
        both = Both(gateway=gateway, metadata=WEB)
        both.answer()
        both.begin()
        both.serve(both.server.head(both.at, *OK), both.server.data(both.at, MESSAGE + LONG[:10]))
        self.close(both)
        both.serve(both.server.data(both.at, LONG[10:] + MESSAGE))
        _, body, ended, _ = both.told()
        messages, trailers = parted(body)
        self.assertEqual((messages, trailers, ended), (MESSAGE + LONG, MOVED, True))

    def test_nothing_is_left(self) -> None:
        both = self.both()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        kinds = (HTTP2Exchange, HTTP2UpstreamExchange, HTTP2Stream)
        self.plugin.calls.clear()
        others = kept(kinds)
        for _ in range(2):
            both.begin()
            both.serve(both.server.head(both.at, *OK), both.server.data(both.at, LONG[:100]))
            self.close(both)
            both.serve(both.server.data(both.at, LONG[100:]))
            self.plugin.calls.clear()
        self.assertEqual(new(kinds, others), [])
        counts = both.gateway.context.calls.of(b"/a.B/C")
        self.assertEqual((counts.codes, counts.open), ({0: 1, 14: 2}, 1))


class DirectTests(SynchronousTestCase):
    def lifetime(self, *names: str, **config: Any) -> Both:
        """A client whose route has stream-lifetime, and these plugins."""
        defaults = {
            "ping_interval": None, "ping_sides": "both", "comment_interval": None, "max_stream_age": None,
            "max_stream_age_jitter": 0, "close_code": 1012, "close_reason": "move", "retry": None,
        }  # fmt: skip
        gateway = Gateway(
            routes={"r": {"service": "s", "paths": ["/"], "protocols": ["grpc", "http"], "strip_path": False}},
            services={"s": {"host": "127.0.0.1", "port": 50051, "protocol": "grpc", "retries": 0}},
            plugins={"grpc-web": GRPCWeb(), "stream-lifetime": StreamLifetime()},
            plugin_rows=[plugin_row("stream-lifetime", config={**defaults, **config})]
            + [plugin_row(name, config=CONFIG) for name in names],
        )
        both = Both(gateway=gateway, metadata=WEB if names else METADATA)
        both.answer()
        both.begin()
        return both

    def test_who_pays(self) -> None:
        """Calls with an age are looked at; a configuration that says nothing of calls costs them nothing."""
        for names in ((), ("grpc-web",)):
            for config, direct in (({"ping_interval": 5}, True), ({"max_stream_age": 60}, False)):
                self.assertEqual(bool(self.lifetime(*names, **config).direct), direct)

    def test_a_direct_call_that_goes_on_in_the_general_way(self) -> None:
        """The plugin that had nothing to do with it has nothing to do with it there."""
        both = self.lifetime(ping_interval=5)
        both.serve(both.server.head(both.at, *OK, ("grpc-status", "5"), end=True))
        self.assertEqual(both.told()[0][0]["grpc-status"], "5")
