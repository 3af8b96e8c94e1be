"""DNS messages as bytes, compared with those of another codec (tests/dns_replies.py)."""

from __future__ import annotations

import struct
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.dns.records import AAAA, CNAME, SRV, A, Record, Reply
from kongtwist.net.dns_messages import encode_query, read_answer
from tests.dns_replies import Query, read_query, reply_to


class QueryTests(SynchronousTestCase):
    def test_query(self) -> None:
        """It says what is asked for, that the server shall ask others, and the size of answers."""
        query = read_query(data := encode_query(0xABCD, "_http._tcp.a.test", SRV, True))
        self.assertEqual(query[:4], (0xABCD, "_http._tcp.a.test", "SRV", True))
        self.assertEqual(data[2:4], b"\x01\x00")
        self.assertEqual(data[-11:], b"\0\0\x29\x04\xd0\0\0\0\0\0\0")
        self.assertEqual(read_query(encode_query(1, "a.test", A, False))[:4], (1, "a.test", "A", False))


class AnswerTests(SynchronousTestCase):
    QUERY = read_query(encode_query(7, "a.test", A, True))

    def read(self, data: bytes, query: Query = QUERY) -> Reply | None:
        return read_answer(data, 7, "a.test", A)

    def test_records(self) -> None:
        """Those of the kinds that are asked for, each with what it holds; names in lower case."""
        records = [
            ["W.test", "CNAME", 5, "a.TEST"],
            ["a.test", "A", 60, "192.0.2.1"],
            ["a.test", "AAAA", 61, "2001:db8::1"],
            ["a.test", "TXT", 62, "text"],
        ]
        more = [["s.test", "SRV", 63, 1, 2, 80, "A.test"]]
        self.assertEqual(
            self.read(reply_to(self.QUERY, records, additional=more)),
            Reply(
                0,
                False,
                (
                    Record("w.test", CNAME, 5, "a.test"),
                    Record("a.test", A, 60, "192.0.2.1"),
                    Record("a.test", AAAA, 61, "2001:db8::1"),
                ),
                (Record("s.test", SRV, 63, "a.test", 80, 2, 1),),
            ),
        )

    def test_many(self) -> None:
        """As many as fit into an answer over TCP."""
        data = reply_to(
            self.QUERY, [["a.test", "A", 60, f"10.0.{number >> 8}.{number & 255}"] for number in range(4090)]
        )
        self.assertLess(len(data), 65536)
        self.assertEqual(len(self.read(data).answers), 4090)  # type: ignore[union-attr]

    def test_what_is_no_answer(self) -> None:
        """To this question: it may be forged."""
        good = reply_to(self.QUERY, [["a.test", "A", 60, "192.0.2.1"]])
        empty = reply_to(self.QUERY)
        for data in (
            b"",
            good[:11],
            b"\0\x08" + good[2:],
            good[:2] + b"\x01" + good[3:],  # a query
            good[:2] + b"\xa1" + good[3:],  # another opcode
            reply_to(self.QUERY, question=self.QUERY.question.replace(b"\1a", b"\1b")),
            reply_to(self.QUERY, question=self.QUERY.question[:-4] + b"\0\x1c\0\1"),
            empty[:4] + b"\0\0" + empty[6:12],  # without a question
        ):
            self.assertIsNone(self.read(data), data)
        self.assertIsNotNone(self.read(reply_to(self.QUERY, question=self.QUERY.question.replace(b"\1a", b"\1A"))))

    def test_refusals_without_a_question(self) -> None:
        refused = reply_to(self.QUERY, code="REFUSED")
        self.assertEqual(self.read(refused[:4] + b"\0\0" + refused[6:12]), Reply(5, False, ()))

    def test_times(self) -> None:
        """A TTL with its first bit set is none (RFC 2181 8)."""
        data = reply_to(self.QUERY, [["a.test", "A", 0xFFFFFFFF, "192.0.2.1"]])
        reply = self.read(data)
        assert reply is not None
        self.assertEqual(reply.answers[0].ttl, 0)

    def test_names_that_no_host_has(self) -> None:
        """Records that point to them are left out: they could not be asked for."""
        for target in ("b\xff.test", "b c.test", "b\0.test", "\n"):
            reply = self.read(
                reply_to(self.QUERY, [["a.test", "CNAME", 60, target], ["a.test", "SRV", 60, 1, 1, 80, target]])
            )
            self.assertEqual(reply, Reply(0, False, ()), target)

    def test_names_that_cost(self) -> None:
        """A name is no longer than RFC 1035 lets it be: each of thousands of records may point to it. None goes in circles, or forward."""
        question = self.QUERY.question
        start = 12 + len(question)

        def message(owner: bytes, more: bytes = b"", count: int = 1) -> bytes:
            rest = struct.pack("!HHIH4s", A, 1, 60, 4, b"\xc0\0\2\1")
            data = struct.pack("!6H", 7, 0x8180, 1, count, 0, 0) + question + owner + rest
            return data + (more + rest) * (count - 1)

        longest = b"\1x" * 127
        reply = self.read(message(longest + b"\0", struct.pack("!H", 0xC000 | start), 4000))
        assert reply is not None
        self.assertEqual({each.name for each in reply.answers}, {".".join("x" * 127)})
        self.assertEqual(len(reply.answers), 4000)
        for bad in (
            longest + b"\1x\0",
            b"\x3f" + b"y" * 63 + longest + b"\0",
            b"\x40" + b"y" * 64 + b"\0",
            b"\1x" * 20_000 + b"\0",
            b"\1x" + struct.pack("!H", 0xC000 | start),
            struct.pack("!H", 0xC000 | start),
            struct.pack("!H", 0xC000 | start + 20),
        ):
            self.assertRaises(ValueError, self.read, message(bad))

    def test_a_dot_within_a_label(self) -> None:
        """It does not divide names: such a record is somebody else's."""
        address = struct.pack("!HHIH4s", A, 1, 60, 4, b"\xc0\0\2\1")
        data = struct.pack("!6H", 7, 0x8180, 1, 2, 0, 0) + self.QUERY.question
        data += b"\6a.test\0" + address + b"\1a\4test\0" + address
        self.assertEqual(self.read(data), Reply(0, False, (Record("a.test", A, 60, "192.0.2.1"),)))

    def test_lengths_of_records(self) -> None:
        """What a record holds ends where it says; the others are passed over."""
        start = struct.pack("!6H", 7, 0x8180, 1, 2, 0, 0) + self.QUERY.question
        good = b"\xc0\x0c" + struct.pack("!HHIH4s", A, 1, 60, 4, b"\xc0\0\2\1")
        for kind, held in ((A, b"\1\2\3"), (AAAA, b"\1" * 4), (16, b""), (41, b"\xff" * 9), (6, b"\xc0\xff")):
            data = start + b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(held)) + held + good
            self.assertEqual(self.read(data), Reply(0, False, (Record("a.test", A, 60, "192.0.2.1"),)), kind)
        for kind, held in ((CNAME, b"\1b\0\0"), (CNAME, b"\1b"), (SRV, b"\0" * 6), (SRV, b"\0")):
            data = start + b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(held)) + held + good
            self.assertRaises(ValueError, self.read, data)
        self.assertRaises(ValueError, self.read, start + good)  # one is missing

    def test_broken(self) -> None:
        """Whatever comes: a reply, nothing, or ValueError."""
        random = Random(7)
        records = [
            ["a.test", "CNAME", 5, "b.test"],
            ["b.test", "A", 60, "192.0.2.1"],
            ["a.test", "SRV", 6, 1, 2, 80, "b.test"],
        ]
        good = reply_to(self.QUERY, records, additional=records)
        outcomes = set()
        for _ in range(5000):
            data = bytearray(good)
            for _ in range(random.randrange(1, 6)):
                data[random.randrange(2, len(data))] = random.choice(
                    (0, 1, 0x3F, 0x40, 0xC0, 0xFF, random.randrange(256))
                )
            if random.random() < 0.3:
                del data[random.randrange(12, len(data)) :]
            try:
                outcomes.add(type(self.read(bytes(data))).__name__)
            except ValueError:
                outcomes.add("ValueError")
        self.assertEqual(outcomes, {"Reply", "NoneType", "ValueError"})
