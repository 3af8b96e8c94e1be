"""By what an answer is found again.

The key is Kong's (3.9.3, ``kong/plugins/proxy-cache/cache_key.lua``) and is what clients and the Admin API see. Below it answers are
told apart once more, by all else that the upstream may have looked at (`variant`): without it one client could have another one
answered with what only his own Host, X-Original-URL or body has brought about.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from email.utils import parsedate_to_datetime
from hashlib import sha256

from ...core.exchange import Exchange
from ...core.http.head import HeaderBlock
from ...core.http.identity_fields import IDENTITY_FIELDS
from ...core.http.query import parse_arguments

__all__ = ["Directives", "cache_key", "directives", "lifetime", "variant", "vary_of"]

Directives = Mapping[str, "int | bool | str"]
"""Cache-Control: names in lower case to numbers, texts, or True."""

_NO_DIRECTIVES: Directives = {}
_DIRECTIVE = re.compile(r'\s*([^\s,;="]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s,;"]*))?\s*(?:[,;]|$)')
_VERSIONS = {"1.0": b"HTTP/1.0", "1.1": b"HTTP/1.1", "2": b"HTTP/2.0"}

_KEYED = (
    b"host", b"origin", b"authorization", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-prefix",
    b"x-forwarded-path", b"forwarded", b"x-forwarded-server", b"x-forwarded-scheme", b"x-forwarded-ssl", b"x-host",
    b"x-original-host", b"x-http-host-override", b"x-original-url", b"x-rewrite-url", b"x-http-method", b"x-http-method-override",
    b"x-method-override", b"x-url-scheme", b"front-end-https", b"range", b"if-range", b"proxy-authorization", b"x-original-uri",
    b"x-wap-profile",
)  # fmt: skip
"""Request headers by which applications are known to choose what they answer, though no Vary says so."""

_KEYED_NAMES = frozenset(_KEYED)


def cache_key(
    exchange: Exchange, ignore_case: bool, parameters: Sequence[bytes] | None, headers: Sequence[bytes]
) -> str:
    """The key of a request, as Kong makes it.

    Args:
        exchange: the request; whose it is is known.
        ignore_case: paths that differ in case have one key.
        parameters: query arguments that count; None: all.
        headers: request headers that count, in lower case.
    """
    route = exchange.route
    prefix = "default"
    if route is not None:
        consumer = exchange.consumer
        prefix = route.row["id"] if consumer is None else f"{consumer['id']}:{route.row['id']}"
    path, mark, _ = exchange.target.partition(b"?")
    line = exchange.method + b" " + path
    if not mark:
        line += b" " + _VERSIONS[exchange.http_version]
    query = exchange.raw_query
    asked = _joined(parse_arguments(query), parameters) if query else b""
    told = _joined({name: list(exchange.get_headers(name)) for name in headers}, headers) if headers else b""
    parts = (prefix.encode(), exchange.method, line.lower() if ignore_case else line, asked, told)
    return sha256(b"|".join(parts)).hexdigest()


def _joined(found: Mapping[bytes, list[bytes | None]], names: Sequence[bytes] | None) -> bytes:
    parts = []
    for name in sorted(found) if names is None else names:
        values = found.get(name)
        if not values:
            continue
        if values == [None]:
            parts.append(name)
        else:
            parts.append(name + b"=" + b",".join(sorted(b"true" if each is None else each for each in values)))
    return b":".join(parts)


def variant(exchange: Exchange, vary: Collection[bytes], body: bytes) -> bytes:
    """What else tells answers of one key apart.

    Args:
        exchange: the request.
        vary: request headers that an answer named in Vary, or the configuration, in lower case.
        body: the request's.
    """
    block = exchange.block
    made = sha256(exchange.scheme)
    for name in (*_KEYED, *vary):
        if name in block:
            for value in block.all(name):
                made.update(b"\n%b:%d:%b" % (name, len(value), value))
    for name in block.names:
        # Many upstreams read X_Forwarded_Host as X-Forwarded-Host.
        if b"_" in name and ((dashed := name.replace(b"_", b"-")) in _KEYED_NAMES or dashed in vary):
            for value in block.all(name):
                made.update(b"\n%b:%d:%b" % (name, len(value), value))
    changes = exchange.request_changes
    if changes:
        # What upstreams are told of the client: users of a directory, or of an OAuth application, share a consumer or have none.
        for name in IDENTITY_FIELDS:
            told = changes.get(name)
            if told is not None:
                made.update(b"\n\n%b:%d:%b" % (name, len(told), told))
    if body:
        made.update(b"\n\n\n" + body)
    return made.digest()


def vary_of(block: HeaderBlock) -> tuple[bytes, ...] | None:
    """Request headers by which an answer says that others differ; None: nothing tells them apart (``Vary: *``, RFC 9110 12.5.5)."""
    names = set(block.tokens(b"vary"))
    if b"content-encoding" in block:
        names.add(b"accept-encoding")
    return None if b"*" in names else tuple(sorted(names))


def directives(field: bytes | None) -> Directives:
    """Cache-Control (RFC 9111 5.2), several fields joined; of a name that is given twice the last."""
    if not field:
        return _NO_DIRECTIVES
    found: dict[str, int | bool | str] = {}
    for name, value in _DIRECTIVE.findall(field.decode("latin-1")):
        value = value.strip('"')
        found[name.lower()] = int(value) if value.isascii() and value.isdigit() and len(value) < 16 else value or True
    return found


def lifetime(said: Directives, block: HeaderBlock, now: float) -> float:
    """Seconds for which an answer may be used: by s-maxage, max-age or Expires; 0 where none says so."""
    for name in ("s-maxage", "max-age"):
        seconds = said.get(name)
        if seconds is not None:
            return seconds if isinstance(seconds, int) and seconds is not True else 0
    expires = block.first(b"expires")
    if expires is None:
        return 0
    try:
        return max(parsedate_to_datetime(expires.decode("latin-1")).timestamp() - now, 0)
    except (ValueError, OverflowError):
        return 0
