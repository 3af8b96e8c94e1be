"""Keys in PEM and JWK form: what is taken, what is refused and with which words. The recorded cases are in test_entities."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x448
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities import EntityError, registry
from kongtwist.entities.keys import MAX_RSA, jwk_error
from kongtwist.entities.references import Reference, is_reference, parse_reference
from kongtwist.entities.schema import Row

ID = "3b9c1a5e-0d6a-4c5e-9d9b-6f1d2a3b4c5d"
UNUSABLE = "could not load JWK, likely not a valid key"


def private_pem(key: Any) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()  # type: ignore[no-any-return]


def public_pem(key: Any) -> str:
    found = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found.decode()  # type: ignore[no-any-return]


def b64(value: int | bytes) -> str:
    if isinstance(value, int):
        value = value.to_bytes((value.bit_length() + 7) // 8)
    return urlsafe_b64encode(value).decode().rstrip("=")


class KeyTests(SynchronousTestCase):
    def store(self, row: Row) -> Row | str:
        """The stored row, or what is wrong."""
        try:
            return registry({})["keys"].insert(row, now=1, new_id=lambda: ID)
        except EntityError as refused:
            return refused.message

    def test_pem(self) -> None:
        """Either half or both; the halves must belong together."""
        one, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        for pem in (
            {"private_key": private_pem(one)},
            {"public_key": public_pem(one)},
            {"private_key": private_pem(one), "public_key": public_pem(one)},
        ):
            stored = self.store({"kid": "k", "pem": pem})
            assert isinstance(stored, dict)
            self.assertEqual({name: value for name, value in stored["pem"].items() if value}, pem)
        for wrong, words in (
            (
                {"private_key": private_pem(one), "public_key": public_pem(other)},
                "public key does not match private key",
            ),
            ({"private_key": public_pem(one)}, "could not load private key"),
            ({"public_key": "nothing"}, "could not load public key"),
        ):
            self.assertEqual(self.store({"kid": "k", "pem": wrong}), f"schema violation (pem: {words})")

    def test_only_one_form(self) -> None:
        """A key has one form; the words name the fields as Kong's do."""
        pem = {"public_key": public_pem(ed25519.Ed25519PrivateKey.generate())}
        self.assertEqual(
            self.store({"kid": "k", "pem": pem, "jwk": '{"kid":"k"}'}),
            f"2 schema violations (only one or none of these fields must be set: 'pem', 'jwk'; {UNUSABLE})",
        )

    def test_references(self) -> None:
        """What a reference stands for is not known yet, so nothing about it can be wrong."""
        for row in (
            {"kid": "k", "jwk": "{vault://env/a-key}"},
            {"kid": "k", "pem": {"private_key": "{vault://env/key}", "public_key": "nothing"}},
            {"kid": "k", "pem": {"public_key": "{vault://env/key}"}},
        ):
            self.assertIsInstance(self.store(row), dict, row)

    def test_json_web_keys(self) -> None:
        """RSA, elliptic curves and Edwards curves, public and private."""
        numbers = rsa.generate_private_key(65537, 2048).private_numbers()
        public = {"kid": "k", "kty": "RSA", "n": b64(numbers.public_numbers.n), "e": b64(65537)}
        secret = public | {"d": b64(numbers.d)}
        point = ec.generate_private_key(ec.SECP384R1()).private_numbers()
        curve = {
            "kid": "k", "kty": "EC", "crv": "P-384", "x": b64(point.public_numbers.x), "y": b64(point.public_numbers.y),
        }  # fmt: skip
        okps = []
        for crv, made in (("Ed25519", ed25519.Ed25519PrivateKey.generate()), ("X448", x448.X448PrivateKey.generate())):
            okp = {"kid": "k", "kty": "OKP", "crv": crv, "x": b64(made.public_key().public_bytes_raw())}
            okps += [okp, okp | {"d": b64(made.private_bytes_raw())}]
        good: list[dict[str, Any]] = [
            public, secret, secret | {"p": b64(numbers.p), "q": b64(numbers.q)}, curve,
            curve | {"d": b64(point.private_value)}, *okps, public | {"alg": "RS256", "use": "sig", "own": 1},
        ]  # fmt: skip
        for each in good:
            self.assertIsNone(jwk_error(json.dumps(each), "k"), each)
            self.assertEqual(jwk_error(json.dumps(each), "other"), "kid in jwk.kid must be equal to keys.kid")
        bad: list[dict[str, Any]] = [
            {"kid": "k"}, {"kid": "k", "kty": "oct", "k": "AAAA"}, public | {"n": 5}, public | {"n": "%%"},
            {"kid": "k", "kty": "RSA"}, curve | {"x": b64(1)}, curve | {"crv": "P-1"}, curve | {"crv": ["P-256"]},
            curve | {"d": b64(1)}, {"kid": "k", "kty": ["RSA"]}, okps[0] | {"x": "AAAA"}, okps[1] | {"d": okps[1]["x"]},
            public | {"n": b64((1 << MAX_RSA + 8) - 1), "d": b64(3)}, secret | {"p": b64(3), "q": b64(1)},
        ]  # fmt: skip
        for each in bad:
            self.assertEqual(jwk_error(json.dumps(each), "k"), UNUSABLE, each)
        for text in ("", "[]", "5", "{", "[" * 100_000):
            self.assertEqual(jwk_error(text, "k"), "could not json decode jwk string")
        self.assertEqual(jwk_error(json.dumps(public | {"alg": 5}), "k"), "jwk.alg: expected a string")


class ReferenceTests(SynchronousTestCase):
    def test_form(self) -> None:
        for text, expected in (
            ("{vault://env/name}", Reference("env", "name")),
            ("{vault://env/some-name/member}", Reference("env", "some-name", "member")),
            ("{vault://my-env/a/b/c}", Reference("my-env", "a", "b/c")),
            ("{vault://env/a?prefix=X_}", Reference("env", "a", None, (("prefix", "X_"),))),
            ("{vault://env/a/b?prefix=X_#2}", Reference("env", "a", "b", (("prefix", "X_"),), 2)),
            ("{vault://env/a%20b}", Reference("env", "a b")),
        ):
            self.assertTrue(is_reference(text))
            self.assertEqual(parse_reference(text), expected)

    def test_no_reference(self) -> None:
        for value in ("vault://env/a", "{vault://env/a", "{vaults://env/a}", "", "{}", None, 5, ["{vault://env/a}"]):
            self.assertFalse(is_reference(value))
        for text, why in (
            ("{vault://}", "names no vault"),
            ("{vault:///a}", "names no vault"),
            ("{vault://env}", "names no secret"),
            ("{vault://env/}", "names no secret"),
            ("{vault://env/a#new}", "has a version that is no number: 'new'"),
        ):
            with self.assertRaises(ValueError) as refused:
                parse_reference(text)
            self.assertEqual(str(refused.exception), why)
