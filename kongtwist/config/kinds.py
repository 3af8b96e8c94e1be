"""What a configuration property can be: its kinds of value, listen addresses, and the property itself.

Every kind turns the text of a kong.conf value into a typed value, or raises ValueError with the end of a sentence that
begins with the property's name (the wording Kong uses for its kinds).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar, overload

__all__ = [
    "ARRAY",
    "BOOLEAN",
    "CONNECTIONS",
    "CPU_COUNT",
    "DATABASE",
    "DURATION",
    "INTEGER",
    "KNOWN",
    "LISTENERS",
    "NGX_BOOLEAN",
    "NUMBER",
    "PAIR",
    "PORT_MAPS",
    "RLIMIT",
    "SIZE",
    "STREAM_LISTENERS",
    "STRING",
    "UUID",
    "ConfError",
    "Kind",
    "Listen",
    "Property",
    "T",
    "enum",
    "enum_items",
    "items",
    "networks",
    "parse_listen", "same_as",
]  # fmt: skip

T = TypeVar("T")

BUILT = "built"
KNOWN = "known"


DATABASE = "a node keeps the database it started with"
"""Why a reload does not take up where configuration is kept."""


class ConfError(Exception):
    """The configuration cannot be used. Its text is one sentence for the operator.

    Args:
        problems: one sentence for each thing that is wrong.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _digits(number: float) -> str:
    """A number without an exponent."""
    return f"{number:.15g}"


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of value: its name in the documentation, how its text is read, and how the text of a bound is written."""

    name: str
    parse: Callable[[str], T]
    written: Callable[[float], str] = _digits

    def within(self, low: float, high: float = float("inf")) -> Kind[T]:
        """The same kind, limited to ``low``..``high`` (both included)."""
        write = self.written
        span = f">= {write(low)}" if high == float("inf") else f"{write(low)} to {write(high)}"

        def parse(text: str) -> T:
            value = self.parse(text)
            if not low <= value <= high:  # type: ignore[operator]
                raise ValueError(f"must be {span}: '{text}'")
            return value

        return Kind(f"{self.name} ({span})", parse, write)


class Property(Generic[T]):
    """One property of kong.conf, declared as a class attribute; an instance's attribute is its typed value.

    Args:
        kind: how its text is read.
        default: as it would stand in the file; None = no value.
        text: what it does, with unit and the meaning of 0 and of no value; for `conf/kongtwist.conf.default`.
        status: ``built``, or ``known`` (a name of Kong's that has no effect).
        why: of a ``known`` one that has no meaning here: why, as the end of a sentence; "": it is not built yet.
        aliases: other names that set the same property, weakest first (``nginx_<block>_<directive>`` forms).
        refused: value -> why it stops the start, where going on as if it were not set would be dangerous; the value
            ``*`` stands for every value but the default.
        live: a reload puts it into effect in what runs; for what else changes, all that serves is made anew.
        restart: why a reload does not take it up, as the end of a sentence that begins with "because"; None: it does.
        restart_when: with ``restart``: which changes (old value, new value) need it; None: all.
    """

    def __init__(
        self,
        kind: Kind[T],
        default: str | None,
        text: str,
        *,
        status: str = BUILT,
        why: str = "",
        aliases: tuple[str, ...] = (),
        refused: Mapping[str, str] | None = None,
        live: bool = False,
        restart: str | None = None,
        restart_when: Callable[[T, T], bool] | None = None,
    ) -> None:
        self.name = ""
        self.kind = kind
        self.default = default
        self.text = text
        self.status = status
        self.why = why
        self.aliases = aliases
        self.refused = refused or {}
        self.live = live
        self.restart = restart
        self._restart_when = restart_when

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        raise AttributeError(f"{self.name} was not loaded")

    def needs_restart(self, old: T, new: T) -> bool:
        """Whether a reload leaves ``old`` in effect though ``new`` is configured."""
        return self.restart is not None and (self._restart_when is None or self._restart_when(old, new))

    def read(self, text: str) -> T:
        """The typed value of ``text``. Raises ValueError with the end of a sentence that begins with the name."""
        why = self.refused.get(text) or (self.refused.get("*") if text != self.default else None)
        if why:
            raise ValueError(f"cannot be '{text}': {why}")
        return self.kind.parse(text)


# -- plain kinds -----------------------------------------------------------------------------------------------------


def items(text: str) -> list[str]:
    """The parts of a comma-separated value, without surrounding blanks; empty ones are left out."""
    return [part for part in (part.strip() for part in text.split(",")) if part]


def _boolean(text: str) -> bool:
    if text.lower() in ("on", "true"):
        return True
    if text.lower() in ("off", "false"):
        return False
    raise ValueError(f"is not a boolean: '{text}'")


def _ngx_boolean(text: str) -> bool:
    if text.lower() in ("on", "off"):
        return text.lower() == "on"
    raise ValueError(f"is not a ngx_boolean: '{text}'")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"is not a number: '{text}'") from None


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ValueError(f"is not a whole number: '{text}'")
    return int(text)


_SIZE_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_SIZE = re.compile(r"([0-9]{1,15})([kmg]?)", re.IGNORECASE)


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"is not a size in bytes, such as 512, 8k or 10m: '{text}'")
    return int(match[1]) * _SIZE_UNITS[match[2].lower()]


def _written_size(size: float) -> str:
    """A size in the largest unit that it is a multiple of."""
    unit, factor = [each for each in _SIZE_UNITS.items() if size % each[1] == 0 and (size or each[1] == 1)][-1]
    return _digits(size / factor) + unit


_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2592000, "y": 31536000, "": 1}
_DURATION = re.compile(r"([0-9]{1,12})(ms|[smhdwMy]?)\s*")


def _duration(text: str) -> float:
    at = 0
    total = 0.0
    while at < len(text):
        match = _DURATION.match(text, at)
        if match is None:
            break
        total += int(match[1]) * _SECONDS[match[2]]
        at = match.end()
    if not text or at < len(text):
        raise ValueError(f"is not a time, such as 60s, 500ms or '1h 30m': '{text}'")
    return total


def _pair(text: str) -> tuple[int, int]:
    number, _, size = text.partition(" ")
    try:
        count = int(number) if number.isdigit() else 0
        if count < 1:
            raise ValueError(number)
        return count, _size(size.strip())
    except ValueError:
        raise ValueError(f"is not a number of buffers and their size, such as '4 8k': '{text}'") from None


def _cpu_count(text: str) -> int:
    if text == "auto":
        return len(os.sched_getaffinity(0))
    count = _integer(text)
    if not 1 <= count <= 1024:
        raise ValueError(f"must be 'auto' or 1 to 1024: '{text}'")
    return count


def _auto_or_count(text: str) -> int:
    if text == "auto":
        return 0
    count = _integer(text)
    if count < 0:
        raise ValueError(f"must be 'auto' or a number from 0: '{text}'")
    return count


def _uuid(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
        raise ValueError(f"is not a valid UUID: '{text}'")
    return text.lower()


STRING: Kind[str] = Kind("text", str)
ARRAY: Kind[list[str]] = Kind("list", items)
BOOLEAN: Kind[bool] = Kind("on, off", _boolean)
NGX_BOOLEAN: Kind[bool] = Kind("on, off", _ngx_boolean)
NUMBER: Kind[float] = Kind("number", _number)
INTEGER: Kind[int] = Kind("whole number", _integer)
SIZE: Kind[int] = Kind("size in bytes (k, m, g)", _size, _written_size)
DURATION: Kind[float] = Kind("time (ms, s, m, h, d; plain numbers are seconds)", _duration)
PAIR: Kind[tuple[int, int]] = Kind("number and size", _pair)
CPU_COUNT: Kind[int] = Kind("number, or auto", _cpu_count)
CONNECTIONS: Kind[int] = Kind("number, or auto", _auto_or_count)
RLIMIT: Kind[int] = Kind("number, or auto", _auto_or_count)
UUID: Kind[str] = Kind("UUID", _uuid)


def enum(*choices: str) -> Kind[str]:
    """One of ``choices``, word for word."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"has an invalid value: '{text}' ({', '.join(choices)})")
        return text

    return Kind(" | ".join(choices), parse)


def enum_items(*choices: str) -> Kind[list[str]]:
    """A list of ``choices`` in any case, or ``off`` alone (an empty list)."""
    known = {choice.lower(): choice for choice in choices}

    def parse(text: str) -> list[str]:
        parts = [part.lower() for part in items(text)]
        if parts == ["off"]:
            return []
        if wrong := next((part for part in parts if part not in known), None):
            raise ValueError(f"has an invalid value: '{wrong}' (off alone, or a list of {', '.join(choices)})")
        return [known[part] for part in parts]

    return Kind("off, or list of " + ", ".join(choices), parse)


def _networks(text: str) -> list[str]:
    parts = items(text)
    for part in parts:
        if part != "unix:":
            try:
                ipaddress.ip_network(part, strict=False)
            except ValueError:
                raise ValueError(f"has an entry that is no address, no CIDR block and not unix: '{part}'") from None
    return parts


networks: Kind[list[str]] = Kind("list of addresses, CIDR blocks, unix:", _networks)


def _port_maps(text: str) -> list[str]:
    parts = items(text)
    for part in parts:
        ports = part.split(":")
        if len(ports) != 2 or not all(re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536 for port in ports):
            raise ValueError(f"has an entry that is not <published port>:<own port>, such as 443:8443: '{part}'")
    own = [part.split(":")[1] for part in parts]
    if twice := next((port for port in own if own.count(port) > 1), None):
        raise ValueError(f"names a port of ours twice: '{twice}'")
    return parts


PORT_MAPS: Kind[list[str]] = Kind("list of published:own ports", _port_maps)


# -- listen addresses ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listen:
    """One address to listen on, with its flags (Kong's syntax, which is nginx's ``listen``)."""

    host: str = ""  #: IP address without brackets; "" for a unix socket
    port: int = 0  #: 0 lets the system choose
    path: str = ""  #: of the unix socket; "" for TCP
    ssl: bool = False
    http2: bool = False
    proxy_protocol: bool = False
    deferred: bool = False  #: wake up at the first bytes (TCP_DEFER_ACCEPT)
    bind: bool = False
    reuseport: bool = False
    udp: bool = False
    backlog: int = 0  #: connections waiting to be accepted; 0 = the system's choice
    ipv6only: bool = True  #: an IPv6 address takes no IPv4 connections
    so_keepalive: str = ""  #: "on", "off", "idle:interval:count" in seconds, or "" = as the system does
    text: str = field(default="", compare=False)  #: as it was written

    @property
    def address(self) -> str:
        """The address as it is written: ``127.0.0.1:8000``, ``[::1]:8000``, ``unix:/run/x.sock``."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def clashes(self, other: Listen) -> bool:
        """Whether one of the two takes addresses of the other, so that they cannot both be listened on."""
        if self.path or other.path:
            return self.path == other.path != ""
        if self.udp != other.udp:
            return False  # ports of TCP and those of UDP are not the same
        return self.port == other.port != 0 and any(
            one == two or (one.version == two.version and (one.is_unspecified or two.is_unspecified))
            for one in self._taken()
            for two in other._taken()
        )

    def _taken(self) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
        """The addresses it listens on, as far as that can be told without asking a resolver."""
        host = "127.0.0.1" if self.host == "localhost" else self.host
        try:
            found = [ipaddress.ip_address(host)]
        except ValueError:
            return []
        if found[0].version == 6 and found[0].is_unspecified and not self.ipv6only:
            found.append(ipaddress.ip_address("0.0.0.0"))
        return found

    @property
    def wide(self) -> bool:
        """Other machines can reach it."""
        if self.path or self.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True


_FLAGS = ("ssl", "http2", "proxy_protocol", "deferred", "bind", "reuseport")
_STREAM_FLAGS = ("ssl", "proxy_protocol", "bind", "reuseport", "udp")
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:]+)):([0-9]{1,5})")


def _form(flags: tuple[str, ...]) -> str:
    shown = "] [".join((*flags, "backlog=%d", "ipv6only=on|off", "so_keepalive=on|off|%w:%w:%d"))
    return f"must be of form: [off] | <ip>:<port> [{shown}], [... next entry ...]"


def _listen_option(name: str, value: str, facts: dict[str, object]) -> bool:
    """Read ``name=value`` of a listen entry into ``facts``; False when it is no option."""
    if name == "backlog" and value.isdigit() and len(value) < 8:
        facts[name] = int(value)
    elif name == "ipv6only" and value in ("on", "off"):
        facts[name] = value == "on"
    elif name == "so_keepalive" and (value in ("on", "off") or _KEEPALIVE.fullmatch(value)):
        facts[name] = value
    else:
        return False
    return True


_KEEPALIVE = re.compile(r"(?=.*[0-9])([0-9]+[smh]?)?:([0-9]+[smh]?)?:([0-9]+)?")


def parse_listen(entry: str, flags: tuple[str, ...] = _FLAGS) -> Listen:
    """Read one listen entry.

    Args:
        entry: such as ``0.0.0.0:8000 reuseport backlog=16384``, ``[::1]:8443 ssl`` or ``unix:/run/gateway.sock``.
        flags: the words that may follow the address.

    Raises:
        ValueError: with the form it must have.
    """
    address, *words = entry.split()
    facts: dict[str, object] = {"text": entry}
    if address.startswith("unix:") and len(address) > 5:
        facts["path"] = address[5:]
    else:
        match = _ADDRESS.fullmatch(address)
        if match is None or int(match[3]) > 65535:
            raise ValueError(f"{_form(flags)}: '{entry}'")
        facts["host"], facts["port"] = match[1] or match[2], int(match[3])
        try:
            facts["host"] = str(ipaddress.ip_address(match[1] or match[2]))
        except ValueError:
            if match[1] or re.fullmatch(r"[0-9.]+", match[2]) or not re.fullmatch(r"[A-Za-z0-9._-]+", match[2]):
                raise ValueError(f"{_form(flags)}: '{entry}'") from None
    for word in words:
        name, _, value = word.partition("=")
        if word in flags:
            facts[word] = True
        elif not _listen_option(name, value, facts):
            raise ValueError(f"{_form(flags)}: '{entry}'")
    return Listen(**facts)  # type: ignore[arg-type]


def _listeners(flags: tuple[str, ...]) -> Callable[[str], list[Listen]]:
    def parse(text: str) -> list[Listen]:
        entries = items(text)
        if entries == ["off"]:
            return []
        found = [parse_listen(entry, flags) for entry in entries]
        for listen in found:
            if listen.udp and (listen.ssl or listen.path or listen.proxy_protocol):
                other = "ssl" if listen.ssl else "unix:" if listen.path else "proxy_protocol"
                raise ValueError(f"has flags that do not go together, udp and {other}: '{listen.text}'")
        taken = [(listen.address, listen.udp) for listen in found if listen.path or listen.port]
        if twice := next((each for each in taken if taken.count(each) > 1), None):
            raise ValueError(f"names an address twice: '{twice[0]}'")
        return found

    return parse


LISTENERS: Kind[list[Listen]] = Kind("list of addresses, or off", _listeners(_FLAGS))
STREAM_LISTENERS: Kind[list[Listen]] = Kind("list of addresses, or off", _listeners(_STREAM_FLAGS))


def same_as(name: str, kind: Kind[T], place: str, **more: Any) -> Property[T | None]:
    """A property that has, without a value, that of another.

    Args:
        name: of the other.
        kind: of both.
        place: where this one holds instead, for the text.
        more: keywords of `Property`.
    """
    return Property(kind, None, f"As {name}, for {place}. Without a value that of {name}.", **more)  # type: ignore[arg-type]
