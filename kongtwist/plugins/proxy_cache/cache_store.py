"""Answers in memory: found by key and variant, bounded in bytes; what was used longest ago goes first."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from ...core.chain.credentials import expired
from ...core.rows import Row

__all__ = ["Kept", "Store"]

_OVERHEAD = 1024
"""Bytes that an answer takes beside what it holds."""


class Kept:
    """An answer.

    Attributes:
        status, headers, body: as they are sent; headers without those of a connection.
        length: what HEAD says of the body; None: nothing.
        stored: epoch seconds.
        ttl: seconds for which it may be used.
        expires: epoch seconds at which it goes.
        size: bytes it takes.
    """

    __slots__ = ("body", "expires", "headers", "key", "length", "size", "status", "stored", "ttl", "variant")

    def __init__(
        self,
        key: str,
        status: int,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        length: int | None,
        stored: float,
        ttl: float,
        keep: float,
    ) -> None:
        self.key, self.status, self.headers, self.body, self.length = key, status, headers, body, length
        self.stored, self.ttl = stored, ttl
        self.expires = stored + keep if keep else inf
        self.size = _OVERHEAD + len(body) + sum(len(name) + len(value) + 100 for name, value in headers)
        self.variant = b""

    def told(self) -> dict[str, Any]:
        """The answer as the Admin API shows it."""
        headers: dict[str, Any] = {}
        for name, value in self.headers:
            text, shown = name.decode("latin-1"), value.decode("utf-8", "replace")
            before = headers.get(text)
            headers[text] = shown if before is None else [*(before if isinstance(before, list) else [before]), shown]
        headers["X-Cache-Key"] = self.key
        return {
            "status": self.status, "headers": headers, "body": self.body.decode("utf-8", "replace"), "body_len": len(self.body),
            "timestamp": int(self.stored), "ttl": self.ttl, "version": 1, "req_body": "",
        }  # fmt: skip


class _Variants:
    """The answers of one key."""

    __slots__ = ("kept", "vary")

    def __init__(self, vary: tuple[bytes, ...]) -> None:
        self.vary = vary
        self.kept: dict[bytes, Kept] = {}


class Store:
    """Answers in memory.

    Args:
        most: bytes they take together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: dict[str, _Variants] = {}
        self._used: dict[tuple[str, bytes], Kept] = {}  # the one used longest ago is first
        self.size = 0
        self._purges: Mapping[str, Row] = {}

    def __len__(self) -> int:
        return len(self._used)

    def vary(self, key: str) -> tuple[bytes, ...]:
        """Request headers that tell the answers of a key apart."""
        found = self._keys.get(key)
        return () if found is None else found.vary

    def vary_with(self, key: str, names: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The same once an answer has named these, too."""
        return tuple(sorted({*self.vary(key), *names}))

    def find(self, key: str, variant: bytes, now: float) -> Kept | None:
        """An answer that has not gone yet; whether it may be used is for the caller to say."""
        kept = self._used.pop((key, variant), None)
        if kept is None:
            return None
        self._used[key, variant] = kept
        if kept.expires <= now:
            self._drop(kept)
            return None
        return kept

    def put(self, kept: Kept, variant: bytes, vary: tuple[bytes, ...]) -> None:
        """Keep an answer in place of the one before.

        Args:
            kept: the answer.
            variant: made with ``vary``.
            vary: as `vary_with` gave it. Where the key has come to know more headers since, the answer is not kept.
        """
        if kept.size > self._most:
            return
        before = self._keys.get(kept.key)
        if before is not None and before.vary != vary:
            if not set(before.vary) < set(vary):
                return
            self.purge(kept.key)  # they could not be found any more
        old = self._used.get((kept.key, variant))
        if old is not None:
            self._drop(old)
        kept.variant = variant
        self._keys.setdefault(kept.key, _Variants(vary)).kept[variant] = kept
        self._used[kept.key, variant] = kept
        self.size += kept.size
        while self.size > self._most:
            self._drop(next(iter(self._used.values())))

    def follow(self, purges: Mapping[str, Row], now: float) -> None:
        """Forget what was purged on any node.

        Args:
            purges: rows of `PURGES` by id, which are followed once; the same mapping again costs nothing.
            now: epoch seconds.
        """
        before = self._purges
        if purges is before:
            return
        self._purges = purges
        for each in purges.keys() - before.keys():
            row = purges[each]
            key = row["cache_key"]
            if expired(row, now):  # followed before; whether such rows are still among them is not ours to say
                continue
            if key is None:
                self.clear()
            else:
                self.purge(key)

    def newest(self, key: str, now: float) -> Kept | None:
        """The newest answer of a key."""
        found = self._keys.get(key)
        living = [] if found is None else [each for each in found.kept.values() if each.expires > now]
        return max(living, key=lambda each: each.stored, default=None)

    def purge(self, key: str) -> bool:
        """Forget all answers of a key; whether there were any."""
        found = self._keys.get(key)
        for kept in () if found is None else tuple(found.kept.values()):
            self._drop(kept)
        return found is not None

    def clear(self) -> None:
        """Forget all."""
        self._keys.clear()
        self._used.clear()
        self.size = 0

    def _drop(self, kept: Kept) -> None:
        del self._used[kept.key, kept.variant]
        self.size -= kept.size
        found = self._keys[kept.key]
        del found.kept[kept.variant]
        if not found.kept:
            del self._keys[kept.key]
