"""Query strings (application/x-www-form-urlencoded, WHATWG URL 5) to lists of values and back."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote_plus, unquote_plus

__all__ = ["join_query", "parse_query"]


def parse_query(query: bytes, errors: str = "replace") -> dict[str, list[str]]:
    """Decode a query string without its ``?``: name to values in order. ``a`` and ``a=`` both give ``""``.

    Args:
        query: as it was sent; bytes beyond ASCII mean the same raw and percent-encoded.
        errors: what becomes of bytes that are no UTF-8, by the names of `bytes.decode`.
    """
    out: dict[str, list[str]] = {}
    for part in query.decode("utf-8", errors).split("&"):
        if part:
            name, _, value = part.partition("=")
            out.setdefault(unquote_plus(name, errors=errors), []).append(unquote_plus(value, errors=errors))
    return out


def join_query(args: Mapping[str, list[str]]) -> bytes:
    """The query string for decoded arguments, names in the order given."""
    return "&".join(
        f"{quote_plus(name)}={quote_plus(value)}" for name, values in args.items() for value in values
    ).encode("ascii")
