"""What statsd and datadog have in common: lines of the statsd protocol, and who a request's consumer and service are in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.rows import Row
from ..entities.checks import Conditional
from ..entities.schema import Any_, String

__all__ = ["CONSUMER_IDENTIFIERS", "NAMES", "STAT_TYPES", "consumer_of", "line", "sample_rate_check"]

STAT_TYPES = {"counter": "c", "gauge": "g", "histogram": "h", "meter": "m", "set": "s", "timer": "ms"}
"""Kong's names of kinds of metrics, and what stands in lines."""

CONSUMER_IDENTIFIERS = ["consumer_id", "custom_id", "username"]

NAMES = {
    "request_count": "request.count", "request_size": "request.size", "response_size": "response.size", "latency": "latency",
    "upstream_latency": "upstream_latency", "kong_latency": "kong_latency",
}  # fmt: skip
"""What metrics that both plugins know are called in lines."""


def consumer_of(identifier: str) -> Callable[[Row | None], str | None]:
    """What finds the text that stands for a consumer: its id, ``custom_id`` or ``username``; None where there is none."""
    field = "id" if identifier == "consumer_id" else identifier

    def find(consumer: Row | None) -> str | None:
        found: str | None = None if consumer is None else consumer.get(field)
        return found

    return find


def line(name: str, value: object, kind: str, rate: float | None = None) -> str:
    """A metric without tags.

    Args:
        name: with its prefix.
        value: a number, or a member of a set.
        kind: of `STAT_TYPES`.
        rate: how many of the events are told, if not all.
    """
    return f"{name}:{value}|{kind}" if rate is None or rate == 1 else f"{name}:{value}|{kind}|@{rate:g}"


def sample_rate_check() -> Conditional:
    """Counters and gauges need a ``sample_rate``."""
    kinds = ["counter", "gauge"]
    shown: dict[str, Any] = {
        "if_match": {"one_of": kinds}, "then_field": "sample_rate", "if_field": "stat_type", "then_match": {"required": True},
    }  # fmt: skip
    return Conditional("stat_type", String(one_of=kinds), "sample_rate", Any_(required=True), shown)
