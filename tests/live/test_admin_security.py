"""Who reaches the Admin API of a running gateway: TLS, client certificates, tokens, warnings, unix sockets, secrets."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys

from cryptography import x509

from tests.live.pki import Signed, authority
from tests.live.support import PATIENCE, ROOT, Answer, GatewayProcess, LiveTestCase, free_port, request, wait_until

OLD, NEW = "first-token-0123456789", "second-token-9876543210"


def tls_request(
    port: int,
    *,
    trusted: str | None = None,
    client: tuple[str, str] | None = None,
    method: str = "GET",
    path: str = "/status",
) -> Answer:
    """One request over TLS; ``trusted`` (a file) must have signed the server's certificate, ``client`` is ours."""
    context = ssl.create_default_context(cafile=trusted) if trusted else ssl._create_unverified_context()
    if client is not None:
        context.load_cert_chain(*client)
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)
    try:
        connection.request(method, path)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def shown_serial(port: int) -> int:
    """The serial number of the certificate that a TLS server shows."""
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port)).encode()).serial_number


class TLSTests(LiveTestCase):
    """``ssl`` addresses of admin_listen and status_listen."""

    def guarded(self, **conf: object) -> tuple[GatewayProcess, int]:
        """A gateway whose Admin API listens plain on loopback, and with TLS on the port returned."""
        port, plain = free_port(), free_port()
        gateway = GatewayProcess(self, conf)
        gateway.admin_port = plain
        gateway.conf["admin_listen"] = f"127.0.0.1:{plain}, 127.0.0.1:{port} ssl"
        self._gateways.append(gateway)
        return gateway.start(), port

    def test_default_certificate(self) -> None:
        """Without one configured it is the one made at the first start, as the proxy's; several listeners work at once."""
        status = free_port()
        gateway, port = self.guarded(status_listen=f"127.0.0.1:{status} ssl")
        own = os.path.join(gateway.prefix, "ssl", "default-ecdsa.crt")
        for each in (port, status):
            self.assertEqual(tls_request(each, trusted=own).status, 200)
        gateway.create("/services", name="s", host="h")
        self.assertEqual(tls_request(port, trusted=own, path="/services/s").json["name"], "s")
        with self.assertRaises((OSError, http.client.HTTPException)):
            request(port, "GET", "/status")  # plain text on a TLS port

    def test_certificates_follow_reload(self) -> None:
        """Configured pairs are shown, one for each API; new files are picked up by a reload, bad ones are not."""
        ca, folder = authority(), self.folder()
        admin, status = ca.sign("admin"), ca.sign("status")
        admin_files, status_files = admin.write(folder, "admin"), status.write(folder, "status")
        status_port = free_port()
        gateway, port = self.guarded(
            admin_ssl_cert=admin_files[0],
            admin_ssl_cert_key=admin_files[1],
            status_listen=f"127.0.0.1:{status_port} ssl",
            status_ssl_cert=status_files[0],
            status_ssl_cert_key=status_files[1],
        )
        self.assertEqual(shown_serial(port), admin.certificate.serial_number)
        self.assertEqual(shown_serial(status_port), status.certificate.serial_number)
        newer = ca.sign("admin")
        newer.write(folder, "admin")
        os.kill(gateway.pid, signal.SIGHUP)
        wait_until(lambda: shown_serial(port) == newer.certificate.serial_number, "the new certificate")
        with open(admin_files[1], "w", encoding="ascii") as file:
            file.write(status.key_pem)
        os.kill(gateway.pid, signal.SIGHUP)
        wait_until(lambda: "reload refused" in gateway.log(), "the refusal")
        self.assertIn("do not belong together", gateway.log())
        self.assertEqual(shown_serial(port), newer.certificate.serial_number)

    def test_client_certificates(self) -> None:
        """Only clients with a certificate of the authority get through the handshake; curl too."""
        ours, theirs, folder = authority("ours"), authority("theirs"), self.folder()
        ca_file, _ = ours.write(folder, "ca")
        gateway, port = self.guarded(admin_ssl_client_ca=ca_file)
        good = ours.sign("operator", client=True).write(folder, "good")
        between = ours.sign("between", ca=True)
        chained = self.chained(between.sign("robot", client=True), between, folder)
        for client in (good, chained):
            self.assertEqual(tls_request(port, client=client).status, 200)
        bad: dict[str, tuple[str, str] | None] = {
            "none": None,
            "of another authority": theirs.sign("operator", client=True).write(folder, "foreign"),
            "expired": ours.sign("operator", client=True, years=1).write(folder, "expired"),
            "a server's": ours.sign("server").write(folder, "server"),
            "self-signed": authority("operator").write(folder, "self"),
        }
        for what, wrong in bad.items():
            with self.assertRaises(OSError, msg=what):  # ssl.SSLError, or the reset behind the alert
                tls_request(port, client=wrong, method="DELETE", path="/services")
        curl = shutil.which("curl")
        if curl is not None:
            words = [curl, "-ks", "-o", "/dev/null", "-w", "%{http_code}", f"https://127.0.0.1:{port}/status"]
            self.assertEqual(subprocess.run(words, capture_output=True, text=True).stdout, "000")
            words += ["--cert", good[0], "--key", good[1]]
            self.assertEqual(subprocess.run(words, capture_output=True, text=True).stdout, "200")
        self.assertEqual(gateway.admin("GET", "/status").status, 200)  # the loopback address is plain

    @staticmethod
    def chained(leaf: Signed, between: Signed, folder: str) -> tuple[str, str]:
        """A client's files whose certificate hangs on the authority by another one."""
        certificate, key = leaf.write(folder, "chained")
        with open(certificate, "a", encoding="ascii") as file:
            file.write(between.pem)
        return certificate, key

    def test_authority_replaced(self) -> None:
        """A reload with another authority shuts the old one's clients out, those that are connected too."""
        first, second, folder = authority("first"), authority("second"), self.folder()
        ca_file, _ = first.write(folder, "ca")
        gateway, port = self.guarded(admin_ssl_client_ca=ca_file)
        old = first.sign("operator", client=True).write(folder, "old")
        new = second.sign("operator", client=True).write(folder, "new")
        context = ssl._create_unverified_context()
        context.load_cert_chain(*old)
        kept = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)
        self.addCleanup(kept.close)
        kept.request("GET", "/status")
        kept.getresponse().read()
        second.write(folder, "ca")
        os.kill(gateway.pid, signal.SIGHUP)
        wait_until(lambda: tls_request(port, client=new).status == 200, "the new authority's client")
        with self.assertRaises(OSError):
            tls_request(port, client=old)
        self.assertEqual(kept.sock.recv(1), b"")  # closed by the gateway

    def test_refused_starts(self) -> None:
        """An authority that would guard nothing, or cannot be read, stops the start with a sentence."""
        folder = self.folder()
        ca_file, _ = authority().write(folder, "ca")
        port = free_port()
        for conf, sentence in (
            ({"admin_listen": f"0.0.0.0:{port}"}, f"would not guard 0.0.0.0:{port} of admin_listen"),
            ({"admin_listen": f"127.0.0.1:{port}"}, "admin_ssl_client_ca needs an address"),
            ({"admin_ssl_client_ca": "/nowhere.pem"}, "admin_ssl_client_ca cannot read '/nowhere.pem'"),
            ({"admin_ssl_client_ca": __file__}, "holds no certificate in PEM form"),
        ):
            listen = {"admin_listen": f"127.0.0.1:{port} ssl", "admin_ssl_client_ca": ca_file}
            gateway = GatewayProcess(self, {**listen, **conf})
            process = gateway.launch()
            self.assertEqual(process.wait(), 1)
            self.assertIn(sentence, process.output())


class TokenTests(LiveTestCase):
    """``admin_api_token``."""

    def test_token(self) -> None:
        """Either header lets in; anything else gets 401 in Kong's form, everywhere, and nothing is done."""
        gateway = self.gateway({"admin_api_token": f"{OLD}, {NEW}"})
        for good in ({"Kong-Admin-Token": OLD}, {"Authorization": f"Bearer {NEW}"}):
            self.assertEqual(gateway.admin("GET", "/services", headers=good).status, 200)
        for bad in ({}, {"Kong-Admin-Token": OLD[:-1]}, {"Authorization": f"Basic {OLD}"}, {"Authorization": OLD}):
            for method, path in (
                ("GET", "/"), ("GET", "/status"), ("HEAD", "/"), ("GET", "/nowhere"), ("OPTIONS", "/services"),
                ("POST", "/services"), ("DELETE", "/services/x"), ("TRACE", "/"), ("GET", "/openapi.json"),
            ):  # fmt: skip
                answer = gateway.admin(method, path, headers=bad)
                self.assertEqual(answer.status, 401, (method, path, bad))
                self.assertTrue(answer.headers["WWW-Authenticate"].startswith("Bearer"))
                if method != "HEAD":
                    self.assertEqual(answer.json, {"message": "Unauthorized"})
        answer = gateway.admin("POST", "/services", json={"name": "s", "host": "h"}, headers={"Kong-Admin-Token": "x"})
        self.assertEqual(answer.status, 401)
        self.assertEqual(gateway.admin("GET", "/services", headers={"Kong-Admin-Token": OLD}).json["data"], [])
        preflight = {"Origin": "http://x.example", "Access-Control-Request-Method": "POST"}
        self.assertEqual(gateway.admin("OPTIONS", "/services", headers=preflight).status, 204)

    def test_rotation_and_secrecy(self) -> None:
        """A reload changes the tokens; none of them is shown by GET / or stands in a log; strangers are logged, briefly."""
        gateway = self.gateway({"admin_api_token": OLD, "log_level": "debug"})
        for _ in range(20):
            self.assertEqual(gateway.admin("GET", f"/?token={OLD}", headers={"Kong-Admin-Token": "wrong"}).status, 401)
        root = gateway.admin("GET", "/", headers={"Kong-Admin-Token": OLD})
        self.assertEqual(root.json["configuration"]["admin_api_token"], "******")
        gateway.conf["admin_api_token"] = f"{NEW},{OLD}"
        self.rewrite(gateway)
        wait_until(lambda: self.status(gateway, NEW) == 200, "the second token")
        self.assertEqual(self.status(gateway, OLD), 200)
        gateway.conf["admin_api_token"] = NEW
        self.rewrite(gateway)
        wait_until(lambda: self.status(gateway, OLD) == 401, "the end of the first token")
        self.assertEqual(self.status(gateway, NEW), 200)
        self.assertEqual(gateway.stop(), 0)
        report = gateway.log() + gateway.log("admin_access.log") + gateway.report()
        for token in (OLD, NEW):
            self.assertNotIn(token, report)
            self.assertNotIn(token, root.body.decode())
        lines = [line for line in gateway.log().splitlines() if "without a right token" in line]
        self.assertIn("[warn]", lines[0])
        self.assertIn("1 request from 127.0.0.1", lines[0])
        self.assertLess(len(lines), 20)

    def rewrite(self, gateway: GatewayProcess) -> None:
        """Write the configuration file anew and have it read."""
        with open(os.path.join(gateway.folder, "kong.conf"), "w", encoding="utf-8") as file:
            file.writelines(f"{name} = {value}\n" for name, value in gateway.conf.items())
        os.kill(gateway.pid, signal.SIGHUP)

    @staticmethod
    def status(gateway: GatewayProcess, token: str) -> int:
        return gateway.admin("GET", "/status", headers={"Kong-Admin-Token": token}).status

    def test_commands_need_none(self) -> None:
        """The node's own commands work by signals and files, so a token is no hindrance; nor is it one for the Status API."""
        status = free_port()
        conf = {"admin_api_token": "{vault://env/A_TOKEN}", "status_listen": f"127.0.0.1:{status}"}
        gateway = self.gateway(conf, env={"A_TOKEN": OLD})
        self.assertEqual(self.status(gateway, OLD), 200)
        self.assertEqual(request(status, "GET", "/status").status, 200)
        file = os.path.join(gateway.folder, "kong.conf")
        for words in (["health", "-p", gateway.prefix], ["reload", "-c", file, "-p", gateway.prefix]):
            script = f"import sys; from kongtwist.commands.main import main; sys.exit(main({words!r}))"
            env = {"A_TOKEN": OLD, "PYTHONPATH": str(ROOT)}
            command = self.start([sys.executable, "-c", script], words[0], env=env)
            self.assertEqual(command.wait(), 0, command.output())

    def test_refused_starts(self) -> None:
        """Tokens that could be guessed, and references that lead nowhere, stop the start and are not shown."""
        for text, sentence in (
            ("fifteen-letters", "fewer than 16 characters"),
            ("{vault://env/NO_SUCH_TOKEN}", "there is no environment variable NO_SUCH_TOKEN"),
        ):
            process = GatewayProcess(self, {"admin_api_token": text}).launch()
            self.assertEqual(process.wait(), 1)
            self.assertIn(sentence, process.output())
            self.assertNotIn("fifteen-letters", process.output())


class ExposureTests(LiveTestCase):
    """What a start says about an Admin API that others can reach, and what files it leaves."""

    def warned(self, tls: bool = False, **conf: object) -> str:
        """The warnings of a gateway that listens on all addresses of this machine."""
        gateway = GatewayProcess(self, conf)
        port = gateway.admin_port
        gateway.conf["admin_listen"] = f"0.0.0.0:{port}{' ssl' if tls else ''}"
        self._gateways.append(gateway)
        gateway.launch()
        ask = (lambda: tls_request(port)) if tls else (lambda: request(port, "GET", "/status"))
        self.assertIn(wait_until(ask, "the Admin API").status, (200, 401))
        self.assertEqual(gateway.stop(), 0)
        return "\n".join(line for line in gateway.log().splitlines() if "[warn]" in line and "listens" in line)

    def test_warnings(self) -> None:
        """Open to others: a warning with the remedy. With a token but without TLS: a softer one. With both: none."""
        self.assertIn("whoever reaches it controls the gateway; set admin_api_token", self.warned())
        softer = self.warned(admin_api_token=OLD)
        self.assertIn("without TLS", softer)
        self.assertNotIn("controls", softer)
        self.assertEqual(self.warned(admin_api_token=OLD, tls=True), "")

    def test_nothing_on_loopback(self) -> None:
        """The usual start warns of nothing."""
        gateway = self.gateway()
        self.assertNotIn("[warn]", gateway.log())

    def test_unix_socket(self) -> None:
        """A unix socket is its owner's alone, and serves; there may be several addresses, or none."""
        path = os.path.join(self.folder(), "admin.sock")
        gateway = GatewayProcess(self)
        gateway.conf["admin_listen"] = f"127.0.0.1:{gateway.admin_port}, unix:{path}, [::1]:{free_port()}"
        self._gateways.append(gateway)
        gateway.start()
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(path)
            client.sendall(b"GET /services HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = http.client.HTTPResponse(client)
            answer.begin()
            self.assertEqual(json.loads(answer.read())["data"], [])
        gateway.stop()
        self.assertFalse(os.path.exists(path))

    def test_off(self) -> None:
        """Without an Admin API a gateway serves its declarative configuration."""
        upstream = self.upstream("echo")
        service = {"name": "s", "url": f"http://127.0.0.1:{upstream}", "routes": [{"paths": ["/r"]}]}
        text = json.dumps({"_format_version": "3.0", "services": [service]})
        gateway = self.gateway({"admin_listen": "off", "database": "off", "declarative_config_string": text})
        wait_until(lambda: gateway.get("/r").status == 200, "the route")
        with self.assertRaises(ConnectionRefusedError):
            request(gateway.admin_port, "GET", "/")


class SecretsTests(LiveTestCase):
    """What must stand in no log, whatever goes wrong with it."""

    def test_no_secret_in_a_log(self) -> None:
        """Private keys, API keys and passwords: sent well, sent wrongly, sent twice, in bodies, paths and query strings."""
        gateway = self.gateway({"log_level": "debug"})
        signed = authority().sign("a.example")
        lines = signed.key_pem.splitlines()
        key, password = "s3cret-api-key-0123456789", "s3cret-password-9876"
        gateway.create("/consumers", username="bob")
        gateway.create("/certificates", cert=signed.pem, key=signed.key_pem)
        gateway.create("/consumers/bob/key-auth", key=key)
        twice = gateway.admin("POST", "/consumers/bob/key-auth", json={"key": key})
        self.assertEqual(twice.status, 409)
        for path, body in (
            ("/certificates", {"cert": "none", "key": signed.key_pem}),
            ("/certificates", {"cert": signed.pem, "key": signed.key_pem[:-60]}),
            ("/certificates", {"cert": signed.pem, "key": [signed.key_pem]}),
            ("/services", {"name": password, "host": "h", "path": signed.key_pem}),
            ("/plugins", {"name": "rate-limiting", "config": {"redis": {"password": [password]}}}),
            ("/consumers/bob/key-auth", {"key": [key], "unknown": key}),
        ):
            self.assertEqual(gateway.admin("POST", path, json=body).status, 400, (path, body))
            gateway.admin("POST", path, form={name: str(value) for name, value in body.items()})
            gateway.admin(
                "POST", path, body=json.dumps(body).encode()[:-3], headers={"Content-Type": "application/json"}
            )
        for method in ("GET", "PATCH", "DELETE"):
            for path in (
                f"/key-auths/{key}",
                f"/consumers/bob/key-auth/{key}",
                f"/consumers?apikey={key}",
                f"/?key={key}",
            ):
                gateway.admin(method, path, headers={"Referer": f"http://console.example/?token={password}"})
        self.assertEqual(gateway.stop(), 0)
        logs = os.path.join(gateway.prefix, "logs")
        report = gateway.report() + "".join(gateway.log(name) for name in os.listdir(logs))
        self.assertIn("POST /certificates", report)
        for secret in (key, password, *lines[1:-1]):
            self.assertNotIn(secret, report)


class HeadersTests(LiveTestCase):
    """The property ``headers`` on Admin answers."""

    def test_headers(self) -> None:
        """Server and X-Kong-Admin-Latency are there by default, singly by name, and not with off."""
        for text, server, latency in (
            (None, True, True),
            ("off", False, False),
            ("Server", True, False),
            ("X-Kong-Admin-Latency", False, True),
            ("latency_tokens", False, True),
        ):
            gateway = self.gateway({} if text is None else {"headers": text})
            for path in ("/", "/nowhere"):
                headers = gateway.admin("GET", path).headers
                self.assertEqual(("Server" in headers, "X-Kong-Admin-Latency" in headers), (server, latency), text)
                self.assertEqual(headers.get("Server", "kong/3.9.3"), "kong/3.9.3")
            gateway.stop()
