"""Who is believed about the client's address."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http.head import parse_request_block
from kongtwist.core.http.real_ip import RealIP


class RealIPTests(SynchronousTestCase):
    def test_trust(self) -> None:
        real = RealIP(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7", "unix:"])
        for peer, trusted in (
            ("10.1.2.3", True), ("11.1.2.3", False), ("192.0.2.7", True), ("192.0.2.8", False), ("2001:db8::5", True),
            ("::ffff:10.1.2.3", True), ("fe80::1%eth0", False), ("unix:", True), ("rubbish", False),
        ):  # fmt: skip
            for _ in range(2):
                self.assertIs(real.trusts(peer), trusted, peer)
        self.assertFalse(RealIP().trusts("unix:"))
        self.assertTrue(RealIP(["0.0.0.0/0", "::/0"]).trusts("::1"))
        self.assertRaises(ValueError, RealIP, ["10.0.0.0/99"])

    def test_client(self) -> None:
        for header, recursive, value, client in (
            ("X-Real-IP", False, b"X-Real-IP: 1.2.3.4", "1.2.3.4"),
            ("X-Real-IP", False, b"X-Real-IP: 1.2.3.4:99", "1.2.3.4"),
            ("X-Real-IP", False, b"X-Real-IP: [::2]:99", "::2"),
            ("X-Real-IP", False, b"X-Real-IP: ::2", "::2"),
            ("X-Real-IP", False, b"X-Real-IP: evil", "10.0.0.1"),
            ("X-Real-IP", False, b"Other: 1.2.3.4", "10.0.0.1"),
            ("X-Forwarded-For", False, b"X-Forwarded-For: 1.1.1.1, 10.0.0.2", "10.0.0.2"),
            ("X-Forwarded-For", True, b"X-Forwarded-For: 9.9.9.9, 1.1.1.1, 10.0.0.2", "1.1.1.1"),
            ("X-Forwarded-For", True, b"X-Forwarded-For: evil, 10.0.0.2", "10.0.0.2"),
            ("X-Forwarded-For", True, b"X-Forwarded-For: 10.0.0.3\r\nX-Forwarded-For: 10.0.0.2", "10.0.0.3"),
        ):
            real = RealIP(["10.0.0.0/8"], header, recursive)
            self.assertEqual(real.client_of("10.0.0.1", parse_request_block(value + b"\r\n")), client, value)
