"""Policy ``redis``: requests are counted in a Redis server, for all gateways that use it.

Keys are Kong's (3.9.3, ``kong/plugins/rate-limiting/policies``), so nodes of both count together:
``ratelimit:<route>:<service>:<who>:<start of the window in ms>:<period>``. A key lives for its period's nominal length.

With ``sync_rate`` -1 each request asks the server, and refused ones are counted, too. Else a process counts for itself on
top of what the server said last, and hands over what it counted every ``sync_rate`` seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from ...core.chain.failures import is_cancelled
from ...core.chain.host import Host
from ...core.counters import RateWindow
from ...core.rows import Row
from .._once import Seldom
from .._redis_fields import redis_settings
from .windows import PERIODS, key_prefix

__all__ = ["RedisCounts", "RedisSums", "SyncedCounts"]

_NAMES = tuple(PERIODS.items())

_COUNT = b"""
local counts = {}
for at, key in ipairs(KEYS) do
  counts[at] = redis.call('INCR', key)
  if counts[at] == 1 then redis.call('EXPIRE', key, ARGV[at]) end
end
return counts
"""
"""Counts one request in every key. ARGV: seconds each key lives from its first request on."""

_ADD = b"""
local counts = {}
for at, key in ipairs(KEYS) do
  counts[at] = redis.call('INCRBY', key, ARGV[2 * at - 1])
  if redis.call('TTL', key) < 0 then redis.call('EXPIREAT', key, ARGV[2 * at]) end
end
return counts
"""
"""Adds to every key. ARGV: for each key the number, and the epoch second at which a new one ends."""

_MOST = 65536
"""Windows that a process counts for itself in one configuration; requests beyond ask the server."""
_AT_ONCE = 500
"""Keys in one call."""


_NO_COUNTS = "the Redis server does not answer with counts; see whether it is one"


def _checked(answer: object, count: int) -> list[int]:
    """What a script answers, if it is so many numbers. Raises ValueError."""
    if not isinstance(answer, list) or len(answer) != count or not all(type(each) is int for each in answer):
        raise ValueError(_NO_COUNTS)
    return answer


class RedisSums:
    """Sums in a Redis server that are read first, and added to later.

    Args:
        redis: ``config.redis``.
        host: gives the server's client.
    """

    def __init__(self, redis: Row, host: Host) -> None:
        self._client = host.redis(redis_settings(redis))

    async def read(self, keys: Sequence[str]) -> list[int]:
        """The sums; nought where nobody has added."""
        found = await self._client.command("MGET", *keys)
        if not isinstance(found, list) or len(found) != len(keys):
            raise ValueError(_NO_COUNTS)
        return [0 if each is None else int(float(each)) for each in found]

    async def add(self, keys: Sequence[str], frames: Sequence[RateWindow], amount: int) -> None:
        """Add to each. A new one ends with its window."""
        words = [word for frame in frames for word in (amount, int(frame.expires))]
        _checked(await self._client.script(_ADD, keys, words), len(keys))


class RedisCounts:
    """Counts of one configuration, asked for at each request.

    Args:
        plugin: its row.
        redis: ``config.redis``.
        host: gives the server's client.
    """

    def __init__(self, plugin: Row, redis: Row, host: Host) -> None:
        self._prefix = key_prefix(plugin)
        self._client = host.redis(redis_settings(redis))
        self._frames: Sequence[RateWindow] = ()
        self._ends: tuple[str, ...] = ()

    def known(self, who: str, frames: Sequence[RateWindow], now: float) -> list[int] | None:
        """Nothing: the server is asked."""
        return None

    def keys(self, who: str, frames: Sequence[RateWindow]) -> list[str]:
        """Where a request is counted in each window."""
        if frames is not self._frames:  # they change with the shortest window
            self._ends = tuple(f":{(frame.window >> 3) * 1000}:{_NAMES[frame.window & 7][0]}" for frame in frames)
            self._frames = frames
        begin = self._prefix + who
        return [begin + end for end in self._ends]

    async def count(self, keys: Sequence[str], frames: Iterable[RateWindow]) -> list[int]:
        """Count a request in these keys; how many were counted in each with it."""
        lives = [_NAMES[frame.window & 7][1] for frame in frames]
        return _checked(await self._client.script(_COUNT, keys, lives), len(keys))

    async def take(self, who: str, frames: Sequence[RateWindow], now: float) -> list[int]:
        """See `Counts.take`."""
        return [count - 1 for count in await self.count(self.keys(who, frames), frames)]

    async def close(self) -> None:
        """Nothing is left to hand over."""


class _Window:
    """What a process knows of a key."""

    __slots__ = ("added", "expires", "known")

    def __init__(self, expires: float) -> None:
        self.known = 0  # what the server said last
        self.added = 0  # counted here since, not handed over yet; below nought: to be taken back
        self.expires = expires


class SyncedCounts(RedisCounts):
    """Counts of one configuration, handed over now and then.

    Args:
        plugin, redis, host: as `RedisCounts`.
        seconds: between two times.
    """

    def __init__(self, plugin: Row, redis: Row, host: Host, seconds: float) -> None:
        super().__init__(plugin, redis, host)
        self._now = host.now
        self._windows: dict[str, _Window] = {}
        self._tell = Seldom(host.report, host.now)
        host.every(seconds, self.hand_over)

    def known(self, who: str, frames: Sequence[RateWindow], now: float) -> list[int] | None:
        """See `Counts.known`: where the server has told of all windows lately."""
        found = []
        for key in self.keys(who, frames):
            window = self._windows.get(key)
            if window is None:
                return None
            found.append(window)
        return self._decided(found, frames)

    @staticmethod
    def _decided(windows: Sequence[_Window], frames: Sequence[RateWindow]) -> list[int]:
        used = [window.known + window.added for window in windows]
        if all(count < frame.limit for count, frame in zip(used, frames, strict=True)):
            for window in windows:
                window.added += 1
        return used

    async def take(self, who: str, frames: Sequence[RateWindow], now: float) -> list[int]:
        """See `Counts.take`. The server counts the request at once where it is asked: so other gateways learn of it."""
        keys = self.keys(who, frames)
        held = {key: self._windows.get(key) for key in keys}
        asked = [(key, frame) for key, frame in zip(keys, frames, strict=True) if held[key] is None]
        counts = await self.count([key for key, _ in asked], [frame for _, frame in asked])
        answered = {key: count for (key, _), count in zip(asked, counts, strict=True)}
        used, windows = [], []
        for key, frame in zip(keys, frames, strict=True):
            window = self._windows.get(key) or held[key] or _Window(frame.expires)
            if len(self._windows) < _MOST:
                self._windows[key] = window  # put back, too, where it was forgotten meanwhile
            windows.append(window)
            if key in answered:
                window.known = max(window.known, answered[key])
                used.append(answered[key] - 1)
            else:
                used.append(window.known + window.added)
        fits = all(count < frame.limit for count, frame in zip(used, frames, strict=True))
        for key, window in zip(keys, windows, strict=True):
            if fits != (key in answered):
                window.added += 1 if fits else -1
        return used

    # -- handing over ----------------------------------------------------------------------------------------------------

    async def hand_over(self) -> None:
        """Tell the server what was counted here, and learn what all have counted; forget what did not change here.

        Where that fails the numbers are thrown away, as in Kong: they may have arrived.
        """
        try:
            now = self._now()
            changed = {key: each for key, each in self._windows.items() if each.added and each.expires > now}
            self._windows = dict(changed)
            rest = iter(changed.items())
            while batch := list(islice(rest, _AT_ONCE)):
                await self._hand_over(batch)
        except Exception as error:
            if is_cancelled(error):
                raise
            self._windows = {}
            self._tell(f"rate-limiting: counts could not be handed over to Redis: {error}")

    async def _hand_over(self, batch: Sequence[tuple[str, _Window]]) -> None:
        words: list[int] = []
        for _, window in batch:
            words += (window.added, int(window.expires))
            window.known += window.added
            window.added = 0
        counts = _checked(await self._client.script(_ADD, [key for key, _ in batch], words), len(batch))
        for (_, window), count in zip(batch, counts, strict=True):
            window.known = count

    async def close(self) -> None:
        """Hand over what was counted since the last time."""
        await self.hand_over()
