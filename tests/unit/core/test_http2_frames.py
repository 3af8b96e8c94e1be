"""Frames as bytes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http2 import frames


class FrameTests(SynchronousTestCase):
    """RFC 9113 6."""

    def test_forms(self) -> None:
        """Each kind."""
        self.assertEqual(frames.header(5, frames.DATA, 1, 3), b"\0\0\5\0\1\0\0\0\3")
        self.assertEqual(frames.rst_stream(3, 8), b"\0\0\4\3\0\0\0\0\3\0\0\0\x08")
        self.assertEqual(frames.window_update(0, 16), b"\0\0\4\x08\0\0\0\0\0\0\0\0\x10")
        self.assertEqual(frames.settings([(4, 65536)]), b"\0\0\6\4\0\0\0\0\0\0\4\0\1\0\0")
        self.assertEqual(frames.ping(b"12345678", True), b"\0\0\x08\6\1\0\0\0\x0012345678")
        self.assertEqual(frames.goaway(1, 11, b"why"), b"\0\0\x0b\7\0\0\0\0\0\0\0\0\1\0\0\0\x0bwhy")

    def test_headers(self) -> None:
        """A block larger than a frame goes on in CONTINUATION, whose last has END_HEADERS."""
        self.assertEqual(frames.headers(1, b"ab", True), b"\0\0\2\1\5\0\0\0\1ab")
        self.assertEqual(
            frames.headers(1, b"abcde", False, 2),
            b"\0\0\2\1\0\0\0\0\1ab\0\0\2\x09\0\0\0\0\1cd\0\0\1\x09\4\0\0\0\1e",
        )

    def test_names(self) -> None:
        """For logs."""
        self.assertEqual(frames.error_name(11), "ENHANCE_YOUR_CALM")
        self.assertEqual(frames.error_name(99), "error 0x63")
        error = frames.HTTP2Error(frames.PROTOCOL_ERROR, "why", 3)
        self.assertEqual((error.code, str(error), error.stream), (1, "why", 3))
