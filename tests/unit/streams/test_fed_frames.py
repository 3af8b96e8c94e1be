"""Frames that many WebSockets get at once."""

from __future__ import annotations

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.kafka.feed_forms import text_frame
from kongtwist.streams.fed_frames import FrameWriter, count_frames


class FrameTests(SynchronousTestCase):
    def test_counted(self) -> None:
        self.assertEqual(count_frames(b""), 0)
        self.assertEqual(count_frames(b"".join(text_frame(b"x" * size) for size in (0, 1, 125, 126, 65535, 65536))), 6)

    def test_written_while_they_may_be(self) -> None:
        counted: list[tuple[int, int]] = []
        ended: list[bool] = []
        transport = StringTransport()

        def admit(messages: int, size: int) -> bool:
            counted.append((messages, size))
            return len(counted) < 3

        one = FrameWriter(transport, admit, lambda: ended.append(True))
        two = text_frame(b"a") + text_frame(b"b")
        for data in (two, text_frame(b"c"), text_frame(b"d")):
            one.write(data)
        self.assertEqual(transport.value(), two + text_frame(b"c"))
        self.assertEqual(counted, [(2, 6), (1, 3), (1, 3)])
        one.finish()
        self.assertEqual(ended, [True])
