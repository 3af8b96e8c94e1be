"""What tests of gRPC share: the example's service, an echo server, a gateway with a gRPC route."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from .support import ROOT, GatewayProcess, LiveTestCase, Process, free_port

__all__ = ["METHOD", "GRPCTestCase", "echo_server"]

METHOD = "/sensor.DataService/StreamSensorData"

UNBOUNDED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
"""Options for messages of any size."""


class _Echo(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
    """Answers each message of any method with itself."""

    def service(self, details: Any) -> Any:
        def echo(requests: Any, context: Any) -> Any:
            yield from requests

        return grpc.stream_stream_rpc_method_handler(echo)


def echo_server(port: int) -> Any:
    """A started grpcio server in threads of this process; `stop` ends it."""
    server = grpc.server(ThreadPoolExecutor(16), handlers=[_Echo()], options=UNBOUNDED)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


class GRPCTestCase(LiveTestCase):
    """Tests with a gRPC route."""

    def sensors(self, *pair: str, port: int | None = None) -> tuple[int, Process]:
        """Start the example's service, with TLS where a certificate and a key are given; returns its port and the process."""
        port = port or free_port()
        program = ROOT / "examples" / "sensors" / "sensor_service.py"
        process = self.start([sys.executable, str(program), str(port), *pair], "sensors")
        self.wait_for_port(port, process)
        return port, process

    def front(self, port: int, conf: dict[str, object] | None = None, **service: Any) -> GatewayProcess:
        """A gateway with a service of gRPC at this port, whose route takes all calls."""
        gateway = self.gateway(conf)
        gateway.create("/services", name="grpc", url=f"grpc://127.0.0.1:{port}", **service)
        gateway.create("/services/grpc/routes", name="grpc", protocols=["grpc", "grpcs"], paths=["/"])
        return gateway

    def echo(self) -> int:
        """Start `echo_server`; returns its port."""
        port = free_port()
        server = echo_server(port)
        self.addCleanup(lambda: server.stop(None).wait())
        return port
