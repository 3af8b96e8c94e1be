"""The PROXY protocol (HAProxy's proxy-protocol.txt, versions 1 and 2): what a load balancer says of a connection before its first byte.

The reader is strict, as it stands where everybody could lie: what is not exactly a header ends the connection. TLVs of version 2 are
skipped; a header of theirs may be as long as nginx takes it.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import unpack_from
from typing import NamedTuple

__all__ = ["MOST", "MalformedHeader", "ProxiedPeer", "ProxyHeader", "parse_proxy_header"]

MOST = 4096
"""Bytes of the longest header (nginx's ``NGX_PROXY_PROTOCOL_MAX_HEADER``)."""

_V1 = b"PROXY "
_V1_MOST = 107
"""Bytes of the longest header of version 1, with its line end (proxy-protocol.txt 2.1)."""
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = 16
"""Bytes before the addresses of version 2: signature, version and command, family, length."""
_ADDRESSES = {0x11: ("!4s4sHH", 12), 0x21: ("!16s16sHH", 36)}
"""TCP over IPv4 and over IPv6: source, destination and their ports, and the bytes of all of them."""
_NO_ADDRESS = {0x00: 0, 0x31: 216}
"""Unknown, and a unix socket: the connection's own address holds; bytes of what is skipped."""


class MalformedHeader(ValueError):
    """What came is no PROXY header. The text says why, without the client's bytes."""


class ProxyHeader(NamedTuple):
    """What a header says. ``source`` is None where it names no client (LOCAL, UNKNOWN, a unix socket)."""

    size: int  #: bytes of the header
    source: str | None = None  #: address of the client
    source_port: int = 0
    destination: str | None = None  #: address it connected to
    destination_port: int = 0


class ProxiedPeer(NamedTuple):
    """The other end of a connection that begins with a PROXY header: as factories are given it in place of an address.

    Attributes:
        peer: who is connected (IAddress).
        header: what it says.
    """

    peer: object
    header: ProxyHeader


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """Read the header that a connection begins with.

    Args:
        data: everything that came so far.

    Returns:
        the header; None while it is not complete.

    Raises:
        MalformedHeader: it is none, or longer than `MOST` bytes.
    """
    if data[:1] == _V1[:1]:
        return _version_1(data)
    if data[:12] == _V2[: len(data[:12])]:
        return _version_2(data) if len(data) >= _V2_FIXED else None
    raise MalformedHeader("it begins with something else")


def _version_1(data: bytes) -> ProxyHeader | None:
    if data[:6] != _V1[: len(data[:6])]:
        raise MalformedHeader("it begins with something else")
    end = data.find(b"\r\n", 0, _V1_MOST)
    if end < 0:
        if len(data) >= _V1_MOST:
            raise MalformedHeader(f"its line is longer than {_V1_MOST} bytes")
        return None
    size = end + 2
    words = data[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return ProxyHeader(size)  # what follows is to be ignored (2.1)
    if words[1] not in (b"TCP4", b"TCP6"):
        raise MalformedHeader("its protocol is none of TCP4, TCP6 and UNKNOWN")
    if len(words) != 6:
        raise MalformedHeader("its line has not six words")
    version = 4 if words[1] == b"TCP4" else 6
    source, destination = (_text_address(word, version) for word in words[2:4])
    return ProxyHeader(size, source, _text_port(words[4]), destination, _text_port(words[5]))


def _text_address(word: bytes, version: int) -> str:
    try:
        address = ip_address(word.decode("ascii"))
    except ValueError:
        raise MalformedHeader("an address in it is none") from None
    if address.version != version or getattr(address, "scope_id", None) is not None:
        raise MalformedHeader("an address in it is none of its protocol's")
    return _written(address)


def _text_port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (word[:1] == b"0" and len(word) > 1) or int(word) > 65535:
        raise MalformedHeader("a port in it is none")
    return int(word)


def _version_2(data: bytes) -> ProxyHeader | None:
    what, family, length = unpack_from("!BBH", data, 12)
    if what not in (0x20, 0x21):
        raise MalformedHeader("its version is not 2, or its command neither LOCAL nor PROXY")
    size = _V2_FIXED + length
    if size > MOST:
        raise MalformedHeader(f"it is longer than {MOST} bytes")
    local = what == 0x20
    if not local:
        known = _ADDRESSES.get(family)
        needed = known[1] if known is not None else _NO_ADDRESS.get(family)
        if needed is None:
            raise MalformedHeader("its family is none of TCP over IPv4, TCP over IPv6, a unix stream and unknown")
        if length < needed:
            raise MalformedHeader("it is too short for its addresses")
    if len(data) < size:
        return None
    if local or family not in _ADDRESSES:
        return ProxyHeader(size)  # health checks of the balancer itself; unknown (2.2)
    source, destination, source_port, destination_port = unpack_from(_ADDRESSES[family][0], data, _V2_FIXED)
    return ProxyHeader(
        size, _written(ip_address(source)), source_port, _written(ip_address(destination)), destination_port
    )


def _written(address: IPv4Address | IPv6Address) -> str:
    """An address as peers' are written; an IPv4 one in IPv6 is the IPv4 one, which plugins and ``trusted_ips`` know."""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(address if mapped is None else mapped)
