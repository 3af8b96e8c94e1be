"""A server of gRPC's interop tests on grpcio: ``python interop_server.py PROTOS PORT [CERT KEY]``.

What it does is told in gRPC's document on interop tests (doc/interop-test-descriptions.md, server features) and in the comments of
``grpc/testing/test.proto``, which lies below the folder PROTOS.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

sys.path.insert(0, sys.argv[1])
grpc.__path__.append(os.path.join(sys.argv[1], "grpc"))  # the messages' package is grpc.testing, below grpcio's own
services: Any = grpc.services("grpc/testing/test.proto")
payloads: Any = grpc.protos("grpc/testing/messages.proto")
empty: Any = grpc.protos("grpc/testing/empty.proto")

INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
"""Metadata that comes back, before the answer and after it."""


async def _echo_metadata(context: Any) -> None:
    sent = dict(context.invocation_metadata())
    if INITIAL in sent:
        await context.send_initial_metadata(((INITIAL, sent[INITIAL]),))
    if TRAILING in sent:
        context.set_trailing_metadata(((TRAILING, sent[TRAILING]),))


async def _check_compression(context: Any, request: Any) -> None:
    """Refuse a request that was to come compressed and did not. Which one came so, grpcio does not tell its servers."""
    if request.expect_compressed.value and "grpc-encoding" not in dict(context.invocation_metadata()):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request was to be compressed")


async def _end_as_asked(context: Any, request: Any) -> None:
    if request.HasField("response_status"):
        status = next(each for each in grpc.StatusCode if each.value[0] == request.response_status.code)
        await context.abort(status, request.response_status.message)


class Interop(services.TestServiceServicer):  # type: ignore[misc]
    """The service; what it lacks is UNIMPLEMENTED, as is asked for."""

    async def EmptyCall(self, request: Any, context: Any) -> Any:
        await _echo_metadata(context)
        return empty.Empty()

    async def UnaryCall(self, request: Any, context: Any) -> Any:
        await _echo_metadata(context)
        await _end_as_asked(context, request)
        if request.response_compressed.value:
            context.set_compression(grpc.Compression.Gzip)
        return payloads.SimpleResponse(payload={"body": bytes(request.response_size)})

    async def StreamingOutputCall(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if any(each.compressed.value for each in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        for each in request.response_parameters:
            if each.interval_us:
                await asyncio.sleep(each.interval_us / 1e6)
            if request.response_parameters[0].HasField("compressed") and not each.compressed.value:
                context.disable_next_message_compression()
            yield payloads.StreamingOutputCallResponse(payload={"body": bytes(each.size)})

    async def StreamingInputCall(self, requests: AsyncIterator[Any], context: Any) -> Any:
        size = 0
        async for request in requests:
            size += len(request.payload.body)
        return payloads.StreamingInputCallResponse(aggregated_payload_size=size)

    async def FullDuplexCall(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        await _echo_metadata(context)
        async for request in requests:
            await _end_as_asked(context, request)
            async for each in self.StreamingOutputCall(request, context):
                yield each

    async def HalfDuplexCall(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        kept = [request async for request in requests]
        for request in kept:
            async for each in self.StreamingOutputCall(request, context):
                yield each


async def main(port: str, certificate: str = "", key: str = "") -> None:
    """Serve until killed."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    services.add_TestServiceServicer_to_server(Interop(), server)
    address = f"127.0.0.1:{port}"
    if certificate:
        with open(certificate, "rb") as chain, open(key, "rb") as secret:
            server.add_secure_port(address, grpc.ssl_server_credentials([(secret.read(), chain.read())]))
    else:
        server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[2:]))
