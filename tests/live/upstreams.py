"""Servers that live tests put behind a gateway, one per process: ``python upstreams.py KIND PORT [ARGUMENT...]``."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

from aiohttp import WSMsgType, web

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def echo(request: web.Request) -> web.StreamResponse:
    """What was asked, as JSON. ``?status=``, ``?delay=`` (seconds) and ``?bytes=`` (a long body) change the answer."""
    body = await request.read()
    await asyncio.sleep(float(request.query.get("delay", "0")))
    if "bytes" in request.query:
        return await _many_bytes(request, int(request.query["bytes"]))
    told = {
        "method": request.method,
        "target": request.raw_path,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.raw_headers],
        "body": body.decode("latin-1"),
    }
    return web.json_response(told, status=int(request.query.get("status", "200")))


async def _many_bytes(request: web.Request, size: int) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = size
    await response.prepare(request)
    while size > 0:
        piece = b"x" * min(size, 65536)
        await response.write(piece)
        size -= len(piece)
    return response


async def websocket(request: web.Request) -> web.StreamResponse:
    """Echoes messages. ``close`` as a text closes with code 4001; subprotocol ``chat.v1`` is spoken if offered."""
    socket = web.WebSocketResponse(protocols=("chat.v1",), max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT and message.data == "close":
            await socket.close(code=4001, message=b"as you wish")
        elif message.type is WSMsgType.TEXT and message.data == "headers":
            await socket.send_str(json.dumps(dict(request.headers)))
        elif message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def events(request: web.Request) -> web.StreamResponse:
    """An event every 20 ms, or every ``?every=`` seconds, numbered on from Last-Event-ID; the first one tells the request's headers."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Access-Control-Allow-Origin": "*"})
    await response.prepare(request)
    number = int(request.headers.get("Last-Event-ID", "0"))
    pause = float(request.query.get("every", "0.02"))
    await response.write(b": hello\n\n")
    try:
        while True:
            number += 1
            data = json.dumps({"number": number, "headers": dict(request.headers)})
            await response.write(f"id: {number}\ndata: {data}\n\n".encode())
            await asyncio.sleep(pause)
    except ConnectionResetError:
        print("client gone", flush=True)
        raise
    except asyncio.CancelledError:
        print("client gone", flush=True)
        raise


SERVERS: dict[str, Answering] = {"echo": echo, "websocket": websocket, "events": events}


def main(kind: str, port: str) -> None:
    """Serve until killed."""
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", SERVERS[kind])
    # Cancelling on disconnect is how a server notices that its client left while it computes.
    web.run_app(application, host="127.0.0.1", port=int(port), print=None, handler_cancellation=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
