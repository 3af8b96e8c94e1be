"""Certificates and keys in PEM form: read in microseconds however long a key is, and refused where its numbers are none."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from math import gcd, lcm
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities import EntityError, pem, registry, typedefs
from kongtwist.entities.keys import MAX_JWK, jwk_error
from kongtwist.net.server_tls import KeyPair
from kongtwist.upstream.client_tls import TLSFacts, _context

ID = "3b9c1a5e-0d6a-4c5e-9d9b-6f1d2a3b4c5d"


def composite() -> rsa.RSAPrivateKey:
    """A key whose numbers belong together although its "primes" are none: OpenSSL's test refuses it, after a while."""
    p, q = 3**646, 5**441
    while gcd(65537, (p - 1) * (q - 1)) != 1:
        p *= 3
    d = pow(65537, -1, lcm(p - 1, q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def text_of(key: Any) -> str:
    found: str = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return found


def certificate_of(key: Any, authority: bool = False) -> str:
    """A certificate of a key's public half, signed by somebody."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), SHA256()).public_bytes(Encoding.PEM).decode()


class KeyTests(SynchronousTestCase):
    """Private keys."""

    def test_primes_are_not_tested(self) -> None:
        """Neither where a key is stored nor where it is used: that would hold everything else for up to seconds."""
        key = composite()
        private, chain = text_of(key), certificate_of(key)
        entities = registry({})
        row = entities["certificates"].insert({"cert": chain, "key": private}, now=1, new_id=lambda: ID)
        self.assertEqual(row["key"], private)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        both = {"kid": "k", "pem": {"private_key": private, "public_key": public}}
        self.assertEqual(entities["keys"].insert(both, now=1, new_id=lambda: ID)["pem"]["public_key"], public)
        KeyPair.from_pem(chain.encode(), private.encode())
        _context(TLSFacts("x", False, 1, chain, private, ()))

    def test_json_web_keys(self) -> None:
        """The same; and primes that are not told are not looked for."""
        numbers = composite().private_numbers()
        parts = {"n": numbers.public_numbers.n, "e": 65537, "d": numbers.d, "p": numbers.p, "q": numbers.q}

        def error(**changes: int | None) -> str | None:
            given = {name: value for name, value in (parts | changes).items() if value is not None}
            told = {name: urlsafe_b64encode(value.to_bytes(300)).decode().rstrip("=") for name, value in given.items()}
            return jwk_error(json.dumps({"kty": "RSA", "kid": "k", **told}), "k")

        self.assertIsNone(error())
        self.assertIsNone(error(p=None, q=None))
        self.assertIsNone(error(d=None, p=None, q=None))
        unusable = "could not load JWK, likely not a valid key"
        for wrong in (
            {"p": parts["p"] + 2},
            {"d": parts["d"] + 2},
            {"q": 1},
            {"e": 1},
            {"q": parts["n"] * 2},
        ):
            self.assertEqual(error(**wrong), unusable, wrong)
        self.assertEqual(error(d=parts["n"], p=None, q=None), unusable)
        long = urlsafe_b64encode(b"\1" * 40_000).decode()
        for name in ("n", "e", "d", "p", "q"):
            told = dict.fromkeys(parts, "AQAB") | {name: long}
            self.assertEqual(jwk_error(json.dumps({"kty": "RSA", "kid": "k", **told}), "k"), unusable)
        text = '{"kid":"k","x":"' + "x" * MAX_JWK + '"}'
        self.assertEqual(jwk_error(text, "k"), "could not json decode jwk string")

    def test_numbers_that_do_not_belong_together(self) -> None:
        """They are told of, without any test of primes."""
        numbers = composite().private_numbers()
        p, q, d, n = numbers.p, numbers.q, numbers.d, numbers.public_numbers.n
        self.assertTrue(pem.fits_together(n, 65537, d, p, q))
        for wrong in (
            (n + 2, 65537, d, p, q),
            (n, 3, d, p, q),
            (n, 65537, d + 2, p, q),
            (n, 65537, d, q, q),
            (n, 0, 0, n, 1),
        ):
            self.assertFalse(pem.fits_together(*wrong))
        self.assertFalse(pem.fits_together(1 << pem.MAX_RSA, 65537, d, 2, 1 << (pem.MAX_RSA - 1)), "too long")
        public = rsa.RSAPublicNumbers(65537, n)
        other = rsa.RSAPrivateNumbers(p, q, d + 2, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
        private = text_of(other.private_key(unsafe_skip_rsa_key_validation=True))
        self.assertEqual(
            typedefs.key(private), "invalid key: pkey.new:load_key: the numbers of the RSA key do not belong together"
        )

    def test_another_key(self) -> None:
        """A key that is not the certificate's is refused, whatever its kind."""
        one, other = composite(), ec.generate_private_key(ec.SECP256R1())
        entity = registry({})["certificates"]
        for key, owner in ((one, other), (other, one)):
            sent = {"cert": certificate_of(owner), "key": text_of(key)}
            with self.assertRaises(EntityError) as refused:
                entity.insert(sent, now=1, new_id=lambda: ID)
            self.assertEqual(refused.exception.fields, {"@entity": ["certificate does not match key"]})


class ChainTests(SynchronousTestCase):
    """Certificates."""

    def test_long_chains(self) -> None:
        """A hundred certificates are a chain, more are refused; so is a text that is endless."""
        one = certificate_of(ec.generate_private_key(ec.SECP256R1()))
        self.assertEqual(len(pem.read_chain(one * pem.MAX_CERTIFICATES)), pem.MAX_CERTIFICATES)
        self.assertIsNone(typedefs.certificate(one * pem.MAX_CERTIFICATES))
        self.assertEqual(
            typedefs.certificate(one * (pem.MAX_CERTIFICATES + 1)),
            "invalid certificate: x509.new: more than 100 certificates",
        )
        long = "x" * (pem.MAX_TEXT + 1)
        self.assertEqual(typedefs.certificate(long), "invalid certificate: x509.new: longer than 1048576 bytes")
        self.assertEqual(typedefs.key(long), "invalid key: pkey.new:load_key: longer than 1048576 bytes")
        self.assertRaises(ValueError, pem.read_public, long)

    def test_authorities(self) -> None:
        """One at a time; its digest is that of the certificate, whatever stands around it."""
        entity, one = registry({})["ca_certificates"], certificate_of(ec.generate_private_key(ec.SECP256R1()), True)
        row = entity.insert({"cert": one}, now=1, new_id=lambda: ID)
        self.assertEqual(row["cert_digest"], x509.load_pem_x509_certificate(one.encode()).fingerprint(SHA256()).hex())
        with self.assertRaises(EntityError) as refused:
            entity.insert({"cert": one * 2}, now=1, new_id=lambda: ID)
        self.assertEqual(refused.exception.fields, {"@entity": ["please submit only one certificate at a time"]})
