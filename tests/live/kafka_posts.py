"""Many clients that send events one after the other, each on a connection of its own, in a process of its own.

    python -m tests.live.kafka_posts PORT PATH CLIENTS REQUESTS PATIENCE REPORT

Prints a line with the number of answers after every hundredth, and writes ``REPORT`` at the end: a list of
``[name, status, partition, offset, seconds]``, one for each request. A status of 0: no answer within ``PATIENCE`` seconds, -1: the
connection ended without one. SIGTERM: no further requests are sent.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

HUNG, CUT = 0, -1


class Posts:
    """See the module."""

    def __init__(self, port: int, path: str, requests: int, patience: float) -> None:
        self._port, self._path, self._requests, self._patience = port, path, requests, patience
        self._numbers = count()
        self._stopped = False
        self.results: list[tuple[str, int, int, int, float]] = []

    async def client(self) -> None:
        """Send requests until all are sent."""
        reader: Any = None
        writer: Any = None
        while not self._stopped and (number := next(self._numbers)) < self._requests:
            name = f"e-{number}"
            body = json.dumps({"name": name, "event_type": "click", "filler": "x" * 120}).encode()
            begun = time.monotonic()
            status = HUNG
            told: dict[str, Any] = {}
            try:
                if writer is None or writer.is_closing():
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                status, told = await asyncio.wait_for(self._ask(reader, writer, body), self._patience)
            except TimeoutError:
                _drop(writer)
                writer = None
            except (OSError, asyncio.IncompleteReadError):
                _drop(writer)
                status, writer = CUT, None
            spent = time.monotonic() - begun
            self.results.append((name, status, told.get("partition", -1), told.get("offset", -1), spent))
            if len(self.results) % 100 == 0:
                print(len(self.results), flush=True)
        _drop(writer)

    async def _ask(self, reader: Any, writer: Any, body: bytes) -> tuple[int, dict[str, Any]]:
        head = f"POST {self._path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        length = next(int(line[15:]) for line in lines if line.lower().startswith("content-length:"))
        told = json.loads(await reader.readexactly(length))
        if "connection: close" in map(str.lower, lines):  # it has had as many requests as a connection may have
            writer.close()
        return int(lines[0].split()[1]), told

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True


def _drop(writer: Any) -> None:
    if writer is not None:
        writer.transport.abort()


async def main() -> None:
    """Send, and report."""
    port, path, clients, requests, patience, report = sys.argv[1:]
    posts = Posts(int(port), path, int(requests), float(patience))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, posts.stop)
    await asyncio.gather(*(posts.client() for _ in range(int(clients))))
    Path(report).write_text(json.dumps(posts.results), encoding="ascii")


if __name__ == "__main__":
    asyncio.run(main())
