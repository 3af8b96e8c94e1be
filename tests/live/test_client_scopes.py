"""A thousand configurations opened and closed with everything a plugin may ask for leave nothing behind."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from kongtwist.clients.scopes import Scope, Services
from kongtwist.core.chain.host import Host, QueueSettings, RedisSettings
from kongtwist.core.limits import Limits
from kongtwist.net.resolver import Resolver
from tests.live.support import PATIENCE
from tests.live.valkey_server import ValkeyServer

SCOPES = 1000
AT_A_TIME = 20


class ScopeSoak(TestCase):
    """Against a real Valkey, which also takes the connections."""

    timeout = 5 * PATIENCE

    def setUp(self) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.server = ValkeyServer(folder)
        self.addCleanup(self.server.kill)
        self.server.start()
        self.clock: Any = cast(Any, reactor)
        self.services = Services(self.clock, Resolver(self.clock, Limits(), self.clock.seconds))
        self.facts = Host(counters=cast(Any, None), now=self.clock.seconds, report=self.fail)
        self.ticks = self.sent = self.coroutines = 0

    async def use(self, number: int) -> None:
        """Open a configuration, use everything, and close it in the middle of that."""
        scope = self.services.scope(self.facts, "soak", {"id": str(number)})
        settings = RedisSettings("127.0.0.1", self.server.port, database=number % 3)
        redis = scope.redis(settings)
        scope.every(0.01, self.tick)
        scope.later(3600, self.tick)
        scope.spawn("waits", self.wait_forever())
        queue = scope.queue(
            f"target {number % 7}", QueueSettings(max_batch_size=10), lambda batch: self.send(scope, settings, batch)
        )
        await redis.command("INCR", "scopes")
        queue.add(number)
        connection = await scope.connect("127.0.0.1", self.server.port, timeout=PATIENCE)
        await connection.write(b"PING\r\n")
        self.assertEqual(await connection.read(), b"+PONG\r\n")
        self.assertEqual(await scope.threads(pow, 2, 10), 1024)
        queue.add(-number)
        await scope.release()

    def tick(self) -> None:
        self.ticks += 1

    async def wait_forever(self) -> None:
        try:
            await Deferred[None]()
        finally:
            self.coroutines += 1

    async def send(self, scope: Scope, settings: RedisSettings, batch: list[int]) -> None:
        await scope.redis(settings).command("RPUSH", "entries", *batch)
        self.sent += len(batch)

    async def many(self, numbers: range) -> None:
        for number in numbers:
            await self.use(number)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await deferLater(self.clock, 0.01, lambda: None)

    async def test_soak(self) -> None:
        services = self.services
        await self.many(range(3))  # whatever is made once is there
        await self.until(lambda: not services.connector.links)
        calls = len(self.clock.getDelayedCalls())
        descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        slices = [range(3 + start, 3 + SCOPES, AT_A_TIME) for start in range(AT_A_TIME)]
        await gatherResults([Deferred.fromCoroutine(self.many(numbers)) for numbers in slices])
        self.assertEqual((len(services.scopes), len(services.redises), len(services.queues)), (0, 0, 0))
        await self.until(lambda: not services.connector.links and len(os.listdir("/proc/self/fd")) <= descriptors)
        self.assertEqual(len(self.clock.getDelayedCalls()), calls)
        self.assertLessEqual(threading.active_count(), threads + 10)
        counts = services.queues.counts
        self.assertEqual((counts.waiting, counts.sent), (0, 2 * (SCOPES + 3)))
        self.assertEqual((counts.failed, counts.dropped), (0, 0))
        self.assertEqual((self.coroutines, self.sent), (SCOPES + 3, 2 * (SCOPES + 3)))
        await services.close(PATIENCE)
        await self.until(lambda: not [each for each in threading.enumerate() if "kongtwist-plugins" in each.name])
        self.assertEqual(len(self.clock.getDelayedCalls()), calls)
