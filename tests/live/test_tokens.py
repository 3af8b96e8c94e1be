"""The plugin jwt against tokens of others: PyJWT, jose (Node) and golang-jwt sign, the gateway verifies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from unittest import SkipTest

import jwt as pyjwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.live.support import PATIENCE, GatewayProcess, LiveTestCase, request

HERE = Path(__file__).parent
ALGORITHMS = (
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA",
)  # fmt: skip
SECRET = "0123456789abcdef" * 4
"""As long as jose wants it for HS512."""


def program(name: str) -> str:
    """A program's path; without it tests are skipped, except in CI."""
    path = shutil.which(name)
    if path is None:
        raise AssertionError(f"{name} is not installed") if os.environ.get("CI") else SkipTest(f"no {name}")
    return path


class TokenTests(LiveTestCase):
    """Each algorithm by each library."""

    def setUp(self) -> None:
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
        big = rsa.generate_private_key(65537, 2048)
        self.keys: dict[str, Any] = {
            **{name: big for name in ALGORITHMS if name[:2] in ("RS", "PS")},
            **{name: ec.generate_private_key(curve) for name, curve in curves.items()},
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }
        none = serialization.NoEncryption()
        self.pems = {name: key.private_bytes(pem, pkcs8, none).decode() for name, key in self.keys.items()}
        self.at = self.configured(self.gateway())

    def configured(self, at: GatewayProcess) -> GatewayProcess:
        """A route with the plugin, and a key for each algorithm."""
        at.create("/services", name="echo", url=f"http://127.0.0.1:{self.upstream('echo')}")
        at.create("/services/echo/routes", name="r", paths=["/r"])
        at.create("/routes/r/plugins", name="jwt", config={"claims_to_verify": ["exp", "nbf"]})
        at.create("/consumers", username="ann")
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        for name in ALGORITHMS:
            fields: dict[str, Any] = {"key": f"by-{name}", "algorithm": name, "secret": SECRET}
            if name in self.keys:
                public = self.keys[name].public_key().public_bytes(serialization.Encoding.PEM, spki)
                fields["rsa_public_key"] = public.decode()
            at.create("/consumers/ann/jwt", **fields)
        return at

    def wanted(self) -> list[dict[str, Any]]:
        """One token for each algorithm."""
        now = int(time.time())
        return [
            {
                "alg": name, "header": {"kid": "k1"}, "claims": {"iss": f"by-{name}", "exp": now + 600, "nbf": now - 5, "n": "\u00e4"},
                **({"pem": self.pems[name]} if name in self.pems else {"secret": SECRET}),
            }
            for name in ALGORITHMS
        ]  # fmt: skip

    def check(self, tokens: list[str]) -> None:
        """All are let in, twice; with a bit changed none is."""
        self.assertEqual(len(tokens), len(ALGORITHMS))
        for name, token in zip(ALGORITHMS, tokens, strict=True):
            for _ in range(2):
                answer = request(self.at.proxy_port, "GET", "/r", headers={"Authorization": f"Bearer {token}"})
                self.assertEqual(answer.status, 200, f"{name}: {answer}")
                seen = {key.lower(): value for key, value in answer.json["headers"]}
                self.assertEqual((seen["x-consumer-username"], seen["x-credential-identifier"]), ("ann", f"by-{name}"))
            head, claims, signature = token.split(".")
            wrong = f"{head}.{claims}.{'B' if signature[0] != 'B' else 'C'}{signature[1:]}"
            answer = request(self.at.proxy_port, "GET", f"/r?jwt={wrong}")
            self.assertEqual((answer.status, answer.json), (401, {"message": "Invalid signature"}), name)
        first = tokens[0]
        answer = request(self.at.proxy_port, "GET", f"/r?jwt={tokens[1]}", headers={"Authorization": f"Bearer {first}"})
        self.assertEqual(answer.json, {"message": "Multiple tokens provided"})

    def made_by(self, *command: str) -> list[str]:
        """What a program makes of `wanted`."""
        done = subprocess.run(
            command, input=json.dumps(self.wanted()), capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=HERE,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        tokens: list[str] = json.loads(done.stdout)
        return tokens

    def test_pyjwt(self) -> None:
        """PyJWT."""
        self.check(
            [
                pyjwt.encode(each["claims"], each.get("pem") or each["secret"], each["alg"], each["header"])
                for each in self.wanted()
            ]
        )

    def test_jose(self) -> None:
        """jose, on Node."""
        node = program("node")
        if not (HERE / "node_modules" / "jose").is_dir():
            raise AssertionError("no jose") if os.environ.get("CI") else SkipTest("no jose")
        self.check(self.made_by(node, "token_maker.mjs"))

    def test_golang_jwt(self) -> None:
        """golang-jwt."""
        built = str(Path(self.folder(), "tokens"))
        subprocess.run(
            [program("go"), "build", "-o", built, "."], cwd=HERE / "token_makers", check=True, timeout=PATIENCE * 5
        )
        self.check(self.made_by(built))

    def test_pyjwt_as_attacker(self) -> None:
        """Its unsigned tokens, and those signed with a public key as secret, let nobody in."""
        unsigned = pyjwt.encode({"iss": "by-HS256", "exp": int(time.time()) + 600}, "", "none")
        answer = request(self.at.proxy_port, "GET", "/r", headers={"Authorization": f"Bearer {unsigned}"})
        self.assertEqual((answer.status, answer.json), (401, {"message": "Bad token; invalid alg"}))
        self.assertEqual(answer.headers["WWW-Authenticate"], 'Bearer error="invalid_token"')
