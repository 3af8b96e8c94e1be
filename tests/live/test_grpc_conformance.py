"""Suites that others have written, against the gateway: Connect's conformance tests and h2spec."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.live import grpc_peers
from tests.live.support import PATIENCE, GatewayProcess, LiveTestCase

TOTAL = re.compile(r"^Total cases: (\d+)\n(\d+) passed, (\d+) failed", re.MULTILINE)


class ConformanceTests(LiveTestCase):
    """The suite's clients ask the gateway; behind it is a server that speaks gRPC alone (grpc-go)."""

    def run_suite(self, gateway: GatewayProcess, settings: Path, *options: str) -> tuple[int, int]:
        """Run it; returns how many cases there were and how many passed. The service ``conformance`` is made to lead to
        the suite's server."""
        behind = [sys.executable, str(Path(__file__).with_name("conformance_server.py"))]
        words = [
            grpc_peers.go_tool("connectconformance"), "--mode", "server", "--conf", str(settings), *options, "--",
            *behind, str(gateway.admin_port), str(gateway.proxy_port), grpc_peers.go_tool("grpcserver"),
        ]  # fmt: skip
        suite = self.start(words, "conformance")
        code = suite.wait(5 * PATIENCE)
        found = TOTAL.search(suite.output())
        self.assertIsNotNone(found, suite.output()[-3000:])
        assert found is not None
        self.assertEqual((code, found[3]), (0, "0"), suite.output()[-6000:])
        return int(found[1]), int(found[2])

    def front(self, protocols: list[str], *plugins: dict[str, Any]) -> GatewayProcess:
        """A gateway whose one service is ``conformance``."""
        gateway = self.gateway({"proxy_access_log": "off"})
        gateway.create("/services", name="conformance", protocol="grpc", host="127.0.0.1", port=1)
        gateway.create("/services/conformance/routes", name="conformance", protocols=protocols, paths=["/"])
        for plugin in plugins:
            gateway.create("/services/conformance/plugins", **plugin)
        return gateway

    def known(self, name: str) -> tuple[str, str]:
        """The option that names cases that the server fails without a gateway, too."""
        return "--known-failing", f"@{grpc_peers.folder('go') / 'conformance' / name}"

    def test_grpc(self) -> None:
        """gRPC: what passes without a gateway passes with it."""
        settings = grpc_peers.folder("go") / "conformance" / "grpc-impls-config.yaml"
        counted = self.run_suite(self.front(["grpc"]), settings, *self.known("grpcserver-known-failing.txt"))
        self.assertEqual(counted, (374, 370))

    def test_grpc_web(self) -> None:
        """gRPC-Web, over HTTP/1.1 and HTTP/2, made gRPC by the plugin: what passes with a server that speaks it passes."""
        settings = grpc_peers.folder("go") / "conformance" / "grpc-web-server-impl-config.yaml"
        gateway = self.front(["http"], {"name": "grpc-web"})
        counted = self.run_suite(gateway, settings, *self.known("grpcserver-web-known-failing.txt"))
        self.assertEqual(counted, (343, 335))

    def test_connect(self) -> None:
        """Connect, unary calls and server streams, in binary and in JSON, over HTTP/1.1 and HTTP/2."""
        proto = grpc_peers.folder("go") / "conformance" / "connectrpc" / "conformance" / "v1" / "service.proto"
        gateway = self.front(["http"], {"name": "grpc-web", "config": {"proto": str(proto)}})
        absent = ("--known-failing", "Connect with GET/*/*/*/success")  # grpcserver does not have IdempotentUnary
        counted = self.run_suite(gateway, Path(__file__).with_name("peers") / "connect.yaml", *absent)
        self.assertEqual(counted, (304, 300))


class H2SpecTests(LiveTestCase):
    """h2spec: what RFC 7540, 7541 and 9113 demand of a server, case by case."""

    def h2spec(self, *options: str, tls: bool = False) -> tuple[list[str], int]:
        """Run it against a route to an upstream of HTTP/1.1; returns the cases that failed or were left out, and how many
        there were."""
        gateway = self.gateway(tls=tls, http2=tls)
        page = self.nginx('location / { return 200 "hello, world"; }')
        gateway.route("/page", f"http://127.0.0.1:{page}")
        report = Path(self.folder(), "report.xml")
        port = gateway.tls_port if tls else gateway.proxy_port
        words = ["-h", "127.0.0.1", "-p", str(port), "-P", "/page", "-o", "5", "-j", str(report), *options]
        process = self.start([grpc_peers.go_tool("h2spec"), *words, *(["-t", "-k"] if tls else [])], "h2spec")
        process.wait(5 * PATIENCE)
        cases = list(ElementTree.parse(report).iter("testcase"))
        bad = [f"{each.get('package')} {each.get('classname')}" for each in cases if len(each)]
        return bad, len(cases)

    def test_plain(self) -> None:
        """With prior knowledge (RFC 9113 3.3), the strict ones too, all cases but one: on a port with HTTP/1.1 beside it what is
        no preface is a request of HTTP/1.1, and is answered 400 as by Kong; h2spec wants the end without an answer."""
        self.assertEqual(self.h2spec("-S"), (["http2/3.5 Sends invalid connection preface"], 146))

    def test_tls(self) -> None:
        """All cases behind TLS, chosen by ALPN, the strict ones too."""
        self.assertEqual(self.h2spec("-S", tls=True), ([], 146))
