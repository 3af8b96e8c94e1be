"""Diffie-Hellman parameters."""

from __future__ import annotations

import base64
from hashlib import sha256
from pathlib import Path

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.net.dh_parameters import GROUPS, dh_parameters, use_parameters

DIGEST = "ca697111b7a89a23ac7ce82ce56d0fa260cbff835dc82bb6f440e8bf395d3155"


class ParameterTests(SynchronousTestCase):
    def test_groups(self) -> None:
        """They begin and end as RFC 7919 prints them, and OpenSSL takes them."""
        for name in GROUPS:
            made = dh_parameters(name)
            body = base64.b64decode(b"".join(made.split(b"\n")[1:-2]))
            self.assertIn(bytes.fromhex("FFFFFFFFFFFFFFFFADF85458A2BB4A9AAFDC5620273D3CF1"), body)
            self.assertTrue(body.endswith(b"\xff" * 8 + b"\x02\x01\x02"), name)
            use_parameters(SSL.Context(SSL.TLS_METHOD), made)

    def test_whole_group(self) -> None:
        """As ``openssl genpkey -genparam -algorithm DH -pkeyopt group:ffdhe2048`` makes it (OpenSSL 3.0), p and g."""
        body = base64.b64decode(b"".join(dh_parameters("ffdhe2048").split(b"\n")[1:-2]))
        self.assertEqual(sha256(body).hexdigest(), DIGEST)

    def test_files(self) -> None:
        made = dh_parameters("ffdhe2048")
        path = Path(self.mktemp())
        path.write_bytes(made)
        for text in (str(path), made.decode(), base64.b64encode(made).decode()):
            self.assertEqual(dh_parameters(text), made)

    def test_refused(self) -> None:
        path = Path(self.mktemp())
        path.write_text("-----BEGIN DH PARAMETERS-----\nMAA=\n-----END DH PARAMETERS-----\n")
        self.assertIn("holds no", str(self.assertRaises(ValueError, dh_parameters, str(path))))
        self.assertIn("is none of ffdhe2048", str(self.assertRaises(ValueError, dh_parameters, "ffdhe1024")))
