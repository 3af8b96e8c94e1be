"""The plugin: the answer says what it costs, and who has used up a limit is refused from then on.

What was used is read before the upstream is asked, and what an answer costs is counted when its head has come: a stream that
stays open for hours counts from its beginning. (Kong counts when the answer is over.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from math import ceil, isfinite
from typing import NamedTuple

from ...core.chain.failures import is_cancelled
from ...core.chain.host import Host
from ...core.chain.plugin import Plugin
from ...core.counters import MOST_AT_ONCE, RateWindow
from ...core.exchange import Answer, Exchange
from ...core.rows import Row
from ...entities.forms import lua_number
from .._once import Seldom
from ..rate_limiting.identity import Identify, identifier
from ..rate_limiting.windows import Period
from .response_limit_fields import CONFIG, CONFIG_CHECKS
from .response_usage import ClusterUsage, NodeUsage, RedisUsage, Usage

__all__ = ["ResponseRateLimiting"]

_LONGEST = 32
"""Characters of a number."""


class _Limit:
    """A name with its limited periods, and the windows running now."""

    __slots__ = ("frames", "name", "periods")

    def __init__(self, name: str, conf: Row) -> None:
        self.name = name
        limited = [(period, limit) for period, limit in conf.items() if limit is not None]
        self.periods = [Period(period, limit, at) for at, (period, limit) in enumerate(limited)]
        self.frames: tuple[RateWindow, ...] = ()


class _Used(NamedTuple):
    """What was used when a request came: by limit, what remains in each window."""

    who: str
    frames: list[tuple[RateWindow, ...]]
    remaining: list[list[float]]


class Limits:
    """A configuration, ready for requests."""

    __slots__ = (
        "block", "fault_tolerant", "header", "hide", "host", "identify", "limits", "node", "policy", "redis",
        "seldom", "since", "until", "usage",
    )  # fmt: skip

    def __init__(self, conf: Row, plugin: Row) -> None:
        self.limits = [_Limit(name, each) for name, each in sorted(conf["limits"].items())]
        self.header: bytes = conf["header_name"].lower().encode()
        self.identify: Identify = identifier(conf)
        self.policy: str = conf["policy"]
        self.redis: Row = conf["redis"]
        self.block: bool = conf["block_on_first_violation"]
        self.hide: bool = conf["hide_client_headers"]
        self.fault_tolerant: bool = conf["fault_tolerant"]
        scope = ":".join("" if plugin[name] is None else str(plugin[name]["id"]) for name in ("route", "service"))
        self.node = NodeUsage(f"{scope}:")
        self.usage: Usage | None = None
        self.seldom: Seldom | None = None
        self.host: Host | None = None
        self.since = self.until = 0.0

    def roll(self, now: float) -> None:
        """See to it that the windows are those of ``now``."""
        if self.since <= now < self.until:
            return
        for limit in self.limits:
            limit.frames = tuple(period.frame(now) for period in limit.periods)
        self.since = float(max(period.start for limit in self.limits for period in limit.periods))
        self.until = min(frame.expires for limit in self.limits for frame in limit.frames)

    def costs(self, values: Sequence[bytes]) -> list[int]:
        """What an answer costs, by limit. What is no pair or no number costs nothing, and unknown names neither."""
        told: dict[str, int] = {}
        for part in b",".join(values).decode("latin-1").split(","):
            name, equals, number = part.partition("=")
            if equals:
                told[name.strip()] = _amount(number.strip())
        return [told.get(limit.name, 0) for limit in self.limits]


def _amount(text: str) -> int:
    """What one name costs; what is below nought costs nothing, parts of one cost one."""
    number = lua_number(text) if len(text) <= _LONGEST else ""
    if isinstance(number, str) or not isfinite(number) or number <= 0:
        return 0
    return int(min(ceil(number), MOST_AT_ONCE))


class ResponseRateLimiting(Plugin):
    """Answer 429 where a limit is used up: by the answer's own word, or before the upstream is asked."""

    name = "response-ratelimiting"
    priority = 900
    config = CONFIG
    config_checks = CONFIG_CHECKS
    example = {"limits": {"video": {"minute": 10}}, "policy": "local"}

    def compile(self, conf: Row, plugin: Row) -> Limits:
        return Limits(conf, plugin)

    def opens(self, conf: Limits) -> bool:
        return conf.policy != "local"

    def open(self, conf: Limits, plugin: Row, host: Host) -> Limits:
        conf.seldom = Seldom(host.report, host.now)
        conf.host = host
        conf.usage = ClusterUsage(plugin, host) if conf.policy == "cluster" else RedisUsage(plugin, conf.redis, host)
        return conf

    def access(self, exchange: Exchange, conf: Limits) -> Answer | Awaitable[Answer | None] | None:
        now = exchange.wall_started
        conf.roll(now)
        who = conf.identify(exchange) or exchange.client_ip
        if conf.policy != "local":
            return self._access_elsewhere(exchange, conf, who)
        wanted = [(limit.name, limit.frames) for limit in conf.limits]
        return self._decide(exchange, conf, who, conf.node.read(exchange.gateway.counters.windows, who, wanted))

    async def _access_elsewhere(self, exchange: Exchange, conf: Limits, who: str) -> Answer | None:
        wanted = [(limit.name, limit.frames) for limit in conf.limits]
        if conf.usage is None:
            raise RuntimeError("response-ratelimiting: answers cannot be counted in this process")
        try:
            counts = await conf.usage.read(who, wanted)
        except Exception as error:
            if is_cancelled(error):
                raise
            _missing(conf, error)
            return None if conf.fault_tolerant else exchange.error(500, "An unexpected error occurred")
        return self._decide(exchange, conf, who, counts)

    def _decide(self, exchange: Exchange, conf: Limits, who: str, counts: Sequence[Sequence[int]]) -> Answer | None:
        remaining: list[list[float]] = [
            [period.limit - count for period, count in zip(limit.periods, used, strict=True)]
            for limit, used in zip(conf.limits, counts, strict=True)
        ]
        for limit, left in zip(conf.limits, remaining, strict=True):
            least = min(left)
            if conf.block and least <= 0:
                return exchange.error(429, f"API rate limit exceeded for '{limit.name}'")
            if not conf.hide:
                exchange.set_response_header(f"X-RateLimit-Remaining-{limit.name}".encode(), _shown(least))
        frames = [limit.frames for limit in conf.limits]
        exchange.own(self.name)["used"] = _Used(who, frames, remaining)
        return None

    def header_filter(self, exchange: Exchange, conf: Limits) -> Answer | None:
        block = exchange.response_fields
        values = [] if block is None or exchange.own_lines else block.all(conf.header)
        if values:
            exchange.clear_response_header(conf.header)
        used: _Used | None = exchange.own(self.name).get("used")
        if used is None:
            return None
        costs = conf.costs(values) if values else [0] * len(conf.limits)
        over = False
        for limit, left, cost in zip(conf.limits, used.remaining, costs, strict=True):
            over = over or (cost > 0 and min(left) <= 0)
            if conf.hide:
                continue
            for period, rest in zip(limit.periods, left, strict=True):
                name = f"{limit.name}-{period.name}"
                exchange.set_response_header(f"X-RateLimit-Limit-{name}".encode(), _shown(period.limit))
                exchange.set_response_header(f"X-RateLimit-Remaining-{name}".encode(), _shown(max(0, rest - cost)))
        if over:
            return exchange.exit(429)
        self._count(exchange, conf, used, costs)
        return None

    def _count(self, exchange: Exchange, conf: Limits, used: _Used, costs: Sequence[int]) -> None:
        spent = [
            (limit.name, frames, cost)
            for limit, frames, cost in zip(conf.limits, used.frames, costs, strict=True)
            if cost
        ]
        if not spent:
            return
        if conf.usage is None or conf.host is None:
            windows = exchange.gateway.counters.windows
            for name, frames, cost in spent:
                conf.node.add(windows, used.who, name, frames, cost, exchange.wall_started)
            return
        counting = _counted(conf, conf.usage, used.who, spent)
        conf.host.spawn("response-ratelimiting: count what an answer costs", counting)


async def _counted(
    conf: Limits, usage: Usage, who: str, spent: Sequence[tuple[str, Sequence[RateWindow], int]]
) -> None:
    try:
        for name, frames, cost in spent:
            await usage.add(who, name, frames, cost)
    except Exception as error:
        if is_cancelled(error):
            raise
        if conf.seldom is not None:
            conf.seldom(f"response-ratelimiting: an answer was not counted by policy {conf.policy}: {error}")


def _missing(conf: Limits, error: Exception) -> None:
    becomes = "pass uncounted" if conf.fault_tolerant else "are answered 500"
    if conf.seldom is not None:
        conf.seldom(f"response-ratelimiting: no counts by policy {conf.policy}, requests {becomes}: {error}")


def _shown(number: float) -> bytes:
    return b"%d" % number if isinstance(number, int) else b"%.14g" % number
