"""What is left of calls when they are over: nothing that waits for the garbage collector."""

from __future__ import annotations

import gc
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http2 import frames
from kongtwist.http2.http2_exchange import HTTP2Exchange
from kongtwist.net.http2_stream import HTTP2Stream
from kongtwist.proxy.http2_forwarding import HTTP2UpstreamExchange

from .http2_relay_kit import OK, ClientSide, HTTP2Server, grpc_gateway, kept, new

KINDS = (HTTP2Exchange, HTTP2Stream, HTTP2UpstreamExchange)


class GarbageTests(SynchronousTestCase):
    def left(self, *ends: Any) -> list[Any]:
        """What is left of a call after its end; the collector is off meanwhile."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        others = kept(KINDS)
        gateway = grpc_gateway()
        client = ClientSide(gateway)
        client.call(1)
        server = HTTP2Server(gateway)
        for end in ends:
            end(client, server)
        gateway.reactor.advance(1)  # what is still sent of a request whose answer is whole is thrown away for a moment
        return new(KINDS, others)

    def test_answered(self) -> None:
        self.assertEqual(
            self.left(
                lambda client, server: server.send(server.head(1, *OK), server.data(1, b"a")),
                lambda client, server: client.send(frames.header(1, frames.DATA, 1, 1) + b"b"),
                lambda client, server: server.send(server.head(1, ("grpc-status", "0"), end=True)),
            ),
            [],
        )

    def test_early_trailers(self) -> None:
        self.assertEqual(
            self.left(lambda client, server: server.send(server.head(1, *OK, ("grpc-status", "0"), end=True))), []
        )

    def test_cancelled(self) -> None:
        for head in (False, True):
            self.assertEqual(
                self.left(
                    lambda client, server: head and server.send(server.head(1, *OK)),  # noqa: B023 - used at once
                    lambda client, server: client.send(frames.rst_stream(1, 8)),
                ),
                [],
            )

    def test_the_upstream_dies(self) -> None:
        self.assertEqual(
            self.left(
                lambda client, server: server.send(server.head(1, *OK)),
                lambda client, server: server.wire.lose(),
            ),
            [],
        )
