"""Frames that many WebSockets get at once."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.message_spans import MessageSpans
from kongtwist.core.message_times import EGRESS
from kongtwist.kafka.feed_forms import SocketMessages, text_frame
from kongtwist.streams.fed_frames import FrameWriter, count_frames
from tests.unit.net.test_sending import Socket, plain


class FrameTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked = 0
        self.ended: list[bool] = []

    def seconds(self) -> float:
        """Counts who asks."""
        self.asked += 1
        return self.clock.seconds()

    def writer(self, transport: Any, times: MessageSpans | None = None) -> FrameWriter:
        return FrameWriter(transport, self.seconds, times, lambda: self.ended.append(True))

    def test_counted(self) -> None:
        self.assertEqual(count_frames(b""), 0)
        self.assertEqual(count_frames(b"".join(text_frame(b"x" * size) for size in (0, 1, 125, 126, 65535, 65536))), 6)

    def test_both_ways_send_and_count(self) -> None:
        transport = StringTransport()
        one = self.writer(transport)
        two = text_frame(b"a") + text_frame(b"b")
        one.write_chunk(two)
        one.write(text_frame(b"c"))
        one.write(text_frame(b"d"), text_frame(b"d"))
        self.assertEqual(transport.value(), two + text_frame(b"c") + text_frame(b"d"))
        self.assertEqual((one.messages, one.bytes), (4, 12))
        one.finish()
        self.assertEqual(self.ended, [True])

    def test_the_chunk_of_a_feed_is_the_frames(self) -> None:
        frames = text_frame(b"a") + text_frame(b"b")
        self.assertIs(SocketMessages().chunk(frames), frames)

    def test_the_clock_is_asked_once_for_all(self) -> None:
        writers = [self.writer(plain(Socket())) for _ in range(100)]
        for seconds in (10.0, 5.0):
            self.clock.advance(seconds)
            data = text_frame(b"%d" % seconds)
            for each in writers:
                each.write_chunk(data)
            self.assertEqual({each.moved for each in writers}, {self.clock.seconds()})
        self.assertEqual(self.asked, 2)
        self.assertEqual({(each.messages, each.bytes) for each in writers}, {(2, 7)})

    def test_the_same_again_is_a_new_move(self) -> None:
        """What is not for many may be the same object, much later."""
        one, data = self.writer(plain(Socket())), text_frame(b"a")
        one.write(data)
        self.clock.advance(60)
        one.write(data)
        self.assertEqual(one.moved, 60.0)

    def test_message_times(self) -> None:
        spans = MessageSpans()
        spans.begin(self.clock.seconds)
        timed, other = self.writer(plain(Socket()), spans), self.writer(plain(Socket()))
        for seconds in (2.0, 3.0, 1.0):
            self.clock.advance(seconds)
            data = text_frame(b"%d" % seconds)
            for each in (other, timed):
                each.write_chunk(data)
        self.assertEqual((spans.first[EGRESS], spans.longest[EGRESS]), (2.0, 3.0))

    def test_never_overtakes_what_others_wrote(self) -> None:
        """A ping waits in the transport: frames wait behind it, and go their short way again when it is gone."""
        socket = Socket()
        transport = plain(socket)
        one = self.writer(transport)
        one.write_chunk(b"\x81\x01a")
        transport._tempDataBuffer = [b"ping"]
        one.others_wrote()
        one.write_chunk(b"\x81\x01b")
        self.assertEqual((socket.taken, transport.written), (b"\x81\x01a", [b"\x81\x01b"]))
        transport._tempDataBuffer = []
        one.write_chunk(b"\x81\x01c")
        self.assertEqual((socket.taken, transport.written), (b"\x81\x01a\x81\x01c", [b"\x81\x01b"]))

    def test_nothing_behind_its_end(self) -> None:
        """Not even when the Close frame, which others write, comes last."""
        socket, above = Socket(), StringTransport()
        for transport in (above, plain(socket)):
            one = self.writer(transport)
            one.stop()
            one.others_wrote()
            one.write(text_frame(b"a"))
            self.assertEqual((one.messages, one.bytes), (0, 0))
            one.write_chunk(text_frame(b"b"))
            one.finish()
        self.assertEqual((above.value(), socket.taken, self.ended), (b"", b"", []))
