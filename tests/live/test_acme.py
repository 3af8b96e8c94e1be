"""Certificates from a real authority (pebble), by HTTP-01: by hand, on demand, renewed; with rows, Redis, Consul and OpenBao; on
several nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography import x509

from tests.live.acme_authority import AcmeAuthority, shown_certificate
from tests.live.bao_server import TOKEN as BAO_TOKEN
from tests.live.bao_server import start_bao
from tests.live.consul_stand_in import TOKEN as CONSUL_TOKEN
from tests.live.consul_stand_in import ConsulStandIn
from tests.live.support import GatewayProcess, LiveTestCase, request, wait_until
from tests.live.test_postgres_nodes import NodesTestCase
from tests.live.valkey_server import ValkeyServer


class _Acme(LiveTestCase):
    def config(self, authority: AcmeAuthority, **more: Any) -> dict[str, Any]:
        return {
            "account_email": "ops@example.com", "api_uri": authority.directory, "tos_accepted": True, "cert_type": "ecc",
            "domains": ["shop.test", "*.lazy.test"], **more,
        }  # fmt: skip

    def issuer(self, gateway: GatewayProcess, name: str) -> str:
        """Common name of who signed the certificate that is shown."""
        shown = x509.load_der_x509_certificate(shown_certificate(gateway.tls_port, name))
        return str(shown.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)

    def signed(self, gateway: GatewayProcess, name: str) -> bool:
        return "Pebble" in self.issuer(gateway, name)

    def order(self, gateway: GatewayProcess, host: str = "shop.test") -> None:
        answer = gateway.admin("POST", "/acme", json={"host": host})
        self.assertEqual((answer.status, answer.json), (201, {"message": f"certificate for host {host} is created"}))


class RowsTests(_Acme):
    def test_life_of_a_certificate(self) -> None:
        """Ordered by the Admin API, served by its name at once, on demand for others, listed, renewed, and no longer once deleted."""
        authority = AcmeAuthority(self)
        gateway = self.gateway(
            {"nginx_worker_processes": 2, "lua_ssl_trusted_certificate": authority.trusted}, tls=True
        )
        authority.start(gateway.proxy_port)
        self.assertEqual(gateway.admin("POST", "/acme", json={"host": "shop.test"}).status, 404)
        self.assertFalse(self.signed(gateway, "shop.test"))  # with the plugin this would order one
        plugin = gateway.create("/plugins", name="acme", config=self.config(authority, storage="kong"))
        self.refusals(gateway)
        self.order(gateway)
        for _ in range(6):
            self.assertTrue(self.signed(gateway, "shop.test"))
        self.assertFalse(self.signed(gateway, "other.test"))
        self.assertFalse(self.signed(gateway, "one.lazy.test"))
        wait_until(lambda: self.signed(gateway, "one.lazy.test"), "a certificate on demand")
        listed = gateway.admin("GET", "/acme/certificates").json["data"]
        wait_until(lambda: len(gateway.admin("GET", "/acme/certificates").json["data"]) == 2, "both to be listed")
        first = next(each for each in listed if each["host"] == "shop.test")
        self.assertEqual(gateway.admin("GET", "/acme/certificates/shop.test").json, {"data": first})
        self.assertEqual((first["valid"], first["pubkey_type"]), (True, "id-ecPublicKey"))
        self.assertRegex(first["digest"], r"^[0-9A-F]{2}(:[0-9A-F]{2}){19}$")
        self.assertEqual(gateway.admin("GET", "/acme/certificates?invalid_only=true").json, {"data": []})
        missing = gateway.admin("GET", "/acme/certificates/none.test")
        self.assertEqual(
            (missing.status, missing.json["message"]), (404, "Certificate for host none.testnot found in storage")
        )
        rows = gateway.admin("GET", "/certificates").json["data"]
        self.assertEqual([each["tags"] for each in rows], [["managed-by-acme"]] * 2)
        config = {"renew_threshold_days": 100000}
        self.assertEqual(gateway.admin("PATCH", f"/plugins/{plugin['id']}", json={"config": config}).status, 200)
        answer = gateway.admin("PATCH", "/acme")
        self.assertEqual((answer.status, answer.json["message"]), (202, "Renewal process started successfully"))

        def renewed() -> bool:
            found = gateway.admin("GET", "/acme/certificates/shop.test").json["data"]
            return bool(found["serial_number"] != first["serial_number"])

        wait_until(renewed, "a renewed certificate")
        self.assertTrue(self.signed(gateway, "shop.test"))
        wait_until(lambda: len(gateway.admin("GET", "/certificates").json["data"]) == 2, "the old one to be gone")
        self.assertNotIn("PRIVATE KEY", gateway.log() + gateway.log("access.log"))

    def refusals(self, gateway: GatewayProcess) -> None:
        for body, message in (
            ({}, "host must be provided and containing a single domain"),
            ({"host": ["a", "b"]}, "host must be provided and containing a single domain"),
            ({"host": "shop.test:80"}, "port is not allowed in host"),
            (
                {"host": "evil.test", "test_http_challenge_flow": "true"},
                "problem found running sanity check for evil.test: host is not included in plugin config.domains",
            ),
        ):
            answer = gateway.admin("POST", "/acme", json=body)
            self.assertEqual((answer.status, answer.json), (400, {"message": message}))
        path = "/.well-known/acme-challenge/"
        for token in ("x", "unknown", "a/b"):
            answer = gateway.get(path + token, headers={"Host": "shop.test"})
            self.assertEqual((answer.status, answer.body), (404, b"Not found\n"))
        self.assertIn("no Route matched", gateway.get(f"{path}x", headers={"Host": "evil.test"}).json["message"])

    def test_refused(self) -> None:
        """A name that the authority cannot reach: why is told, and it is not tried again at once."""
        authority = AcmeAuthority(self)
        gateway = self.gateway({"lua_ssl_trusted_certificate": authority.trusted}, tls=True)
        authority.start(1)
        gateway.create("/plugins", name="acme", config=self.config(authority, storage="kong"))
        answer = gateway.admin("POST", "/acme", json={"host": "shop.test"})
        self.assertEqual(answer.status, 500)
        self.assertRegex(answer.json["message"], r"^failed to update certificate: shop\.test: .*refused")
        again = gateway.admin("POST", "/acme", json={"host": "shop.test"})
        self.assertRegex(again.json["message"], r"please try again in (300|29\d) seconds for host shop\.test because")

    def test_distrusted(self) -> None:
        """An authority whose own certificate nobody vouches for is not asked."""
        authority = AcmeAuthority(self)
        gateway = self.gateway(tls=True)
        authority.start(gateway.proxy_port)
        gateway.create("/plugins", name="acme", config=self.config(authority, storage="kong"))
        answer = gateway.admin("POST", "/acme", json={"host": "shop.test"})
        self.assertEqual(answer.status, 500)
        self.assertIn("CERTIFICATE_VERIFY_FAILED", answer.json["message"])


class NodesTests(NodesTestCase, _Acme):
    def test_another_node_is_asked(self) -> None:
        """One node orders, the authority looks at the other, and both serve."""
        authority = AcmeAuthority(self)
        conf = self.database(nginx_worker_processes=2, lua_ssl_trusted_certificate=authority.trusted)
        nodes = [self.gateway(conf, tls=True), self.gateway(conf, tls=True)]
        authority.start(nodes[1].proxy_port)
        nodes[0].create("/plugins", name="acme", config=self.config(authority, storage="kong"))
        challenge = "/.well-known/acme-challenge/x"

        def serves() -> bool:
            answer = request(nodes[1].proxy_port, "GET", challenge, headers={"Host": "shop.test"})
            return answer.body == b"Not found\n"

        wait_until(serves, "the other node has the plugin")
        self.order(nodes[0])
        wait_until(lambda: all(self.signed(node, "shop.test") for node in nodes), "both nodes serve it")


class ServersTests(_Acme):
    """Without a database: two nodes share what is in a server."""

    def share(self, storage: str, fields: dict[str, Any]) -> list[GatewayProcess]:
        authority = AcmeAuthority(self)
        config = self.config(authority, storage=storage, storage_config={storage: fields})
        file = Path(self.folder(), "kong.json")
        file.write_text(json.dumps({"_format_version": "3.0", "plugins": [{"name": "acme", "config": config}]}))
        conf = {
            "database": "off", "declarative_config": str(file), "lua_ssl_trusted_certificate": authority.trusted,
            "nginx_worker_processes": 2,
        }  # fmt: skip
        nodes = [self.gateway(conf, tls=True), self.gateway(conf, tls=True)]
        authority.start(nodes[1].proxy_port)
        self.order(nodes[0])
        for node in nodes:
            wait_until(lambda node=node: self.signed(node, "shop.test"), "it is served")  # type: ignore[misc]
            self.assertEqual(
                [each["host"] for each in node.admin("GET", "/acme/certificates").json["data"]], ["shop.test"]
            )
        return nodes

    def test_redis(self) -> None:
        valkey = ValkeyServer(self.folder()).start()
        self.addCleanup(valkey.kill)
        extra = {"namespace": "edge1:"}
        self.share("redis", {"host": "127.0.0.1", "port": valkey.port, "extra_options": extra})

    def test_openbao(self) -> None:
        port = start_bao(self, self.folder())
        self.share("vault", {"host": "127.0.0.1", "port": port, "kv_path": "secret/edge", "token": BAO_TOKEN})

    def test_consul(self) -> None:
        """Under Kong's keys; whose token is refused is told so."""
        consul = ConsulStandIn()
        self.addCleanup(consul.stop)
        fields = {"host": "127.0.0.1", "port": consul.port, "token": CONSUL_TOKEN}
        self.share("consul", fields)
        self.assertIn("acme/kong_acme:cert_key:shop.test", consul.entries)
        authority = AcmeAuthority(self)
        gateway = self.gateway({"lua_ssl_trusted_certificate": authority.trusted}, tls=True)
        authority.start(gateway.proxy_port)
        config = self.config(authority, storage="consul", storage_config={"consul": {**fields, "token": "another"}})
        gateway.create("/plugins", name="acme", config=config)
        answer = gateway.admin("POST", "/acme", json={"host": "shop.test"})
        self.assertEqual(answer.status, 500)
        self.assertIn("answers 403", answer.json["message"])
        self.assertIn("see config.storage_config.consul", answer.json["message"])
