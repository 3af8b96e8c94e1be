"""The Redis client with a real Valkey, which is killed, frozen and put behind TLS."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from kongtwist.clients.connections import Connector
from kongtwist.clients.redis import RedisClient, Redises, RedisLimits
from kongtwist.clients.tls import Trust
from kongtwist.core.chain.host import RedisError, RedisSettings, RedisUnavailable
from kongtwist.core.limits import Limits
from kongtwist.net.resolver import Resolver
from tests.live.pki import authority
from tests.live.support import PATIENCE, free_port
from tests.live.valkey_server import TLSFront, ValkeyServer

COUNT = b"local n = redis.call('INCRBY', KEYS[1], ARGV[1]); redis.call('PEXPIRE', KEYS[1], ARGV[2]); return n"


class RedisTestCase(TestCase):
    """A server of its own for each test."""

    timeout = 2 * PATIENCE
    words: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.server = ValkeyServer(self.folder, *self.words)
        self.addCleanup(self.server.kill)
        self.server.start()
        self.clock: Any = reactor
        self.redises = self.make()

    def make(self, trust: Trust = Trust(), limits: RedisLimits = RedisLimits()) -> Redises:  # noqa: B008 - immutable
        """The clients of a process; closed with the test, behind which trial looks for what is left."""
        resolver = Resolver(self.clock, Limits(), self.clock.seconds)
        connector = Connector(self.clock, resolver, trust)
        redises = Redises(connector, limits)
        self.addCleanup(self.gone, connector)
        self.addCleanup(connector.close)
        self.addCleanup(redises.close)
        return redises

    async def gone(self, connector: Connector) -> None:
        """All connections have ended."""
        await self.wait(lambda: not connector.links)

    def client(self, **settings: Any) -> RedisClient:
        """A client of the server."""
        return self.redises.take(RedisSettings(**{"host": "127.0.0.1", "port": self.server.port, **settings}))

    async def wait(self, condition: Callable[[], object]) -> None:
        """Let the reactor work until then; the test's own time limit ends it."""
        while not condition():
            await deferLater(self.clock, 0.01, lambda: None)

    async def problem(self, call: Deferred[Any], kind: type[RedisError] = RedisUnavailable) -> str:
        """What a call fails with."""
        try:
            answer = await call
        except kind as error:
            return str(error).partition(": ")[2]
        raise AssertionError(f"it was answered: {answer!r}")

    async def until_it_answers(self, client: RedisClient) -> Any:
        """Ask until the pause is over and the server answers."""
        while True:
            try:
                return await client.command("PING")
            except RedisUnavailable:
                await deferLater(self.clock, 0.02, lambda: None)


class ServerTests(RedisTestCase):
    async def test_commands(self) -> None:
        client = self.client()
        self.assertEqual(await client.command("SET", "k", b"\x00\r\n\xff"), b"OK")
        self.assertEqual(await client.command("GET", "k"), b"\x00\r\n\xff")
        self.assertIsNone(await client.command("GET", "nothing"))
        self.assertEqual(await client.command("MGET", "k", "nothing"), [b"\x00\r\n\xff", None])
        self.assertIn("WRONGTYPE", await self.problem(client.command("LPUSH", "k", "x"), RedisError))

    async def test_many_at_a_time(self) -> None:
        """Each gets its own answer, over one connection."""
        client = self.client()
        values = await gatherResults([client.command("INCR", "n") for _ in range(1000)])
        self.assertEqual(values, list(range(1, 1001)))
        clients = (await client.command("CLIENT", "LIST")).splitlines()
        self.assertEqual(len(clients), 1)

    async def test_large_values(self) -> None:
        value = os.urandom(3_000_000)
        client = self.client()
        await client.command("SET", "k", value)
        self.assertEqual(await client.command("GET", "k"), value)

    async def test_script(self) -> None:
        """Unknown at first, and again after the server has forgotten it."""
        client = self.client()
        first = await gatherResults([client.script(COUNT, [b"k"], [2, 60000]) for _ in range(3)])
        await client.command("SCRIPT", "FLUSH")
        self.assertEqual([*first, await client.script(COUNT, ["k"], [1, 60000])], [2, 4, 6, 7])
        self.assertIn("ERR", await self.problem(client.script(b"return redis.call('nonsense')"), RedisError))

    async def test_databases(self) -> None:
        await self.client(database=2).command("SET", "k", "two")
        self.assertIsNone(await self.client().command("GET", "k"))
        self.assertEqual(await self.client(database=2).command("GET", "k"), b"two")
        self.assertIn("DB index is out of range", await self.problem(self.client(database=99).command("GET", "k")))

    async def test_names(self) -> None:
        self.assertEqual(await self.client(host="localhost").command("PING"), b"PONG")
        problem = await self.problem(self.client(host="nowhere.invalid").command("PING"))
        self.assertEqual(problem, "the name cannot be resolved")

    async def test_killed_while_it_works(self) -> None:
        """Calls under way fail; what follows fails at once; and it is used again as soon as it is back."""
        client = self.client()
        await client.command("PING")
        calls = [client.command("BLPOP", "never", 0) for _ in range(3)]
        await deferLater(self.clock, 0, lambda: None)
        self.server.kill()
        for call in calls:
            self.assertEqual(await self.problem(call), "the connection was closed")
        self.assertEqual(await self.problem(client.command("PING")), "connection refused")
        self.server.start()
        self.assertEqual(await self.until_it_answers(client), b"PONG")

    async def test_frozen(self) -> None:
        """It takes connections and answers nothing."""
        client = self.client(timeout=300)
        await client.command("PING")
        self.server.freeze()
        self.assertEqual(await self.problem(client.command("PING")), "no answer within 300 ms")
        self.assertEqual(await self.problem(client.command("PING")), "no answer within 300 ms")  # at once
        self.server.thaw()
        self.assertEqual(await self.until_it_answers(client), b"PONG")

    async def test_slow_command(self) -> None:
        client = self.client(timeout=200)
        self.assertEqual(await self.problem(client.command("BLPOP", "never", 0)), "no answer within 200 ms")

    async def test_nobody_there(self) -> None:
        client = self.client(port=free_port())
        self.assertEqual(await self.problem(client.command("PING")), "connection refused")

    async def test_idle_connection_ended_by_the_server(self) -> None:
        client = self.client()
        await client.command("PING")
        killer = self.client(database=1)
        await killer.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await self.wait(lambda: not client.ready)
        self.assertEqual(await client.command("PING"), b"PONG")

    async def test_closing_gives_back_everything(self) -> None:
        """The descriptor too; trial finds timers that are left."""
        await deferLater(self.clock, 0, lambda: None)  # a running reactor has descriptors of its own
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            client = self.client()
            await client.command("PING")
            call = client.command("BLPOP", "never", 0)
            self.redises.give(client)
            self.assertEqual(await self.problem(call), "closed")
        await self.wait(lambda: len(os.listdir("/proc/self/fd")) <= before)


class PasswordTests(RedisTestCase):
    words = ("--requirepass", "geheim", "--user", "kong", "on", ">kongpass", "~*", "+@all", "-ping")

    async def test_passwords(self) -> None:
        self.assertEqual(await self.client(password="geheim").command("PING"), b"PONG")
        kong = self.client(username="kong", password="kongpass")  # who may not PING
        self.assertEqual(await kong.command("INCR", "k"), 1)
        self.assertIn("WRONGPASS", await self.problem(self.client(password="falsch").command("PING")))
        self.assertIn("NOAUTH", await self.problem(self.client().command("PING")))


class TLSTests(RedisTestCase):
    words = ("--requirepass", "geheim")

    def setUp(self) -> None:
        super().setUp()
        self.authority = authority()
        self.front = TLSFront(self.clock, self.authority.sign("redis.test"), self.server.port)
        self.addCleanup(self.front.stop)
        self.redises = self.make(Trust((self.authority.pem,)))

    def tls(self, **settings: Any) -> RedisClient:
        """A client that speaks TLS and knows the password."""
        return self.client(port=self.front.port, ssl=True, password="geheim", **settings)

    async def test_verified(self) -> None:
        """The name that is asked for is the one that is verified."""
        client = self.tls(ssl_verify=True, server_name="redis.test")
        self.assertEqual(await client.command("PING"), b"PONG")
        self.assertEqual(self.front.names, ["redis.test"])
        self.assertEqual(await gatherResults([client.command("INCR", "n") for _ in range(100)]), list(range(1, 101)))
        self.assertEqual(await self.tls(ssl_verify=True).command("PING"), b"PONG")  # 127.0.0.1 is in it, too

    async def test_another_name(self) -> None:
        problem = await self.problem(self.tls(ssl_verify=True, server_name="other.test").command("PING"))
        self.assertEqual(problem, "its certificate is for another name; name that in redis.server_name")

    async def test_another_authority(self) -> None:
        self.redises = self.make(Trust((authority().pem,)))
        problem = await self.problem(self.tls(ssl_verify=True, server_name="redis.test").command("PING"))
        self.assertIn("TLS failed: certificate verify failed; name its authority in", problem)

    async def test_not_verified(self) -> None:
        self.redises = self.make(Trust((authority().pem,)))
        self.assertEqual(await self.tls(server_name="other.test").command("PING"), b"PONG")
        self.assertEqual(self.front.names, ["other.test"])

    async def test_a_server_without_tls(self) -> None:
        """It waits for a command while we wait for its half of the handshake, or answers in its own protocol."""
        problem = await self.problem(self.client(ssl=True, timeout=500).command("PING"))
        self.assertRegex(problem, "TLS failed|no connection within|closed")

    async def test_large_values(self) -> None:
        value = os.urandom(3_000_000)
        client = self.tls()
        await client.command("SET", "k", value)
        self.assertEqual(await client.command("GET", "k"), value)

    async def test_killed_behind_tls(self) -> None:
        client = self.tls()
        await client.command("PING")
        call = client.command("BLPOP", "never", 0)
        self.server.kill()
        self.assertEqual(await self.problem(call), "the connection was closed")
