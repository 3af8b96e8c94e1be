"""Consistent hashing: from a request to a place on a ring, from the place to the next available target (Kong 3.9)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import quote

from ..http.lookups import variable
from ..http.uri import normalise

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..rows import Row

__all__ = ["HashInput", "Ring", "xxhash32"]

T = TypeVar("T")

STEP = 20_000
"""Entries that are put on a ring at a stretch: some 3 ms. One whose hash is not known yet counts as `HASH_COST`."""

HASH_COST = 50

ENTRIES = 160
"""Entries on the ring of a target of average weight. Where those of all would take more than half of the points, each has fewer."""

_COOKIE_MADE = "balancer.cookie"
"""Where the cookie made for a request is kept, so that a retry hashes the same."""

_MASK = 0xFFFFFFFF
_PRIMES = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def xxhash32(data: bytes, seed: int = 0) -> int:
    """The XXH32 hash (xxHash specification 0.1.1)."""
    one, two, three, four, five = _PRIMES
    size = len(data)
    offset = 0
    if size >= 16:
        lanes = [(seed + one + two) & _MASK, (seed + two) & _MASK, seed & _MASK, (seed - one) & _MASK]
        while offset + 16 <= size:
            for lane in range(4):
                word = int.from_bytes(data[offset : offset + 4], "little")
                lanes[lane] = _rotate((lanes[lane] + word * two) & _MASK, 13) * one & _MASK
                offset += 4
        value = sum(_rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
    else:
        value = (seed + five) & _MASK
    value = (value + size) & _MASK
    while offset + 4 <= size:
        word = int.from_bytes(data[offset : offset + 4], "little")
        value = _rotate((value + word * three) & _MASK, 17) * four & _MASK
        offset += 4
    for byte in data[offset:]:
        value = _rotate((value + byte * five) & _MASK, 11) * one & _MASK
    value = (value ^ (value >> 15)) * two & _MASK
    value = (value ^ (value >> 13)) * three & _MASK
    return value ^ (value >> 16)


class Ring(Generic[T]):
    """A ring of points with entries of each member.

    Args:
        members: (member, its name, its weight). A weight of 0 gets no entry.
        slots: points on the ring, at least 1000.
        previous: the ring before a change; hashes of names that it had are taken over, for they are most of the work.
    """

    __slots__ = ("_hashes", "_members", "_places", "points")

    def __init__(self, members: Iterable[tuple[T, str, int]], slots: int, previous: Ring[T] | None = None) -> None:
        for _ in self._made(members, slots, previous):
            pass

    @classmethod
    def steps(
        cls, members: Iterable[tuple[T, str, int]], slots: int, previous: Ring[T] | None = None
    ) -> Generator[None, None, Ring[T]]:
        """Make one in steps: a few members are one."""
        made = cls.__new__(cls)
        yield from made._made(members, slots, previous)
        return made

    def _made(
        self, members: Iterable[tuple[T, str, int]], slots: int, previous: Ring[T] | None
    ) -> Generator[None, None, None]:
        weighted = [(member, name, weight) for member, name, weight in members if weight]
        self.points = max(slots, 1000)
        while self.points < 2 * len(weighted):
            self.points *= 2
        total = sum(weight for _, _, weight in weighted)
        each = min(ENTRIES, self.points // (2 * len(weighted))) if weighted else 0
        known = {} if previous is None else previous._hashes
        self._hashes: dict[str, list[int]] = {}
        entries: dict[int, T] = {}
        done = 0
        for member, name, weight in weighted:
            count = max(1, weight * len(weighted) * each // total)
            before = known.get(name, [])
            hashes: list[int] = []
            placed = False
            while len(hashes) < count or not placed:
                if len(hashes) < len(before):
                    value = before[len(hashes)]
                else:
                    value = xxhash32(f"{name} {len(hashes) + 1}".encode())
                    done += HASH_COST
                    if done >= STEP:
                        done = 0
                        yield
                hashes.append(value)
                # Of two entries on one point the first stays. Kong gives the other one another point instead; then a target that comes
                # or goes moves keys of all the others, too. One that has none of its points gets the next that is free.
                placed |= entries.setdefault(value % self.points, member) is member
            self._hashes[name] = hashes
            done += len(hashes)
            if done >= STEP:
                done = 0
                yield
        self._places = sorted(entries)
        self._members = [entries[place] for place in self._places]

    def find(self, value: bytes, acceptable: Callable[[T], bool]) -> T | None:
        """The acceptable member whose entry is nearest at or below the value's point, round the ring."""
        members = self._members
        start = bisect_right(self._places, xxhash32(value) % self.points) - 1
        refused: set[int] = set()
        for step in range(len(members)):
            member = members[start - step]
            if id(member) in refused:
                continue
            if acceptable(member):
                return member
            refused.add(id(member))
        return None


class HashInput:
    """What of a request is hashed: ``hash_on``, and ``hash_fallback`` where that gives nothing.

    Args:
        upstream: the upstream row, whose ``hash_on`` is not ``none``.
    """

    __slots__ = ("_cookie", "_cookie_path", "_fallback", "_on")

    def __init__(self, upstream: Row) -> None:
        self._on = (upstream["hash_on"], self._argument(upstream, "hash_on"))
        fallback = upstream.get("hash_fallback") or "none"
        self._fallback = (fallback, self._argument({**upstream, "hash_fallback": fallback}, "hash_fallback"))
        self._cookie = upstream.get("hash_on_cookie") or ""
        self._cookie_path = upstream.get("hash_on_cookie_path") or "/"

    @classmethod
    def of(cls, upstream: Row) -> HashInput | None:
        """The input an upstream asks for, or None when it hashes nothing."""
        return None if (upstream.get("hash_on") or "none") == "none" else cls(upstream)

    @staticmethod
    def _argument(upstream: Row, which: str) -> str:
        """The header, query argument or capture that ``hash_on`` or ``hash_fallback`` names."""
        return upstream.get(f"{which}_{upstream[which]}") or ""

    def value(self, exchange: Exchange) -> bytes:
        """The bytes to hash for a request; ``b""`` where neither input gives any.

        A client without the cookie gets one (in the answer), so that it is known again.
        """
        value = self._of(exchange, *self._on)
        if value is None:
            value = self._of(exchange, *self._fallback)
        return value or b""

    def _of(self, exchange: Exchange, kind: str, argument: str) -> bytes | None:
        if kind == "consumer":
            who = exchange.consumer or exchange.credential
            return None if who is None else str(who["id"]).encode()
        if kind == "ip":
            return exchange.client_ip.encode()
        if kind == "header":
            values = variable(exchange.block, argument.lower().encode())
            return b",".join(sorted(values)) if values else None
        if kind == "cookie":
            return self._of_cookie(exchange)
        if kind == "path":
            return normalise(exchange.raw_path)
        if kind == "query_arg":
            arguments = exchange.query_args().get(argument)
            return ",".join(sorted(arguments)).encode() if arguments else None
        if kind == "uri_capture":
            captures = exchange.match.captures
            return captures.get(argument) if captures else None
        return None

    def _of_cookie(self, exchange: Exchange) -> bytes:
        name = self._cookie.encode()
        for field in exchange.get_headers(b"cookie"):
            for pair in field.split(b";"):
                key, _, value = pair.strip().partition(b"=")
                if key == name and value:
                    return value
        made = exchange.ctx.get(_COOKIE_MADE)
        if made is None:
            made = exchange.ctx[_COOKIE_MADE] = exchange.gateway.new_id()
            path = quote(self._cookie_path, safe="/:@!$&()*+,=~%")
            cookie = f"{self._cookie}={made}; Path={path}; Same-Site=Lax; HttpOnly"
            exchange.add_response_header(b"Set-Cookie", cookie.encode())
        return str(made).encode()
