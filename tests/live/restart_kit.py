"""What tests of restarts have in common: nodes in the background, clients that never rest, a count of what is left."""

from __future__ import annotations

import asyncio
import http.client
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.live.support import PATIENCE, ROOT, Answer, LiveTestCase, free_port, request, wait_until

__all__ = ["Clients", "RestartCase", "Streams"]

MARK = "KONGTWIST_TEST_NODE"
"""Environment variable by which all processes of a node are found, whoever started them."""

_PROGRAM = "import sys; from kongtwist.commands.main import main; sys.exit(main())"


class RestartCase(LiveTestCase):
    """A node that is started by ``kongtwist start``, with a route to an echo."""

    workers = 1

    def setUp(self) -> None:
        self.conf_folder = self.folder()
        self.prefix = os.path.join(self.conf_folder, "prefix")
        self.mark = str(uuid4())
        self.proxy_port, self.admin_port, self.status_port = free_port(), free_port(), free_port()
        self.conf_path = Path(self.conf_folder, "kong.conf")
        self.addCleanup(self.kill_all)

    def report(self) -> str:
        log = Path(self.prefix, "logs", "error.log")
        return super().report() + (log.read_text()[-8000:] if log.exists() else "")

    def configure(self, **conf: object) -> None:
        """Write the configuration file."""
        given = {
            "prefix": self.prefix,
            "proxy_listen": f"127.0.0.1:{self.proxy_port} reuseport",
            "admin_listen": f"127.0.0.1:{self.admin_port}",
            "status_listen": f"127.0.0.1:{self.status_port}",
            "nginx_worker_processes": self.workers,
            "log_level": "info",
            **conf,
        }
        self.conf_path.write_text("".join(f"{name} = {value}\n" for name, value in given.items()))

    def node(self, **conf: object) -> None:
        """Start it."""
        self.configure(**conf)
        self.assertEqual(self.command("start", "-c", str(self.conf_path)), (0, "kongtwist started\n"))

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Begin a command."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KONG_")}
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *words],
            cwd=self.conf_folder,
            env={**kept, "PYTHONPATH": str(ROOT), MARK: self.mark, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.kill)
        return process

    def ended(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Exit code and output of a command that has begun."""
        output, _ = process.communicate(timeout=3 * PATIENCE)
        return process.returncode, output

    def command(self, *words: str) -> tuple[int, str]:
        """Exit code and output of a command."""
        return self.ended(self.begin(*words))

    def restart(self) -> None:
        """Restart it, with success."""
        before = self.pid()
        self.assertEqual(self.command("restart", "-c", str(self.conf_path)), (0, "kongtwist started\n"))
        self.assertNotEqual(self.pid(), before)

    def reload(self) -> None:
        """`kongtwist reload`, which succeeds."""
        self.assertEqual(self.command("reload", "-p", self.prefix), (0, "kongtwist reloaded\n"))

    def pid(self) -> int:
        """The process that is the node."""
        return int(Path(self.prefix, "kongtwist.pid").read_text())

    def log(self) -> str:
        """The error log."""
        return Path(self.prefix, "logs", "error.log").read_text()

    def admin(self, method: str, path: str, **given: object) -> Answer:
        return request(self.admin_port, method, path, json=given or None)

    def route(self, path: str, url: str) -> None:
        """Make a route, and wait until it serves."""
        name = f"s{path.replace('/', '-')}"
        self.assertEqual(self.admin("POST", "/services", name=name, url=url).status, 201)
        self.assertEqual(self.admin("POST", f"/services/{name}/routes", paths=[path]).status, 201)

    def get(self, path: str = "/echo") -> Answer:
        return request(self.proxy_port, "GET", path)

    def echo(self) -> None:
        """Make the route ``/echo``."""
        self.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        wait_until(lambda: self.get().status == 200, "the route")

    def processes(self) -> set[int]:
        """All living processes of the node, commands left aside."""
        found = set()
        wanted = f"{MARK}={self.mark}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if (
                    wanted in (folder / "environ").read_bytes()
                    and b"commands.main" not in (folder / "cmdline").read_bytes()
                ):
                    found.add(int(folder.name))
            except OSError:
                pass  # it has ended, or is another user's
        return found

    def settled(self) -> set[int]:
        """Wait until one generation of processes is left, and return it."""
        number = 1 if self.workers == 1 else 1 + self.workers
        return wait_until(
            lambda: found if len(found := self.processes()) == number and self.pid() in found else set(),
            f"{number} processes to be left",
            2 * PATIENCE,
        )

    def descriptors(self) -> int:
        """Those of the node's process."""
        return len(os.listdir(f"/proc/{self.pid()}/fd"))

    def serves(self) -> None:
        """It does: traffic, Admin and Status API."""
        self.assertEqual(self.get().status, 200)
        name = f"n{uuid4()}"
        self.assertEqual(self.admin("POST", "/consumers", username=name).status, 201)
        self.assertEqual(self.admin("GET", f"/consumers/{name}").status, 200)
        wait_until(lambda: request(self.status_port, "GET", "/status/ready").status == 200, "readiness")

    def kill_all(self) -> None:
        """Leave nothing behind."""
        until = time.monotonic() + PATIENCE
        while (left := self.processes()) and time.monotonic() < until:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)


class Clients:
    """Threads that do one thing again and again; what fails is kept.

    Args:
        work: does it once; raises where it fails.
        number: of threads.
    """

    def __init__(self, work: Callable[[], object], number: int = 2) -> None:
        self.failures: list[str] = []
        self.done = 0
        self._work, self._over = work, threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(number)]
        for each in self._threads:
            each.start()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._work()
            except Exception as error:  # noqa: BLE001 - the test asserts that there is none
                self.failures.append(f"{time.time():.3f} {type(error).__name__}: {error}")
                time.sleep(0.05)
            else:
                self.done += 1
            time.sleep(0.002)

    def some(self, number: int = 30) -> None:
        """Wait until so many more have been done."""
        wanted = self.done + number
        wait_until(lambda: self.done >= wanted, "clients")

    def stop(self) -> None:
        """End them."""
        self._over.set()
        for each in self._threads:
            each.join(PATIENCE)


def one_request(port: int) -> Callable[[], None]:
    """A connection of its own for one GET."""

    def work() -> None:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            client.sendall(b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            got = b""
            while piece := client.recv(65536):
                got += piece
        if not got.startswith(b"HTTP/1.1 200 OK\r\n") or not got.endswith(b"}"):
            raise AssertionError(repr(got[:200]))

    return work


def kept_requests(port: int) -> Callable[[], None]:
    """GETs on a connection that is kept until an answer says that it ends."""
    local = threading.local()

    def work() -> None:
        connection = getattr(local, "connection", None)
        if connection is None:
            connection = local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("GET", "/echo")
            answer = connection.getresponse()
            body = answer.read()
        except Exception:
            local.connection = None
            connection.close()
            raise
        if answer.status != 200 or not body.endswith(b"}"):
            raise AssertionError(f"{answer.status} {body!r}")
        if answer.will_close:
            local.connection = None
            connection.close()

    return work


class Streams(threading.Thread):
    """WebSockets and event streams with numbers in them; each that ends comes again, as a good client does.

    Args:
        port: of the gateway.
        websockets: how many of these.
        events: how many event streams.
        tls: over TLS, which keeps a stream from moving to another process.

    Attributes:
        codes: of the Close frames that came.
        retries: what event streams were told, in milliseconds.
        cuts: streams that ended in another way.
        wrong: numbers that were lost, doubled, or out of order.
        open: streams that are open.
        told: messages that came.
        longest: seconds that a WebSocket has waited for an answer.
    """

    def __init__(self, port: int, websockets: int, events: int, tls: bool = False) -> None:
        super().__init__(daemon=True)
        self.tls = ssl.create_default_context() if tls else None
        if self.tls is not None:
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self.port, self.websockets, self.events = port, websockets, events
        self.codes: Counter[int] = Counter()
        self.retries: list[int] = []
        self.cuts: list[str] = []
        self.wrong: list[str] = []
        self.open = self.told = 0
        self.longest = 0.0
        self.over = False

    @property
    def all_open(self) -> bool:
        return self.open == self.websockets + self.events

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        opening = asyncio.Semaphore(20)
        tasks = [asyncio.create_task(self._again(self._talk, opening)) for _ in range(self.websockets)]
        tasks += [asyncio.create_task(self._again(self._listen, opening)) for _ in range(self.events)]
        while not self.over:
            await asyncio.sleep(0.05)
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _again(self, serve: Callable[[asyncio.Semaphore], object], opening: asyncio.Semaphore) -> None:
        while not self.over:
            try:
                await serve(opening)  # type: ignore[misc]
            except (OSError, EOFError, WebSocketException, AssertionError, asyncio.LimitOverrunError) as error:
                self.cuts.append(f"{time.time():.3f} {type(error).__name__}: {error}")
                await asyncio.sleep(0.1)

    async def _talk(self, opening: asyncio.Semaphore) -> None:
        async with opening:
            client = await connect(
                f"{'ws' if self.tls is None else 'wss'}://127.0.0.1:{self.port}/websocket",
                proxy=None,
                open_timeout=PATIENCE,
                ping_interval=None,
                ssl=self.tls,
            )
        self.open += 1
        number = 0
        try:
            while True:
                began = time.monotonic()
                await client.send(str(number))
                got = await client.recv()
                self.longest = max(self.longest, time.monotonic() - began)
                self.told += 1
                if got != str(number):
                    self.wrong.append(f"{got!r} in place of {number}")
                number += 1
                await asyncio.sleep(0.5 + random.random())
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                raise
            self.codes[closed.rcvd.code] += 1
        finally:
            self.open -= 1
            if self.over:
                client.transport.abort()

    async def _listen(self, opening: asyncio.Semaphore) -> None:
        async with opening:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
            writer.write(b"GET /events?every=1 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise AssertionError(repr(head))
        self.open += 1
        retry, number, ended = None, None, False
        try:
            while line := await reader.readline():
                if line.startswith(b"retry:"):
                    retry = int(line[6:])
                elif line.startswith(b"id:"):
                    found = int(line[3:])
                    self.told += 1
                    if number is not None and found != number + 1:
                        self.wrong.append(f"event {found} behind {number}")
                    number = found
                elif line == b"0\r\n":
                    ended = True
        finally:
            self.open -= 1
            writer.close()
        if not ended:
            raise ConnectionError("an event stream was cut")
        if retry is None:
            raise AssertionError("an event stream was not told when to come again")
        self.retries.append(retry)
