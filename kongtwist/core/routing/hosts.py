"""Hosts of routes: plain names, with or without a port, and wildcards at either end (Kong 3.9, traditional router)."""

from __future__ import annotations

from ..http.uri import split_host

__all__ = ["HostRule", "RequestHost", "Wildcard", "split_listed_host"]


class RequestHost:
    """A request's host in the forms routes are compared with.

    Args:
        raw: the Host header as received; compared with upper and lower case distinguished, as Kong does.
        scheme: ``http`` or ``https``; decides the port of a host without one for wildcards.
    """

    __slots__ = ("name", "port", "raw")

    def __init__(self, raw: bytes, scheme: bytes) -> None:
        self.raw = raw
        self.name, port = split_host(raw)
        self.port = port or (b"443" if scheme == b"https" else b"80")


class Wildcard:
    """``*.example.com`` or ``example.*``, with or without a port. The star stands for one byte or more.

    Args:
        value: the host as configured.
    """

    __slots__ = ("_fixed", "_left", "port", "value")

    def __init__(self, value: bytes) -> None:
        self.value = value
        name, self.port = split_host(value)
        self._left = name.startswith(b"*")
        self._fixed = name[1:] if self._left else name[:-1]

    def matches(self, host: RequestHost) -> bool:
        """Whether the request's host is one of these."""
        if self.port and self.port != host.port:
            return False
        name = host.name
        if len(name) <= len(self._fixed):
            return False
        return name.endswith(self._fixed) if self._left else name.startswith(self._fixed)


class HostRule:
    """The hosts of one route.

    Attributes:
        keys: all hosts as configured.
        plain: those without a star.
        wildcards: those with one.
        weight: part of Kong's order inside a category: 4 for a wildcard with a port, 2 for plain hosts only.
    """

    __slots__ = ("keys", "plain", "weight", "wildcards")

    def __init__(self, hosts: list[str]) -> None:
        self.keys = frozenset(host.encode() for host in hosts)
        self.plain = frozenset(host for host in self.keys if b"*" not in host)
        self.wildcards = tuple(Wildcard(host) for host in sorted(self.keys - self.plain))
        self.weight = 0 if self.wildcards else 2
        if any(each.port for each in self.wildcards):
            self.weight = 4

    def matches(self, host: RequestHost) -> bool:
        """Whether one of the hosts is the request's. A plain host without port stands for all ports."""
        plain = self.plain
        if host.raw in plain or host.name in plain:
            return True
        return any(each.matches(host) for each in self.wildcards)


def split_listed_host(host: bytes) -> tuple[bytes, int | None]:
    """A Host header as (name, port), as the flavors with expressions do: the name ends at the first colon, if a number follows."""
    name, colon, port = host.partition(b":")
    return (name, int(port)) if colon and port.isdigit() and len(port) < 10 else (host, None)
