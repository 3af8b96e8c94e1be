"""resolv.conf: name servers, search domains, options (resolv.conf(5))."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from .records import Server

__all__ = ["ResolvConf", "parse_resolv_conf"]

_SERVERS = 3
"""Name servers that are read (MAXNS)."""
_DOMAINS = 6
"""Search domains that are read, as in Kong."""
_BOUNDS = {"ndots": (0, 15), "timeout": (1, 30), "attempts": (1, 10)}
"""Option -> what it is brought to lie in."""


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What the file says; where it is silent, what Kong takes.

    Attributes:
        servers: in order.
        search: domains that are added to names, in lower case.
        ndots: a name with as many dots is asked for as it is first.
        timeout: seconds that a server has for its answer.
        attempts: queries about one question, of all servers together; each is asked once at least.
        rotate: begin with another server each time.
        tcp: ask over TCP only (``use-vc``).
    """

    servers: tuple[Server, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: float = 2.0
    attempts: int = 5
    rotate: bool = False
    tcp: bool = False


def parse_resolv_conf(text: str, environ: Mapping[str, str]) -> ResolvConf:
    """Read the file. ``LOCALDOMAIN`` and ``RES_OPTIONS`` of the environment replace what it says, as for the system's resolver.

    What cannot be read is passed over, as resolv.conf(5) has it; the last of ``domain`` and ``search`` counts.
    """
    servers: list[Server] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = re.split("[#;]", line, maxsplit=1)[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            if len(servers) < _SERVERS and (server := _server(words[1])) is not None:
                servers.append(server)
        elif words[0] == "domain":
            search = [words[1]]
        elif words[0] == "search":
            search = words[1:]
        elif words[0] == "options":
            options += words[1:]
    if environ.get("LOCALDOMAIN"):
        search = environ["LOCALDOMAIN"].split()
    options += environ.get("RES_OPTIONS", "").split()
    domains = [each.lower().strip(".") for each in search[:_DOMAINS]]
    return _with_options(tuple(servers), tuple(each for each in domains if each), options)


def _server(text: str) -> Server | None:
    """An address, or ``[address]:port``."""
    host, port = text, 53
    if match := re.fullmatch(r"\[([^\]]+)\](?::(\d+))?|(\d+\.\d+\.\d+\.\d+):(\d+)", text):
        host, port = match[1] or match[3], int(match[2] or match[4] or 53)
    try:
        ip_address(host)
    except ValueError:
        return None
    return Server(host, port) if 0 < port < 65536 else None


def _with_options(servers: tuple[Server, ...], search: tuple[str, ...], options: list[str]) -> ResolvConf:
    found: dict[str, int] = {}
    for each in options:
        name, _, value = each.partition(":")
        if name in _BOUNDS and value.isdecimal():
            low, high = _BOUNDS[name]
            found[name] = min(max(int(value), low), high)
    return ResolvConf(
        servers,
        search,
        found.get("ndots", 1),
        float(found.get("timeout", 2)),
        found.get("attempts", 5),
        "rotate" in options,
        "use-vc" in options,
    )
