"""Upstreams that speak HTTP/2: grpcio with TLS and without, nginx, and one that is gone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from .pki import Signed, authority
from .support import Answer, GatewayProcess, LiveTestCase, free_port, request

MESSAGE = b"\0\0\0\0\5hello"
HEADERS = {"Content-Type": "application/grpc", "TE": "trailers"}


class Echo(grpc.GenericRpcHandler):
    """Gives back what it gets, and what it knows of the call as metadata."""

    def service(self, details: Any) -> Any:
        return grpc.stream_stream_rpc_method_handler(self.echo)

    def echo(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        who = context.auth_context().get("x509_common_name", [b"nobody"])[0]
        context.send_initial_metadata((("x-client", who.decode()),))
        context.set_trailing_metadata((("x-end", "1"),))
        yield from messages


class HTTP2UpstreamTests(LiveTestCase):
    """Clients of HTTP/1.1 in front of services that want HTTP/2."""

    def setUp(self) -> None:
        self.relay: GatewayProcess = self.gateway({"upstream_http2": "on"})
        self.signer = authority()

    def serve(self, credentials: grpc.ServerCredentials | None = None) -> int:
        """Start a server of gRPC; returns its port."""
        pool = ThreadPoolExecutor(4)
        self.addCleanup(pool.shutdown)
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((Echo(),))
        port: int
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        self.addCleanup(lambda: server.stop(0).wait())
        return port

    def secure(self, name: str, clients: Signed | None = None) -> int:
        """As `serve`, with a certificate for ``name``; and asking for one that ``clients`` has signed."""
        signed = self.signer.sign(name)
        pair = ((signed.key_pem.encode(), signed.pem.encode()),)
        root = None if clients is None else clients.pem.encode()
        return self.serve(grpc.ssl_server_credentials(pair, root, require_client_auth=root is not None))

    def call(self, path: str) -> Answer:
        """A call over HTTP/1.1."""
        return request(self.relay.proxy_port, "POST", f"{path}/a.B/C", body=MESSAGE, headers=HEADERS)

    def service(self, path: str, **fields: Any) -> None:
        """A service and its route."""
        made = self.relay.create("/services", **fields)
        self.relay.create("/routes", paths=[path], service={"id": made["id"]})

    def test_plain(self) -> None:
        self.service("/plain", url=f"grpc://127.0.0.1:{self.serve()}")
        answer = self.call("/plain")
        self.assertEqual((answer.status, answer.body), (200, MESSAGE))

    def test_tls(self) -> None:
        """Whose certificate is asked for, and which one is shown."""
        trusted = self.relay.create("/ca_certificates", cert=self.signer.pem)["id"]
        clients = authority("clients")
        own = clients.sign("gateway", client=True)
        shown = self.relay.create("/certificates", cert=own.pem, key=own.key_pem)["id"]
        plain, strict = self.secure("localhost"), self.secure("localhost", clients)
        verify = {"tls_verify": True, "ca_certificates": [trusted]}
        for path, port, fields, status, client in (
            ("/unverified", plain, {}, 200, "nobody"),
            ("/verified", plain, verify, 200, "nobody"),
            ("/untrusted", plain, {"tls_verify": True}, 502, None),
            ("/shown", strict, {**verify, "client_certificate": {"id": shown}}, 200, "gateway"),
            ("/hidden", strict, verify, 502, None),
        ):
            self.service(path, protocol="grpcs", host="localhost", port=port, retries=0, **fields)
            answer = self.call(path)
            self.assertEqual((answer.status, answer.headers.get("x-client")), (status, client), path)
        self.service("/other", protocol="grpcs", host="127.0.0.1", port=self.secure("other"), retries=0, **verify)
        self.assertEqual(self.call("/other").status, 200)

    def test_https(self) -> None:
        """HTTP/2 where it is chosen in TLS, else HTTP/1.1, with one more handshake the first time."""
        certificate, key = self.signer.sign("localhost").write(self.folder(), "server")
        ports = [free_port(), free_port()]
        tls = f"ssl_certificate {certificate}; ssl_certificate_key {key}; return 200 $server_protocol;"
        self.nginx(
            "return 204;",
            f"server {{ listen 127.0.0.1:{ports[0]} ssl http2; {tls} }} server {{ listen 127.0.0.1:{ports[1]} ssl; {tls} }}",
        )
        for path, port, version in (("/new", ports[0], b"HTTP/2.0"), ("/old", ports[1], b"HTTP/1.1")):
            self.service(path, url=f"https://127.0.0.1:{port}")
            for _ in range(3):
                answer = self.relay.get(path)
                self.assertEqual((answer.status, answer.body), (200, version))

    def test_nobody(self) -> None:
        self.service("/gone", url=f"grpc://127.0.0.1:{free_port()}", retries=1)
        self.assertEqual(self.call("/gone").status, 502)
        self.assertIn("(2 tries)", self.relay.log())
        mute = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(mute.close)
        self.service("/mute", url=f"grpc://127.0.0.1:{mute.getsockname()[1]}", read_timeout=500, retries=0)
        self.assertEqual(self.call("/mute").status, 504)

    def test_no_http2(self) -> None:
        self.service("/http", url=f"grpc://127.0.0.1:{self.upstream('echo')}", retries=0)
        self.assertEqual(self.call("/http").status, 502)
