"""Many calls, large messages: what the gateway holds for them, and gives back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from tests.live import grpc_peers
from tests.live.grpc_kit import METHOD, UNBOUNDED, GRPCTestCase
from tests.live.http2_peer import DATA, HEADERS, RST, HTTP2Peer, grpc_fields, message
from tests.live.support import PATIENCE, Process, free_port, wait_until

CONNECTIONS, STREAMS, ROUNDS = 20, 100, 4
HELLO = message(b"hello")
UNAVAILABLE = "14"


def resident(pid: int) -> int:
    """Bytes of memory that a process has in use."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


class ManyStreamsTests(GRPCTestCase):
    """2,000 bidirectional streams at the same time."""

    def serve(self, port: int) -> Process:
        """Start an echo server on grpc-go: grpcio's refuses some calls where a thousand wait at once."""
        process = self.start([grpc_peers.go_tool("echo"), str(port)], "echo")
        self.wait_for_port(port, process)
        return process

    def opened(self, port: int, connections: int, streams: int) -> list[HTTP2Peer]:
        """Open them, and see an answer on each."""
        peers = []
        for _ in range(connections):
            peer = HTTP2Peer.connect(port)
            self.addCleanup(peer.close)
            peers.append(peer)
            for _ in range(streams):
                peer.data(peer.open(grpc_fields(METHOD)), HELLO)
        for peer in peers:
            answered = set[int]()
            while len(answered) < streams:
                answered.add(peer.expect(DATA).stream)
        return peers

    def test_upstream_killed(self) -> None:
        """Each of them is UNAVAILABLE at once, new calls are served as soon as the upstream is back, and the gateway's memory is
        what it was before the first call. When it happens again and again nothing is added."""
        port = free_port()
        service = self.serve(port)
        gateway = self.front(port)
        fresh = resident(gateway.pid)
        after = []
        for _ in range(ROUNDS):
            peers = self.opened(gateway.proxy_port, CONNECTIONS, STREAMS)
            service.kill()
            for peer in peers:
                ended: dict[int, str | None] = {}
                while len(ended) < STREAMS:
                    frame = peer.expect(HEADERS, RST)
                    if frame.kind == RST or "grpc-status" in frame.fields:
                        ended.setdefault(frame.stream, frame.fields.get("grpc-status"))
                self.assertEqual(set(ended.values()), {UNAVAILABLE})
            service = self.serve(port)
            peers[0].data(peers[0].open(grpc_fields(METHOD)), HELLO)
            peers[0].expect(DATA)
            for peer in peers:
                peer.close()
            wait_until(lambda: resident(gateway.pid) <= fresh * 1.1, f"memory back at {fresh}")
            after.append(resident(gateway.pid))
        self.assertLess(after[-1], after[0] * 1.02, after)


class LargeMessagesTests(GRPCTestCase):
    """Messages of any size pass without being held."""

    def channel(self, port: int) -> Any:
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=UNBOUNDED)
        self.addCleanup(channel.close)
        return channel

    def test_sizes(self) -> None:
        """Nothing, a byte, what fills frames and windows exactly, 1 MB and 16 MB come back as they went; the gateway does not grow by
        a message."""
        gateway = self.front(self.echo())
        call = self.channel(gateway.proxy_port).stream_stream(METHOD)
        sizes = (0, 1, 16_379, 16_380, 65_530, 65_531, 262_139, 1_000_000)
        bodies = [bytes([number]) * size for number, size in enumerate(sizes)]
        self.assertEqual(list(call(iter(bodies), timeout=PATIENCE)), bodies)
        before = resident(gateway.pid)
        body = b"0123456789abcdef" * 1_000_000
        for answer in call(iter([body] * 3), timeout=PATIENCE):
            self.assertTrue(answer == body)
        self.assertLess(resident(gateway.pid) - before, 8_000_000)

    def test_both_ways_at_once(self) -> None:
        """Eight streams of 1 MB messages on one connection, in both directions at the same time."""
        gateway = self.front(self.echo())
        call = self.channel(gateway.proxy_port).stream_stream(METHOD)
        counted: dict[int, int] = {}

        def run(number: int) -> None:
            body = bytes([number]) * 1_000_000
            counted[number] = sum(answer == body for answer in call(iter([body] * 8), timeout=PATIENCE))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(counted, dict.fromkeys(range(8), 8))

    def test_compressed(self) -> None:
        """What client and server compress passes untouched."""
        gateway = self.front(self.echo())
        call = self.channel(gateway.proxy_port).stream_stream(METHOD)
        body = b"compress me " * 10_000

        def requests() -> Iterator[bytes]:
            yield body
            yield body

        answers = call(requests(), timeout=PATIENCE, compression=grpc.Compression.Gzip)
        self.assertEqual(list(answers), [body, body])
