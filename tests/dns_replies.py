"""DNS messages as a server writes them, by RFC 1035 4.1 and not by the codec that the gateway uses."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple

__all__ = ["CODES", "KINDS", "Query", "read_query", "reply_to"]

KINDS = {"A": 1, "CNAME": 5, "TXT": 16, "AAAA": 28, "SRV": 33}
CODES = {"NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5}

_NAMES = {number: name for name, number in KINDS.items()}


class Query(NamedTuple):
    """What was asked: id, name as it was written, kind, whether EDNS was offered, and the question's bytes."""

    number: int
    name: str
    kind: str
    edns: bool
    question: bytes


def read_query(data: bytes) -> Query:
    """Read a query with one question."""
    number, flags, asked, *_, additional = struct.unpack_from("!6H", data)
    assert (asked, flags & 0x8000) == (1, 0), data
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode("latin-1"))
        at += 1 + data[at]
    kind = struct.unpack_from("!HH", data, at + 1)[0]
    return Query(number, ".".join(labels), _NAMES.get(kind, str(kind)), additional > 0, data[12 : at + 5])


def _name(name: str) -> bytes:
    labels = [each.encode("latin-1") for each in name.split(".") if each]
    return b"".join(bytes((len(each),)) + each for each in labels) + b"\0"


def _record(record: Sequence[Any], asked: str) -> bytes:
    name, kind, ttl, *value = record
    if kind in ("A", "AAAA"):
        data = ip_address(value[0]).packed
    elif kind == "CNAME":
        data = _name(value[0])
    elif kind == "SRV":  # priority, weight, port, target
        data = struct.pack("!3H", *value[:3]) + _name(value[3])
    else:
        data = bytes((len(value[0]),)) + value[0].encode()
    owner = b"\xc0\x0c" if name == asked else _name(name)  # a pointer to the question (RFC 1035 4.1.4)
    return owner + struct.pack("!HHIH", KINDS[kind], 1, ttl, len(data)) + data


def reply_to(
    query: Query,
    records: Sequence[Sequence[Any]] = (),
    code: str = "NOERROR",
    *,
    additional: Sequence[Sequence[Any]] = (),
    truncated: bool = False,
    number: int | None = None,
    question: bytes | None = None,
) -> bytes:
    """The answer to a query.

    Args:
        query: what was asked.
        records: each is name, kind, TTL and what that kind of record holds.
        code: of the response.
        additional: records of that section.
        truncated: say that there is more.
        number: another id than the query's.
        question: another question than the query's.
    """
    flags = 0x8180 | CODES[code] | (0x0200 if truncated else 0)
    number = query.number if number is None else number
    head = struct.pack("!6H", number, flags, 1, len(records), 0, len(additional))
    question = query.question if question is None else question
    return head + question + b"".join(_record(each, query.name) for each in (*records, *additional))
