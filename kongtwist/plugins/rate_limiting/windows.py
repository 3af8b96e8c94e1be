"""The windows a configuration counts in, and what clients are told of them.

Windows are fixed and begin at UTC calendar boundaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf
from typing import Protocol

from ...core.answers import Answer
from ...core.counters import RateWindow
from ...core.exchange import Exchange
from ...core.rows import Row
from .identity import Identify, identifier

__all__ = ["PERIODS", "Counts", "Limits", "Period", "decide", "key_prefix"]

PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "month": 2592000, "year": 31536000}
"""Nominal length in seconds. Months and years begin at the calendar's boundaries, but ``RateLimit-Reset`` counts from
the nominal length (Kong does so)."""

_NOBODY = "00000000-0000-0000-0000-000000000000"
_DRAFT = (b"ratelimit-limit", b"ratelimit-remaining", b"ratelimit-reset")


class Period:
    """One limited period of a configuration, with the parts of its headers that never change.

    Attributes:
        limit: requests; length: seconds, nominal; start: of the window running now, epoch seconds.
        position: among the periods of the configuration.
        names: of its headers, in lower case.
        opening: its headers up to the number of what remains.
        draft: the draft's headers up to that number.
    """

    __slots__ = ("draft", "index", "length", "limit", "name", "names", "opening", "position", "start")

    def __init__(self, name: str, limit: float, position: int) -> None:
        self.name = name
        self.position = position
        self.index = list(PERIODS).index(name)
        self.limit = int(limit) if limit == int(limit) else limit
        self.length = PERIODS[name]
        title = name.capitalize().encode()
        digits = _digits(self.limit)
        self.names = (b"x-ratelimit-limit-" + name.encode(), b"x-ratelimit-remaining-" + name.encode())
        # What stands before a number ends the line before it.
        begin = b"\r\n" if position else b""
        self.opening = b"%bX-RateLimit-Limit-%b: %b\r\nX-RateLimit-Remaining-%b: " % (begin, title, digits, title)
        self.draft = b"\r\nRateLimit-Limit: %b\r\nRateLimit-Remaining: " % digits
        self.start = 0

    def frame(self, now: float) -> RateWindow:
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
        return RateWindow(self.start * 8 + self.index, over, self.limit)  # `decide` takes the start from there


class Counts(Protocol):
    """Where requests are counted that are not counted on this node alone."""

    def known(self, who: str, frames: Sequence[RateWindow], now: float) -> list[int] | None:
        """As `take`, where that needs no waiting; else None, and nothing is counted."""
        ...

    async def take(self, who: str, frames: Sequence[RateWindow], now: float) -> list[int]:
        """Count a request, and say how many were counted in each window before it.

        Args:
            who: whom it is counted for.
            frames: the windows, in the order of the configuration's periods.
            now: epoch seconds.

        Raises:
            Exception: the counts are not to be had.
        """
        ...

    async def close(self) -> None:
        """Hand over what was not handed over yet."""
        ...


class Limits:
    """A configuration with the windows running now.

    Attributes:
        counts: who counts for the policies ``cluster`` and ``redis``; None: the node's own counters.
    """

    __slots__ = (
        "counts", "error_code", "fault_tolerant", "frames", "hide", "identify", "message", "names", "periods", "prefix", "since",
        "until",
    )  # fmt: skip

    def __init__(self, conf: Row, plugin: Row) -> None:
        limited = [name for name in PERIODS if conf[name] is not None]
        self.periods = [Period(name, conf[name], at) for at, name in enumerate(limited)]
        self.names = frozenset((*[name for period in self.periods for name in period.names], *_DRAFT))
        self.identify: Identify = identifier(conf)
        # Counted apart for each route or service the plugin is bound to, together everywhere for a global one.
        self.prefix = f"{_id(plugin['route'])}:{_id(plugin['service'])}:"
        self.counts: Counts | None = None
        self.hide: bool = conf["hide_client_headers"]
        self.error_code = int(conf["error_code"])
        self.message: str = conf["error_message"]
        self.fault_tolerant: bool = conf["fault_tolerant"]
        self.frames: tuple[RateWindow, ...] = ()
        self.since = self.until = 0.0

    def roll(self, now: float) -> tuple[RateWindow, ...]:
        """Open the windows of ``now``; they hold until the first of them is over."""
        self.frames = tuple(period.frame(now) for period in self.periods)
        self.since = float(max(period.start for period in self.periods))
        self.until = min(frame.expires for frame in self.frames)
        return self.frames


def decide(
    exchange: Exchange, conf: Limits, frames: Sequence[RateWindow], used: Sequence[int], moment: float
) -> Answer | None:
    """The answer for a request where a window is full, and headers for the client: those of each period, and the draft's
    three of the period that is nearest its end. One call, as every request comes here.

    Args:
        exchange: the request.
        conf: its configuration.
        frames: the windows; used: what was counted in each before this request.
        moment: epoch seconds.
    """
    full = None
    for period, count in zip(conf.periods, used):  # noqa: B905 - both are one per period, and this is per request
        if count >= period.limit:
            full = period
    if not conf.hide:
        nearest, least, least_text = conf.periods[0], inf, b""
        told: list[bytes] = []
        for period, count in zip(conf.periods, used):  # noqa: B905
            left = period.limit - count
            if full is None or full is period:
                left -= 1  # this request
            if left < 0:
                left = 0
            text = b"%d" % left if left.__class__ is int else _digits(left)
            told += (period.opening, text)
            if left <= least:  # of equals the longer one, and periods come in order of length
                nearest, least, least_text = period, left, text
        reset = nearest.length - int(moment) + (frames[nearest.position][0] >> 3)
        seconds = b"%d" % reset if reset > 1 else b"1"
        told += (nearest.draft, least_text, b"\r\nRateLimit-Reset: ", seconds, b"\r\n")
        exchange.set_prepared_lines(("lines", conf.names, b"".join(told)))
        if full is not None:
            exchange.set_response_header(b"Retry-After", seconds)
    return None if full is None else exchange.error(conf.error_code, conf.message)


def _digits(number: float) -> bytes:
    return b"%d" % number if number.__class__ is int else b"%.14g" % number  # as Lua prints numbers


def key_prefix(plugin: Row) -> str:
    """What the keys of a configuration's counters begin with where gateways share them: Kong's, route and service included."""
    route, service = plugin["route"], plugin["service"]
    return f"ratelimit:{route['id'] if route else _NOBODY}:{service['id'] if service else _NOBODY}:"


def _id(reference: Row | None) -> str:
    return "" if reference is None else str(reference["id"])
