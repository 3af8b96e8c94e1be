"""The first message of TLS, as OpenSSL writes it, in pieces, and broken."""

from __future__ import annotations

import random
import ssl

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.client_hello import Hello, NoHello, read_hello


def client_hello(name: str | None, *alpn: str, least: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = least
    if alpn:
        context.set_alpn_protocols(list(alpn))
    sent = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return sent.read()


def in_records(hello: bytes, size: int) -> bytes:
    """The same message in records of so many bytes."""
    message = hello[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(each).to_bytes(2) + each for each in pieces)


def extended(*extensions: tuple[int, bytes]) -> bytes:
    """A small ClientHello with these extensions."""
    told = b"".join(kind.to_bytes(2) + len(data).to_bytes(2) + data for kind, data in extensions)
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0" + len(told).to_bytes(2) + told
    message = b"\x01" + len(body).to_bytes(3) + body
    return b"\x16\x03\x01" + len(message).to_bytes(2) + message


def named(*names: bytes, kind: int = 0) -> tuple[int, bytes]:
    """The extension with names of servers."""
    listed = b"".join(bytes((kind,)) + len(each).to_bytes(2) + each for each in names)
    return 0, len(listed).to_bytes(2) + listed


class HelloTests(SynchronousTestCase):
    def test_openssl(self) -> None:
        """With a name and without one, with protocols, in both versions; nothing behind it matters."""
        for least in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            hello = client_hello("Some.Test", "h2", "http/1.1", least=least)
            self.assertEqual(read_hello(hello), Hello("some.test", (b"h2", b"http/1.1")))
            self.assertEqual(read_hello(hello + b"\x17\x03\x03\0\x05early"), read_hello(hello))
        self.assertEqual(read_hello(client_hello(None)), Hello(None))

    def test_pieces(self) -> None:
        """Whole at its last byte and never before, in one record and in many."""
        hello = client_hello("pieces.test")
        for whole in (hello, in_records(hello, 1), in_records(hello, 3), in_records(hello, 100)):
            for size in range(len(whole)):
                self.assertIsNone(read_hello(whole[:size]), size)
            self.assertEqual(read_hello(whole), Hello("pieces.test"))

    def test_what_is_none(self) -> None:
        """Other protocols are known by their first bytes; lengths that do not fit, and doubles, are refused."""
        for other in (
            b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x00", b"\x15\x03\x01\0\x02\x02\x28", b"\x16\x02", b"\x16\x03\x01\0\0",
            b"\x16\x03\x01\x40\x01", b"\x16\x03\x01\0\x04\x02\0\0\0",
        ):  # fmt: skip
            self.assertRaises(NoHello, read_hello, other)
        for extensions in (
            (named(b"a.test"), named(b"a.test")), (named(b"a.test", b"b.test"),), (named(b""),), (named(b"a test"),),
            (named(b"a\0.test"),), (named(b"a" * 256),), (named("ä.test".encode()),), ((0, b""),), ((0, b"\0\0"),),
            ((0, named(b"a.test")[1] + b"x"),), ((16, b"\0\x03\x05h2"),), ((16, b"\0\x01\0"),),
        ):  # fmt: skip
            self.assertRaises(NoHello, read_hello, extended(*extensions))
        self.assertEqual(read_hello(extended(named(b"a.test."))), Hello("a.test"))
        self.assertEqual(read_hello(extended(named(b"x", kind=7))), Hello(None))
        self.assertEqual(read_hello(extended((12345, b"whatever"))), Hello(None))

    def test_broken(self) -> None:
        """Whatever bytes are changed, left out or put in: an answer, or a refusal, and nothing else."""
        source = random.Random(7)
        hello = client_hello("fuzz.test", "h2")
        seen = set()
        for _ in range(4000):
            broken = bytearray(hello)
            for _ in range(source.randrange(1, 4)):
                at = source.randrange(len(broken))
                what = source.randrange(3)
                if what == 0:
                    broken[at] = source.randrange(256)
                elif what == 1:
                    del broken[at : at + source.randrange(1, 9)]
                else:
                    broken[at:at] = source.randbytes(source.randrange(1, 9))
            try:
                found = read_hello(bytes(broken))
            except NoHello:
                seen.add("refused")
            else:
                self.assertTrue(found is None or found.sni is None or found.sni.isprintable())
                seen.add("more" if found is None else "read")
        self.assertEqual(seen, {"refused", "more", "read"})
