"""A target whose health is checked: ``python health_target.py KIND PORT CONTROL [CERT KEY]``.

KIND is ``http`` or ``grpc``; with a certificate TLS is spoken. On CONTROL it answers ``GET /state`` with what came so far, and
``GET /mode/MODE`` (``ok``; ``fail``: 503 or NOT_SERVING; ``hang``: no answer) from then on.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Target:
    """What it does, and what came."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.mode = "ok"
        self.requests: list[str] = []  # heads of probes, the oldest first
        self.connections = self.open = self.served = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def state(self) -> dict[str, Any]:
        return {
            "probes": len(self.requests),
            "last": self.requests[-1] if self.requests else "",
            "connections": self.connections,
            "open": self.open,
            "served": self.served,
        }

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ")[1]
                if path.startswith("/health"):
                    self.requests.append(head)
                else:
                    self.served += 1
                if self.mode == "hang":
                    await reader.read()
                    return
                if path == "/events":
                    await self.events(writer)
                    return
                status = "200 OK" if self.mode == "ok" else "503 Service Unavailable"
                body = str(self.port)
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.open -= 1
            writer.close()

    async def events(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        number = 0
        while True:
            number += 1
            writer.write(f"data: {self.port} {number}\n\n".encode())
            await writer.drain()
            await asyncio.sleep(0.05)

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ")[1]
        except asyncio.IncompleteReadError:  # somebody looked whether the port is open
            writer.close()
            return
        if path.startswith("/mode/"):
            self.mode = path[6:]
        body = json.dumps(self.state())
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()


def serve_grpc(target: Target, certificate: tuple[str, ...]) -> Any:
    """gRPC's health service, by gRPC's own library."""
    import time

    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    class Health(health_pb2_grpc.HealthServicer):
        def Check(self, request: Any, context: Any) -> Any:
            target.requests.append(f"{request.service} {dict(context.invocation_metadata())}")
            while target.mode == "hang" and context.is_active():
                time.sleep(0.05)
            words = health_pb2.HealthCheckResponse
            return words(status=words.SERVING if target.mode == "ok" else words.NOT_SERVING)

    server = grpc.server(ThreadPoolExecutor(10))
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    if certificate:
        with open(certificate[0], "rb") as first, open(certificate[1], "rb") as second:
            pair = second.read(), first.read()
        server.add_secure_port(f"127.0.0.1:{target.port}", grpc.ssl_server_credentials([pair]))
    else:
        server.add_insecure_port(f"127.0.0.1:{target.port}")
    server.start()
    return server


async def main(kind: str, port: str, control: str, *certificate: str) -> None:
    """Serve until killed."""
    target = Target(int(port))
    context = None
    if kind == "grpc":
        kept = serve_grpc(target, certificate)
        assert kept is not None
    else:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
        await asyncio.start_server(target.client, "127.0.0.1", int(port), ssl=context)
    await asyncio.start_server(target.control, "127.0.0.1", int(control))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
