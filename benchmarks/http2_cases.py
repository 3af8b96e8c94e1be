"""The rows on HTTP/2, gRPC and TLS; their load and their echo server are in Go (grpc/main.go)."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .cases import Case
from .measures import Pace, idle_streams, load_cost
from .report import Row
from .servers import Server, Stage, free_port
from .usage import Cost

__all__ = ["HTTP2Field", "http2_cases", "http2_memory"]

SMALL, LARGE = 100, 1_000_000
"""Bytes of one message."""

CALLS = (
    ("gRPC unary", "unary", 1, 32, SMALL, "at most 0.75x"),
    ("gRPC unary", "unary", 8, 4, SMALL, "at most 0.75x"),
    ("gRPC unary", "unary", 32, 1, SMALL, "at most 1.0x"),
    ("gRPC unary", "unary", 1, 1, SMALL, "at most 1.4x"),
    ("gRPC bidirectional", "bidi", 1, 32, SMALL, "at most 0.35x"),
    ("gRPC bidirectional", "bidi", 8, 4, SMALL, "at most 0.5x"),
    ("gRPC bidirectional", "bidi", 32, 1, SMALL, "at most 0.9x"),
    ("gRPC bidirectional", "bidi", 1, 1, SMALL, "at most 2.2x"),
    ("gRPC unary, metadata that differs", "metadata", 1, 32, SMALL, "at most 1.0x"),
    ("gRPC bidirectional, 1 MB", "bidi", 1, 4, LARGE, "at most 0.8x"),
)
"""What it is called and what the load generator calls it, connections, streams on each, bytes, aim."""


class HTTP2Field:
    """The servers of these rows, each started when it is first needed."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._number = next(stage.numbers)

    @cached_property
    def _echo(self) -> int:
        return self.stage.grpc_echo()

    @cached_property
    def _pages(self) -> int:
        """The port of an nginx that answers at once."""
        port = free_port()
        self.stage.nginx(
            f"pages-{self._number}",
            f"keepalive_timeout 3600; server {{ listen 127.0.0.1:{port} backlog=4096;"
            ' location / { default_type text/plain; return 200 "hello, world\\n"; } }',
        )
        return port

    @cached_property
    def _pair(self) -> tuple[str, str]:
        return _certificate(Path(self.stage.folder))

    @cached_property
    def _nginx(self) -> tuple[Server, Server]:
        plain, secure = free_port(), free_port()
        certificate, key = self._pair
        pid = self.stage.nginx(
            f"nginx-http2-{self._number}",
            f"upstream echo {{ server 127.0.0.1:{self._echo}; keepalive 64; keepalive_requests 1000000000; }}\n"
            f"upstream pages {{ server 127.0.0.1:{self._pages}; keepalive 64; keepalive_requests 1000000000; }}\n"
            "client_max_body_size 0; grpc_read_timeout 3600s; grpc_send_timeout 3600s; proxy_http_version 1.1;\n"
            f"server {{ listen 127.0.0.1:{plain} http2 backlog=4096; location / {{ grpc_pass grpc://echo; }} }}\n"
            f"server {{ listen 127.0.0.1:{secure} ssl http2 backlog=4096;\n"
            f"  ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;\n"
            '  location /plain { proxy_pass http://pages/; proxy_set_header Connection ""; } }\n',
        )
        return Server("nginx", pid, plain), Server("nginx", pid, secure)

    @cached_property
    def _kongtwist(self) -> tuple[Server, Server]:
        grpc = {"protocol": "grpc", "host": "127.0.0.1", "port": self._echo, "read_timeout": 3_600_000}
        services: list[dict[str, Any]] = [
            grpc | {"name": "grpc", "routes": [
                {"name": "grpc", "protocols": ["grpc"], "paths": ["/bench.Echo"]},
            ]},
            grpc | {"name": "web", "routes": [
                {"name": "web", "protocols": ["http"], "paths": ["/web"],
                 "plugins": [{"name": "grpc-web", "config": {"pass_stripped_path": True}}]},
            ]},
            {"name": "pages", "url": f"http://127.0.0.1:{self._pages}", "routes": [
                {"name": "pages", "protocols": ["https"], "paths": ["/plain"]},
            ]},
        ]  # fmt: skip
        certificate, key = self._pair
        return self.stage.kongtwist_http2(
            f"http2-{self._number}", {"_format_version": "3.0", "services": services}, certificate, key
        )

    def nginx(self, tls: bool = False) -> Server:
        """nginx with ``grpc_pass`` and its default buffers; with TLS a proxy of pages."""
        return self._nginx[tls]

    def kongtwist(self, tls: bool = False) -> Server:
        """The gateway without an access log."""
        return self._kongtwist[tls]


def _certificate(folder: Path) -> tuple[str, str]:
    """Write a certificate and its key (P-256), the same for both servers; returns their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    begin = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = folder / "http2.crt", folder / "http2.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    return str(paths[0]), str(paths[1])


def http2_cases(field: HTTP2Field) -> Iterator[Case]:
    """The rows in the order they are shown."""
    stage = field.stage

    def load(server: Callable[[], Server], mode: str, *words: object) -> Callable[[Pace], Cost]:
        return lambda pace: load_cost(stage, server(), [mode, server().port, *words], pace)

    def nginx() -> Server:
        return field.nginx()

    def ours() -> Server:
        return field.kongtwist()

    for name, mode, connections, streams, size, aim in CALLS:
        words = (mode, connections, streams, size)
        yield Case(
            f"{name}, {connections}x{streams}", [("nginx", load(nginx, *words)), ("kongtwist", load(ours, *words))], aim
        )
    yield Case(
        "gRPC-Web unary beside plain gRPC, 1x32",
        [("plain gRPC", load(ours, "unary", 1, 32, SMALL)), ("kongtwist", load(ours, "web", 1, 32, SMALL))],
        "at most 1.3x",
    )
    secure = ("/plain", 1, 32)
    yield Case(
        "HTTP/2 GET with TLS, 1x32",
        [
            ("nginx", load(lambda: field.nginx(tls=True), "get", *secure)),
            ("kongtwist", load(lambda: field.kongtwist(tls=True), "get", *secure)),
        ],
        "at most 2.0x",
    )
    for kind in ("full", "resumed"):
        yield Case(
            f"TLS handshake, {kind}",
            [
                ("nginx", load(lambda: field.nginx(tls=True), "handshake", kind, 8)),
                ("kongtwist", load(lambda: field.kongtwist(tls=True), "handshake", kind, 8)),
            ],
            "at most 2.0x",
        )


def http2_memory(stage: Stage, wanted: Callable[[str], bool], *, quick: bool) -> Iterator[Row]:
    """Idle bidirectional streams, many on a connection and each on its own: memory of both sides together."""
    many = 500 if quick else 8000
    each = 300 if quick else 2000
    for name, connections, streams, aim in (
        (f"idle gRPC stream ({many} open, 100 on a connection)", many // 100, 100, "at most 1 KB"),
        (f"idle gRPC stream with its own connection ({each} open)", each, 1, "at most 4 KB"),
    ):
        if wanted(name):
            field = HTTP2Field(stage)
            theirs = idle_streams(stage, field.nginx(), connections, streams)
            ours = idle_streams(stage, field.kongtwist(), connections, streams)
            yield Row(name, "KB", theirs / 1024, "", ours / 1024, ours / theirs, aim)
