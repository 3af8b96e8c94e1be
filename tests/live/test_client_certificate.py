"""The plugin client-certificate with curl, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import grpc

from tests.live.grpc_kit import GRPCTestCase
from tests.live.pki import Signed, authority
from tests.live.support import PATIENCE, GatewayProcess, LiveTestCase, wait_until


class CertificateTests(LiveTestCase):
    """Clients with and without certificates."""

    def setUp(self) -> None:
        super().setUp()
        self.files = self.folder()
        self.authority = authority("ours")
        self.authority.write(self.files, "ours")

    def ask(self, gateway: GatewayProcess, client: Signed | None, *options: str) -> tuple[int, dict[str, str]]:
        """Status, 0 for a handshake that failed, and what the upstream saw."""
        words = ["curl", "-sk", "-o", "body", "-w", "%{http_code}", *options]
        if client is not None:
            certificate, key = client.write(self.files, "client")
            words += ["--cert", certificate, "--key", key]
        words.append(f"https://127.0.0.1:{gateway.tls_port}/app/x")
        done = subprocess.run(words, cwd=self.files, capture_output=True, text=True, timeout=PATIENCE)
        status = int(done.stdout)
        if status != 200:
            return status, {}
        told = json.loads(Path(self.files, "body").read_text())["headers"]
        return status, {name.lower(): value for name, value in told}

    def guarded(self, **conf: object) -> GatewayProcess:
        gateway = self.gateway(conf, tls=True, http2=True)
        route = gateway.route("/app", f"http://127.0.0.1:{self.upstream('echo')}")
        gateway.create("/consumers", username="warehouse")
        gateway.create(f"/routes/{route['id']}/plugins", name="client-certificate")
        wait_until(lambda: gateway.get("/app/x").status != 200, "the plugin")
        return gateway

    def test_who_is_let_in(self) -> None:
        """Whom our authority names, in both versions of HTTP; nobody without a certificate, nor without TLS."""
        gateway = self.guarded(proxy_ssl_client_ca=os.path.join(self.files, "ours.crt"))
        ours = self.authority.sign("warehouse", client=True)
        claims = ("-H", "X-Consumer-Username: root", "-H", "X_Credential_Identifier: root")
        for version in ("--http1.1", "--http2"):
            status, seen = self.ask(gateway, ours, version, *claims)
            self.assertEqual((status, seen.get("x-consumer-username")), (200, "warehouse"), version)
            self.assertRegex(seen["x-credential-identifier"], r"\A[0-9a-f]{64}\Z")
            self.assertNotIn("x_credential_identifier", seen)
            self.assertEqual(self.ask(gateway, None, version)[0], 401)
            self.assertEqual(self.ask(gateway, self.authority.sign("nobody", client=True), version)[0], 401)
        self.assertNotEqual(gateway.get("/app/x").status, 200)

    def test_refused_in_the_handshake(self) -> None:
        """Another authority of the same name, a certificate for servers, one that has run out, one that signed itself."""
        gateway = self.guarded(proxy_ssl_client_ca=os.path.join(self.files, "ours.crt"))
        for stranger in (
            authority("ours").sign("warehouse", client=True), self.authority.sign("warehouse"),
            self.authority.sign("warehouse", client=True, years=1), authority("warehouse"),
        ):  # fmt: skip
            self.assertEqual(self.ask(gateway, stranger)[0], 0)
        self.assertEqual(self.ask(gateway, self.authority.sign("warehouse", client=True))[0], 200)

    def test_not_asked(self) -> None:
        """Where no authority is named nobody is asked, and nobody let in, whatever they would show."""
        gateway = self.guarded()
        self.assertEqual(self.ask(gateway, self.authority.sign("warehouse", client=True))[0], 401)

    def test_reload(self) -> None:
        """An authority that is named later holds from the next connection on."""
        gateway = self.guarded()
        gateway.conf["proxy_ssl_client_ca"] = os.path.join(self.files, "ours.crt")
        path = Path(gateway.folder, "kong.conf")
        path.write_text(path.read_text() + f"proxy_ssl_client_ca = {gateway.conf['proxy_ssl_client_ca']}\n")
        assert gateway.process is not None
        gateway.process.signal(1)
        ours = self.authority.sign("warehouse", client=True)
        wait_until(lambda: self.ask(gateway, ours)[0] == 200, "the authority is trusted")


class CallTests(GRPCTestCase):
    """The same for gRPC, with grpcio."""

    def test_who_may_call(self) -> None:
        """Refusals are in gRPC's words; who is let in is told to the service."""
        folder, ours = self.folder(), authority("ours")
        ours.write(folder, "ours")
        certificate, key = ours.sign("localhost").write(folder, "server")
        conf = {"ssl_cert": certificate, "ssl_cert_key": key, "proxy_ssl_client_ca": os.path.join(folder, "ours.crt")}
        gateway = self.gateway(conf, tls=True, http2=True)
        gateway.create("/services", name="grpc", url=f"grpc://127.0.0.1:{self.echo()}")
        gateway.create("/services/grpc/routes", name="grpc", protocols=["grpcs"], paths=["/"])
        gateway.create("/services/grpc/plugins", name="client-certificate")
        gateway.create("/consumers", username="warehouse")
        self.assertEqual(self.call(gateway, ours, "warehouse"), (grpc.StatusCode.OK, "", [b"hello"]))
        unauthenticated = grpc.StatusCode.UNAUTHENTICATED
        self.assertEqual(self.call(gateway, ours, None), (unauthenticated, "No client certificate was shown", []))
        self.assertEqual(self.call(gateway, ours, "nobody"), (unauthenticated, "Unauthorized", []))

    def call(
        self, gateway: GatewayProcess, ours: Signed, client: str | None
    ) -> tuple[grpc.StatusCode, str, list[bytes]]:
        """Status, message, and what came back for a message, over a connection with this client's certificate."""
        roots, chain, key = ours.pem.encode(), None, None
        if client is not None:
            signed = ours.sign(client, client=True)
            chain, key = signed.pem.encode(), signed.key_pem.encode()
        credentials = grpc.ssl_channel_credentials(roots, key, chain)
        with grpc.secure_channel(f"localhost:{gateway.tls_port}", credentials) as channel:
            answers = channel.stream_stream("/any.Service/Method")(iter([b"hello"]), timeout=PATIENCE)
            got: list[bytes] = []
            try:
                got += answers
            except grpc.RpcError:
                pass
            return answers.code(), answers.details(), got
