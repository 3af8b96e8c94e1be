"""DNS messages as bytes (RFC 1035 4.1).

Questions are written by Twisted's codec. Answers are read here: whoever answers says how long names are and how often they are pointed
to, and Twisted's codec joins each name anew, of any length, for minutes on end in 64 KiB.
"""

from __future__ import annotations

import re
import struct
from ipaddress import IPv4Address, IPv6Address

from twisted.names import dns

from ..core.dns.records import AAAA, CNAME, SRV, A, Record, Reply

__all__ = ["UDP_SIZE", "encode_query", "read_answer"]

UDP_SIZE = 1232
"""Bytes that an answer over UDP may have: what passes everywhere without being cut in pieces (DNS flag day 2020)."""

_OPT = b"\0" + struct.pack("!HHIH", 41, UDP_SIZE, 0, 0)
"""The record that says so (RFC 6891 6.1.2)."""
_INTERNET = 1
"""The class of records that is looked at."""
_LONGEST_NAME = 255
"""Bytes of a name, with the length of each label and the empty one at its end (RFC 1035 2.3.4)."""
_JUMPS = 127
"""Pointers within a name that are followed: as many as it may have labels."""
_PRINTED = re.compile(rb"[!-~]*")
_HEADER = struct.Struct("!6H")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_SERVICE = struct.Struct("!3H")
_RESPONSE, _TRUNCATED, _OPCODE, _CODE = 0x8000, 0x0200, 0x7800, 0x000F


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
    message = _Message(data)
    try:
        questions = [message.question() for _ in range(asked)]
        if questions != [(name, kind)] and (questions or not code):  # some servers leave it out where they refuse
            return None
        records = message.records(answers)
        message.records(authority)
        return Reply(code, truncated, records, message.records(additional))
    except (ValueError, IndexError, struct.error) as error:
        if truncated:  # cut anywhere; it is asked for over TCP
            return Reply(code, True, ())
        what = (
            "its answer ends too early" if not isinstance(error, ValueError) else f"its answer cannot be read ({error})"
        )
        raise ValueError(what) from None


class _Message:
    """Reads a message from its questions on. What it lacks raises IndexError or struct.error, what is wrong in it ValueError."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, _HEADER.size
        self._names: dict[int, tuple[str | None, int]] = {}  # by place: the name, and the place behind it

    def question(self) -> tuple[str | None, int]:
        """Name and kind."""
        name, at = self._name(self._at)
        kind, _ = _QUESTION.unpack_from(self._data, at)
        self._at = at + _QUESTION.size
        return name, kind

    def records(self, count: int) -> tuple[Record, ...]:
        """The next records; of these, those of the kinds that are asked for, of the Internet's class, between names that hosts can have."""
        found = []
        for _ in range(count):
            name, at = self._name(self._at)
            kind, family, ttl, size = _RECORD.unpack_from(self._data, at)
            at += _RECORD.size
            self._at = at + size
            if self._at > len(self._data):
                raise IndexError(at)
            if name is None or family != _INTERNET:
                continue
            record = self._record(name, kind, ttl if ttl < 2**31 else 0, at, size)  # RFC 2181 8
            if record is not None:
                found.append(record)
        return tuple(found)

    def _record(self, name: str, kind: int, ttl: int, at: int, size: int) -> Record | None:
        if kind == A and size == 4:
            return Record(name, A, ttl, str(IPv4Address(self._data[at : at + 4])))
        if kind == AAAA and size == 16:
            return Record(name, AAAA, ttl, str(IPv6Address(self._data[at : at + 16])))
        if kind == CNAME:
            target = self._last(at, at + size)
            return None if target is None else Record(name, CNAME, ttl, target)
        if kind == SRV:
            priority, weight, port = _SERVICE.unpack_from(self._data, at)
            target = self._last(at + _SERVICE.size, at + size)
            return None if target is None else Record(name, SRV, ttl, target, port, weight, priority)
        return None

    def _last(self, at: int, end: int) -> str | None:
        """A name that ends what a record holds."""
        name, behind = self._name(at)
        if behind != end:
            raise ValueError("a record has another length than it says")
        return name

    def _name(self, at: int) -> tuple[str | None, int]:
        """The name at a place, in lower case, without a dot at its end, and the place behind it. None: no host can have this name."""
        place = at
        if self._data[at] >= 0xC0:  # most owners are but a pointer, to one place
            place = (self._data[at] & 0x3F) << 8 | self._data[at + 1]
            if place >= at:
                raise ValueError("a name goes in circles")
        found = self._names.get(place)
        if found is None:
            labels, behind = self._labels(place)
            name = b".".join(labels)
            # A dot in a label is no dot between labels; what cannot be asked for is left out.
            good = name.count(b".") == max(len(labels) - 1, 0) and _PRINTED.fullmatch(name)
            found = self._names[place] = name.decode("ascii").lower() if good else None, behind
        return found if place == at else (found[0], at + 2)

    def _labels(self, at: int) -> tuple[list[bytes], int]:
        data = self._data
        labels: list[bytes] = []
        size, jumps, behind, lowest = 1, 0, 0, at
        while (length := data[at]) != 0:
            if length >= 0xC0:  # a pointer to a place before
                target = (length & 0x3F) << 8 | data[at + 1]
                behind = behind or at + 2
                jumps += 1
                if target >= lowest or jumps > _JUMPS:
                    raise ValueError("a name goes in circles")
                at = lowest = target
                continue
            size += 1 + length
            if length > 63 or size > _LONGEST_NAME:
                raise ValueError("a name is too long")
            label = data[at + 1 : at + 1 + length]
            if len(label) < length:
                raise IndexError(at)
            labels.append(label)
            at += 1 + length
        return labels, behind or at + 1
