"""Cookies of requests (RFC 6265 5.4)."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["read_cookies"]


def read_cookies(fields: Iterable[bytes]) -> dict[bytes, bytes]:
    """Cookies by name, of several with a name the first.

    Args:
        fields: the values of the header ``Cookie``.
    """
    found: dict[bytes, bytes] = {}
    for field in fields:
        for pair in field.split(b";"):
            name, equals, value = pair.strip().partition(b"=")
            if equals:
                found.setdefault(name, value)
    return found
