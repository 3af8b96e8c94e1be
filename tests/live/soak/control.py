"""How a test tells its soak programs what to do: a line of JSON on a unix socket, answered by one."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

__all__ = ["serve", "tell"]


def tell(path: str, word: str, patience: float = 120.0, **arguments: Any) -> Any:
    """Tell the program behind ``path`` something; gives its answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(patience)
        client.connect(path)
        client.sendall(json.dumps({"word": word, **arguments}).encode() + b"\n")
        with client.makefile("rb") as answer:
            line = answer.readline()
    if not line:
        raise ConnectionError(f"{word}: no answer from {path}")
    return json.loads(line)


async def serve(path: str, words: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
    """Listen on ``path`` for ever; each word of ``words`` is called with the arguments that came with it."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = json.loads(await reader.readline())
            answer = await words[asked.pop("word")](**asked)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_unix_server(one, path)
    async with server:
        await server.serve_forever()
