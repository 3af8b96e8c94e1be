"""A stand-in for the error log, as plugins are given it."""

from __future__ import annotations

from collections.abc import Callable

from ..core.chain.host_lines import LogLine, LogLines

__all__ = ["StandInLog"]


class StandInLog:
    """Lines for who wants them.

    Attributes:
        takers: who wants lines that are about no request.
        requests: lines about requests, by their ids.
    """

    def __init__(self) -> None:
        self.takers: list[Callable[[LogLine], None]] = []
        self.requests: dict[bytes, list[LogLine]] = {}

    def lines(self, take: Callable[[LogLine], None]) -> LogLines:
        """See `kongtwist.core.chain.host.Host.log_lines`."""
        return _Lines(self, take)


class _Lines:
    """What one who asked is given."""

    def __init__(self, log: StandInLog, take: Callable[[LogLine], None]) -> None:
        self._log, self._take = log, take
        log.takers.append(take)

    def of_request(self, request_id: bytes) -> list[LogLine]:
        return self._log.requests.pop(request_id, [])

    def release(self) -> None:
        self._log.takers.remove(self._take)
