"""The plugin oauth2 with a real client (Authlib) and two nodes of two workers each."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from json import dumps
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from authlib.common.security import generate_token
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session

from tests.live.support import GatewayProcess, wait_until
from tests.live.test_postgres_nodes import NodesTestCase

BACK = "https://app.example/back"


class OAuth2Tests(NodesTestCase):
    """A service guarded by oauth2."""

    def setUp(self) -> None:
        super().setUp()
        catching = warnings.catch_warnings()
        catching.__enter__()
        self.addCleanup(catching.__exit__, None, None, None)
        warnings.simplefilter("ignore")  # the gateways' certificates are their own

    def configure(self, gateway: GatewayProcess, **config: Any) -> None:
        """Service, plugin, and two clients: one that keeps a secret (here as a hash), one that cannot."""
        route = gateway.route("/app", f"http://127.0.0.1:{self.upstream('echo')}", name="app")
        plugin = {
            "scopes": ["read", "write"], "provision_key": "pk", "enable_authorization_code": True, "enable_password_grant": True,
            "enable_client_credentials": True, "enable_implicit_grant": True, **config,
        }  # fmt: skip
        gateway.create(f"/services/{route['service']['id']}/plugins", name="oauth2", config=plugin)
        gateway.create("/consumers", username="ada")
        client = {"name": "App", "redirect_uris": [BACK]}
        gateway.create("/consumers/ada/oauth2", client_id="keeps", client_secret="s3cret", hash_secret=True, **client)
        gateway.create("/consumers/ada/oauth2", client_id="open", client_type="public", **client)

    def served(self, gateway: GatewayProcess) -> None:
        """Wait until all workers guard the route."""
        wait_until(lambda: {gateway.get("/app/x").status for _ in range(12)} == {401}, "the plugin in all workers")

    def client(self, client_id: str = "keeps") -> OAuth2Session:
        """Authlib's client."""
        secret, method = ("s3cret", "client_secret_basic") if client_id == "keeps" else (None, "none")
        session = OAuth2Session(
            client_id, secret, scope="read", redirect_uri=BACK, token_endpoint_auth_method=method,
            code_challenge_method="S256",
        )  # fmt: skip
        session.verify = session.trust_env = False
        self.addCleanup(session.close)
        return session

    @staticmethod
    def at(gateway: GatewayProcess, path: str = "/app/x") -> str:
        return f"https://127.0.0.1:{gateway.tls_port}{path}"

    def allowed(self, gateway: GatewayProcess, url: str) -> str:
        """What a login page does with what a client asks for: where the browser is sent back to."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        asked |= {"provision_key": "pk", "authenticated_userid": "user 7"}
        answer = requests.post(self.at(gateway, "/app/oauth2/authorize"), asked, verify=False, timeout=30)
        self.assertEqual(answer.status_code, 200, answer.text)
        self.assertEqual(answer.headers["Cache-Control"], "no-store")
        found: str = answer.json()["redirect_uri"]
        return found

    def use(self, gateway: GatewayProcess, token: str, status: int = 200) -> dict[str, str]:
        """A request to the API on a connection of its own, to any worker; what the upstream saw."""
        answer = gateway.get("/app/x", headers={"Authorization": f"Bearer {token}"})
        self.assertEqual(answer.status, status, answer.body)
        return {name.lower(): value for name, value in answer.json["headers"]} if status == 200 else {}

    def test_two_nodes_of_two_workers(self) -> None:
        """Code, token and refresh go to whichever process answers; each holds everywhere at once. Nothing is given twice."""
        conf = self.database(nginx_worker_processes=2)
        one, two = self.gateway(conf, tls=True), self.gateway(conf, tls=True)
        self.configure(one, hide_credentials=True)
        self.served(one)
        self.served(two)
        client = self.client()
        for first, second in ((one, two), (two, one)):
            verifier = generate_token(48)
            url, state = client.create_authorization_url("https://login.example/", code_verifier=verifier)
            back = self.allowed(first, url)
            token = client.fetch_token(
                self.at(second, "/app/oauth2/token"), authorization_response=back, state=state, code_verifier=verifier
            )
            for gateway in (first, second, first, second, first, second):
                seen = self.use(gateway, token["access_token"])
            self.assertEqual(seen["x-authenticated-userid"], "user 7")
            self.assertEqual((seen["x-authenticated-scope"], seen["x-credential-identifier"]), ("read", "keeps"))
            self.assertEqual(seen["x-consumer-username"], "ada")
            self.assertNotIn("authorization", seen)
            with self.assertRaises(OAuthError) as refused:
                client.fetch_token(
                    self.at(first, "/app/oauth2/token"),
                    authorization_response=back,
                    state=state,
                    code_verifier=verifier,
                )
            self.assertEqual(refused.exception.description, "Invalid code")
            renewed = client.refresh_token(self.at(first, "/app/oauth2/token"), refresh_token=token["refresh_token"])
            for gateway in (first, second, first, second):
                self.use(gateway, renewed["access_token"])
            wait_until(lambda: second.get("/app/x", headers=bearer(token)).status == 401, "the old token is gone")  # noqa: B023
        for log in (one, two):
            for secret in (token["access_token"], renewed["access_token"], token["refresh_token"], "s3cret"):
                self.assertNotIn(secret, log.log() + log.log("access.log"))

    def test_one_code_many_at_once(self) -> None:
        """A code is shown to both nodes sixteen times at once: one token."""
        conf = self.database(nginx_worker_processes=2)
        one, two = self.gateway(conf, tls=True), self.gateway(conf, tls=True)
        self.configure(one)
        self.served(one)
        self.served(two)
        url, _ = self.client("open").create_authorization_url("https://login.example/", code_verifier="v" * 50)
        (code,) = parse_qs(urlsplit(self.allowed(one, url)).query)["code"]
        form = {
            "grant_type": "authorization_code", "client_id": "open", "code": code, "code_verifier": "v" * 50,
            "redirect_uri": BACK,
        }  # fmt: skip

        def attempt(number: int) -> int:
            where = self.at((one, two)[number % 2], "/app/oauth2/token")
            return requests.post(where, form, verify=False, timeout=60).status_code

        with ThreadPoolExecutor(16) as crowd:
            statuses = sorted(crowd.map(attempt, range(16)))
        self.assertEqual(statuses, [200] + [400] * 15)
        self.assertEqual(len(one.admin("GET", "/oauth2_tokens").json["data"]), 1)

    def test_other_grants(self) -> None:
        """Client credentials, password and implicit, by Authlib; a token that is deleted is worth nothing."""
        gateway = self.gateway({"nginx_worker_processes": 2}, tls=True)
        self.configure(gateway)
        self.served(gateway)
        where = self.at(gateway, "/app/oauth2/token")
        client = self.client()
        token = client.fetch_token(where, grant_type="client_credentials")
        self.assertNotIn("refresh_token", token)
        self.assertNotIn("x-authenticated-userid", self.use(gateway, token["access_token"]))
        token = client.fetch_token(
            where, grant_type="password", username="u", password="p", provision_key="pk", authenticated_userid="user 8"
        )
        self.assertEqual(self.use(gateway, token["access_token"])["x-authenticated-userid"], "user 8")
        with self.assertRaises(OAuthError) as refused:
            client.fetch_token(where, grant_type="password", username="u", password="p", authenticated_userid="root")
        self.assertEqual(refused.exception.error, "invalid_provision_key")
        url, state = self.client("open").create_authorization_url("https://login.example/", response_type="token")
        back = self.allowed(gateway, url + "&code_challenge=" + "c" * 43)
        token = self.client("open").token_from_fragment(back, state)
        self.use(gateway, token["access_token"])
        self.assertEqual(gateway.admin("DELETE", f"/oauth2_tokens/{token['access_token']}").status, 204)
        wait_until(
            lambda: {gateway.get("/app/x", headers=bearer(token)).status for _ in range(8)} == {401}, "it is taken back"
        )

    def test_admin_paths(self) -> None:
        """Clients and tokens have Kong's paths, codes have none; hashes are shown, secrets are not."""
        gateway = self.gateway(tls=True)
        self.configure(gateway)
        hashed = gateway.admin("GET", "/oauth2/keeps").json
        self.assertTrue(hashed["client_secret"].startswith("$pbkdf2-sha512$"))
        self.assertEqual(gateway.admin("GET", "/consumers/ada/oauth2/open").json["client_type"], "public")
        self.assertEqual(gateway.admin("GET", "/oauth2_authorization_codes").status, 404)
        refused = gateway.admin("PATCH", "/oauth2/keeps", json={"client_secret": "new"})
        self.assertEqual(
            refused.json["fields"]["@entity"],
            ["all or none of these fields must be set: 'hash_secret', 'client_secret'"],
        )
        paths = gateway.admin("GET", "/openapi.json").json["paths"]
        for path in ("/oauth2", "/oauth2_tokens", "/consumers/{consumers}/oauth2"):
            self.assertIn(path, paths)
        self.assertNotIn("/oauth2_authorization_codes", paths)
        service = gateway.admin("GET", "/services").json["data"][0]
        values = {"credential": {"id": hashed["id"]}, "service": {"id": service["id"]}, "expires_in": 0}
        made = gateway.create("/oauth2_tokens", access_token="made-by-hand", ttl=3600, **values)
        self.assertIn(made["ttl"], (3599, 3600))
        self.use(gateway, "made-by-hand")

    def test_written_again(self) -> None:
        """What is shown can be sent back, as decK does it, and nothing changes: neither a hash nor a key that was made here."""
        gateway = self.gateway()
        self.configure(gateway)
        consumer = gateway.admin("GET", "/consumers/ada").json
        for client_id in ("keeps", "open"):
            row = gateway.admin("GET", f"/oauth2/{client_id}").json
            checked = gateway.admin("POST", "/schemas/oauth2_credentials/validate", json=row)
            self.assertEqual(checked.status, 200, checked.body)
            again = gateway.admin("PUT", f"/consumers/{consumer['id']}/oauth2/{row['id']}", json=row)
            self.assertEqual((again.status, again.json), (200, row))
        (plugin,) = gateway.admin("GET", "/plugins").json["data"]
        again = gateway.admin("PUT", f"/plugins/{plugin['id']}", json=plugin)
        self.assertEqual((again.status, again.json["config"]), (200, plugin["config"]))
        made = gateway.create("/plugins", name="oauth2", config={"enable_client_credentials": True})
        self.assertRegex(made["config"]["provision_key"], r"\A[A-Za-z0-9]{32}\Z")
        changed = gateway.admin("PATCH", f"/plugins/{made['id']}", json={"config": {"token_expiration": 5}}).json
        self.assertEqual(changed["config"]["provision_key"], made["config"]["provision_key"])

    def test_without_a_database(self) -> None:
        """Tokens of the file hold; new ones cannot be given, and the log says why."""
        file = Path(self.folder(), "kong.yml")
        token = {"access_token": "from-the-file", "expires_in": 0}
        client = {
            "name": "App",
            "client_id": "c",
            "client_secret": "s",
            "redirect_uris": [BACK],
            "oauth2_tokens": [token],
        }
        config = {"enable_client_credentials": True, "global_credentials": True}
        file.write_text(
            dumps({
                "_format_version": "3.0",
                "services": [{
                    "name": "app", "url": f"http://127.0.0.1:{self.upstream('echo')}",
                    "routes": [{"name": "app", "paths": ["/app"]}], "plugins": [{"name": "oauth2", "config": config}],
                }],
                "consumers": [{"username": "ada", "oauth2_credentials": [client]}],
            })
        )  # fmt: skip
        gateway = self.gateway({"database": "off", "declarative_config": file}, tls=True)
        self.use(gateway, "from-the-file")
        form = {"grant_type": "client_credentials", "client_id": "c", "client_secret": "s"}
        answer = requests.post(self.at(gateway, "/app/oauth2/token"), form, verify=False, timeout=30)
        self.assertEqual(answer.status_code, 500)
        self.assertIn("oauth2: no code or token could be given", gateway.log())


def bearer(token: Any) -> dict[str, str]:
    """The header of a request with a token."""
    return {"Authorization": f"Bearer {token['access_token']}"}
