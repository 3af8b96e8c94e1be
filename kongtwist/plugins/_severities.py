"""How syslog and loggly choose the severity of a record, and whether it is sent (RFC 5424 6.2.1; Kong 3.9)."""

from __future__ import annotations

from ..core.exchange import Row
from ..entities.schema import String

__all__ = ["SEVERITIES", "Severities", "severity_fields"]

SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
"""By their numbers."""

_SHOWN = list(reversed(SEVERITIES))


def severity_fields(required: bool) -> dict[str, String]:
    """The fields of a configuration.

    Args:
        required: null is refused.
    """

    def field(text: str) -> String:
        more = {"required": True} if required else {}
        return String(default="info", one_of=_SHOWN, text=text, **more)

    return {
        "log_level": field("Records of a lower severity are not sent."),
        "successful_severity": field("Severity of requests that were answered with a status below 400."),
        "client_errors_severity": field("Severity of requests that were answered with a status of 4xx."),
        "server_errors_severity": field("Severity of requests that were answered with a status of 5xx."),
    }


class Severities:
    """A configuration's choice; a field that is null counts as ``info``."""

    __slots__ = ("_by_class", "_lowest")

    def __init__(self, conf: Row) -> None:
        self._lowest = SEVERITIES.index(conf["log_level"] or "info")
        self._by_class = tuple(
            SEVERITIES.index(conf[f"{name}_severity"] or "info")
            for name in ("successful", "client_errors", "server_errors")
        )

    def of(self, status: int) -> int | None:
        """The number of the severity for an answer's status; None: its record is not sent."""
        number = self._by_class[2 if status >= 500 else 1 if status >= 400 else 0]
        return number if number <= self._lowest else None
