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
        lines: its headers, with a place for the number of what remains.
        draft: the draft's headers up to the seconds, with a place for that number.
        form: where it is the period nearest its end: for which epoch second, the headers of all periods and of the draft with places for
            the numbers, and the seconds left; made once a second.
    """

    __slots__ = ("draft", "form", "index", "length", "limit", "lines", "name", "names", "position", "start")

    def __init__(self, name: str, limit: float, position: int) -> None:
        self.name = name
        self.position = position
        self.index = list(PERIODS).index(name)
        self.limit = int(limit) if limit == int(limit) else limit
        self.length = PERIODS[name]
        title = name.capitalize().encode()
        digits = _digits(self.limit)
        self.names = (b"x-ratelimit-limit-" + name.encode(), b"x-ratelimit-remaining-" + name.encode())
        remains = _directive(self.limit)
        self.lines = b"X-RateLimit-Limit-%b: %b\r\nX-RateLimit-Remaining-%b: %b\r\n" % (title, digits, title, remains)
        self.draft = b"RateLimit-Limit: %b\r\nRateLimit-Remaining: %b\r\nRateLimit-Reset: " % (digits, remains)
        self.form: tuple[int, bytes, bytes] | None = None
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

    def form(self, nearest: Period, frames: Sequence[RateWindow], second: int) -> tuple[int, bytes, bytes]:
        """`Period.form` of the period nearest its end."""
        reset = nearest.length - second + (frames[nearest.position][0] >> 3)
        seconds = b"%d" % reset if reset > 1 else b"1"
        lines = b"".join([period.lines for period in self.periods])
        nearest.form = made = (second, b"%b%b%b\r\n" % (lines, nearest.draft, seconds), seconds)
        return made


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
        nearest, least = conf.periods[0], inf
        remaining: list[float] = []
        for period, count in zip(conf.periods, used):  # noqa: B905
            left = period.limit - count
            if full is None or full is period:
                left -= 1  # this request
            if left < 0:
                left = 0
            remaining.append(left)
            if left <= least:  # of equals the longer one, and periods come in order of length
                nearest, least = period, left
        second = int(moment)
        form = nearest.form
        if form is None or form[0] != second:
            form = conf.form(nearest, frames, second)
        remaining.append(least)
        exchange.set_prepared_lines(("lines", conf.names, form[1] % tuple(remaining)))
        if full is not None:
            exchange.set_response_header(b"Retry-After", form[2])
    return None if full is None else exchange.error(conf.error_code, conf.message)


def _directive(number: float) -> bytes:
    """How a number of this kind is formatted."""
    return b"%d" if number.__class__ is int else b"%.14g"


def _digits(number: float) -> bytes:
    return _directive(number) % number  # as Lua prints numbers


def key_prefix(plugin: Row) -> str:
    """What the keys of a configuration's counters begin with where gateways share them: Kong's, route and service included."""
    route, service = plugin["route"], plugin["service"]
    return f"ratelimit:{route['id'] if route else _NOBODY}:{service['id'] if service else _NOBODY}:"


def _id(reference: Row | None) -> str:
    return "" if reference is None else str(reference["id"])
