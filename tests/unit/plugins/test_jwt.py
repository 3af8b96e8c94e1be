"""jwt where the vectors and recordings are silent: every algorithm, attacks on tokens and keys, what is remembered and how long."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.credentials import REMEMBERED
from kongtwist.plugins.jwt import SECRETS, Jwt
from kongtwist.plugins.jwt.signed_token import BadToken, read_token
from kongtwist.plugins.jwt.token_checks import AUTHENTICATED, LONGEST, MOST_KEPT
from kongtwist.plugins.jwt.token_fields import ALGORITHMS
from kongtwist.testing import NOW, Outcome, PluginHarness

RSA = rsa.generate_private_key(65537, 2048)
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
KEYS: dict[str, Any] = {
    **{name: RSA for name in ALGORITHMS if name[:2] in ("RS", "PS")},
    **{name: ec.generate_private_key(curve) for name, curve in CURVES.items()},
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def text(raw: bytes | dict[str, Any] | list[Any]) -> str:
    """base64url of bytes, or of JSON."""
    data = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def pem(key: Any) -> str:
    """The public half."""
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(serialization.Encoding.PEM, kind).decode())


def signature(algorithm: str, key: Any, data: bytes) -> bytes:
    """By a key's own means, not by ours."""
    if algorithm.startswith("HS"):
        return hmac.digest(key.encode(), data, f"sha{algorithm[2:]}")
    if algorithm == "EdDSA":
        return bytes(key.sign(data))
    kind = HASHES[algorithm[2:]]
    if algorithm.startswith("ES"):
        size = (key.curve.key_size + 7) // 8
        return b"".join([each.to_bytes(size) for each in decode_dss_signature(key.sign(data, ec.ECDSA(kind)))])
    pad: Any = padding.PKCS1v15() if algorithm[0] == "R" else padding.PSS(padding.MGF1(kind), kind.digest_size)
    return bytes(key.sign(data, pad, kind))


def token(
    claims: dict[str, Any] | str,
    key: Any = "s3cr3t",
    algorithm: str = "HS256",
    header: dict[str, Any] | str | None = None,
) -> str:
    """A signed token. ``claims`` and ``header`` may be JSON texts."""
    head = {"alg": algorithm, "typ": "JWT"} if header is None else header
    parts = [text(each.encode() if isinstance(each, str) else each) for each in (head, claims)]
    return ".".join([*parts, text(signature(algorithm, key, ".".join(parts).encode()))])


class JwtCase(SynchronousTestCase):
    def harness(self, **config: Any) -> PluginHarness:
        harness = PluginHarness(Jwt, **config)
        harness.store("consumers", id="c1", username="bob", custom_id=None)
        harness.store("consumers", id="c2", username="anon")
        self.secret(harness)
        return harness

    def secret(self, harness: PluginHarness, **fields: Any) -> None:
        row = {"id": "j1", "key": "iss1", "secret": "s3cr3t", "algorithm": "HS256", "rsa_public_key": None}
        harness.store("jwt_secrets", **(row | {"consumer": {"id": "c1"}} | fields))

    def send(self, harness: PluginHarness, given: str, *more: tuple[str, str], target: str = "/") -> Outcome:
        return harness.send("GET", target, [("authorization", f"Bearer {given}"), *more])

    def refusal(self, outcome: Outcome) -> str:
        """What a token is refused with."""
        assert outcome.answer is not None
        self.assertEqual(outcome.answer.status, 401)
        self.assertIsNone(outcome.consumer)
        return str(outcome.answer_json.get("message", outcome.answer_json))

    def check(self, harness: PluginHarness, given: str, message: str | None) -> None:
        outcome = self.send(harness, given)
        self.assertEqual(None if outcome.answer is None else self.refusal(outcome), message, given)


class AlgorithmTests(JwtCase):
    def test_each(self) -> None:
        """HS, RS, ES, PS and EdDSA: the right key lets in, another key, another text or another signature does not."""
        for algorithm in ALGORITHMS:
            key = KEYS.get(algorithm, "s3cr3t")
            harness = self.harness()
            public = pem(key) if algorithm in KEYS else None
            self.secret(harness, algorithm=algorithm, rsa_public_key=public)
            good = token({"iss": "iss1"}, key, algorithm)
            self.check(harness, good, None)
            head, claims, signed = good.split(".")
            self.check(harness, f"{head}.{text({'iss': 'iss1', 'admin': True})}.{signed}", "Invalid signature")
            raw = bytearray(base64.urlsafe_b64decode(signed + "=="))
            raw[5] ^= 1
            for wrong in (bytes(raw), b"", bytes(raw)[:-1], bytes(raw) + b"\0", b"\0" * len(raw)):
                self.check(harness, f"{head}.{claims}.{text(wrong)}", "Invalid signature")

    def test_keys_of_another_kind(self) -> None:
        """A stored key that is none for the algorithm lets nobody in, and fails nothing."""
        keys = [pem(RSA), pem(KEYS["ES256"]), pem(KEYS["ES384"]), pem(KEYS["EdDSA"]), "rubbish", None]
        for algorithm, mine in (("ES256", 1), ("ES384", 2), ("RS256", 0), ("PS512", 0), ("EdDSA", 3)):
            for at, key in enumerate(keys):
                harness = self.harness()
                self.secret(harness, algorithm=algorithm, rsa_public_key=key)
                given = token({"iss": "iss1"}, KEYS[algorithm], algorithm)
                self.check(harness, given, None if at == mine else "Invalid key/secret")

    def test_ed448(self) -> None:
        """EdDSA has two curves (RFC 8037)."""
        key = ed448.Ed448PrivateKey.generate()
        harness = self.harness()
        self.secret(harness, algorithm="EdDSA", rsa_public_key=pem(key))
        self.check(harness, token({"iss": "iss1"}, key, "EdDSA"), None)

    def test_private_key_given(self) -> None:
        """A private key holds the public one, as in Kong."""
        private = RSA.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        row = {
            "consumer": {"id": "7fca84d6-7d37-4a74-a7b0-93e576089a41"},
            "algorithm": "RS256",
            "rsa_public_key": private,
        }
        SECRETS.insert(row, now=1, new_id=lambda: row["consumer"]["id"])  # type: ignore[index]
        harness = self.harness()
        self.secret(harness, algorithm="RS256", rsa_public_key=private)
        self.check(harness, token({"iss": "iss1"}, RSA, "RS256"), None)


class AttackTests(JwtCase):
    def test_alg_none(self) -> None:
        """In every spelling, with a signature and without."""
        harness = self.harness()
        for alg in ("none", "None", "NONE", "nOnE", "", None, 1, [], ["HS256"], "HS257", "hs256", "RS1", "A128KW"):
            for signed in ("", text(b"x"), text(signature("HS256", "s3cr3t", b"x"))):
                given = f"{text({'alg': alg})}.{text({'iss': 'iss1'})}.{signed}"
                self.check(harness, given, "Bad token; invalid alg")

    def test_a_public_key_as_secret(self) -> None:
        """HS256 with the public key's text as secret, for a key of RS256: the algorithm is the key's, not the token's."""
        harness = self.harness()
        self.secret(harness, algorithm="RS256", rsa_public_key=pem(RSA))
        for key in (pem(RSA), pem(RSA).strip(), "s3cr3t", ""):
            self.check(harness, token({"iss": "iss1"}, key), "Invalid algorithm")
        self.secret(
            harness, algorithm="HS256", rsa_public_key=pem(RSA)
        )  # one that is there beside the secret is not used
        self.check(harness, token({"iss": "iss1"}, pem(RSA)), "Invalid signature")
        self.check(harness, token({"iss": "iss1"}, RSA, "RS256"), "Invalid algorithm")

    def test_keys_that_a_token_brings(self) -> None:
        """jwk, jku, x5c, x5u and kid of the header choose no key; what must be understood and is not is refused."""
        harness = self.harness()
        evil = "evil"
        for more in (
            {"jwk": {"kty": "oct", "k": text(b"evil")}}, {"jku": "http://127.0.0.1/keys"}, {"x5u": "http://127.0.0.1/"},
            {"kid": "../../../../dev/null"}, {"kid": "' UNION SELECT 'evil"}, {"kid": "iss1\0"}, {"kid": ["iss1"]}, {"kid": {"$ne": 1}},
        ):  # fmt: skip
            head = {"alg": "HS256", **more}
            self.check(harness, token({"iss": "iss1"}, evil, header=head), "Invalid signature")
            self.check(harness, token({"iss": "iss1"}, header=head), None)
        for crit in ([], ["b64"], "exp", None):
            given = token({"iss": "iss1"}, header={"alg": "HS256", "crit": crit, "b64": False})
            self.check(harness, given, "Bad token; invalid alg")

    def test_names_of_keys(self) -> None:
        """With key_claim_name kid the claim is stronger than the header; what is no text, or empty, is no name."""
        harness = self.harness(key_claim_name="kid")
        self.secret(harness, id="j2", key="iss2", secret="other")
        self.check(harness, token({"kid": "iss1"}, header={"alg": "HS256", "kid": "iss2"}), None)
        self.check(harness, token({"kid": "iss2"}, header={"alg": "HS256", "kid": "iss1"}), "Invalid signature")
        for name in ("../iss1", "iss1/", "iss1 ", " iss1", "ISS1", "iss1\0", "j1", "c1", "*", "%"):
            given = token({}, header={"alg": "HS256", "kid": name})
            self.check(harness, given, "No credentials found for given 'kid'")
        for odd in ("", 1, 1.5, True, [], ["iss1"], {}, {"a": "iss1"}):
            self.check(harness, token({"kid": odd}), "Invalid 'kid' in claims")
        for none in ({}, {"kid": None}, {"kid": False}):
            self.check(harness, token(none), "No mandatory 'kid' in claims")

    def test_members_that_come_twice(self) -> None:
        """Who reads the token behind us might take the other one."""
        harness = self.harness(claims_to_verify=["exp"])
        later = int(NOW) + 60
        for claims in (
            f'{{"iss":"iss1","exp":1,"exp":{later}}}', f'{{"iss":"iss1","exp":{later},"exp":1}}',
            f'{{"iss":"x","iss":"iss1","exp":{later}}}',
            f'{{"iss":"iss1","exp":{later},"a":{{"b":1,"b":2}}}}', f'{{"iss":"iss1","exp":{later},"\\u0065xp":1}}',
        ):  # fmt: skip
            self.check(harness, token(claims), "Bad token; invalid JSON")
        given = token({"iss": "iss1", "exp": later}, header='{"alg":"none","alg":"HS256"}')
        self.check(harness, given, "Bad token; invalid JSON")

    def test_large_and_deep(self) -> None:
        """A token as long as a field may be is verified, and not remembered; deep and odd JSON is refused, and fails nothing."""
        harness = self.harness()
        self.check(harness, token({"iss": "iss1", "long": "x" * 20000}), None)
        self.assertEqual(len(harness.conf.verified), 0)
        for claims in (
            '{"iss":' + "[" * 9000 + "]" * 9000 + "}", '{"iss":"iss1","a":NaN}', '{"iss":"iss1","a":Infinity}', "",
            '{"iss":"iss1"', "\ufeff{}", '{"iss":"iss1","a":' + "9" * 5000 + "}",
        ):  # fmt: skip
            self.check(harness, token(claims), "Bad token; invalid JSON")
        for claims in ("[]", "null", '"iss1"', "1", "true"):
            self.check(harness, token(claims), "Bad token; invalid claims")
        for header in ("[]", "null", '"HS256"', "1"):
            self.check(harness, token({"iss": "iss1"}, header=header), "Bad token; invalid alg")

    def test_forms(self) -> None:
        """Three parts of base64url and nothing else."""
        harness = self.harness()
        good = token({"iss": "iss1"})
        head, claims, signed = good.split(".")
        for given, message in (
            (f"{head}.{claims}", "Bad token; invalid JSON"), (f"{head}.{claims}.", "Invalid signature"),
            (f"{good}.x", "Bad token; invalid signature"), (f"{head}.{claims}.{signed}!", "Bad token; invalid signature"),
            (f"{head}=.{claims}.{signed}", "Invalid signature"), (f"{head}\u00e4.{claims}.{signed}", "Bad token; invalid JSON"),
            (f"{head}. {claims}.{signed}", "Bad token; invalid JSON"), ("..", "Bad token; invalid JSON"), (".", "Bad token; invalid JSON"),
        ):  # fmt: skip
            self.check(harness, given, message)
        with self.assertRaises(BadToken):
            read_token(b"")

    def test_clock(self) -> None:
        """exp and nbf to the second, without leeway; numbers only, in any size; numbers of text and truth are none."""
        harness = self.harness(claims_to_verify=["exp", "nbf"])
        now = int(NOW)
        for exp, nbf, message in (
            (now + 1, now, None), (now + 0.5, now, None), (now, now, "{'exp': 'token expired'}"),
            (now + 9, now + 1, "{'nbf': 'token not valid yet'}"), (-1, 0, "{'exp': 'token expired'}"),
            (now + 9, None, "{'nbf': 'must be a number'}"), (str(now + 9), now, "{'exp': 'must be a number'}"),
            (True, now, "{'exp': 'must be a number'}"), ([now + 9], now, "{'exp': 'must be a number'}"),
            (1e12, now, None), (10**400, now, "{'exp': 'must be a number'}"),
        ):  # fmt: skip
            self.check(harness, token({"iss": "iss1", "exp": exp, "nbf": nbf}), message)
        self.check(harness, token('{"iss":"iss1","nbf":1,"exp":1e999}'), "{'exp': 'must be a number'}")

    def test_maximum_expiration(self) -> None:
        """A token that holds for longer than it may, or for ever, is refused."""
        harness = self.harness(claims_to_verify=["exp"], maximum_expiration=60)
        for exp, good in ((NOW + 60, True), (NOW + 61, False), (1e300, False)):
            message = None if good else "{'exp': 'exceeds maximum allowed expiration'}"
            self.check(harness, token({"iss": "iss1", "exp": int(exp)}), message)

    def test_empty_secret(self) -> None:
        """Anybody could sign with one; so could they with a secret that stands for nothing."""
        for secret, base64_ in (
            (None, False),
            ("", False),
            ("=", True),
            ("==", True),
            ("not base64!", True),
            (None, True),
        ):
            harness = self.harness(secret_is_base64=base64_)
            self.secret(harness, secret=secret)
            self.check(harness, token({"iss": "iss1"}, ""), "Invalid key/secret")


class PlaceTests(JwtCase):
    def test_two_places(self) -> None:
        """Tokens that differ are refused wherever they stand, also in one field that comes twice; equal ones are one."""
        one, other = token({"iss": "iss1"}), token({"iss": "iss1", "b": 1})
        harness = self.harness(
            cookie_names=["tok"], header_names=["authorization", "x-jwt"], uri_param_names=["jwt", "t"]
        )
        for again in (one, other):
            bearer = f"Bearer {again}"
            for target, fields in (
                (f"/?jwt={again}", []), (f"/?t={again}", []), ("/", [("cookie", f"a=1; tok={again}")]), ("/", [("x-jwt", bearer)]),
                ("/", [("authorization", bearer)]), (f"/?jwt={one}&jwt={again}", []), ("/", [("Authorization", bearer)]),
            ):  # fmt: skip
                outcome = self.send(harness, one, *fields, target=target)
                if again == one:
                    self.assertIsNone(outcome.answer, (target, fields))
                else:
                    self.assertEqual(self.refusal(outcome), "Multiple tokens provided", (target, fields))

    def test_remembered_field_is_not_all(self) -> None:
        """A field that was good before does not hide a second token."""
        harness = self.harness()
        one, other = token({"iss": "iss1"}), token({"iss": "nobody"})
        self.check(harness, one, None)
        self.check(harness, one, None)
        outcome = self.send(harness, one, ("authorization", f"Bearer {other}"))
        self.assertEqual(self.refusal(outcome), "Multiple tokens provided")
        outcome = self.send(harness, one, target=f"/?jwt={other}")
        self.assertEqual(self.refusal(outcome), "Multiple tokens provided")

    def test_places_that_are_off(self) -> None:
        """None of a kind: null or empty."""
        good = token({"iss": "iss1"})
        off: list[str] | None
        for off in (None, []):
            harness = self.harness(header_names=off)
            self.assertEqual(self.refusal(self.send(harness, good)), "Unauthorized")
            self.assertIsNone(harness.send("GET", f"/?jwt={good}").answer)
            harness = self.harness(uri_param_names=off, cookie_names=off)
            self.assertIsNone(self.send(harness, good, target="/?jwt=x").answer)

    def test_preflight(self) -> None:
        """OPTIONS passes where it is not asked for a token, and is nobody's."""
        outcome = self.harness(run_on_preflight=False).send("OPTIONS", "/", {"authorization": "Bearer x"})
        self.assertIsNone(outcome.answer)
        self.assertIsNone(outcome.consumer)
        self.assertLessEqual(
            {"x-consumer-id", "x-consumer-username", "x-authenticated-userid", "x-anonymous-consumer"},
            outcome.removed_headers,
        )

    def test_anonymous(self) -> None:
        """A token that is wrong in whatever way leaves the anonymous consumer, and no trace of itself."""
        harness = self.harness(anonymous="anon")
        for given in ("x", token({"iss": "nobody"}), token({"iss": "iss1"}, "wrong")):
            outcome = self.send(harness, given)
            self.assertIsNone(outcome.answer)
            self.assertEqual(outcome.upstream_headers["x-consumer-username"], "anon")
            self.assertNotIn(AUTHENTICATED, outcome.exchange.ctx)
        exchange = harness.request("GET", "/", {"authorization": "Bearer x"})
        exchange.authenticate({"id": "c1", "username": "bob"}, {"id": "k"})
        self.assertEqual(harness.run(exchange).credential, {"id": "k"})


class RememberedTests(JwtCase):
    def setUp(self) -> None:
        self.plugin = self.harness(claims_to_verify=["exp"])
        self.good = token({"iss": "iss1", "exp": int(NOW) + 100})
        self.check(self.plugin, self.good, None)

    def looked_at(self) -> bool:
        """Whether the token is verified again: what stands for it is no token any more, but what was remembered."""
        kept = dict(self.plugin.conf.verified)
        outcome = self.send(self.plugin, self.good)
        self.assertIsNone(outcome.answer)
        return not all(self.plugin.conf.verified.get(key) is value for key, value in kept.items())

    def test_once(self) -> None:
        """The same token is verified once, and gives all that it gave before."""
        self.assertFalse(self.looked_at())
        outcome = self.send(self.plugin, self.good)
        self.assertEqual(outcome.exchange.ctx[AUTHENTICATED], self.good)
        self.assertEqual(outcome.upstream_headers["x-credential-identifier"], "iss1")

    def test_not_past_its_expiry(self) -> None:
        """It holds until the second before exp."""
        self.plugin.now = NOW + 99
        self.check(self.plugin, self.good, None)
        self.plugin.now = NOW + 100
        self.check(self.plugin, self.good, "{'exp': 'token expired'}")

    def test_not_past_a_change_of_its_credential(self) -> None:
        """Another secret, another algorithm, another consumer, no credential, no consumer."""
        self.secret(self.plugin, secret="other")
        self.check(self.plugin, self.good, "Invalid signature")
        self.secret(self.plugin)
        self.check(self.plugin, self.good, None)
        self.secret(self.plugin, algorithm="HS512")
        self.check(self.plugin, self.good, "Invalid algorithm")
        self.secret(self.plugin, consumer={"id": "c2"})
        outcome = self.send(self.plugin, self.good)
        self.assertEqual(outcome.upstream_headers["x-consumer-username"], "anon")
        rows = self.plugin.rows.rows
        self.plugin.rows.rows = {**rows, "jwt_secrets": {}}
        self.check(self.plugin, self.good, "No credentials found for given 'iss'")
        self.plugin.rows.rows = {**rows, "consumers": {}}
        self.check(self.plugin, self.good, "Could not find consumer for 'iss=iss1'")

    def test_other_changes(self) -> None:
        """Changes of other rows do not matter; a consumer's new name does."""
        self.plugin.store("consumers", id="c9", username="new")
        self.secret(self.plugin, id="j9", key="iss9")
        self.assertFalse(self.looked_at())
        self.plugin.store("consumers", id="c1", username="robert", custom_id=None)
        outcome = self.send(self.plugin, self.good)
        self.assertEqual(outcome.upstream_headers["x-consumer-username"], "robert")

    def test_verdicts_of_one_configuration(self) -> None:
        """Another configuration asks for more: it does not take the first one's word."""
        self.plugin.conf = self.plugin.add(Jwt, claims_to_verify=["exp"], maximum_expiration=10).conf
        self.check(self.plugin, self.good, "{'exp': 'exceeds maximum allowed expiration'}")

    def test_what_was_refused(self) -> None:
        """Nothing is remembered of it."""
        kept = len(self.plugin.conf.verified)
        for number in range(10):
            self.check(self.plugin, token({"iss": "iss1", "exp": 5, "n": number}), "{'exp': 'token expired'}")
        self.assertEqual(len(self.plugin.conf.verified), kept)

    def test_bounds(self) -> None:
        """By number and by bytes."""
        conf = self.plugin.conf
        conf.verified.update({b"%d" % number: None for number in range(REMEMBERED)})
        self.check(self.plugin, token({"iss": "iss1", "exp": int(NOW) + 50}), None)
        self.assertLess(len(conf.verified), 3)
        conf.kept = MOST_KEPT
        self.check(self.plugin, token({"iss": "iss1", "exp": int(NOW) + 51}), None)
        self.assertLess(conf.kept, 2 * LONGEST)
        self.assertLess(len(conf.verified), 3)
