"""Query strings (application/x-www-form-urlencoded, WHATWG URL 5) to lists of values and back."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, quote_plus, unquote_to_bytes

__all__ = ["Arguments", "join_arguments", "join_query", "parse_arguments", "parse_query", "without_argument"]

Arguments = dict[bytes, list[bytes | None]]
"""Decoded arguments of a query or a form, name to values in order; None is an argument without ``=``."""


_COMPONENT = "!'()*"
"""What `encodeURIComponent` (ECMA-262 19.2.6.5) leaves as it is, beside letters, digits and ``-._~``."""


def parse_query(query: bytes, errors: str = "replace") -> dict[str, list[str]]:
    """Decode a query string without its ``?``: name to values in order. ``a`` and ``a=`` both give ``""``.

    Args:
        query: as it was sent; bytes beyond ASCII mean the same raw and percent-encoded.
        errors: what becomes of bytes that are no UTF-8, by the names of `bytes.decode`.
    """
    out: dict[str, list[str]] = {}
    for part in query.replace(b"+", b" ").split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            out.setdefault(_text(name, errors), []).append(_text(value, errors))
    return out


def _text(escaped: bytes, errors: str) -> str:
    return unquote_to_bytes(escaped).decode("utf-8", errors)


def parse_arguments(query: bytes) -> Arguments:
    """Decode a query string or a form."""
    found: Arguments = {}
    for part in query.replace(b"+", b" ").split(b"&"):
        if part:
            name, equals, value = part.partition(b"=")
            found.setdefault(unquote_to_bytes(name), []).append(unquote_to_bytes(value) if equals else None)
    return found


def _argument(name: bytes, value: bytes | None) -> str:
    key = quote(name, safe=_COMPONENT)
    return key if value is None else f"{key}={quote(value, safe=_COMPONENT)}"


def join_arguments(arguments: Arguments, ordered: bool = False) -> bytes:
    """Encode arguments; ``ordered``: by their encoded form, as Kong does for query strings."""
    groups = ["&".join([_argument(name, each) for each in values]) for name, values in arguments.items() if values]
    return "&".join(sorted(groups) if ordered else groups).encode("ascii")


def join_query(args: Mapping[str, list[str]]) -> bytes:
    """The query string for decoded arguments, names in the order given."""
    return "&".join(
        f"{quote_plus(name)}={quote_plus(value)}" for name, values in args.items() for value in values
    ).encode("ascii")


def without_argument(query: bytes, name: str) -> bytes:
    """A query string, or a form, without the arguments ``name``; the others keep their order.

    They are spelled anew as Kong 3.9 (``kong.service.request.clear_query_arg``) and browsers (``URLSearchParams``) do:
    ``c`` becomes ``c=``, a blank ``+``, and what need not be escaped is not. Bytes that are no UTF-8 stay what they are.
    """
    taken_out = name.encode("utf-8", "surrogateescape")
    kept = []
    for part in query.removeprefix(b"?").replace(b"+", b" ").split(b"&"):
        if part:
            key, _, value = part.partition(b"=")
            key = unquote_to_bytes(key)
            if key != taken_out:
                kept.append(b"%b=%b" % (_spelled(key), _spelled(unquote_to_bytes(value))))
    return b"&".join(kept)


def _spelled(text: bytes) -> bytes:
    """By WHATWG URL 5.2: letters, digits and ``*-._`` as they are, blanks as ``+``."""
    return quote(text, safe=b" *").replace("~", "%7E").replace(" ", "+").encode("ascii")
