"""Header compression, beside the library `hpack` as another opinion."""

from __future__ import annotations

import hpack
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman as other_huffman
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http2 import huffman
from kongtwist.core.http2.hpack import (
    BAD,
    COOKIE,
    FORBIDDEN,
    PSEUDO,
    REGULAR,
    STATIC,
    Decoder,
    Encoder,
    Field,
    HPACKError,
    _literals,
    encode_field,
)

Pairs = list[tuple[bytes, bytes]]

NAMES = st.sampled_from([b":path", b"content-type", b"x-a", b"x-b", b"authorization", b"grpc-timeout"])
VALUES = st.binary(max_size=80) | st.text("abcdefghij0123456789/", max_size=300).map(str.encode)


def ours(decoder: Decoder, block: bytes) -> Pairs | None:
    """The fields, or None where the block is refused."""
    try:
        return [(field.name, field.value) for field in decoder.decode(block)]
    except HPACKError:
        return None


def theirs(decoder: hpack.Decoder, block: bytes) -> Pairs | None:
    """The same by the other library."""
    try:
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except Exception:  # noqa: BLE001 - it has no one class of errors
        return None


class OtherOpinionTests(SynchronousTestCase):
    """The same fields as another implementation, or both refuse."""

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
    def test_any_bytes(self, blocks: list[bytes]) -> None:
        """Whatever comes, one block after the other."""
        one, other = Decoder(), hpack.Decoder(max_header_list_size=1 << 30)
        for block in blocks:
            expected = theirs(other, block)
            self.assertEqual(ours(one, block), expected)
            if expected is None:
                return

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(st.tuples(st.lists(st.tuples(NAMES, VALUES), max_size=8), st.sampled_from([0, 100, 4096])), max_size=6)
    )
    def test_what_an_encoder_makes(self, heads: list[tuple[Pairs, int]]) -> None:
        """Tables that fill, empty and change their size."""
        encoder, decoder = hpack.Encoder(), Decoder()
        for fields, size in heads:
            encoder.header_table_size = size
            self.assertEqual(ours(decoder, encoder.encode(fields)), fields)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
    def test_what_we_encode(self, fields: Pairs) -> None:
        """Our pieces are read by the other side."""
        block = b"".join([encode_field(*each) for each in fields])
        self.assertEqual(theirs(hpack.Decoder(), block), fields)

    def decodes_as_the_other(self, coded: bytes) -> None:
        """The same string, or refused by both."""
        try:
            expected: bytes | None = bytes(other_huffman(coded))
        except hpack.HPACKDecodingError:
            expected = None
        try:
            found: bytes | None = huffman.decode(coded)
        except ValueError:
            found = None
        self.assertEqual(found, expected)

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=12))
    def test_huffman(self, data: bytes) -> None:
        """Any string of bits."""
        self.decodes_as_the_other(data)

    @settings(max_examples=300, deadline=None)
    @given(
        st.text("aeiostAZ019-._ {", min_size=28, max_size=200).map(str.encode) | st.binary(min_size=8, max_size=40),
        st.sampled_from([0, 1, 2, 64, 128]),
        st.sampled_from([b"", b"\0", b"\xff", b"\xff\xff", b"\xfe", b"\x7f", b"\xff\xff\xff\xff"]),
    )
    def test_huffman_long(self, value: bytes, wrong: int, more: bytes) -> None:
        """Long strings, with symbols of any length in them: whole, with another last byte, with bytes behind that."""
        data = bytearray(HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(value))
        data[-1] ^= wrong
        coded = bytes(data) + more
        self.decodes_as_the_other(coded)

    def test_huffman_every_symbol(self) -> None:
        """Each symbol at each place of a long string, so that it begins at any bit, with any padding behind it."""
        encode = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode
        for symbol in range(256):
            for at in range(30):
                value = b"a-Z0" * 8
                value = value[:at] + bytes([symbol]) + value[at:]
                self.assertEqual(huffman.decode(encode(value)), value)


class DecoderTests(SynchronousTestCase):
    """What connections rely on."""

    def test_what_comes_again_is_shared(self) -> None:
        """A literal is remembered when it comes the second time, on whatever connection; what never comes again takes no place."""
        block = b"\x40\x07x-twice\x05value"
        _literals.clear()
        one, two, three = [Decoder().decode(block)[0] for _ in range(3)]
        self.assertIsNot(one, two)
        self.assertIs(two, three)
        decoder = Decoder()
        for number in range(500):
            decoder.decode(b"\x40\x06x-once\x08%08d" % number)
        self.assertEqual([field.name for field in _literals.values()], [b"x-twice"])

    def test_lines(self) -> None:
        """A field as a line of HTTP/1.1 is made once."""
        field = Field(b"x-a", b"b c")
        self.assertEqual(field.line, b"x-a: b c\r\n")
        self.assertIs(field.line, field.line)

    def test_what_decides(self) -> None:
        """Where a call goes depends on all that is not passed on as it is, but for the length; of the rest, on a few."""
        for name in (b":path", b"te", b"host", b"cookie", b"x-forwarded-for", b"content-type", b"kong-debug"):
            self.assertTrue(Field(name, b"x").decides, name)
        for name in (b"x-a", b"authorization", b"grpc-timeout", b"content-length"):
            self.assertFalse(Field(name, b"x").decides, name)
        self.assertTrue(Field(b"x-a", b"x\x01").decides)
        self.assertTrue(Field(b"x-a", b" x").decides)
        self.assertFalse(Field(b"content-length", b"\x01").decides)

    def test_changes(self) -> None:
        """Only what changes the table counts, so that equal blocks in between mean the same."""
        decoder = Decoder()
        block = b"\x40\x01a\x01b"
        decoder.decode(block)
        before = decoder.changes
        decoder.decode(b"\xbe\x82\x00\x01c\x01d")
        self.assertEqual(decoder.changes, before)
        decoder.decode(block)
        self.assertNotEqual(decoder.changes, before)
        decoder.decode(b"\x20")
        self.assertNotEqual(decoder.changes, before + 1)
        self.assertRaises(HPACKError, decoder.decode, b"\xbe")

    def test_bomb(self) -> None:
        """Thousands of references to one large field hold it once."""
        decoder = Decoder()
        value = b"v" * 4000
        decoder.decode(b"\x40\x01a\x7f" + b"\xa1\x1e" + value)
        fields = decoder.decode(b"\xbe" * 16000)
        self.assertEqual(len(fields), 16000)
        self.assertEqual(len({id(field.value) for field in fields}), 1)

    def test_too_large_for_the_table(self) -> None:
        """RFC 7541 4.4: such a field empties the table, and is given all the same."""
        decoder = Decoder()
        decoder.decode(b"\x40\x01a\x01b")
        large = b"\x40\x01a\x7f\xa1\x1f" + b"v" * 4128
        self.assertEqual(len(decoder.decode(large)[0].value), 4128)
        self.assertRaises(HPACKError, decoder.decode, b"\xbe")

    def test_refused(self) -> None:
        """Index 0, sizes above the limit or behind a field, integers without end, blocks that break off."""
        for block in (
            b"\x80",
            b"\x3f\xe2\x1f",
            b"\x82\x20",
            b"\xff" + b"\xff" * 6,
            b"\x40",
            b"\x40\x05a",
            b"\x40\x01a\x05b",
        ):
            self.assertRaises(HPACKError, Decoder().decode, block)
        self.assertEqual(Decoder().decode(b"\x3f\xe1\x1f\x20"), [])

    def test_never_indexed(self) -> None:
        """It is remembered, and is not mixed up with the same field that came otherwise."""
        (marked,) = Decoder().decode(b"\x10\x01a\x01b")
        (plain,) = Decoder().decode(b"\x00\x01a\x01b")
        self.assertEqual((marked.never, plain.never), (True, False))


class FieldTests(SynchronousTestCase):
    """What a field is."""

    def test_kinds(self) -> None:
        """RFC 9113 8.2."""
        for name, value, kind in (
            (b":path", b"/", PSEUDO),
            (b"cookie", b"a=b", COOKIE),
            (b"x-a", b"\xe9", REGULAR),
            (b"transfer-encoding", b"chunked", FORBIDDEN),
            (b"X-A", b"v", BAD),
            (b"", b"v", BAD),
            (b"a b", b"v", BAD),
            (b":Path", b"v", BAD),
            (b"x-a", b" v", BAD),
            (b"x-a", b"v\t", BAD),
            (b"x-a", b"a\r\nb", BAD),
            (b"x-a", b"a\0b", BAD),
        ):
            self.assertEqual(Field(name, value).kind, kind, (name, value))

    def test_line(self) -> None:
        """As HTTP/1.1 has it."""
        self.assertEqual(Field(b"x-a", b"v").line, b"x-a: v\r\n")


class EncoderTests(SynchronousTestCase):
    """What goes to peers."""

    def test_forms(self) -> None:
        """Whole fields of the static table, names of it, and neither; what is secret is marked."""
        self.assertEqual(encode_field(b":status", b"200"), b"\x88")
        self.assertEqual(encode_field(b":status", b"201"), b"\x08\x03201")
        self.assertEqual(encode_field(b"via", b"x"), b"\x0f\x2d\x01x")
        self.assertEqual(encode_field(b"x", b"y"), b"\x00\x01x\x01y")
        self.assertEqual(encode_field(b"cookie", b"y"), b"\x1f\x11\x01y")
        self.assertEqual(encode_field(b"x", b"y", never=True), b"\x10\x01x\x01y")

    def test_lines(self) -> None:
        """Names become lower case; what came as never indexed goes on so, though the line is known otherwise."""
        encoder = Encoder()
        self.assertEqual(encoder.block(b"\x88", [b"X-Enc: a"]), b"\x88\x00\x05x-enc\x01a")
        self.assertEqual(encoder.block(b"", [b"X-Enc: a"], frozenset((b"x-enc",))), b"\x10\x05x-enc\x01a")
        self.assertEqual(encoder.block(b"", [b"X-Enc: a"]), b"\x00\x05x-enc\x01a")

    def test_lines_of_http1(self) -> None:
        """What is for a connection of HTTP/1.1 is left out; ids that always differ are coded like others."""
        encoder = Encoder()
        self.assertEqual(
            encoder.block(b"\x88", [b"Connection: Upgrade", b"Upgrade: HTTP/2", b"Keep-Alive: 5"]), b"\x88"
        )
        for value in (b"0" * 32, b"x" * 200):
            (field,) = Decoder().decode(encoder.block(b"", [b"X-Kong-Request-Id: " + value]))
            self.assertEqual((field.name, field.value), (b"x-kong-request-id", value))

    def test_smaller_table(self) -> None:
        """A peer whose table is small is told once that ours is empty; another one never."""
        encoder = Encoder()
        encoder.limit(65536)
        self.assertEqual(encoder.block(b"\x88", []), b"\x88")
        encoder.limit(100)
        encoder.limit(0)
        self.assertEqual(encoder.block(b"\x88", []), b"\x20\x88")
        encoder.limit(50)
        self.assertEqual(encoder.block(b"\x88", []), b"\x88")

    def test_static_table(self) -> None:
        """61 fields."""
        self.assertEqual(len(STATIC), 62)
        self.assertEqual(STATIC[16].value, b"gzip, deflate")
