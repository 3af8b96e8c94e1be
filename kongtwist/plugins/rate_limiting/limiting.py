"""rate-limiting: so many requests per second, minute, hour, day, month and year. Kong 3.9 `rate-limiting`.

Policy ``local`` counts per node, over all its workers (how exactly: core/counters.py), ``cluster`` in the database for all
nodes (cluster_counts.py), ``redis`` in a Redis server (redis_counts.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from ...core.chain.failures import is_cancelled
from ...core.chain.host import Host
from ...core.chain.plugin import Plugin
from ...core.counters import RateWindow
from ...core.exchange import Answer, Exchange
from ...core.rows import Row
from .._once import Seldom
from .cluster_counts import ClusterCounts
from .limiting_fields import CONFIG, CONFIG_CHECKS
from .redis_counts import RedisCounts, SyncedCounts
from .windows import Counts, Limits, decide

__all__ = ["RateLimiting"]


class _NotOpen:
    """Stands for the counters of a configuration that was not opened: its requests are not let pass uncounted."""

    def known(self, who: str, frames: Sequence[RateWindow], now: float) -> list[int] | None:
        raise RuntimeError("rate-limiting: requests cannot be counted in this process")

    async def take(self, who: str, frames: Sequence[RateWindow], now: float) -> list[int]:
        raise RuntimeError("rate-limiting: requests cannot be counted in this process")

    async def close(self) -> None:
        """Nothing was opened."""


class Elsewhere(Limits):
    """A configuration whose requests are counted elsewhere than on this node."""

    __slots__ = ("policy", "redis", "seldom", "sync_rate")

    def __init__(self, conf: Row, plugin: Row) -> None:
        super().__init__(conf, plugin)
        self.policy: str = conf["policy"]
        self.redis: Row = conf["redis"]
        self.sync_rate: float = conf["sync_rate"]
        self.seldom: Seldom | None = None
        self.counts: Counts = _NotOpen()


class RateLimiting(Plugin):
    """Count the request; answer 429 when a window is full. A refused request is not counted, but for policy ``redis``."""

    name = "rate-limiting"
    priority = 910
    config = CONFIG
    example = {"minute": 100, "policy": "local"}
    config_checks = CONFIG_CHECKS

    def compile(self, conf: Row, plugin: Row) -> Limits:
        if conf["policy"] == "local":
            return Limits(conf, plugin)
        if conf["policy"] not in ("cluster", "redis"):
            raise ValueError(f"rate-limiting: there is no policy {conf['policy']}")
        return Elsewhere(conf, plugin)

    def opens(self, conf: Limits) -> bool:
        return isinstance(conf, Elsewhere)

    def open(self, conf: Elsewhere, plugin: Row, host: Host) -> Elsewhere:
        conf.seldom = Seldom(host.report, host.now)
        conf.counts = _counts(conf, plugin, host)
        return conf

    def close(self, conf: Elsewhere) -> Awaitable[None]:
        return conf.counts.close()

    def access(self, exchange: Exchange, conf: Limits) -> Answer | Awaitable[Answer | None] | None:
        now = exchange.wall_started
        frames = conf.frames if conf.since <= now < conf.until else conf.roll(now)
        who = conf.identify(exchange)
        if who is None:
            who = exchange.client_ip
        if conf.counts is not None:
            known = conf.counts.known(who, frames, now)
            if known is None:
                return self._access_elsewhere(exchange, conf, conf.counts, who, frames, now)
            return decide(exchange, conf, frames, known, now)
        try:
            used = exchange.gateway.counters.windows.take(conf.prefix + who, frames, now)
        except Exception as error:
            if not conf.fault_tolerant:
                raise
            exchange.report(f"rate-limiting let a request pass uncounted: {error!r}")
            return None
        return decide(exchange, conf, frames, used, now)

    async def _access_elsewhere(
        self, exchange: Exchange, conf: Limits, counts: Counts, who: str, frames: Sequence[RateWindow], now: float
    ) -> Answer | None:
        try:
            used = await counts.take(who, frames, now)
        except Exception as error:
            if is_cancelled(error):
                raise
            return _without_counts(exchange, conf, error)
        return decide(exchange, conf, frames, used, now)


def _counts(conf: Elsewhere, row: Row, host: Host) -> Counts:
    """Who counts for a configuration in a process that serves."""
    if conf.policy == "cluster":
        return ClusterCounts(row, host)
    if conf.sync_rate == -1:
        return RedisCounts(row, conf.redis, host)
    return SyncedCounts(row, conf.redis, host, conf.sync_rate)


def _without_counts(exchange: Exchange, conf: Limits, error: Exception) -> Answer | None:
    """Nobody can say how many requests there were (``fault_tolerant``)."""
    assert isinstance(conf, Elsewhere)
    becomes = "pass uncounted" if conf.fault_tolerant else "are answered 500"
    if conf.seldom is not None:
        conf.seldom(f"rate-limiting: no counts by policy {conf.policy}, requests {becomes}: {error}")
    return None if conf.fault_tolerant else exchange.error(500, "An unexpected error occurred")
