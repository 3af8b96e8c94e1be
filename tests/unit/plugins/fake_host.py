"""A host without a gateway: rows, tallies and a Redis server in dictionaries; timers and coroutines run when asked to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from kongtwist.core.chain.host import RedisSettings, RedisUnavailable, Scope, Tally
from kongtwist.core.rows import Row
from kongtwist.plugins.rate_limiting import redis_counts as scripts
from kongtwist.testing import PluginHarness, finished


class FakeRows:
    """Rows that are those of the harness; writes wait until `FakeHost.run`."""

    def __init__(self, harness: PluginHarness) -> None:
        self._harness = harness
        self.broken = False
        self._number = 0

    def get(self, entity: str, key: str) -> Row | None:
        return self._harness.rows.rows.get(entity, {}).get(key)

    def by(self, entity: str, name: str, value: Any) -> Row | None:
        return self._harness.rows.by(entity, name, value)

    async def insert(self, entity: str, values: Mapping[str, Any]) -> Row:
        self._number += 1
        return self._put(entity, f"row-{self._number}", values)

    async def update(self, entity: str, key: str, values: Mapping[str, Any]) -> Row:
        return self._put(entity, key, {**(self.get(entity, key) or {}), **values})

    async def upsert(self, entity: str, key: str, values: Mapping[str, Any]) -> Row:
        return self._put(entity, key, values)

    async def delete(self, entity: str, key: str) -> None:
        self._fail()
        rows = dict(self._harness.rows.rows.get(entity, {}))
        rows.pop(key, None)
        self._harness.rows.rows = {**self._harness.rows.rows, entity: rows}

    def _put(self, entity: str, key: str, values: Mapping[str, Any]) -> Row:
        self._fail()
        row = {name: value for name, value in values.items() if name != "ttl"}
        if values.get("ttl"):
            row["expires_at"] = self._harness.now + values["ttl"]
        return self._harness.store(entity, **{**row, "id": key})

    def _fail(self) -> None:
        if self.broken:
            raise RuntimeError("the database is away")


class FakeTallies:
    """Counters of a cluster; hosts may share them."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, int], float] = {}
        self.asked: list[str] = []
        self.broken = False

    async def add(self, tallies: Sequence[Tally]) -> list[float]:
        self._ask("add")
        for each in tallies:
            self.values[each.key, each.window] = self.values.get((each.key, each.window), 0) + each.amount
        return [self.values[each.key, each.window] for each in tallies]

    async def read(self, keys: Sequence[tuple[str, int]]) -> list[float]:
        self._ask("read")
        return [self.values.get(key, 0) for key in keys]

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.broken:
            raise RuntimeError("the database is away")


class FakeRedis:
    """A Redis server that knows the plugin's two scripts."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.lives: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.calls = 0
        self.broken = False

    async def script(self, script: bytes, keys: Sequence[Any] = (), args: Sequence[Any] = ()) -> list[int]:
        self.calls += 1
        if self.broken:
            raise RedisUnavailable("127.0.0.1:6379", "connection refused")
        for at, key in enumerate(keys):
            if script == scripts._COUNT:
                self._add(key, 1)
                if self.values[key] == 1:
                    self.lives[key] = args[at]
            else:
                assert script == scripts._ADD
                self._add(key, args[2 * at])
                if key not in self.lives:
                    self.ends.setdefault(key, args[2 * at + 1])
        return [self.values[key] for key in keys]

    async def command(self, *words: Any) -> Any:
        raise AssertionError("not asked for")

    def _add(self, key: str, amount: int) -> None:
        self.values[key] = self.values.get(key, 0) + amount


class _NoTimer:
    def cancel(self) -> None:
        pass


class FakeHost(Scope):
    """What a configuration under test is opened with."""

    def __init__(self, harness: PluginHarness) -> None:
        self.harness = harness
        self.now: Callable[[], float] = lambda: harness.now
        self.report = harness.reports.append
        self.rows: FakeRows = FakeRows(harness)
        self.tallies: FakeTallies = FakeTallies()
        self.server = FakeRedis()
        self.settings: RedisSettings | None = None
        self.timers: list[tuple[float, Callable[[], Any]]] = []
        self._spawned: list[Coroutine[Any, Any, object]] = []

    def open(self) -> None:
        """Open the harness's configuration."""
        harness = self.harness
        conf = harness.plugin.compile(harness.row["config"], harness.row)
        harness.conf = harness.plugin.open(conf, harness.row, self)

    def redis(self, settings: RedisSettings) -> FakeRedis:
        self.settings = settings
        return self.server

    def every(self, seconds: float, call: Callable[[], object]) -> _NoTimer:
        self.timers.append((seconds, call))
        return _NoTimer()

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, object]) -> None:
        self._spawned.append(coroutine)

    def run(self) -> None:
        """Run what was spawned."""
        spawned, self._spawned = self._spawned, []
        for each in spawned:
            finished(each)

    def tick(self) -> None:
        """Let every timer come once."""
        for _, call in self.timers:
            waiting = call()
            if isinstance(waiting, Awaitable):
                finished(waiting)
