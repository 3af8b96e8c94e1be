"""The plugin ldap-auth with a real slapd: plain, StartTLS, ldaps, attacks, a server that goes away."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from tests.live.pki import authority
from tests.live.slapd_server import SlapdServer
from tests.live.support import Answer, GatewayProcess, LiveTestCase, wait_until

PEOPLE = {"ann": "anns-password", "Smith, Bob": "bobs:password", "o=x+y": "odd"}


class LDAPAuthTests(LiveTestCase):
    """A route that is guarded by a directory."""

    def slapd(self) -> SlapdServer:
        ca = authority()
        self.authority = ca.write(self.folder(), "authority")[0]
        server = SlapdServer(self.folder(), ca.sign("localhost"), ca, PEOPLE)
        self.addCleanup(server.kill)
        return server.start()

    def guarded(self, server: SlapdServer, conf: dict[str, object] | None = None, **config: Any) -> GatewayProcess:
        gateway = self.gateway({"lua_ssl_trusted_certificate": self.authority, **(conf or {})})
        self.guard(gateway, "/app", server, **config)
        return gateway

    def guard(self, gateway: GatewayProcess, path: str, server: SlapdServer, **config: Any) -> None:
        route = gateway.route(path, f"http://127.0.0.1:{self.upstream('echo')}")
        values = {
            "ldap_host": "localhost",
            "ldap_port": server.port,
            "base_dn": "ou=people,dc=example",
            "attribute": "uid",
        }
        gateway.create(f"/routes/{route['id']}/plugins", name="ldap-auth", config={**values, **config})

    @staticmethod
    def login(
        gateway: GatewayProcess,
        user: str,
        password: str,
        path: str = "/app",
        header: str = "Authorization",
        kind: str = "ldap",
    ) -> Answer:
        told = b64encode(f"{user}:{password}".encode()).decode()
        return gateway.get(path, headers={header: f"{kind} {told}"})

    def test_who_is_let_in(self) -> None:
        """Names and passwords as they are in the directory; the upstream learns the name, and no password."""
        server = self.slapd()
        gateway = self.guarded(server, hide_credentials=True)
        refused = gateway.get("/app")
        self.assertEqual((refused.status, refused.headers["WWW-Authenticate"]), (401, "LDAP"))
        for user, password in PEOPLE.items():
            for header in ("Authorization", "Proxy-Authorization"):
                answer = self.login(gateway, user, password, header=header)
                self.assertEqual(answer.status, 200, user)
                seen = {name.lower(): value for name, value in answer.json["headers"]}
                self.assertEqual(seen["x-credential-identifier"], user)
                self.assertNotIn("authorization", seen)
                self.assertNotIn("proxy-authorization", seen)
                self.assertNotIn("x-consumer-id", seen)
            self.assertEqual(self.login(gateway, user, password + "x").status, 401)
        for kind, status in (("LDAP", 200), ("Basic", 401)):
            self.assertEqual(self.login(gateway, "ann", PEOPLE["ann"], kind=kind).status, status)
        for log in ("error.log", "access.log"):
            self.assertNotIn("anns-password", gateway.log(log))

    def test_attacks(self) -> None:
        """Nothing in a name changes where the directory looks, and nobody is let in without a password."""
        server = self.slapd()
        gateway = self.guarded(server, cache_ttl=0)
        for password in ("", "\0", "\0anns-password"):
            self.assertEqual(self.login(gateway, "ann", password).status, 401, repr(password))
        for user in (
            "*", "ann,ou=people", "nobody+uid=ann", "ann,ou=people,dc=example\0", "x)(uid=ann", "cn=root,dc=example#", "ann\n",
            "\\61nn", "#616e6e", '"ann"',
        ):  # fmt: skip
            self.assertEqual(self.login(gateway, user, PEOPLE["ann"]).status, 401, repr(user))
        # One level up the same name and password would do, were a comma in the name taken for one of the distinguished name.
        self.guard(gateway, "/up", server, base_dn="dc=example", attribute="uid")
        wait_until(lambda: gateway.get("/up").status == 401, "the second route")
        self.assertEqual(self.login(gateway, "ann,ou=people", PEOPLE["ann"], "/up").status, 401)
        self.assertEqual(self.login(gateway, "ann", PEOPLE["ann"]).status, 200)
        binds = [line for line in server.log().splitlines() if "method=128" in line and 'dn=""' in line]
        self.assertEqual(binds, [])

    def test_tls(self) -> None:
        """StartTLS and ldaps, verified: the right authority is needed, and nothing is said before it is seen."""
        server = self.slapd()
        gateway = self.guarded(server, start_tls=True, verify_ldap_host=True)
        self.guard(gateway, "/tls", server, ldaps=True, ldap_port=server.tls_port, verify_ldap_host=True)
        for path in ("/app", "/tls"):
            wait_until(lambda: gateway.get(path).status == 401, path)  # noqa: B023 - called at once
            for _ in range(2):
                self.assertEqual(self.login(gateway, "ann", PEOPLE["ann"], path).status, 200, path)
            self.assertEqual(self.login(gateway, "ann", "wrong", path).status, 401, path)
        self.assertIn("STARTTLS", server.log())
        stranger = self.gateway()  # it trusts the machine's authorities only
        self.guard(stranger, "/app", server, start_tls=True, verify_ldap_host=True)
        self.guard(stranger, "/tls", server, ldaps=True, ldap_port=server.tls_port, verify_ldap_host=True)
        self.guard(stranger, "/any", server, start_tls=True)
        for path, status in (("/app", 500), ("/tls", 500), ("/any", 200)):
            wait_until(lambda: stranger.get(path).status == 401, path)  # noqa: B023 - called at once
            self.assertEqual(self.login(stranger, "ann", PEOPLE["ann"], path).status, status, path)
        self.assertIn("ldap-auth: nobody can log in: cannot connect to localhost", stranger.log())

    def test_remembered(self) -> None:
        """While what the directory said is remembered it is not asked; one that is away answers 500, and comes back."""
        server = self.slapd()
        gateway = self.guarded(server, cache_ttl=300)
        for _ in range(3):
            self.assertEqual(self.login(gateway, "ann", PEOPLE["ann"]).status, 200)
            self.assertEqual(self.login(gateway, "ann", "wrong").status, 401)
        asked = [line for line in server.log().splitlines() if " BIND dn=" in line and "method=128" in line]
        self.assertEqual(len(asked), 2, asked)
        server.kill()
        self.assertEqual(self.login(gateway, "ann", PEOPLE["ann"]).status, 200)
        self.assertEqual(self.login(gateway, "Smith, Bob", PEOPLE["Smith, Bob"]).status, 500)
        server.start()
        self.assertEqual(self.login(gateway, "Smith, Bob", PEOPLE["Smith, Bob"]).status, 200)

    def test_connections_are_kept(self) -> None:
        """Logins one after the other take one connection; one that the server has ended meanwhile costs nobody a login."""
        server = self.slapd()
        gateway = self.guarded(server, cache_ttl=0)
        for _ in range(5):
            self.assertEqual(self.login(gateway, "ann", PEOPLE["ann"]).status, 200)
        logins = [line for line in server.log().splitlines() if " BIND dn=" in line and "method=128" in line]
        self.assertEqual(len({line.split("conn=")[1].split()[0] for line in logins}), 1, logins)
        server.kill()
        server.start()
        self.assertEqual(self.login(gateway, "ann", PEOPLE["ann"]).status, 200)
