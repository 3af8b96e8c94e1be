"""DNS messages as bytes; Twisted's codec does the work (RFC 1035 4.1)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.names import dns

from ..core.dns.records import AAAA, CNAME, SRV, A, Record, Reply

__all__ = ["UDP_SIZE", "encode_query", "read_answer"]

UDP_SIZE = 1232
"""Bytes that an answer over UDP may have: what passes everywhere without being cut in pieces (DNS flag day 2020)."""

_OPT = b"\0" + struct.pack("!HHIH", 41, UDP_SIZE, 0, 0)
"""The record that says so (RFC 6891 6.1.2)."""
_POINTERS = 8192
"""Pointers within names that are followed: 64 KiB hold 4095 addresses, each behind one."""
_HEADER = struct.Struct("!6H")
_RESPONSE, _TRUNCATED, _OPCODE, _CODE = 0x8000, 0x0200, 0x7800, 0x000F
_BROKEN = (ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error)
"""What the codec raises for bytes that are no message."""


def encode_query(number: int, name: str, kind: int, edns: bool) -> bytes:
    """A question for one kind of records.

    Args:
        number: its id, 16 bits.
        name: see `questions.plain_name`.
        kind: of record.
        edns: say that the answer may be longer than 512 bytes.
    """
    message = dns.Message(number, recDes=1)
    message.addQuery(name.encode("ascii"), kind)
    data = bytes(message.toStr())
    if not edns:
        return data
    return data[:10] + b"\0\1" + data[12:] + _OPT


def read_answer(data: bytes, number: int, name: str, kind: int) -> Reply | None:
    """The answer to one question.

    Returns:
        None for what does not answer this question: another id, another name, or no response. It may be forged.

    Raises:
        ValueError: it has the right id, and cannot be read.
    """
    if len(data) < _HEADER.size:
        return None
    found, flags, asked, answers, authority, additional = _HEADER.unpack_from(data)
    if found != number or not flags & _RESPONSE or flags & _OPCODE:
        return None
    code, truncated = flags & _CODE, bool(flags & _TRUNCATED)
    message = dns.Message()
    message.maxCompressionPointers = _POINTERS
    try:
        message.fromStr(data)
    except _BROKEN as error:
        if truncated:  # cut anywhere; it is asked for over TCP
            return Reply(code, True, ())
        raise ValueError(f"its answer cannot be read ({error})") from None
    if asked == 0 and code:  # some servers leave the question out where they refuse
        return Reply(code, truncated, ())
    queries: list[Any] = message.queries
    if len(queries) != 1 or queries[0].type != kind or _text(queries[0].name) != name:
        return None
    if not truncated and (len(message.answers), len(message.authority), len(message.additional)) != (
        answers,
        authority,
        additional,
    ):
        raise ValueError("its answer ends too early")
    return Reply(code, truncated, _records(message.answers), _records(message.additional))


def _text(name: Any) -> str:
    return str(name.name.decode("latin-1").lower().rstrip("."))


def _records(headers: list[Any]) -> tuple[Record, ...]:
    """The records of the kinds that are asked for, of the Internet's class."""
    found = (_record(each) for each in headers if each.cls == dns.IN)
    return tuple(each for each in found if each is not None)


def _record(header: Any) -> Record | None:
    kind, data = header.type, header.payload
    ttl = header.ttl if 0 <= header.ttl < 2**31 else 0  # RFC 2181 8
    name = _text(header.name)
    if kind == A and header.rdlength == 4:
        return Record(name, A, ttl, str(IPv4Address(data.address)))
    if kind == AAAA and header.rdlength == 16:
        return Record(name, AAAA, ttl, str(IPv6Address(data.address)))
    if kind == CNAME and _is_name(target := _text(data.name)):
        return Record(name, CNAME, ttl, target)
    if kind == SRV and _is_name(target := _text(data.target)):
        return Record(name, SRV, ttl, target, data.port, data.weight, data.priority)
    return None


def _is_name(text: str) -> bool:
    """Whether a host can have this name, so that it can be asked for; any bytes may stand in an answer."""
    return all("!" <= letter <= "~" for letter in text) and ".." not in text and not text.startswith(".")
