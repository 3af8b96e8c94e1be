"""The HTTP client of plugins with servers that are slow, large, broken, or behind TLS."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from kongtwist.clients.connections import Connector
from kongtwist.clients.http_client import HTTPClient, HTTPFailed, HTTPLimits
from kongtwist.clients.tls import Trust
from kongtwist.core.limits import Limits
from kongtwist.net.resolver import Resolver
from tests.live.pki import Signed, authority
from tests.live.support import PATIENCE, ROOT, Process, free_port, wait_until


class HTTPTestCase(TestCase):
    """A server in a process of its own."""

    timeout = 2 * PATIENCE

    def setUp(self) -> None:
        self.clock: Any = reactor
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def serve(self, signed: Signed | None = None) -> int:
        """Start the server; its port."""
        port = free_port()
        files = signed.write(self.folder, f"server-{port}") if signed is not None else ()
        words = [sys.executable, "-m", "tests.live.odd_server", str(port), *files]
        process = Process(words, self.folder, f"server-{port}", {"PYTHONPATH": str(ROOT)})
        self.addCleanup(process.kill)
        wait_until(lambda: "ready" in process.output() or not process.running, "the server")
        self.assertTrue(process.running, process.output())
        return port

    def make(self, trust: Trust = Trust(), limits: HTTPLimits = HTTPLimits()) -> HTTPClient:  # noqa: B008 - immutable
        """A client, closed with the test; behind that trial looks for what is left."""
        resolver = Resolver(self.clock, Limits(), self.clock.seconds)
        self.connector = connector = Connector(self.clock, resolver, trust)
        client = HTTPClient(connector, limits)
        self.addCleanup(self.wait, lambda: not connector.links)
        self.addCleanup(connector.close)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.close()))
        return client

    async def wait(self, condition: Callable[[], object]) -> None:
        """Let the reactor work until then; the test's own time limit ends it."""
        while not condition():
            await deferLater(self.clock, 0.01, lambda: None)

    async def problem(self, client: HTTPClient, url: str, **options: Any) -> str:
        """Why there is no answer."""
        try:
            answer = await client.request("GET", url, **options)
        except HTTPFailed as error:
            return str(error)
        raise AssertionError(f"it was answered: {answer!r:.500}")


class PlainTests(HTTPTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = self.make(limits=HTTPLimits(body=100_000, connections=3, waiting=5))
        self.url = f"http://127.0.0.1:{self.serve()}"

    async def test_request(self) -> None:
        """What is sent, and what comes back."""
        body = os.urandom(70_000)
        fields = [(b"X-One", b"1"), (b"Content-Type", b"application/json"), (b"X-One", b"2")]
        answer = await self.client.request("PUT", f"{self.url}/echo?a=b%20c", headers=fields, body=body)
        self.assertEqual(answer.status, 201)
        self.assertEqual(answer.body, body)
        told = dict(answer.headers)
        self.assertEqual(told[b"X-Seen"], b"PUT /echo?a=b%20c type=application/json length=70000 one=1,2")

    async def test_without_a_body(self) -> None:
        for method in ("GET", "POST", "DELETE"):
            answer = await self.client.request(method, f"{self.url}/echo")
            self.assertEqual(answer.body, b"")
            self.assertIn(f"{method} /echo ".encode(), dict(answer.headers)[b"X-Seen"])

    async def test_connections_are_used_again(self) -> None:
        """As long as `keepalive` says, and not at all with 0; none is left behind the client's end."""
        connections = [(await self.client.request("GET", f"{self.url}/connection")).body for _ in range(3)]
        self.assertEqual(len(set(connections)), 1)
        others = [(await self.client.request("GET", f"{self.url}/connection", keepalive=0)).body for _ in range(3)]
        self.assertEqual(len({*others, *connections}), 4)
        await self.wait(lambda: len(self.connector.links) == 1)
        await self.client.request("GET", f"{self.url}/connection", keepalive=0.05)
        await self.wait(lambda: len(self.connector.links) == 1)
        await self.client.close()
        await self.wait(lambda: not self.connector.links)

    async def test_slow(self) -> None:
        """Before the head, and within the body; the connection ends with the request."""
        for path in ("/slow-head", "/slow-body"):
            problem = await self.problem(self.client, self.url + path, timeout=0.3)
            self.assertEqual(problem, f"GET {self.url}{path}: no whole answer within 0.3 s")
            await self.wait(lambda: not self.connector.links)

    async def test_a_server_that_reads_nothing(self) -> None:
        """Neither our body nor anything else."""
        problem = await self.problem(self.client, f"{self.url}/unread", body=b"x" * 20_000_000, timeout=0.5)
        self.assertIn("no whole answer within 0.5 s", problem)
        await self.wait(lambda: not self.connector.links)

    async def test_broken_answers(self) -> None:
        for path, why in (
            ("/reset", "the connection was closed"),
            ("/end", "the connection was closed"),
            ("/short", "the connection was closed"),
            ("/garbage", "the answer is no HTTP"),
        ):
            self.assertEqual(await self.problem(self.client, self.url + path), f"GET {self.url}{path}: {why}")
            await self.wait(lambda: not self.connector.links)

    async def test_large(self) -> None:
        answer = await self.client.request("GET", f"{self.url}/bytes/100000")
        self.assertEqual(len(answer.body), 100_000)
        problem = await self.problem(self.client, f"{self.url}/bytes/100001")
        self.assertEqual(problem, f"GET {self.url}/bytes/100001: an answer of more than 100000 bytes")
        await self.problem(self.client, f"{self.url}/endless")

    async def test_endless_heads(self) -> None:
        for path in ("lines", "interim"):
            problem = await self.problem(self.client, f"{self.url}/endless-head/{path}")
            self.assertIn("the answer's head is of more than 65536 bytes", problem)
            await self.wait(lambda: not self.connector.links)

    async def test_compressed(self) -> None:
        """The bound is on what comes out."""
        self.assertEqual((await self.client.request("GET", f"{self.url}/gzip/90000")).body, b"0" * 90_000)
        self.assertIn("more than 100000 bytes", await self.problem(self.client, f"{self.url}/gzip/50000000"))

    async def test_redirection(self) -> None:
        answer = await self.client.request("GET", f"{self.url}/redirect")
        self.assertEqual((answer.status, dict(answer.headers)[b"Location"]), (302, b"/elsewhere"))

    async def test_no_cookies(self) -> None:
        """What one plugin was given is not sent by another."""
        for _ in range(2):
            self.assertEqual((await self.client.request("GET", f"{self.url}/cookie")).body, b"")

    async def test_connections_are_bounded(self) -> None:
        """Three at a time; five wait for their turn, and one more is refused."""
        asked = [Deferred.fromCoroutine(self.client.request("GET", f"{self.url}/wait")) for _ in range(8)]
        problem = await self.problem(self.client, f"{self.url}/wait")
        self.assertEqual(problem, f"GET {self.url}/wait: 3 requests to it are under way, and 5 wait")
        seen = [int(answer.body) for answer in await gatherResults(asked)]
        self.assertLessEqual(max(seen), 3)

    async def test_cancelled(self) -> None:
        for path, waits in (("slow-head", 0.0), ("slow-head", 0.3), ("slow-body", 0.3)):
            asked = Deferred.fromCoroutine(self.client.request("GET", f"{self.url}/{path}"))
            await self.wait(lambda: self.connector.links)
            await deferLater(self.clock, waits, lambda: None)
            asked.cancel()
            try:
                answer: Any = await asked
            except CancelledError as error:
                answer = error
            self.assertIsInstance(answer, CancelledError)
            await self.wait(lambda: not self.connector.links)

    async def test_nobody_there(self) -> None:
        port = free_port()
        problem = await self.problem(self.client, f"http://user:secret@127.0.0.1:{port}/x?key=secret")
        self.assertEqual(problem, f"GET 127.0.0.1:{port}/x: credentials in a URL are not sent: name them in a header")
        problem = await self.problem(self.client, f"http://127.0.0.1:{port}/x?key=secret")
        self.assertEqual(
            problem, f"GET http://127.0.0.1:{port}/x: cannot connect to 127.0.0.1:{port}: connection refused"
        )
        self.assertIn("cannot be resolved", await self.problem(self.client, "http://nowhere.invalid/"))
        for url in ("ftp://127.0.0.1/", "nonsense", "http://"):
            self.assertIn("it is no http or https URL", await self.problem(self.client, url))


class TLSTests(HTTPTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = authority()
        self.port = self.serve(self.authority.sign("logs.test"))

    async def test_verified(self) -> None:
        client = self.make(Trust((self.authority.pem,)))
        for host in ("localhost", "127.0.0.1"):
            answer = await client.request("POST", f"https://{host}:{self.port}/echo", body=b"x" * 100_000)
            self.assertEqual(answer.body, b"x" * 100_000)

    async def test_another_name(self) -> None:
        """The name that is asked for and demanded may be another than the one that is connected to."""
        client = self.make(Trust((self.authority.pem,)))
        url = f"https://127.0.0.1:{self.port}/echo"
        self.assertEqual((await client.request("GET", url, server_name="logs.test")).status, 201)
        with self.assertRaises(HTTPFailed):
            await client.request("GET", url, server_name="other.test")

    async def test_unknown_authority(self) -> None:
        """Refused with ``ssl_verify``, taken without."""
        client = self.make(Trust((authority().pem,)))
        url = f"https://127.0.0.1:{self.port}/echo"
        self.assertIn("TLS failed: certificate verify failed", await self.problem(client, url))
        self.assertEqual((await client.request("GET", url, ssl_verify=False)).status, 201)
        self.assertIn("TLS failed: certificate verify failed", await self.problem(client, url))  # another pool

    async def test_self_signed(self) -> None:
        alone = authority("alone.test")
        port = self.serve(alone)
        client = self.make(Trust((self.authority.pem,)))
        self.assertIn("TLS failed", await self.problem(client, f"https://127.0.0.1:{port}/echo"))
        answer = await client.request("GET", f"https://127.0.0.1:{port}/echo", ssl_verify=False)
        self.assertEqual(answer.status, 201)

    async def test_slow(self) -> None:
        """A connection ends without waiting for the peer's close_notify."""
        client = self.make(Trust((self.authority.pem,)))
        for path in ("slow-head", "slow-body"):
            problem = await self.problem(client, f"https://127.0.0.1:{self.port}/{path}", timeout=0.5)
            self.assertIn("no whole answer within 0.5 s", problem)
            await self.wait(lambda: not self.connector.links)

    async def test_plain_server(self) -> None:
        port = self.serve()
        problem = await self.problem(self.make(), f"https://127.0.0.1:{port}/echo", timeout=5)
        self.assertRegex(problem, "TLS failed|was closed")
