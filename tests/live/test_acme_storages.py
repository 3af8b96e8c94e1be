"""acme's storages in servers that keep keys and values: OpenBao itself, which speaks Vault's API, and a stand-in for Consul."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from kongtwist.core.chain.host import HostError
from kongtwist.plugins.acme.acme_servers import ConsulStorage, VaultStorage
from tests.live.bao_server import TOKEN, start_bao
from tests.live.consul_stand_in import TOKEN as CONSUL_TOKEN
from tests.live.consul_stand_in import ConsulStandIn
from tests.live.test_http_client import HTTPTestCase


class _Storages(HTTPTestCase):
    ahead = 0.0

    def host(self) -> Any:
        return SimpleNamespace(
            http=self.make(), now=lambda: time.time() + self.ahead, threads=lambda call, *args: deferToThread(call, *args)
        )  # fmt: skip

    def fields(self, port: int, **more: Any) -> dict[str, Any]:
        return {
            "https": False, "host": "127.0.0.1", "port": port, "kv_path": "secret/edge/one", "timeout": 20_000, "token": TOKEN,
            "tls_verify": True, "tls_server_name": None, "auth_method": "token", "auth_path": None, "auth_role": None,
            "jwt_path": None, **more,
        }  # fmt: skip

    async def use(self, storage: ConsulStorage | VaultStorage) -> None:
        """Written, written again, added once, ended by itself, listed, deleted."""
        self.assertIsNone(await storage.get("p:a"))
        self.assertEqual(await storage.list("p:"), [])
        await storage.set("p:a", "1")
        await storage.set("p:a", "2 \u00e9")
        self.assertEqual(await storage.get("p:a"), "2 \u00e9")
        self.assertFalse(await storage.add("p:a", "3", 5))
        self.assertTrue(await storage.add("p:b#/c?", "3", 1))
        self.assertFalse(await storage.add("p:b#/c?", "4", 1))
        await storage.set("q", "4")
        self.assertEqual(await storage.list("p:"), ["p:a", "p:b#-c?"])
        self.ahead = 2.0
        while await storage.get("p:b#/c?") is not None:
            await deferLater(self.clock, 0.1, lambda: None)
        self.assertTrue(await storage.add("p:b#/c?", "5", 3600))
        self.assertEqual(await storage.get("p:b#/c?"), "5")
        for key in ("p:a", "p:a", "p:b#/c?"):
            await storage.delete(key)
        self.assertEqual(await storage.list(""), ["q"])

    async def refused(self, waiting: Any, *words: str) -> None:
        try:
            await waiting
        except HostError as error:
            for word in words:
                self.assertIn(word, str(error))
        else:
            self.fail("it was let in")


class ConsulTests(_Storages):
    async def test_use(self) -> None:
        consul = ConsulStandIn()
        self.addCleanup(consul.stop)
        host, fields = self.host(), self.fields(consul.port, token=CONSUL_TOKEN)
        await self.use(ConsulStorage(fields, host))
        self.assertEqual(list(consul.entries), ["secret/edge/one/q"])
        wrong = ConsulStorage({**fields, "token": None}, host)
        await self.refused(wrong.get("q"), "answers 403", "Permission denied", "config.storage_config.consul")

    async def test_away(self) -> None:
        consul = ConsulStandIn()
        consul.stop()
        await self.refused(ConsulStorage(self.fields(consul.port), self.host()).get("q"), "refused")


class OpenBaoTests(_Storages):
    timeout = 240

    async def test_use(self) -> None:
        host, fields = self.host(), self.fields(start_bao(self, self.folder))
        await self.use(VaultStorage(fields, host))
        wrong = VaultStorage({**fields, "token": "another"}, host)
        await self.refused(wrong.get("q"), "answers 403", "permission denied", "config.storage_config.vault")
        nowhere = VaultStorage({**fields, "kv_path": "nowhere"}, host)
        await self.refused(nowhere.set("q", "1"), "answers 404")

    async def test_only_one_adds(self) -> None:
        """Of several who found nothing at the same moment."""
        host, fields = self.host(), self.fields(start_bao(self, self.folder))
        storages = [VaultStorage(fields, host) for _ in range(8)]
        adding = [Deferred.fromCoroutine(each.add("lock", str(n), 60)) for n, each in enumerate(storages)]
        added = [await each for each in adding]
        self.assertEqual(sum(added), 1)
        self.assertEqual(await storages[0].get("lock"), str(added.index(True)))

    async def test_log_in(self) -> None:
        """By a service account's token, and again when what that gave holds no more."""
        port, host = start_bao(self, self.folder), self.host()
        root = [(b"X-Vault-Token", TOKEN.encode())]

        async def ask(path: str, **body: Any) -> Any:
            answer = await host.http.request(
                "POST", f"http://127.0.0.1:{port}/v1/{path}", headers=root, body=json.dumps(body).encode()
            )
            self.assertIn(answer.status, (200, 204), answer.body)
            return json.loads(answer.body or b"{}")

        # What a Kubernetes cluster vouches for, an authority of JWTs does here: the login is the same.
        secret = self.folder_key()
        await ask("sys/auth/cluster", type="jwt")
        await ask("auth/cluster/config", jwt_validation_pubkeys=[secret.public])
        await ask(
            "sys/policies/acl/edge",
            policy='path "secret/*" { capabilities = ["create", "read", "update", "delete", "list"] }',
        )
        await ask(
            "auth/cluster/role/gateway",
            role_type="jwt",
            user_claim="sub",
            bound_audiences=["bao"],
            token_policies=["edge"],
        )
        fields = self.fields(
            port, token=None, auth_method="kubernetes", auth_path="cluster", auth_role="gateway", jwt_path=secret.jwt
        )
        storage = VaultStorage(fields, host)
        await storage.set("a", "1")
        await ask("auth/token/revoke", token=storage._token)
        self.assertEqual(await storage.get("a"), "1")
        gone = VaultStorage({**fields, "jwt_path": "/nowhere/token"}, host)
        await self.refused(gone.get("a"), "/nowhere/token cannot be read", "jwt_path")
        other = VaultStorage({**fields, "auth_role": "nobody"}, host)
        await self.refused(other.get("a"), "when it is asked to log in")

    def folder_key(self) -> SimpleNamespace:
        """A service account's token in a file, and the key that vouches for it."""
        key = rsa.generate_private_key(65537, 2048)
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        public = key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()
        now = int(time.time())
        claims = {
            "sub": "system:serviceaccount:edge:gateway",
            "aud": "bao",
            "iat": now,
            "nbf": now - 60,
            "exp": now + 3600,
        }
        file = Path(self.folder, "token")
        file.write_text(jwt.encode(claims, key, "RS256") + "\n", encoding="ascii")
        return SimpleNamespace(public=public, jwt=str(file))
