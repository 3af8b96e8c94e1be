"""gRPC's own interop tests through the gateway: the clients of grpc-go and grpc-java, the servers of both and of grpcio."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.live import grpc_peers
from tests.live.support import PATIENCE, GatewayProcess, LiveTestCase, free_port

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

    def serving(self, kind: str) -> tuple[int, int]:
        """Start servers of a kind, and a gateway in front; returns its ports, plain and TLS."""
        plain, tls = self.serve(kind, False), self.serve(kind, True)
        certificate, key = self.pair
        gateway = self.gateway(
            {"ssl_cert": certificate, "ssl_cert_key": key, "proxy_access_log": "logs/access.log"}, tls=True
        )
        self.route(gateway, "grpc", plain)
        self.route(gateway, "grpcs", tls)
        return gateway.proxy_port, gateway.tls_port

    def route(self, gateway: GatewayProcess, protocol: str, port: int) -> None:
        """A service with a route that takes what comes by its own protocol."""
        service = gateway.create("/services", name=protocol, url=f"{protocol}://127.0.0.1:{port}")
        gateway.create(f"/services/{service['name']}/routes", name=protocol, protocols=[protocol], paths=["/"])

    # -- clients -----------------------------------------------------------------------------------------------------

    def go_client(self, cases: dict[str, list[str]], plain: int, tls: int) -> list[str]:
        """Run grpc-go's client; returns a line for each case that failed."""
        failed = []
        secure = ["-use_tls", "-use_test_ca", f"-ca_file={self.certs / 'ca.pem'}", f"-server_host_override={NAME}"]
        for port, options in ((plain, []), (tls, secure)):
            for case, more in cases.items():
                words = ["-server_host=127.0.0.1", f"-server_port={port}", f"-test_case={case}", *options, *more]
                done = subprocess.run(
                    [grpc_peers.go_tool("client"), *words],
                    check=False,
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                )
                if done.returncode:
                    failed.append(f"{case} {options[:1]}: {done.returncode} {done.stderr[-1500:]}")
        return failed

    def java_client(self, plain: int, tls: int, cases: tuple[str, ...]) -> list[str]:
        """Run grpc-java's client; returns a line for each case that failed, or was not reached."""
        secure = f"--use_tls=true --use_test_ca=true --server_host_override={NAME}"
        runs = [
            f"--server_port={port} --server_host=127.0.0.1 {options} {' '.join(cases)}"
            for port, options in ((plain, "--use_tls=false"), (tls, secure))
        ]
        done = subprocess.run(
            [*grpc_peers.java_words(f"{INTEGRATION}.InteropCases"), *runs],
            check=False, capture_output=True, text=True, timeout=3 * PATIENCE,
        )  # fmt: skip
        passed = {line for line in done.stdout.splitlines() if line.endswith(" passed")}
        wanted = {f"--server_port={port} {case} passed" for port in (plain, tls) for case in cases}
        return [f"{each}: not so" for each in sorted(wanted - passed)] + (
            [done.stderr[-3000:]] if wanted - passed else []
        )

    # -- tests -------------------------------------------------------------------------------------------------------

    def check(self, kind: str, go_cases: dict[str, list[str]], *java_cases: str) -> None:
        plain, tls = self.serving(kind)
        self.assertEqual(self.go_client(go_cases, plain, tls), [])
        self.assertEqual(self.java_client(plain, tls, (*JAVA_CASES, *java_cases)), [])

    def test_go_server(self) -> None:
        """grpc-go's server."""
        self.check("go", {**GO_CASES, **ORCA_CASES})

    def test_java_server(self) -> None:
        """grpc-java's server."""
        self.check("java", {**GO_CASES, **ORCA_CASES}, LARGE)

    def test_grpcio_server(self) -> None:
        """grpcio's server."""
        self.check("python", GO_CASES, LARGE)
