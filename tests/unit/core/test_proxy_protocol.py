"""PROXY headers, exact and not."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.proxy_protocol import MOST, MalformedHeader, ProxyHeader, parse_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def version_2(source: str, target: str, ports: tuple[int, int] = (5, 6), rest: bytes = b"", what: int = 0x21) -> bytes:
    """A header of version 2 for TCP."""
    one, two = ip_address(source), ip_address(target)
    body = one.packed + two.packed + struct.pack("!HH", *ports) + rest
    return SIGNATURE + struct.pack("!BBH", what, 0x11 if one.version == 4 else 0x21, len(body)) + body


def binary(what: int, family: int, body: bytes = b"") -> bytes:
    """A header of version 2 with any bytes for addresses."""
    return SIGNATURE + struct.pack("!BBH", what, family, len(body)) + body


class GoodTests(SynchronousTestCase):
    """Headers that are read."""

    def read(self, header: bytes) -> ProxyHeader:
        """What ``header`` says, however it arrives, with something behind it or not."""
        for size in range(len(header)):
            self.assertIsNone(parse_proxy_header(header[:size]), size)
        found = parse_proxy_header(header)
        assert found is not None
        self.assertEqual(found, parse_proxy_header(header + b"GET / HTTP/1.1\r\n"))
        self.assertEqual(found.size, len(header))
        return found

    def test_version_1(self) -> None:
        self.assertEqual(
            self.read(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n")[1:], ("192.0.2.1", 56324, "198.51.100.2", 443)
        )
        self.assertEqual(self.read(b"PROXY TCP6 2001:DB8::1 ::1 0 65535\r\n")[1:], ("2001:db8::1", 0, "::1", 65535))
        longest = b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n"
        self.assertEqual(self.read(longest).source, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")

    def test_version_1_unknown(self) -> None:
        """What follows UNKNOWN is not looked at."""
        for header in (b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN what ever 1 2 3 4\r\n"):
            self.assertIsNone(self.read(header).source)

    def test_version_2(self) -> None:
        self.assertEqual(
            self.read(version_2("192.0.2.1", "198.51.100.2", (56324, 443)))[1:],
            ("192.0.2.1", 56324, "198.51.100.2", 443),
        )
        self.assertEqual(self.read(version_2("2001:db8::1", "::1"))[1:], ("2001:db8::1", 5, "::1", 6))

    def test_version_2_tlvs(self) -> None:
        """They are skipped."""
        tlv = struct.pack("!BH", 0x02, 11) + b"example.com"
        self.assertEqual(self.read(version_2("192.0.2.1", "198.51.100.2", rest=tlv * 3)).source, "192.0.2.1")

    def test_version_2_without_an_address(self) -> None:
        """A check of the balancer itself, an unknown family, a unix socket: the connection's own address holds."""
        local = version_2("192.0.2.1", "198.51.100.2", what=0x20)
        for header in (local, binary(0x20, 0x00), binary(0x21, 0x00), binary(0x21, 0x31, b"/x".ljust(216, b"\0"))):
            self.assertIsNone(self.read(header).source)

    def test_mapped_address(self) -> None:
        """An IPv4 address within IPv6 is the IPv4 address."""
        self.assertEqual(self.read(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n").source, "192.0.2.1")
        self.assertEqual(self.read(version_2("::ffff:192.0.2.1", "::1")).source, "192.0.2.1")


class BadTests(SynchronousTestCase):
    """What is refused, as soon as it can be told."""

    def test_something_else(self) -> None:
        for data in (
            b"G",
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01",
            b"PROXY\t",
            b"PRoxy TCP4",
            b"\r\n\r\n\0\r\nQUIX",
            b"\n",
            b" PROXY",
        ):
            self.assertRaises(MalformedHeader, parse_proxy_header, data)

    def test_version_1(self) -> None:
        for words in (
            "TCP4 192.0.2.1 198.51.100.2 1", "TCP4 192.0.2.1 198.51.100.2 1 2 3", "TCP4  192.0.2.1 198.51.100.2 1 2",
            "TCP4 192.0.2.1 198.51.100.2 1 65536", "TCP4 192.0.2.1 198.51.100.2 01 2", "TCP4 192.0.2.1 198.51.100.2 -1 2",
            "TCP4 192.0.2.1 198.51.100.2 1 +2", "TCP4 192.0.2.01 198.51.100.2 1 2", "TCP4 192.0.2 198.51.100.2 1 2",
            "TCP4 ::1 ::1 1 2", "TCP6 192.0.2.1 198.51.100.2 1 2", "TCP6 fe80::1%eth0 ::1 1 2", "TCP4 host 198.51.100.2 1 2",
            "UDP4 192.0.2.1 198.51.100.2 1 2", "tcp4 192.0.2.1 198.51.100.2 1 2", "", "TCP4 192.0.2.1\n198.51.100.2 1 2",
        ):  # fmt: skip
            self.assertRaises(MalformedHeader, parse_proxy_header, f"PROXY {words}\r\n".encode())

    def test_version_1_too_long(self) -> None:
        """The line ends within 107 bytes."""
        self.assertIsNone(parse_proxy_header(b"PROXY UNKNOWN ".ljust(106, b"x")))
        self.assertRaises(MalformedHeader, parse_proxy_header, b"PROXY UNKNOWN ".ljust(107, b"x"))
        self.assertRaises(MalformedHeader, parse_proxy_header, b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n")

    def test_version_2(self) -> None:
        addresses = bytes(12)
        for header in (
            binary(0x11, 0x11, addresses),  # version 1 in the form of version 2
            binary(0x22, 0x11, addresses),  # no such command
            binary(0x21, 0x12, addresses),  # UDP
            binary(0x21, 0x41, addresses),  # no such family
            binary(0x21, 0x11, addresses[:11]),
            binary(0x21, 0x21, addresses),
            binary(0x21, 0x31, addresses),
        ):
            self.assertRaises(MalformedHeader, parse_proxy_header, header)

    def test_version_2_too_long(self) -> None:
        """It is refused before it is there."""
        fits = version_2("192.0.2.1", "198.51.100.2", rest=bytes(MOST - 28))
        self.assertEqual(len(fits), MOST)
        self.assertIsNotNone(parse_proxy_header(fits))
        self.assertRaises(
            MalformedHeader, parse_proxy_header, version_2("192.0.2.1", "198.51.100.2", rest=bytes(MOST - 27))[:16]
        )
