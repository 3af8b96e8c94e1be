"""rate-limiting: so many requests per second, minute, hour, day, month and year. Kong 3.9 `rate-limiting`.

Windows are fixed and begin at UTC calendar boundaries. Policy ``local`` counts per node, over all its workers (how
exactly: core/counters.py). The policies ``cluster`` and ``redis`` are valid configuration, as in Kong, but are not
built: such a plugin is not let pass silently, its requests are answered 500 and the log says why.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ..core.chain.plugin import Plugin
from ..core.counters import Frame
from ..core.exchange import Answer, Exchange, Row
from ..core.http.uri import normalise
from ..entities.checks import AtLeastOneOf, Conditional
from ..entities.entity import Config as ConfigRecord
from ..entities.entity import Shorthand
from ..entities.schema import Any_, Boolean, Field, Integer, Number, Record, String
from ..entities.typedefs import SEGMENTS, header_name, host, path, sni

__all__ = ["PERIODS", "RateLimiting"]

PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "month": 2592000, "year": 31536000}
"""Nominal length in seconds. Months and years begin at the calendar's boundaries, but ``RateLimit-Reset`` counts from
the nominal length (Kong does so)."""

_DRAFT = (b"ratelimit-limit", b"ratelimit-remaining", b"ratelimit-reset")
_DIGITS = tuple(str(number).encode() for number in range(2001))


_REDIS: dict[str, Field] = {
    "host": String(checks=(host,), text="Host of the Redis server (policy redis)."),
    "port": Integer(default=6379, between=[0, 65535], text="The TCP port of the server."),
    "timeout": Integer(default=2000, between=[0, 2147483646], text="Milliseconds to connect, send and read, each."),
    "username": String(referenceable=True, text="User to log in as; null: none."),
    "password": String(encrypted=True, referenceable=True, len_min=0, text="Password to log in with; null: none."),
    "database": Integer(default=0, text="Number of the database."),
    "ssl": Boolean(required=False, default=False, text="Connect with TLS."),
    "ssl_verify": Boolean(required=False, default=False, text="Verify the server's certificate."),
    "server_name": String(required=False, checks=(sni,), text="Server name for TLS; null: the host."),
}


def _alias(name: str, kind: type[Field], **attrs: Any) -> tuple[str, Shorthand]:
    """A deprecated ``redis_<name>`` beside ``redis.<name>``."""
    words = f"rate-limiting: config.redis_{name} is deprecated, please use config.redis.{name} instead"
    deprecation = {"message": words, "removal_in_version": "4.0", "replaced_with": [{"path": ["redis", name]}]}
    return f"redis_{name}", Shorthand(
        kind(deprecation=deprecation, **attrs),
        lambda value: {"redis": {name: value}},
        lambda config: config["redis"][name],
    )


def _limits_in_order(conf: Row) -> str | None:
    """No lower limit for a longer period; a sync_rate only with policy redis."""
    periods = [name for name in PERIODS if conf.get(name) is not None]
    for at, shorter in enumerate(periods):
        for longer in periods[at + 1 :]:
            if conf[longer] < conf[shorter]:
                return (
                    f"The limit for {longer}({conf[longer]:.1f}) cannot be lower than"
                    f" the limit for {shorter}({conf[shorter]:.1f})"
                )
    rate = conf.get("sync_rate")
    if conf.get("policy") != "redis" and rate != -1:
        return "sync_rate can only be used with the redis policy"
    if conf.get("policy") == "redis" and rate != -1 and (rate is None or rate < 0.02):
        return "sync_rate must be greater than 0.02, or -1 to disable"
    return None


def _requires(if_field: str, value: str, then_field: str) -> Conditional:
    shown = {
        "if_field": if_field, "if_match": {"eq": value}, "then_field": then_field, "then_match": {"required": True},
    }  # fmt: skip
    return Conditional(if_field, String(one_of=[value]), then_field, Any_(required=True), shown)


CONFIG = ConfigRecord(
    {
        **{name: Number(gt=0, text=f"Requests let through per {name}; null: no limit.") for name in PERIODS},
        "limit_by": String(
            default="consumer", one_of=["consumer", "credential", "ip", "service", "header", "path"],
            text="What is counted apart; where a request has none such its client's address counts.",
        ),
        "header_name": String(checks=(header_name,), text="The header for limit_by header."),
        "path": String(
            starts_with="/", match_none=SEGMENTS, checks=(path,), text="The request path for limit_by path."
        ),
        "policy": String(
            default="local", one_of=["local", "cluster", "redis"], len_min=0,
            text="Where is counted: local is per node. cluster and redis are not built: answered 500.",
        ),
        "fault_tolerant": Boolean(
            required=True, default=True, text="Let requests pass when counting fails; false: answer 500."
        ),
        "redis": Record(_REDIS, text="The Redis server of policy redis."),
        "hide_client_headers": Boolean(required=True, default=False, text="Tell clients nothing about their limits."),
        "error_code": Number(default=429, gt=0, text="HTTP status of refusals."),
        "error_message": String(default="API rate limit exceeded", text="Message of refusals."),
        "sync_rate": Number(
            required=True, default=-1, text="Seconds between updates of Redis (policy redis); -1: at each request."
        ),
    },
    checks=(_limits_in_order,),
    shorthands=dict((
        _alias("host", String), _alias("port", Integer), _alias("password", String, len_min=0),
        _alias("username", String), _alias("ssl", Boolean), _alias("ssl_verify", Boolean),
        _alias("server_name", String), _alias("timeout", Integer), _alias("database", Integer),
    )),
)  # fmt: skip


class Period:
    """One limited period of a configuration, with the parts of its headers that never change.

    Attributes:
        limit: requests; length: seconds, nominal; start: of the window running now, epoch seconds.
        names: of its headers, in lower case.
        lines: its headers, with a place for what remains.
        draft_line: the draft's header with its limit.
    """

    __slots__ = ("draft_line", "index", "length", "limit", "lines", "name", "names", "start")

    def __init__(self, name: str, limit: float) -> None:
        self.name = name
        self.index = list(PERIODS).index(name)
        self.limit = int(limit) if limit == int(limit) else limit
        self.length = PERIODS[name]
        title = name.capitalize().encode()
        digits = _digits(self.limit)
        self.names = (b"x-ratelimit-limit-" + name.encode(), b"x-ratelimit-remaining-" + name.encode())
        self.lines = b"X-RateLimit-Limit-%b: %b\r\nX-RateLimit-Remaining-%b: %%b\r\n" % (title, digits, title)
        self.draft_line = b"RateLimit-Limit: %b\r\n" % digits
        self.start = 0

    def frame(self, now: float) -> Frame:
        """The window running at ``now`` (epoch seconds)."""
        if self.name in ("month", "year"):
            today = datetime.fromtimestamp(now, UTC)
            month = today.month if self.name == "month" else 1
            begin = datetime(today.year, month, 1, tzinfo=UTC)
            if self.name == "month":
                end = datetime(today.year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
            else:
                end = datetime(today.year + 1, 1, 1, tzinfo=UTC)
            self.start = int(begin.timestamp())
            over = end.timestamp()
        else:
            self.start = int(now) // self.length * self.length
            over = self.start + self.length
        return Frame(self.start * 8 + self.index, over, self.limit)


class Config:
    """A configuration with the windows running now."""

    __slots__ = (
        "error_code", "fault_tolerant", "frames", "hide", "identify", "message", "names", "periods", "prefix", "since", "told",
        "until",
    )  # fmt: skip

    def __init__(self, conf: Row, plugin: Row) -> None:
        self.periods = [Period(name, conf[name]) for name in PERIODS if conf[name] is not None]
        # The headers for clients, with places for numbers: one form for each period that may be nearest its end.
        lines = b"".join([period.lines for period in self.periods])
        draft = b"RateLimit-Remaining: %b\r\nRateLimit-Reset: %b\r\n"
        self.told = {period: lines + period.draft_line + draft for period in self.periods}
        self.names = frozenset((*[name for period in self.periods for name in period.names], *_DRAFT))
        self.identify = _identifier(conf)
        # Counted apart for each route or service the plugin is bound to, together everywhere for a global one.
        self.prefix = f"{_id(plugin['route'])}:{_id(plugin['service'])}:"
        self.hide: bool = conf["hide_client_headers"]
        self.error_code = int(conf["error_code"])
        self.message: str = conf["error_message"]
        self.fault_tolerant: bool = conf["fault_tolerant"]
        self.frames: tuple[Frame, ...] = ()
        self.since = self.until = 0.0

    def roll(self, now: float) -> tuple[Frame, ...]:
        """Open the windows of ``now``; they hold until the first of them is over."""
        self.frames = tuple(period.frame(now) for period in self.periods)
        self.since = float(max(period.start for period in self.periods))
        self.until = min(frame.expires for frame in self.frames)
        return self.frames


class RateLimiting(Plugin):
    """Count the request; answer 429 when a window is full. A refused request is not counted."""

    name = "rate-limiting"
    priority = 910
    config = CONFIG
    example = {"minute": 100, "policy": "local"}
    config_checks = (
        AtLeastOneOf(*(f"config.{name}" for name in PERIODS)),
        _requires("config.policy", "redis", "config.redis.host"),
        _requires("config.policy", "redis", "config.redis.port"),
        _requires("config.policy", "redis", "config.redis.timeout"),
        _requires("config.limit_by", "header", "config.header_name"),
        _requires("config.limit_by", "path", "config.path"),
    )

    def compile(self, conf: Row, plugin: Row) -> Config:
        if conf["policy"] != "local":
            raise ValueError(f"policy '{conf['policy']}' is not available in this version, only 'local' is")
        return Config(conf, plugin)

    def access(self, exchange: Exchange, conf: Config) -> Answer | None:
        now = exchange.wall_started
        frames = conf.frames if conf.since <= now < conf.until else conf.roll(now)
        who = conf.identify(exchange)
        key = conf.prefix + (exchange.client_ip if who is None else who)
        try:
            used = exchange.gateway.counters.windows.take(key, frames, now)
        except Exception as error:
            if not conf.fault_tolerant:
                raise
            exchange.report(f"rate-limiting let a request pass uncounted: {error!r}")
            return None
        full = None
        for period, count in zip(conf.periods, used):  # noqa: B905 - both are one per period, and this is per request
            if count >= period.limit:
                full = period
        if not conf.hide:
            _tell(exchange, conf, used, full, int(now))
        if full is not None:
            return exchange.error(conf.error_code, conf.message)
        return None


def _tell(exchange: Exchange, conf: Config, used: list[int], full: Period | None, now: int) -> None:
    """Headers for the client: those of each period, and the draft's three of the period that is nearest its end."""
    nearest = conf.periods[0]
    least: float = nearest.limit
    numbers = []
    for period, count in zip(conf.periods, used):  # noqa: B905
        left = period.limit - count
        if full is None or full is period:
            left -= 1  # this request
        if left < 0:
            left = 0
        if left <= least:  # of equals the longer one, and periods come in order of length
            nearest, least = period, left
        numbers.append(_digits(left))
    reset = nearest.length - now + nearest.start
    seconds = _digits(reset if reset > 1 else 1)
    exchange.set_response_lines(conf.names, conf.told[nearest] % (*numbers, _digits(least), seconds))
    if full is not None:
        exchange.set_response_header(b"Retry-After", seconds)


def _digits(number: float) -> bytes:
    if number.__class__ is int:
        return _DIGITS[number] if number <= 2000 else b"%d" % number
    return b"%.14g" % number  # as Lua prints numbers


def _id(reference: Row | None) -> str:
    return "" if reference is None else str(reference["id"])


def _identifier(conf: Row) -> Callable[[Exchange], str | None]:
    """What a configuration counts by. None from it: the client's address instead."""
    by: str = conf["limit_by"]
    if by == "header":
        header: bytes = conf["header_name"].lower().encode()
        return lambda exchange: _decoded(exchange.get_header(header))
    if by == "path":
        path: bytes = conf["path"].encode()
        text: str = conf["path"]
        return lambda exchange: text if path in (exchange.raw_path, normalise(exchange.raw_path)) else None
    return {"consumer": _consumer, "credential": _credential, "service": _service}.get(by, _address)


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "surrogateescape")


def _consumer(exchange: Exchange) -> str | None:
    found: dict[str, Any] | None = exchange.consumer or exchange.credential
    return None if found is None else found["id"]


def _credential(exchange: Exchange) -> str | None:
    return None if exchange.credential is None else exchange.credential["id"]


def _service(exchange: Exchange) -> str | None:
    service = exchange.route.service
    return None if service is None else service["id"]


def _address(exchange: Exchange) -> str | None:
    return exchange.client_ip
