"""A relayed WebSocket that is packed and taken up at any moment, on real sockets, beside what it would be if it stayed: same bytes, same
counts, same ends."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from typing import Any, cast

from kongtwist.core.limits import Limits
from kongtwist.core.packed_values import Unpackable
from kongtwist.streams.splice import RelayedStream
from kongtwist.streams.websocket_frames import FrameTracker, encode_close
from tests.unit.streams.test_frames import frame

from .streams_kit import ForeignServer, Spliced, SplicedTestCase
from .support import PATIENCE

MASK = b"\x01\x02\x03\x04"


class Ending:
    """Stands for the request of a stream."""

    def __init__(self, ends: list[RelayedStream]) -> None:
        self.ends = ends
        self.moves = 0
        self.refuses = False

    def __call__(self, stream: RelayedStream) -> None:
        self.ends.append(stream)

    def pack(self) -> dict[str, Any]:
        if self.refuses:
            raise Unpackable("no")
        return {}

    def left(self) -> None:
        self.moves += 1


class Movable:
    """A stream that can be moved, and its two peers."""

    def __init__(self, spliced: Spliced) -> None:
        self.s = spliced
        self.ending = Ending(spliced.ends)
        spliced.stream._on_end = self.ending

    @property
    def stream(self) -> RelayedStream:
        return self.s.stream

    def move(self) -> bool:
        """Pack it and take it up again, as another process would; False: it cannot be moved now."""
        before = self.stream
        if not before.movable:
            return False
        state, sockets = before.pack()
        written = json.loads(json.dumps({**state, "line": None}))
        context, exchange = self.s.context, _exchange(before)
        after = RelayedStream(context, exchange, self.ending)
        client, upstream = (socket.socket(fileno=each) for each in sockets)
        after.take_up(written, client, upstream)
        self.s.stream = after
        return True


def _exchange(stream: RelayedStream) -> Any:
    """What a stream's successor reads of its request."""
    from kongtwist.core.exchange import Exchange

    exchange = Exchange()
    exchange.request_id, exchange.client_ip, exchange.wall_started = stream.id, stream.client_ip, stream.started
    exchange.route = cast(Any, stream.route)
    return exchange


class MovedTests(SplicedTestCase):
    """Streams that are moved."""

    def movable(self, **options: Any) -> Movable:
        return Movable(self.splice(**options))

    def frames(self, chance: random.Random, mask: bytes | None) -> bytes:
        """A stretch of a conversation."""
        made = []
        for _ in range(chance.randint(1, 6)):
            size = chance.choice((0, 1, 50, 125, 126, 300, 4000, 65_536, 300_000 if chance.random() < 0.2 else 7))
            made.append(frame(chance.choice((0, 1, 2, 9, 10)), chance.randbytes(size), chance.random() < 0.8, mask))
        return b"".join(made)

    def test_fuzz(self) -> None:
        """Random frames both ways in random pieces, peers that read or do not, moves in between: each peer gets every byte in order,
        and the counts are those of one who has seen it all."""
        for seed in range(12):
            chance = random.Random(seed)
            m = self.movable(limits=Limits(high_water=chance.choice((4096, 32_768, 1 << 20))))
            s = m.s
            oracles = {s.client: FrameTracker(), s.upstream: FrameTracker()}
            out: dict[Any, bytes] = {s.client: b"", s.upstream: b""}
            got: dict[Any, list[bytes]] = {s.client: [], s.upstream: []}
            sent = {s.client: bytearray(), s.upstream: bytearray()}
            moves = 0
            for _ in range(150):
                peer = chance.choice((s.client, s.upstream))
                if not out[peer]:
                    out[peer] = self.frames(chance, MASK if peer is s.client else None)
                piece = out[peer][: chance.choice((1, 2, 3, 9, 200, 70_000))]
                taken = peer.send(piece)
                if taken:
                    oracles[peer].feed(piece[:taken])
                    sent[peer] += piece[:taken]
                    out[peer] = out[peer][taken:]
                if chance.random() < 0.7:
                    s.work(chance.randint(1, 4))
                if chance.random() < 0.4:
                    moves += m.move()
                if chance.random() < 0.4:
                    reader = chance.choice((s.client, s.upstream))
                    got[reader].append(reader.read(chance.choice((100, 1 << 20))))
            late = time.monotonic() + PATIENCE
            while time.monotonic() < late:
                for reader in (s.client, s.upstream):
                    got[reader].append(reader.read())
                s.work(3)
                if all(
                    sum(map(len, got[to])) == len(sent[by])
                    for to, by in ((s.client, s.upstream), (s.upstream, s.client))
                ):
                    break
            self.assertEqual(b"".join(got[s.client]), bytes(sent[s.upstream]), seed)
            self.assertEqual(b"".join(got[s.upstream]), bytes(sent[s.client]), seed)
            stream = m.stream
            self.assertEqual((stream.bytes_in, stream.bytes_out), (len(sent[s.client]), len(sent[s.upstream])))
            for end, oracle in ((stream.client, oracles[s.client]), (stream.upstream, oracles[s.upstream])):
                self.assertEqual(end.tracker.written(), oracle.written(), seed)
            self.assertEqual((moves, len(s.context.streams)), (m.ending.moves, 1))
            self.assertGreater(moves, 20)
            s.close()

    def test_backpressure_goes_along(self) -> None:
        """A peer that does not read holds the other one back in the new process too, and loses nothing."""
        m = self.movable()
        s = m.s
        data = frame(2, bytes(range(256)) * 16_000)
        sent = s.pump(s.upstream, data)
        held = m.stream.held
        self.assertGreater(held, 0)
        self.assertTrue(m.move())
        s.work()
        self.assertGreaterEqual(m.stream.held, held)
        self.assertEqual(s.upstream.send(data[sent:]), 0)
        got: list[bytes] = []
        late = time.monotonic() + PATIENCE
        while sum(map(len, got)) < len(data) and time.monotonic() < late:
            got.append(s.client.read())
            s.work(2)
            sent += s.upstream.send(data[sent:])
        self.assertEqual(b"".join(got), data)

    def test_half_closed(self) -> None:
        """A side that has sent its last byte before the move is not waited for behind it; the other one's end comes through."""
        m = self.movable()
        s = m.s
        s.client.send(frame(1, b"last", mask=MASK))
        s.client.finish()
        s.work()
        self.assertTrue(m.move())
        s.upstream.send(frame(1, b"answer"))
        s.work()
        self.assertEqual((s.upstream.read(), s.upstream.ended), (frame(1, b"last", mask=MASK), "fin"))
        self.assertEqual((s.client.read(), s.client.ended), (frame(1, b"answer"), None))
        s.upstream.finish()
        s.work()
        s.client.read()
        self.assertEqual((s.client.ended, s.ends), ("fin", [m.stream]))
        self.assertEqual(m.stream.left_first, True)

    def test_silence_goes_along(self) -> None:
        """Time-outs go on where they were: a move is no sign of life."""
        m = self.movable(read_timeout=60.0)
        s = m.s
        s.advance(50)
        self.assertTrue(m.move())
        s.advance(18)
        self.assertEqual(m.stream.why, "timed out")

    def test_what_stays(self) -> None:
        """Streams that close or are broken, whose ends are no bare sockets, or whose request cannot be written down, stay."""
        m = self.movable()
        m.ending.refuses = True
        self.assertRaises(Unpackable, m.stream.pack)
        m.s.client.send(frame(1, b"on", mask=MASK))
        m.s.work()
        self.assertEqual((m.s.upstream.read(), len(m.s.context.streams)), (frame(1, b"on", mask=MASK), 1))
        m.ending.refuses = False
        m.s.client.send(encode_close(1000, "", MASK))
        m.s.work()
        self.assertFalse(m.move())
        closing = self.movable()
        closing.stream.close(1001, "bye")
        self.assertFalse(closing.move())
        gone = self.movable()
        gone.s.client.reset()
        gone.s.work()
        self.assertFalse(gone.move())
        foreign = self.movable(kinds=(ForeignServer, ForeignServer))
        self.assertFalse(foreign.move())
        unasked = self.splice()
        self.assertFalse(unasked.stream.movable)

    def test_stale(self) -> None:
        """Whoever still has the record of before ends nothing with it."""
        m = self.movable()
        before = m.stream
        self.assertTrue(m.move())
        before.close(1001, "late")
        before.cut()
        before.expire(0.0)
        m.s.client.send(frame(1, b"on", mask=MASK))
        m.s.work()
        self.assertEqual((m.s.upstream.read(), m.s.ends), (frame(1, b"on", mask=MASK), []))

    def test_descriptors(self) -> None:
        """Moved a hundred times, a stream has two descriptors."""
        m = self.movable()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(100):
            self.assertTrue(m.move())
        m.s.work()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
