"""gRPC-Web's frames and text, and what WebSocket messages mean, without any connection."""

from __future__ import annotations

import random
from base64 import b64encode

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.grpc.web_frames import (
    BadText,
    Base64Pieces,
    SocketMessages,
    encode_text,
    parse_fields,
    trailers_frame,
)


class FrameTests(SynchronousTestCase):
    def test_trailers(self) -> None:
        """Names are in lower case, each field ends with CRLF, and no empty line follows."""
        frame = trailers_frame([(b"Grpc-Status", b"5"), (b"grpc-message", b"no %22x%22"), (b"x-detail-bin", b"AP8=")])
        lines = b"grpc-status:5\r\ngrpc-message:no %22x%22\r\nx-detail-bin:AP8=\r\n"
        self.assertEqual(frame, b"\x80\0\0\0" + bytes([len(lines)]) + lines)

    def test_no_trailers(self) -> None:
        """A frame without fields is a frame all the same."""
        self.assertEqual(trailers_frame([]), b"\x80\0\0\0\0")


class TextTests(SynchronousTestCase):
    """Base64 that comes in pieces."""

    def test_pieces(self) -> None:
        """Padding in the middle, and cuts anywhere, change nothing."""
        parts = [b"a", b"bc", b"", b"def", b"\0\xff\xfe\xfd", bytes(range(256))]
        text = b"".join(map(encode_text, parts))
        for size in (1, 2, 3, 5, 7, len(text)):
            decoder = Base64Pieces()
            made = b"".join(decoder.feed(text[at : at + size]) for at in range(0, len(text), size))
            decoder.end()
            self.assertEqual(made, b"".join(parts))

    def test_random_cuts(self) -> None:
        """As the standard library decodes it whole."""
        chance = random.Random(8)
        for _ in range(200):
            data = chance.randbytes(chance.randrange(60))
            text = b64encode(data)
            at = chance.randrange(len(text) + 1)
            decoder = Base64Pieces()
            self.assertEqual(decoder.feed(text[:at]) + decoder.feed(text[at:]), data)
            decoder.end()

    def test_at_once(self) -> None:
        """Whole groups are given on without waiting for the rest."""
        decoder = Base64Pieces()
        self.assertEqual(decoder.feed(b"YWJjZ"), b"abc")
        self.assertEqual(decoder.feed(b"GVm"), b"def")

    def test_bad(self) -> None:
        """What is no base64 is refused."""
        for text in (b"ab!d", b"a===", b"====", b"YQ==YQ=a", b"ab-_", b"=abc", b"ab\r\n"):
            with self.assertRaises(BadText, msg=repr(text)):
                Base64Pieces().feed(text)

    def test_cut_short(self) -> None:
        """An end in the middle of a group is none."""
        decoder = Base64Pieces()
        decoder.feed(b"YWJjZ")
        with self.assertRaises(BadText):
            decoder.end()


class SocketTests(SynchronousTestCase):
    """Messages as @improbable-eng/grpc-web 0.15 sends them (recorded)."""

    def test_head(self) -> None:
        """The first message holds the request's fields; several values stand in one line."""
        text = (
            b"Authorization: Bearer x\r\nx-multi: a, b\r\ncontent-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\n"
        )
        fields = [
            (b"authorization", b"Bearer x"), (b"x-multi", b"a, b"), (b"content-type", b"application/grpc-web+proto"),
            (b"x-grpc-web", b"1"),
        ]  # fmt: skip
        self.assertEqual(parse_fields(text), fields)

    def test_bad_head(self) -> None:
        """Lines that are no fields are refused, as are those that would be two."""
        for text in (b"no colon\r\n", b": x\r\n", b"a b: c\r\n", b"a: b\nc: d\r\n", b"a: \0\r\n", b"a\xff: b\r\n"):
            with self.assertRaises(ValueError, msg=repr(text)):
                parse_fields(text)

    def test_messages(self) -> None:
        """Content behind the first byte is the body's, in whatever pieces it comes."""
        messages = SocketMessages()
        messages.begin()
        self.assertEqual(messages.feed(b"\0\0\0\0\0\x05fi"), b"\0\0\0\0\x05fi")
        self.assertEqual(messages.feed(b""), b"")
        self.assertEqual(messages.feed(b"\x01st"), b"\x01st")
        messages.begin()
        self.assertEqual(messages.feed(b"\0"), b"")
        self.assertEqual(messages.feed(b"\0\0\0\0\0"), b"\0\0\0\0\0")
        self.assertFalse(messages.ended)
        messages.begin()
        self.assertEqual(messages.feed(b"\1"), b"")
        self.assertTrue(messages.ended)

    def test_bad_messages(self) -> None:
        """An unknown kind, and what comes behind the end."""
        with self.assertRaises(ValueError):
            SocketMessages().feed(b"\x02abc")
        with self.assertRaises(ValueError):
            SocketMessages().feed(b"\x01abc")
        messages = SocketMessages()
        messages.feed(b"\1")
        messages.begin()
        with self.assertRaises(ValueError):
            messages.feed(b"\0\0\0\0\0\0")
