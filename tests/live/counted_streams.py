"""Clients of many streams that check their numbers: ``python -m tests.live.counted_streams PORT WEBSOCKETS EVENT_STREAMS``.

Each WebSocket sends the next number when the one before has come back, after a pause; each event stream reads numbered events. Prints
``ready`` when all are open, and at SIGTERM a JSON object: how many numbers came, what was wrong (a number that is
lost, doubled or out of order, a stream that ended), and the longest wait for an echo in seconds.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time

import aiohttp

PAUSE = 0.5
"""Seconds between two messages of a WebSocket."""

MOST_FAULTS = 10
"""Faults that are told."""


class Streams:
    """What the streams have seen."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.echoes = self.events = self.opened = 0
        self.faults: list[str] = []
        self.longest = 0.0
        self.ending = False

    def wrong(self, what: str) -> None:
        """Note what should not be."""
        if not self.ending:
            self.faults.append(what)

    async def websocket(self, session: aiohttp.ClientSession, number: int) -> None:
        """One WebSocket."""
        async with session.ws_connect(f"{self.address}/ws") as stream:
            self.opened += 1
            sent = 0
            while not self.ending:
                sent += 1
                began = time.monotonic()
                await stream.send_str(str(sent))
                message = await stream.receive()
                if message.type is not aiohttp.WSMsgType.TEXT or message.data != str(sent):
                    self.wrong(f"websocket {number} at {sent}: {message.type!r} {message.data!r}")
                    return
                self.longest = max(self.longest, time.monotonic() - began)
                self.echoes += 1
                await asyncio.sleep(PAUSE)

    async def event_stream(self, session: aiohttp.ClientSession, number: int) -> None:
        """One event stream."""
        async with session.get(f"{self.address}/sse", params={"every": str(PAUSE)}) as answer:
            self.opened += 1
            last = 0
            async for line in answer.content:
                if line.startswith(b"id: "):
                    if int(line[4:]) != last + 1:
                        self.wrong(f"events {number}: {line!r} behind {last}")
                        return
                    last += 1
                    self.events += 1
            self.wrong(f"events {number}: ended behind {last}")

    async def guarded(self, kind: str, stream: asyncio.Future[None]) -> None:
        """Whatever ends a stream is told."""
        try:
            await stream
        except (aiohttp.ClientError, OSError) as error:
            self.wrong(f"{kind}: {error!r}")

    async def run(self, websockets: int, event_streams: int) -> None:
        """Open all, and go on until SIGTERM."""
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        timeout = aiohttp.ClientTimeout(total=None)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector, read_bufsize=4096) as session:
            tasks = []
            for number in range(websockets):
                stream = asyncio.ensure_future(self.websocket(session, number))
                tasks.append(asyncio.create_task(self.guarded(f"websocket {number}", stream)))
                await asyncio.sleep(0.005)
            for number in range(event_streams):
                stream = asyncio.ensure_future(self.event_stream(session, number))
                tasks.append(asyncio.create_task(self.guarded(f"events {number}", stream)))
                await asyncio.sleep(0.005)
            while self.opened < websockets + event_streams and not self.faults:
                await asyncio.sleep(0.05)
            self.longest = 0.0
            print("ready", flush=True)
            await ended.wait()
            self.ending = True
            open_now = sum(not task.done() for task in tasks)
            told = {"open": open_now, "echoes": self.echoes, "events": self.events, "faults": self.faults[:MOST_FAULTS]}
            print(json.dumps(told | {"longest": round(self.longest, 4)}), flush=True)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(Streams(int(sys.argv[1])).run(int(sys.argv[2]), int(sys.argv[3])))
