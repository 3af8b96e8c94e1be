"""stream-lifetime: what it asks of streams, and when it ends them."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.api import PluginHarness
from kongtwist.entities.errors import EntityError
from kongtwist.plugins.stream_lifetime import StreamLifetime


class LifetimeTests(SynchronousTestCase):
    def open(self, kind: str = "websocket", **config: Any) -> tuple[PluginHarness, Any]:
        harness = PluginHarness(StreamLifetime, **config)
        return harness, harness.open_stream(harness.send("GET", "/"), kind)

    def test_signs_of_life(self) -> None:
        """Pings for WebSockets, comments for event streams, each only where it is configured."""
        _, stream = self.open(ping_interval=5, ping_sides="upstream")
        self.assertEqual(stream.kept_alive, [(5, False, True)])
        _, stream = self.open("sse", ping_interval=5, comment_interval=7)
        self.assertEqual(stream.kept_alive, [(7, True, True)])
        for kind, config in (("sse", {"ping_interval": 5}), ("websocket", {"comment_interval": 5})):
            _, stream = self.open(kind, **config)
            self.assertEqual((stream.kept_alive, stream.watches), ([], []))

    def test_age(self) -> None:
        """An old stream is ended with the configured words, once; one that ended before is left alone, and its timer is gone."""
        harness, stream = self.open(max_stream_age=60, close_code=4001, close_reason="move", retry=100)
        harness.advance(59)
        self.assertEqual(stream.closed, [])
        harness.advance(2)
        self.assertEqual((stream.closed, stream.retries), ([(4001, "move")], [100]))
        harness.advance(600)
        self.assertEqual(len(stream.closed), 1)
        harness, stream = self.open(max_stream_age=60)
        stream.watches[0].on_close("client closed")
        harness.advance(600)
        self.assertEqual((stream.closed, harness.clock.getDelayedCalls()), ([], []))

    def test_calls(self) -> None:
        """Calls of gRPC have an age, and nothing else: without one the plugin has nothing to do with them."""
        harness, call = self.open("grpc", max_stream_age=60, ping_interval=5)
        self.assertEqual(call.kept_alive, [])
        harness.advance(61)
        self.assertEqual(call.closed, [(1012, "please connect again")])
        harness, call = self.open("grpc", ping_interval=5)
        self.assertEqual((call.watches, harness.clock.getDelayedCalls()), ([], []))

    def test_jitter(self) -> None:
        """Streams that began together end at different times, none later than the age and none sooner than the jitter says."""
        harness = PluginHarness(StreamLifetime, max_stream_age=100, max_stream_age_jitter=40)
        streams: list[Any] = []
        for number in range(40):
            exchange = harness.request("GET", "/")
            exchange.request_id = b"%032x" % number
            streams.append(harness.open_stream(harness.run(exchange), "websocket"))
        ended = []
        for _ in range(101):
            harness.advance(1)
            ended.append(sum(bool(each.closed) for each in streams))
        self.assertEqual((ended[58], ended[-1]), (0, 40))
        self.assertGreater(len(set(ended)), 5)

    def test_moved(self) -> None:
        """A stream that began in another process is as old as it is, with the jitter that it had there; one that leaves ends no more."""
        harness = PluginHarness(StreamLifetime, max_stream_age=100, max_stream_age_jitter=40)
        harness.advance(1000)
        first: Any = harness.open_stream(harness.send("GET", "/"))
        unmoved: Any = harness.open_stream(harness.send("GET", "/"))
        harness.advance(30)
        first.watches[0].on_move()
        second: Any = harness.open_stream(harness.send("GET", "/"), started=first.started)
        while not unmoved.closed:
            self.assertEqual((first.closed, second.closed), ([], []))
            harness.advance(1)
        self.assertEqual((len(first.closed), len(second.closed)), (0, 1))
        harness.advance(200)
        self.assertEqual(first.closed, [])
        old: Any = harness.open_stream(harness.send("GET", "/"), started=harness.now - 1000)
        harness.advance(0.1)
        self.assertEqual(len(old.closed), 1)

    def test_refused(self) -> None:
        """A configuration that does nothing, and numbers that cannot be."""
        for config in ({}, {"ping_interval": 0}, {"max_stream_age": -1}):
            self.assertRaises(EntityError, PluginHarness, StreamLifetime, **config)
        storm: dict[str, float] = {"max_stream_age": 10, "max_stream_age_jitter": 10.5}
        refused = self.assertRaises(EntityError, PluginHarness, StreamLifetime, **storm)
        self.assertEqual(
            refused.fields,
            {
                "config": {
                    "max_stream_age_jitter": "must not be greater than max_stream_age: streams would end as they begin"
                }
            },
        )
        for calm in ({**storm, "max_stream_age_jitter": 10}, {"ping_interval": 1, "max_stream_age_jitter": 10}):
            PluginHarness(StreamLifetime, **calm)
        for code in (999, 1005, 1006, 1015, 2999, 5000):
            refused = self.assertRaises(EntityError, PluginHarness, StreamLifetime, ping_interval=1, close_code=code)
            self.assertIn("close_code", str(refused.fields))
