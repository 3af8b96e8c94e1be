"""Host names and addresses with or without a port, told apart and checked as Kong does (Kong 3.9, ``kong/tools/ip.lua``)."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["BAD_PORT", "Address", "parse_address"]

BAD_PORT = "invalid port number"
"""What is said of a port above 65535."""

_V4 = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})(?::([0-9]+))?\Z")
_V6 = re.compile(r"[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){7}\Z")
_BRACKETS = re.compile(r"\[([^\[\]]*)\](.*)\Z", re.DOTALL)
_PORT = re.compile(r":([0-9]+)\Z")
_LABEL = re.compile(r"[A-Za-z0-9_-]*[A-Za-z0-9_]\Z")


class Address(NamedTuple):
    """A host with or without a port."""

    kind: str
    """``name``, ``ipv4`` or ``ipv6``."""
    host: str
    """The name as it was given; an IPv4 address without leading zeros, an IPv6 address written out, without brackets."""
    port: int | None
    """0 to 65535; None: none was given."""

    def with_port(self, default: int) -> str:
        """``host:port``, IPv6 in brackets."""
        host = f"[{self.host}]" if self.kind == "ipv6" else self.host
        return f"{host}:{default if self.port is None else self.port}"


def parse_address(text: str) -> Address:
    """Read ``host``, ``host:port``, a bare IPv6 address, ``[ipv6]`` or ``[ipv6]:port``.

    Two colons or more make it IPv6, nothing but digits, dots and a colon IPv4, anything else a name: labels of letters,
    digits, ``-`` and ``_`` that do not end with ``-``, perhaps with a dot at the end.

    Raises:
        ValueError: it is not an address or a name; the message is Kong's.
    """
    if text.count(":") > 1:
        return _v6(text)
    if re.fullmatch(r"[0-9.]+", text.replace(":", "")):
        return _v4(text)
    return _name(text)


def _port(digits: str | None) -> int | None:
    if digits is None:
        return None
    digits = digits.lstrip("0") or "0"  # Python reads no number of thousands of digits
    if len(digits) > 5 or int(digits) > 65535:
        raise ValueError(BAD_PORT)
    return int(digits)


def _v4(text: str) -> Address:
    found = _V4.match(text)
    if found is None or any(int(part) > 255 for part in found.groups()[:4]):
        raise ValueError(f"invalid ipv4 address: {text}")
    return Address("ipv4", ".".join(str(int(part)) for part in found.groups()[:4]), _port(found[5]))


def _v6(text: str) -> Address:
    bare: str = text
    port: int | None = None
    if text.startswith("["):
        found = _BRACKETS.match(text)
        if found is None:
            raise ValueError(f"invalid ipv6 address: {text}")
        bare = found[1]
        if found[2]:
            after = _PORT.match(found[2])
            if after is None:
                raise ValueError("invalid ipv6 address")
            port = _port(after[1])
    # A colon at an end has a zero beside it; the first "::" stands for as many zeros as are missing.
    whole = ("0" if bare.startswith(":") else "") + bare + ("0" if bare.endswith(":") else "")
    if "::" in whole:
        whole = whole.replace("::", ":" + "0:" * max(0, 8 - whole.count(":")), 1)
    if not _V6.match(whole):
        raise ValueError(f"invalid ipv6 address: {text}")
    return Address("ipv6", ":".join(group.zfill(4) for group in whole.lower().split(":")), port)


def _name(text: str) -> Address:
    found = _PORT.search(text)
    name, port = (text, None) if found is None else (text[: found.start()], _port(found[1]))
    labels = name.split(".")
    if len(labels) > 1 and not labels[-1]:
        labels.pop()  # a name may end with a dot
    if not all(_LABEL.match(label) for label in labels):
        raise ValueError(f"invalid hostname: {text}")
    return Address("name", name, port)
