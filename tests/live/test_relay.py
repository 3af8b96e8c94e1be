"""The byte relay on real sockets: flow control, every way to end, polite closes, silence."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp
from twisted.internet.epollreactor import EPollReactor

from kongtwist.core.limits import Limits
from kongtwist.proxy.context import ProxyContext
from kongtwist.streams.socket_end import SocketEnd
from kongtwist.streams.splice import RelayedStream
from kongtwist.streams.stream_end import StreamEnd
from kongtwist.streams.transport_end import TransportEnd
from kongtwist.streams.websocket_frames import encode_close
from tests.unit.streams.test_frames import frame

from .streams_kit import ForeignServer, Spliced, SplicedTestCase

MASK = b"\x01\x02\x03\x04"
BIG = bytes(range(256)) * 16_000


if TYPE_CHECKING:
    _Mixin = SplicedTestCase
else:
    _Mixin = object


class Relaying(_Mixin):
    """What holds for every pair of transports."""

    kinds: tuple[type[tcp.Server], type[tcp.Server]] = (tcp.Server, tcp.Server)

    def pair(self, **options: Any) -> Spliced:
        return self.splice(kinds=self.kinds, **options)

    def test_bytesPassBothWays(self) -> None:
        """What one side sends the other one gets; bytes and messages are counted on the way."""
        s = self.pair()
        hello, answer = frame(1, b"hello", mask=MASK), frame(2, b"x" * 70000)
        s.client.send(hello)
        s.upstream.send(answer)
        s.work()
        self.assertEqual(s.upstream.read(), hello)
        self.assertEqual(s.client.read(), answer)
        stream = s.stream
        self.assertEqual((stream.bytes_in, stream.messages_in), (len(hello), 1))
        self.assertEqual((stream.bytes_out, stream.messages_out), (len(answer), 1))

    def test_whatWasThereBeforeComesFirst(self) -> None:
        """The handshake's unsent answer, then what the upstream sent with its own; early frames of the client too."""
        s = self.pair(early=(frame(1, b"a", mask=MASK), frame(1, b"b")), answer=b"HTTP/1.1 101\r\n\r\n")
        s.upstream.send(frame(1, b"c"))
        s.work()
        self.assertEqual(s.client.read(), b"HTTP/1.1 101\r\n\r\n" + frame(1, b"b") + frame(1, b"c"))
        self.assertEqual(s.upstream.read(), frame(1, b"a", mask=MASK))
        self.assertEqual((s.stream.messages_in, s.stream.messages_out), (1, 2))

    def test_slowReader(self) -> None:
        """What a slow reader does not take stays with the sender; nothing is lost, and the stream holds little."""
        limits = Limits(high_water=20_000)
        for source, sink in (("client", "upstream"), ("upstream", "client")):
            s = self.pair(limits=limits)
            sender, reader = getattr(s, source), getattr(s, sink)
            sent = s.pump(sender, BIG)
            self.assertLess(sent, len(BIG))
            side = getattr(s.stream, sink)
            # A transport counts in reads of its own size (64 KB); beyond the mark it gets no more.
            self.assertLessEqual(side.held, limits.high_water + 65536)
            self.assertGreater(side.held, 0)
            received = bytearray()
            while len(received) < len(BIG):
                received += reader.read()
                sent += sender.send(BIG[sent:])
                s.work()
            self.assertEqual(bytes(received), BIG)
            self.assertEqual(side.held, 0)

    def test_largeFrame(self) -> None:
        """A frame of megabytes arrives unchanged at a slow reader, is one message, and what follows it is seen again."""
        s = self.pair()
        stream = frame(2, BIG, mask=MASK) + frame(1, b"after", mask=MASK)
        sent = s.pump(s.client, stream)
        self.assertLess(sent, len(stream))
        received = bytearray()
        while len(received) < len(stream):
            received += s.upstream.read(300_000)
            sent += s.client.send(stream[sent:])
            s.work()
        self.assertEqual(bytes(received), stream)
        self.assertEqual((s.stream.bytes_in, s.stream.messages_in), (len(stream), 2))
        self.assertTrue(s.stream.client.tracker.at_boundary)

    def test_bothSlowAtOnce(self) -> None:
        """Flow control in one direction does not hold up the other."""
        s = self.pair()
        s.pump(s.client, BIG)
        s.upstream.send(frame(1, b"still here"))
        s.work()
        self.assertEqual(s.client.read(), frame(1, b"still here"))

    def test_everythingArrivesBeforeTheEnd(self) -> None:
        """A FIN that comes while the other side is slow does not overtake the bytes before it."""
        s = self.pair()
        sent = s.pump(s.upstream, BIG)
        s.upstream.finish()
        received = bytearray()
        while s.client.ended is None:
            received += s.client.read()
            s.work()
        self.assertEqual((len(received), s.client.ended), (sent, "fin"))
        self.assertEqual(bytes(received), BIG[:sent])

    def test_resetBehindCloseFrame(self) -> None:
        """Both ends know how it ended: the survivor gets a FIN, the end is told once, and nothing fails."""
        for source, sink in (("client", "upstream"), ("upstream", "client")):
            s = self.pair()
            getattr(s, source).send(encode_close(1000, "", MASK) if source == "client" else encode_close(1000, ""))
            s.work()
            getattr(s, source).reset()
            s.work()
            getattr(s, sink).read()
            self.assertEqual(getattr(s, sink).ended, "fin")
            s.work()
            self.assertEqual(s.ends, [s.stream])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_resetPasses(self) -> None:
        """A side that is reset resets the other one, and the end is told once."""
        for source, sink in (("client", "upstream"), ("upstream", "client")):
            s = self.pair()
            getattr(s, source).reset()
            s.work()
            getattr(s, sink).read()
            self.assertEqual(getattr(s, sink).ended, "reset")
            self.assertEqual(s.ends, [s.stream])
            self.assertEqual(len(s.context.streams), 0)

    def test_resetBehindClose(self) -> None:
        """A side that is reset behind its Close frame ends the stream in order, whichever side it is."""
        for source, sink, mask in (("client", "upstream", MASK), ("upstream", "client", None)):
            s = self.pair()
            getattr(s, source).send(encode_close(1000, "", mask))
            s.work()
            getattr(s, source).reset()
            s.work()
            self.assertEqual(getattr(s, sink).read(), encode_close(1000, "", mask))
            s.work()
            self.assertEqual((getattr(s, sink).ended, s.ends, s.stream.fault), ("fin", [s.stream], None))

    def test_pausedClientIsNoticed(self) -> None:
        """A client that is not read (the upstream is slow) and goes away is noticed without a timer."""
        s = self.pair()
        s.pump(s.client, BIG)
        self.assertEqual(len(s.context.hangups), 1)
        s.client.reset()
        s.work()
        while s.upstream.ended is None:
            s.upstream.read()
            s.work()
        self.assertEqual(s.upstream.ended, "reset")
        self.assertEqual((s.ends, len(s.context.hangups)), ([s.stream], 0))

    def test_closeOfBothEnds(self) -> None:
        """When both have sent their FIN the stream is over and nothing of it is left in the reactor."""
        s = self.pair()
        s.client.finish()
        s.work()
        s.upstream.read()
        self.assertEqual(s.upstream.ended, "fin")
        s.upstream.finish()
        s.work()
        s.client.read()
        self.assertEqual(s.client.ended, "fin")
        self.assertEqual(s.ends, [s.stream])
        mine = [each for each in s.reactor.getReaders() + s.reactor.getWriters() if isinstance(each, SocketEnd)]
        self.assertEqual(mine, [])
        self.assertEqual(s.clock.getDelayedCalls() and s.stream.wake, float("inf"))

    def test_overStreamsNeedNoGarbageCollector(self) -> None:
        """What a stream was made of goes when it is over, by reference counts alone."""
        s = self.pair()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        s.client.reset()
        s.work()
        self.assertEqual(s.ends, [s.stream])
        gone = [id(s.stream), id(s.stream.client), id(s.stream.upstream)]
        s.ends.clear()
        del s.stream
        left = [each for each in gc.get_objects() if isinstance(each, StreamEnd | RelayedStream) and id(each) in gone]
        self.assertEqual(left, [])

    def test_reactorStops(self) -> None:
        """A reactor that lets everything go ends the stream."""
        s = self.pair()
        s.reactor.disconnectAll()
        s.work()
        self.assertEqual(s.ends, [s.stream])

    # -- polite closes -----------------------------------------------------------------------------------------------

    def test_politeCloseFindsTheClientGone(self) -> None:
        """A client that had sent its last byte, and of which the Close frame finds out that it is gone: the stream ends, once."""
        s = self.pair()
        s.client.finish()
        s.work()
        s.client.reset()
        s.stream.close(1001, "bye")
        s.advance(s.context.limits.lingering_timeout + 2)
        self.assertEqual(s.ends, [s.stream])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_politeClose(self) -> None:
        """Both ends get a Close frame, answer it, and the connections close."""
        s = self.pair()
        s.stream.close(1001, "bye")
        s.work()
        self.assertEqual(s.client.read(), encode_close(1001, "bye"))
        got = s.upstream.read()
        self.assertEqual((got[0], got[1]), (0x88, 0x80 | 5))
        self.assertEqual(encode_close(1001, "bye", got[2:6]), got)
        s.upstream.send(encode_close(1001))
        s.work()
        self.assertEqual(s.ends, [])
        s.client.send(encode_close(1001, "bye", MASK))
        s.work()
        s.client.read(), s.upstream.read()
        self.assertEqual((s.client.ended, s.upstream.ended), ("fin", "fin"))
        self.assertEqual(s.ends, [s.stream])

    def test_politeCloseInsideAFrame(self) -> None:
        """A frame that is under way is finished first; what follows it is not passed on."""
        s = self.pair()
        large = frame(2, b"z" * 5000)
        s.upstream.send(large[:3000])
        s.work()
        s.stream.close(1001, "")
        s.work()
        self.assertEqual(s.client.read(), large[:3000])
        s.upstream.send(large[3000:4000])
        s.work()
        self.assertEqual(s.client.read(), large[3000:4000])
        s.upstream.send(large[4000:] + frame(1, b"not any more") + encode_close(1001))
        s.work()
        self.assertEqual(s.client.read(), large[4000:] + encode_close(1001))
        self.assertEqual(s.ends, [])
        s.client.send(encode_close(1001, "", MASK))
        s.work()
        self.assertEqual(s.ends, [s.stream])

    def test_politeCloseIsNotAnswered(self) -> None:
        """A side that does not answer is cut when its time is over, not before."""
        s = self.pair(limits=Limits(lingering_timeout=5.0))
        s.stream.close(1001, "bye")
        s.advance(4)
        self.assertEqual(s.ends, [])
        s.advance(2)
        self.assertEqual(s.ends, [s.stream])
        s.upstream.read()
        self.assertEqual(s.upstream.ended, "reset")

    def test_closeAll(self) -> None:
        """The register ends all its streams."""
        s = self.pair()
        self.assertEqual(s.context.streams.close_all(1001, "stopping"), 1)
        s.work()
        self.assertEqual(s.client.read(), encode_close(1001, "stopping"))
        self.assertEqual(len(s.context.streams), 1)
        s.context.streams.cut_all()
        s.work()
        self.assertEqual(len(s.context.streams), 0)

    # -- silence -----------------------------------------------------------------------------------------------------

    def test_silence(self) -> None:
        """A stream on which nothing moves ends after the service's read_timeout, not before; both ends are told why, and get a FIN."""
        for answered in (True, False):
            s = self.pair(read_timeout=40.0)
            s.advance(39)
            self.assertEqual((s.ends, s.client.read()), ([], b""))
            told = b""
            for _ in range(14):  # it is looked at eight times in that time
                s.advance(0.5)
                told = told or s.client.read()
                if told:
                    break
            got = s.upstream.read()
            self.assertEqual(told, encode_close(1001, "nothing came for 40 s"))
            self.assertEqual(got, encode_close(1001, "nothing came for 40 s", got[2:6]))
            if answered:
                s.client.send(encode_close(1001, "", MASK))
                s.upstream.send(encode_close(1001))
                s.work()
                s.client.read(), s.upstream.read()
                self.assertEqual((s.client.ended, s.upstream.ended), ("fin", "fin"))
            else:
                s.advance(s.context.limits.lingering_timeout + 2)
            self.assertEqual((s.ends, s.stream.why), ([s.stream], "timed out"))

    def test_anyByteBreaksTheSilence(self) -> None:
        """One byte from either side per time-out keeps the stream."""
        s = self.pair(read_timeout=40.0)
        for number in range(6):
            s.advance(35)
            (s.client if number % 2 else s.upstream).send(b"\x89\x00")
            s.work()
        self.assertEqual(s.ends, [])

    def test_stuckUpstream(self) -> None:
        """An upstream that takes nothing is given up after write_timeout, an hour of read_timeout notwithstanding."""
        s = self.pair(read_timeout=3600.0, write_timeout=20.0, limits=Limits(lingering_timeout=1.0))
        s.pump(s.client, BIG)
        s.advance(19)
        self.assertEqual(s.ends, [])
        s.advance(6)
        self.assertEqual((s.ends, s.stream.why), ([s.stream], "timed out"))

    def test_slowIsNotStuck(self) -> None:
        """A client that reads little by little is waited for."""
        s = self.pair(read_timeout=3600.0, limits=Limits(send_timeout=20.0))
        s.pump(s.upstream, BIG)
        for _ in range(5):
            s.advance(15)
            self.assertGreater(len(s.client.read(1_000_000)), 0)
            s.pump(s.upstream, BIG)
        self.assertEqual(s.ends, [])


class SocketEndTests(Relaying, SplicedTestCase):
    """Bare sockets under the lean reactor."""

    def test_kind(self) -> None:
        """Bare TCP transports are not kept; their sockets are."""
        s = self.pair()
        self.assertIsInstance(s.stream.client, SocketEnd)
        self.assertIsInstance(s.stream.upstream, SocketEnd)

    def test_heldIsOneRead(self) -> None:
        """What is held for a slow reader never exceeds the high-water mark."""
        s = self.pair(limits=Limits(high_water=10_000))
        s.pump(s.client, BIG)
        self.assertLessEqual(s.stream.upstream.held, 10_000)
        s.pump(s.upstream, BIG)
        self.assertLessEqual(s.stream.client.held, 10_000)

    def test_halfClose(self) -> None:
        """A FIN passes as FIN, and the other direction goes on."""
        for source, sink in (("client", "upstream"), ("upstream", "client")):
            s = self.pair()
            one, other = getattr(s, source), getattr(s, sink)
            one.send(frame(1, b"last words"))
            one.finish()
            s.work()
            self.assertEqual(other.read(), frame(1, b"last words"))
            self.assertEqual(other.ended, "fin")
            other.send(frame(1, b"answer"))
            s.work()
            self.assertEqual(one.read(), frame(1, b"answer"))
            self.assertEqual(s.ends, [])

    def test_halfClosedClientIsWatched(self) -> None:
        """A client that has sent its FIN and then goes away for good is noticed while the upstream is silent."""
        s = self.pair()
        s.client.finish()
        s.work()
        self.assertEqual(len(s.context.hangups), 1)
        s.client.reset()
        s.work()
        s.upstream.read()
        self.assertEqual(s.ends, [s.stream])

    def test_resetNoticedByAWrite(self) -> None:
        """A side whose reset is first noticed by a write is lost, not half-closed: the other side hears of it at once,
        however much it goes on sending."""
        for dead, alive in (("client", "upstream"), ("upstream", "client")):
            s = self.pair()
            getattr(s, dead).reset()
            getattr(s, alive).send(frame(2, b"x" * 100))
            getattr(s.stream, alive).doRead()  # before the reactor looks at the side that was reset
            s.work()
            getattr(s, alive).read()
            self.assertEqual((s.ends, getattr(s, alive).ended), ([s.stream], "reset"), dead)

    def test_deadSideIsNotReadForEver(self) -> None:
        """A side that was broken behind its Close frame: what the other side sends is thrown away, but not for long."""
        s = self.pair(limits=Limits(lingering_timeout=5.0))
        s.client.send(frame(1, b"unread", mask=MASK))
        s.work()
        s.upstream.send(encode_close(1000, "done"))
        s.upstream.sock.close()  # with unread bytes: the kernel resets
        for _ in range(20):
            if not s.ends:
                s.client.send(frame(1, b"on and on", mask=MASK))
            s.advance(0.5)
        self.assertEqual(s.ends, [s.stream])

    def test_brokenWriteDoesNotLoseWhatWasRead(self) -> None:
        """An upstream says its last and is reset by what the client still sends: the client gets all of it."""
        s = self.pair()
        last = frame(1, b"l" * 3000) + encode_close(1000, "done")
        s.client.send(frame(1, b"unread", mask=MASK))
        s.work()
        s.upstream.send(last)
        s.upstream.sock.close()  # with unread bytes: the kernel resets
        for _ in range(5):
            s.client.send(frame(1, b"too late", mask=MASK))
            s.work()
        self.assertEqual(s.client.read(), last)
        self.assertEqual(s.client.ended, "fin")
        s.client.sock.close()
        s.work()
        self.assertEqual(s.ends, [s.stream])

    def test_brokenWriteInsideALargeFrame(self) -> None:
        """The same while a large frame is under way, which nobody reads on its way."""
        s = self.pair()
        large = frame(2, BIG, mask=MASK)
        s.pump(s.client, large[:200_000])
        last = frame(1, b"l" * 3000) + encode_close(1009, "too big")
        s.upstream.send(last)
        s.upstream.sock.close()
        at = 200_000
        for _ in range(50):
            at += s.client.send(large[at : at + 300_000])
            s.work()
        self.assertEqual(s.client.read(), last)
        self.assertEqual(s.client.ended, "fin")

    def test_closeInsideALargeFrame(self) -> None:
        """A polite close waits for the end of a frame that nobody reads on its way."""
        s = self.pair()
        large = frame(2, BIG[:1_000_000])
        s.pump(s.upstream, large[:300_000])
        received = s.client.read()
        s.work()
        s.stream.close(1001, "")
        rest = large[300_000:] + frame(1, b"not any more")
        while rest:
            rest = rest[s.pump(s.upstream, rest) :]
            received += s.client.read()
        for _ in range(50):
            s.work()
            received += s.client.read()
        self.assertEqual(received, large + encode_close(1001))

    def test_holdsLittleOfALargeFrame(self) -> None:
        """What was taken for a reader that then takes no more is kept, and is bounded."""
        s = self.pair()
        s.pump(s.client, frame(2, BIG, mask=MASK))
        self.assertGreater(s.stream.upstream.held, 0)
        self.assertLessEqual(s.stream.upstream.held, 524_288)


class WithoutSpliceTests(SocketEndTests):
    """The same where the system cannot move bytes unseen."""

    def pair(self, **options: Any) -> Spliced:
        self.patch(ProxyContext, "pipe", None)
        return super().pair(**options)


class StockReactorTests(SocketEndTests):
    """The same under Twisted's own reactor, as in somebody else's process."""

    reactor_class = EPollReactor


class MixedTests(Relaying, SplicedTestCase):
    """A transport the relay must not reach below on the client's side, as TLS is."""

    kinds = (ForeignServer, tcp.Server)

    def test_kind(self) -> None:
        """The transport stays and is written to as usual."""
        s = self.pair()
        self.assertIsInstance(s.stream.client, TransportEnd)
        self.assertIsInstance(s.stream.upstream, SocketEnd)


class MixedOtherWayTests(Relaying, SplicedTestCase):
    """The upstream's side, as with wss:// services."""

    kinds = (tcp.Server, ForeignServer)


class TransportEndTests(Relaying, SplicedTestCase):
    """Both sides."""

    kinds = (ForeignServer, ForeignServer)


class RecordTests(SplicedTestCase):
    """What the register tells of a stream."""

    def test_record(self) -> None:
        """Kind, id and owner, and which streams a condition chooses."""
        s = self.splice()
        record = next(iter(s.context.streams))
        self.assertIsInstance(record, RelayedStream)
        self.assertEqual((record.kind, record.id, record.route_id), ("websocket", b"0" * 32, "r"))
        self.assertEqual(s.context.streams.close_all(which=lambda each: each.route_id == "other"), 0)
        self.assertEqual(s.context.streams.close_all(which=lambda each: each.route_id == "r"), 1)
