"""Clients that misbehave, many at a time: carries out what `transcripts` draws.

    python -m tests.live.soak.wild CONTROL JSON

The second argument: ``{"seed": text, "doors": {name: [address, secure, mount]}, "at_once": clients, "kinds": [names]}``;
an address is [host, port] or the path of a unix socket. Words on the control socket: ``go``; ``freeze`` (everybody stops
where they are and keeps the connection open); ``leave`` (everybody goes, one way or the other); ``report``.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections import Counter
from random import Random
from typing import Any

from tests.live.soak.control import serve
from tests.live.soak.transcripts import Transcript, draw
from tests.live.soak.wire import Wire, client_context

__all__ = ["Wild"]


class Client:
    """Carries out one transcript."""

    def __init__(self, wild: Wild, transcript: Transcript) -> None:
        self._wild = wild
        self.transcript = transcript
        self.wire: Wire | None = None
        self._reading: asyncio.Task[None] | None = None
        self.first = b""

    async def run(self) -> None:
        """Live and end."""
        kept = False
        try:
            async with asyncio.timeout(60):
                await self._live()
        except asyncio.CancelledError:
            kept = self._wild.frozen
            raise
        except (OSError, ssl.SSLError, TimeoutError):
            pass  # whatever the gateway thought of it
        finally:
            await self._read_no_more()
            if self.wire is not None:
                self._wild.note(self)
                if kept:
                    self._wild.kept.append(self.wire)
                else:
                    self.wire.reset()

    async def _live(self) -> None:
        made = self.transcript
        address, secure, mount = self._wild.doors[made.door]
        context = self._wild.contexts[made.old] if secure and made.kind != "bare" else None
        self.wire = await Wire.connect(tuple(address) if isinstance(address, list) else address, context, made.window)
        for word, *arguments in made.steps:
            if mount and arguments and isinstance(arguments[0], bytes):
                arguments[0] = _mounted(arguments[0], mount.encode())
            await getattr(self, f"_{word}")(*arguments)

    async def _receive(self, most: int = 65536) -> bytes:
        assert self.wire is not None
        data = await self.wire.receive(most)
        if len(self.first) < 12:
            self.first += data[:12]
        return data

    async def _send(self, data: bytes) -> None:
        """All of it, within a second: who does not read must not keep us for ever."""
        assert self.wire is not None
        try:
            async with asyncio.timeout(1):
                await self.wire.send(data)
        except TimeoutError:
            pass

    async def _drip(self, data: bytes, size: int, seconds: float) -> None:
        for at in range(0, len(data), size):
            await self._send(data[at : at + size])
            await asyncio.sleep(seconds)

    async def _raw(self, data: bytes) -> None:
        assert self.wire is not None
        await self.wire.send_raw(data)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    _hold = _pause

    async def _read(self, most: int) -> None:
        try:
            async with asyncio.timeout(1):
                if self._reading is None:
                    await self._receive(most)
        except TimeoutError:
            pass

    async def _drain(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                if self._reading is not None:
                    await asyncio.shield(self._reading)
                    return
                while await self._receive():
                    pass
        except TimeoutError:
            pass

    async def _sip(self, seconds: float) -> None:
        for _ in range(int(seconds / 0.02)):
            await self._read(500)
            await asyncio.sleep(0.02)

    async def _reader(self) -> None:
        async def read() -> None:
            try:
                while await self._receive():
                    pass
            except (OSError, ssl.SSLError):
                pass  # the others steps see it too

        self._reading = asyncio.create_task(read())

    async def _read_no_more(self) -> None:
        """End the reader, and wait until nobody waits for the socket: its number is another's as soon as it is closed."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait((reading,))

    async def _half_close(self) -> None:
        assert self.wire is not None
        self.wire.half_close()

    async def _notify(self) -> None:
        assert self.wire is not None
        await self.wire.notify()

    async def _reset(self) -> None:
        await self._read_no_more()
        assert self.wire is not None
        self.wire.reset()

    async def _close(self) -> None:
        await self._read_no_more()
        assert self.wire is not None
        self.wire.close()


def _mounted(data: bytes, mount: bytes) -> bytes:
    """Requests in ``data`` as they are below a mount."""
    for route in (b"least", b"secure", b"direct", b"named", b"kept-host", b"keyed", b"answered", b"nowhere"):
        data = data.replace(b" /" + route + b"/", b" " + mount + b"/" + route + b"/")
    return data


class Wild:
    """All clients of one process.

    Attributes:
        frozen: they keep still.
        kept: connections of those that do.
    """

    def __init__(self, what: dict[str, Any]) -> None:
        self.doors: dict[str, tuple[Any, bool, str]] = {name: tuple(door) for name, door in what["doors"].items()}
        self.contexts = (client_context(), client_context(ssl.TLSVersion.TLSv1_2))
        self._seed, self._at_once = what["seed"], what["at_once"]
        self._kinds = tuple(what.get("kinds") or ())
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._going = asyncio.Event()
        self.frozen = False
        self.kept: list[Wire] = []
        self.kinds: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()

    def note(self, client: Client) -> None:
        """Count what became of a client."""
        self.kinds[client.transcript.kind] += 1
        first = client.first
        self.statuses[first[9:12].decode("latin-1") if first.startswith(b"HTTP/1.") else "none"] += 1

    async def run(self) -> None:
        """Keep the number of clients up while going."""
        doors = tuple(self.doors)
        while True:
            await self._going.wait()
            while len(self._tasks) < self._at_once and self._going.is_set():
                client = Client(self, draw(self._seed, self._number, doors, self._kinds))
                self._number += 1
                task = asyncio.create_task(client.run())
                self._tasks.add(task)
                task.add_done_callback(self._done)
            if self._tasks:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(0.01)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            print("a client failed by a fault of its own", repr(task.exception()), flush=True)

    async def go(self) -> None:
        """Begin, or go on."""
        self._going.set()

    async def _stop(self) -> None:
        self._going.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def freeze(self) -> dict[str, int]:
        """Nobody does anything any more."""
        self.frozen = True
        await self._stop()
        return {"kept": len(self.kept)}

    async def leave(self) -> dict[str, int]:
        """Everybody goes, who is frozen too."""
        await self._stop()
        kept, self.kept = self.kept, []
        random = Random(self._number)
        for wire in kept:
            (wire.reset if random.random() < 0.5 else wire.close)()
        self.frozen = False
        return {"left": len(kept)}

    async def report(self) -> dict[str, Any]:
        """What was done and seen."""
        return {
            "clients": self._number,
            "open": len(self._tasks),
            "kinds": dict(self.kinds),
            "statuses": dict(self.statuses),
        }


async def main(control: str, what: dict[str, Any]) -> None:
    """Serve until killed."""
    wild = Wild(what)
    words = {"go": wild.go, "freeze": wild.freeze, "leave": wild.leave, "report": wild.report}
    await asyncio.gather(serve(control, words), wild.run())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
