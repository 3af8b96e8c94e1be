"""Request paths: normalised for routing, joined with the service's path, escaped for the upstream.

All values are bytes without the query string. Rules: Kong 3.9, ``kong.tools.uri`` and the traditional router; RFC 3986
sections 2.3 and 5.2.4.
"""

from __future__ import annotations

import re

from ...entities.paths import normalise

__all__ = ["escape", "normalise", "path_of", "split_host", "upstream_path"]

_ENCODED = [b"%%%02X" % value for value in range(256)]

_UNSAFE = re.compile(rb"[^!#$&'()*+,/:;=?@\[\]A-Za-z0-9\-_.~%]")


def _encode(found: re.Match[bytes]) -> bytes:
    return _ENCODED[found[0][0]]


def escape(path: bytes) -> bytes:
    """The path as it goes upstream: bytes that may not stand in a path become ``%XX``; ``%`` itself stays."""
    if _UNSAFE.search(path) is None:
        return path
    return _UNSAFE.sub(_encode, path)


def path_of(target: bytes) -> bytes:
    """The raw path of a request target in origin or absolute form (RFC 9112 3.2), without the query."""
    cut = target.find(b"?")
    path = target if cut < 0 else target[:cut]
    if path[:1] == b"/":
        return path
    _, separator, rest = path.partition(b"://")
    if not separator:
        return path
    slash = rest.find(b"/")
    return rest[slash:] if slash >= 0 else b"/"


def split_host(host: bytes) -> tuple[bytes, bytes]:
    """A Host header as (name, port); port is empty where there is none. ``[::1]:80`` keeps its brackets."""
    colon = host.rfind(b":")
    if colon < 0 or host[-1:] == b"]":
        return host, b""
    port = host[colon + 1 :]
    if not port.isdigit() or (b":" in host[:colon] and host[:1] != b"["):
        return host, b""
    return host[:colon], port


def _stripped(rest: bytes) -> bytes:
    """What is left after the matched prefix, kept from climbing out of the service's path."""
    if rest in (b".", b".."):
        return b""
    if rest.startswith(b"./"):
        return rest[2:]
    if rest.startswith(b"../"):
        return rest[3:]
    return rest


def upstream_path(base: bytes, path: bytes, rest: bytes | None, *, strip: bool, v1: bool) -> bytes:
    """The path sent to the upstream, not yet escaped.

    Args:
        base: the service's path, at least ``/``.
        path: the normalised request path.
        rest: what follows the matched part of ``path``; None when the route has no paths.
        strip: the route's ``strip_path``.
        v1: the route's ``path_handling`` is ``v1``.
    """
    rest = path[1:] if rest is None else _stripped(rest)
    if v1:
        return _joined_raw(base, rest if strip else path[1:])
    slashed = base.endswith(b"/")
    if not strip:
        if slashed:
            return base + path[1:]
        return base if path == b"/" else base + path
    if rest:
        if slashed:
            return base + (rest[1:] if rest[:1] == b"/" else rest)
        return base + rest if rest[:1] == b"/" else base + b"/" + rest
    if slashed:
        return base if base == b"/" or path.endswith(b"/") else base[:-1]
    return base + b"/" if len(path) > 1 and path.endswith(b"/") else base


def _joined_raw(base: bytes, rest: bytes) -> bytes:
    if base.endswith(b"/") and rest.startswith(b"/"):
        return base + rest[1:]
    return base + rest
