"""A small file of the system's that is read again when it has changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.logger import Logger

__all__ = ["LOOK_EVERY", "WatchedFile"]

_log = Logger(namespace="kongtwist.names")

T = TypeVar("T")

LOOK_EVERY = 5.0
"""Seconds after which the file is looked at again."""


class WatchedFile(Generic[T]):
    """What a file says.

    Args:
        path: of the file.
        parse: makes of its text what is wanted.
        monotonic: seconds.
    """

    def __init__(self, path: str, parse: Callable[[str], T], monotonic: Callable[[], float]) -> None:
        self._path, self._parse, self._monotonic = path, parse, monotonic
        self._look = 0.0
        self._state: object = self
        self._value = parse("")

    def read(self) -> T:
        """What it says now; what an empty one says where it cannot be read, which is logged once."""
        now = self._monotonic()
        if now >= self._look or self._state is self:
            self._look = now + LOOK_EVERY
            self._refresh()
        return self._value

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
            state: object = (status.st_mtime_ns, status.st_size, status.st_ino)
            if state != self._state:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._value = self._parse(file.read())
        except OSError as error:
            state = error.errno
            if state != self._state:
                _log.warn(
                    "cannot read {path}: {why}; names are looked up without it", path=self._path, why=error.strerror
                )
                self._value = self._parse("")
        self._state = state
