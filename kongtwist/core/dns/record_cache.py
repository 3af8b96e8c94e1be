"""What was answered, for as long as it holds."""

from __future__ import annotations

from typing import NamedTuple

from .records import Record
from .settings import NameSettings

__all__ = ["RecordCache", "RecordSet"]


class RecordSet(NamedTuple):
    """What is known about one question.

    Attributes:
        records: none where the question has a negative answer.
        expires: monotonic seconds at which it has to be asked for again.
        stale: until when the records may be used though that failed.
        alias: name that has the records, where the reply did not have them.
        fault: why there are no records, in Kong's words.
        absent: a server said that there are none; False: nobody could say.
        silent: nobody answered at all.
        server: who said so.
        missing: the name itself is not there (NXDOMAIN).
    """

    records: tuple[Record, ...]
    expires: float
    stale: float
    alias: str = ""
    fault: str = ""
    absent: bool = False
    silent: bool = False
    server: str = ""
    missing: bool = False

    @property
    def positive(self) -> bool:
        """Whether it leads to records."""
        return bool(self.records or self.alias)


Key = tuple[str, int]


class RecordCache:
    """Answers by question, bounded; the one that was used longest ago goes first.

    Args:
        settings: how long answers hold, and how many are kept.
    """

    def __init__(self, settings: NameSettings) -> None:
        self._settings = settings
        self._sets: dict[Key, RecordSet] = {}
        self._last: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._sets)

    def fresh(self, key: Key, now: float) -> RecordSet | None:
        """What holds now for a question."""
        found = self._sets.pop(key, None)
        if found is None:
            return None
        self._sets[key] = found
        return found if now < found.expires else None

    def positive(self, key: Key, records: tuple[Record, ...], alias: str, ttl: float, now: float) -> RecordSet:
        """There are records, or there is an alias. ``dns_valid_ttl`` counts in place of their ``ttl``."""
        if self._settings.valid_ttl is not None:
            ttl = self._settings.valid_ttl
        return self._keep(key, RecordSet(records, now + ttl, now + ttl + self._settings.stale_ttl, alias))

    def negative(self, key: Key, fault: RecordSet, now: float) -> RecordSet:
        """There are none, or nobody can say.

        Old records are used on while they may be, unless the name itself is gone (as Kong 3.9: a name error replaces them, other
        errors and an empty answer do not).
        """
        old = self._sets.get(key)
        if old is not None and old.positive and now < old.stale and not fault.missing:
            return self._keep(key, old._replace(expires=min(now + self._settings.error_ttl, old.stale)))
        seconds = self._settings.not_found_ttl if fault.absent else self._settings.error_ttl
        return self._keep(key, fault._replace(expires=now + seconds))

    def last(self, name: str) -> int | None:
        """The kind of records that ``name`` was found by last."""
        return self._last.get(name)

    def found_by(self, name: str, kind: int | None) -> None:
        """Remember the kind; None: it was not found."""
        self._last.pop(name, None)
        if kind is not None:
            self._last[name] = kind
            if len(self._last) > self._settings.cache_size:
                del self._last[next(iter(self._last))]

    def _keep(self, key: Key, found: RecordSet) -> RecordSet:
        self._sets.pop(key, None)
        self._sets[key] = found
        if len(self._sets) > self._settings.cache_size:
            del self._sets[next(iter(self._sets))]
        return found
