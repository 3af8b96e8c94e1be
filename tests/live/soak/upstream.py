"""Upstreams that do what they please (`behaviours`).

    python -m tests.live.soak.upstream CONTROL JSON

The second argument: ``{"plain": [ports], "tls": [ports], "rude": [ports], "hole": [ports], "certificate": paths}``.
``rude`` ports speak TLS and never answer a close_notify; a connection to a ``hole`` is never accepted, and soon never
made. Words on the control socket: ``rest`` (say and read nothing more, close nothing, and refuse new connections), ``leave``
(close everything and go on with what comes), ``report``.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
from collections import Counter
from typing import Any

from tests.live.soak.behaviours import BEHAVIOURS, Gone, Serving, echo
from tests.live.soak.control import serve
from tests.live.soak.wire import Wire, server_context

__all__ = ["Upstreams"]


class Upstreams:
    """All ports of one process.

    Attributes:
        working: unset while they rest.
        taken: connections so far.
    """

    def __init__(self) -> None:
        self.working = asyncio.Event()
        self.working.set()
        self.taken = 0
        self.asked: Counter[str] = Counter()
        self._open: set[asyncio.Task[None]] = set()
        self._holes: dict[int, socket.socket | None] = {}

    def hole(self, port: int) -> None:
        """Take a port without ever accepting."""
        self._holes[port] = socket.create_server(("127.0.0.1", port), backlog=0)

    async def listen(self, port: int, context: ssl.SSLContext | None, rude: bool) -> None:
        """Accept for ever."""
        loop = asyncio.get_running_loop()
        server = socket.create_server(("127.0.0.1", port), backlog=1024)
        server.setblocking(False)
        while True:
            sock, _ = await loop.sock_accept(server)
            self.taken += 1
            if not self.working.is_set():
                Wire(sock).reset()
                continue
            task = asyncio.create_task(self._one(Wire(sock, context, server=True), rude))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _one(self, wire: Wire, rude: bool) -> None:
        serving = Serving(wire, self.working, self.taken)
        try:
            await wire.handshake()
            while True:
                name = await serving.request()
                self.asked[name] += 1
                if not await BEHAVIOURS.get(name, echo)(serving):
                    break
            if not rude:
                await wire.notify()
        except (OSError, ssl.SSLError, Gone):
            if wire.open:
                await self._say_goodbye(serving, rude)
        finally:
            wire.close()

    async def _say_goodbye(self, serving: Serving, rude: bool) -> None:
        """The gateway's end was seen: answer its close_notify; or leave it waiting for that, now and then for ever."""
        if rude and serving.wire.secure:
            await asyncio.sleep(serving.random.choice((0.1, 0.5, 1, 1, 1, 3600)))
            return
        try:
            await serving.wire.notify()
        except OSError:
            pass  # it is gone altogether

    async def rest(self) -> None:
        """Do nothing more; keep everything open."""
        self.working.clear()
        for port, sock in self._holes.items():
            if sock is not None:
                sock.close()
            self._holes[port] = None

    async def leave(self) -> dict[str, int]:
        """Close everything, and work from now on."""
        left = list(self._open)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for port, sock in list(self._holes.items()):
            if sock is None:
                self.hole(port)
        self.working.set()
        return {"closed": len(left)}

    async def report(self) -> dict[str, Any]:
        """What was asked for, and what is open."""
        return {"asked": dict(self.asked), "taken": self.taken, "open": len(self._open)}


async def main(control: str, what: dict[str, Any]) -> None:
    """Serve until killed."""
    upstreams = Upstreams()
    context = server_context(*what["certificate"]) if what.get("certificate") else None
    ports: list[tuple[int, ssl.SSLContext | None, bool]] = [
        *((port, None, False) for port in what.get("plain", ())),
        *((port, context, False) for port in what.get("tls", ())),
        *((port, context, True) for port in what.get("rude", ())),
    ]
    for port in what.get("hole", ()):
        upstreams.hole(port)
    listening = [asyncio.create_task(upstreams.listen(*each)) for each in ports]
    words = {"rest": upstreams.rest, "leave": upstreams.leave, "report": upstreams.report}
    await asyncio.gather(serve(control, words), *listening)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
