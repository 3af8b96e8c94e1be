"""gRPC's own interop tests through the gateway: the clients of grpc-go and grpc-java, the servers of both and of grpcio."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.live import grpc_peers
from tests.live.support import PATIENCE, LiveTestCase, free_port

CASES = (
    "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
    "timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
    "special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service",
)  # fmt: skip
"""Cases that need no cloud and that every client and server has."""

SOAK = [
    "--soak_iterations=20", "--soak_per_iteration_max_acceptable_latency_ms=20000", "--soak_overall_timeout_seconds=50",
]  # fmt: skip
ORCA = ['--service_config_json={"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}']
GO_CASES: dict[str, list[str]] = {**{case: [] for case in CASES}, "rpc_soak": SOAK, "channel_soak": SOAK}
ORCA_CASES = {"orca_per_rpc": ORCA, "orca_oob": ORCA}
"""Reports on load in trailers and in a stream; servers other than grpc-go's and grpc-java's lack them."""

JAVA_CASES = (*CASES, "server_compressed_unary", "server_compressed_streaming")
LARGE = "very_large_request"
"""10 MB in one message, which grpc-go's server refuses."""

RACES = {"cancel_after_begin": 3}
"""Cases that may fail by themselves, and how often they are tried: grpc-go's client cancels in one goroutine, ends its side in
another, and may be answered between the two."""

INTEGRATION = "io.grpc.testing.integration"
"""The package of grpc-java's programs."""

NAME = "foo.test.google.fr"
"""What the tests' certificate is for."""


class InteropTests(LiveTestCase):
    """Each client against one server, plain to a ``grpc`` service and with TLS to a ``grpcs`` one."""

    def setUp(self) -> None:
        self.certs = grpc_peers.folder("java") / "certs"
        self.pair = [str(self.certs / f"server1.{kind}") for kind in ("pem", "key")]
        grpc_peers.go_tool("client")

    # -- servers -----------------------------------------------------------------------------------------------------

    def serve(self, kind: str, tls: bool) -> int:
        """Start a server; returns its port."""
        port = free_port()
        certificate, key = self.pair
        words = {
            "go": [
                grpc_peers.go_tool("server"), f"-port={port}", f"-use_tls={str(tls).lower()}",
                f"-tls_cert_file={certificate}", f"-tls_key_file={key}",
            ],
            "java": [*grpc_peers.java_words(f"{INTEGRATION}.TestServiceServer"), f"--port={port}", f"--use_tls={str(tls).lower()}"],
            "python": [
                sys.executable, str(Path(__file__).with_name("interop_server.py")),
                str(grpc_peers.folder("java") / "protos"), str(port), *(self.pair if tls else []),
            ],
        }[kind]  # fmt: skip
        self.wait_for_port(port, self.start(words, f"{kind}-server{'-tls' * tls}"))
        return port

    # -- clients -----------------------------------------------------------------------------------------------------

    def go_client(self, cases: dict[str, list[str]], port: int, tls: bool) -> list[str]:
        """Run grpc-go's client; returns a line for each case that failed."""
        failed = []
        secure = ["-use_tls", "-use_test_ca", f"-ca_file={self.certs / 'ca.pem'}", f"-server_host_override={NAME}"]
        for case, more in cases.items():
            words = [
                "-server_host=127.0.0.1",
                f"-server_port={port}",
                f"-test_case={case}",
                *(secure if tls else []),
                *more,
            ]
            for _ in range(RACES.get(case, 1)):
                done = subprocess.run(
                    [grpc_peers.go_tool("client"), *words],
                    check=False, capture_output=True, text=True, timeout=PATIENCE,
                )  # fmt: skip
                if not done.returncode:
                    break
            else:
                failed.append(f"{case}{' with TLS' * tls}: {done.returncode} {done.stderr[-1500:]}")
        return failed

    def java_client(self, cases: tuple[str, ...], port: int, tls: bool) -> list[str]:
        """Run grpc-java's client; returns a line for each case that failed, or was not reached."""
        secure = f"--use_tls=true --use_test_ca=true --server_host_override={NAME}"
        options = f"--server_port={port} --server_host=127.0.0.1 {secure if tls else '--use_tls=false'}"
        done = subprocess.run(
            [*grpc_peers.java_words(f"{INTEGRATION}.InteropCases"), f"{options} {' '.join(cases)}"],
            check=False, capture_output=True, text=True, timeout=3 * PATIENCE,
        )  # fmt: skip
        passed = set(done.stdout.splitlines())
        failed = [case for case in cases if f"--server_port={port} {case} passed" not in passed]
        return [*failed, done.stderr[-3000:]] if failed else []

    # -- tests -------------------------------------------------------------------------------------------------------

    def check(self, kind: str, go_cases: dict[str, list[str]], *java_cases: str) -> None:
        """Run both clients against a kind of server: plain, with a service of ``grpc``, then with TLS, with one of ``grpcs``."""
        certificate, key = self.pair
        gateway = self.gateway({"ssl_cert": certificate, "ssl_cert_key": key}, tls=True, http2=True)
        gateway.create("/services", name="interop", url=f"grpc://127.0.0.1:{self.serve(kind, False)}")
        gateway.create("/services/interop/routes", protocols=["grpc", "grpcs"], paths=["/"])
        for tls, port in ((False, gateway.proxy_port), (True, gateway.tls_port)):
            if tls:
                url = f"grpcs://127.0.0.1:{self.serve(kind, True)}"
                self.assertEqual(gateway.admin("PATCH", "/services/interop", json={"url": url}).status, 200)
            self.assertEqual(self.go_client(go_cases, port, tls), [])
            self.assertEqual(self.java_client((*JAVA_CASES, *java_cases), port, tls), [])

    def test_go_server(self) -> None:
        """grpc-go's server."""
        self.check("go", {**GO_CASES, **ORCA_CASES})

    def test_java_server(self) -> None:
        """grpc-java's server."""
        self.check("java", {**GO_CASES, **ORCA_CASES}, LARGE)

    def test_grpcio_server(self) -> None:
        """grpcio's server."""
        self.check("python", GO_CASES, LARGE)
