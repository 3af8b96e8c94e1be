"""Addresses in turn, by the weights of their SRV records (RFC 2782)."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, lcm

from ..names import Address
from .records import Record

__all__ = ["in_turn", "spread", "top_priority"]

_SLOTS = 1024
"""Turns that weights are brought to, at most; the smallest weight has one."""
_WEIGHT = 65535
"""The largest weight (RFC 2782)."""


def top_priority(records: Sequence[Record]) -> tuple[Record, ...]:
    """The SRV records of the first priority that name a target; the others are not used, as in Kong."""
    named = [each for each in records if each.value]
    best = min((each.priority for each in named), default=0)
    return tuple(each for each in named if each.priority == best)


def spread(found: Sequence[tuple[Record, Sequence[str]]]) -> tuple[Address, ...]:
    """The addresses of SRV records and of their targets. A weight of 0 counts as 1, a port of 0 as none, as in Kong.

    A target's share is its record's weight, however many addresses it has: where their numbers differ, all weights are multiplied so
    that each can be divided.
    """
    common = lcm(*(len(addresses) for _, addresses in found)) if found else 1
    if all(len(addresses) == len(found[0][1]) for _, addresses in found):
        common = 1
    weighed = [
        Address(ip, record.port or None, _share(record, common, len(addresses)), record.value)
        for record, addresses in found
        for ip in addresses
    ]
    divisor = gcd(*(each.weight or 1 for each in weighed)) if common > 1 else 1
    weights = [(each.weight or 1) // divisor for each in weighed]
    if weights and (most := max(weights)) > _WEIGHT:
        weights = [max(1, each * _WEIGHT // most) for each in weights]
    return tuple(each._replace(weight=weight) for each, weight in zip(weighed, weights, strict=True))


def _share(record: Record, common: int, count: int) -> int:
    weight = record.weight or 1
    return weight * common // count if common > 1 else weight


def in_turn(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    """The addresses as often as their weights say, well mixed, for whoever takes one behind the other.

    The turns of each are spread evenly: 3 and 1 become ``a a b a``.
    """
    weights = [1 if each.weight is None else each.weight for each in addresses]
    if not weights or len(set(weights)) == 1:
        return addresses
    divisor = gcd(*weights)
    weights = [each // divisor for each in weights]
    if (total := sum(weights)) > _SLOTS:
        weights = [max(1, each * _SLOTS // total) for each in weights]
    turns = sorted(((turn + 0.5) / weight, place) for place, weight in enumerate(weights) for turn in range(weight))
    return tuple(addresses[place] for _, place in turns)
