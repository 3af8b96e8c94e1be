"""Records, answers, and what an answer says about a question."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "AAAA",
    "CNAME",
    "HOPS",
    "KINDS",
    "LAST",
    "SRV",
    "A",
    "Record",
    "Reply",
    "Server",
    "code_text",
    "kind_name",
    "read_reply",
]

A, CNAME, AAAA, SRV = 1, 5, 28, 33
"""Kinds of records (RFC 1035 3.2.2, RFC 3596, RFC 2782)."""
LAST = 0
"""In an order of kinds: the one that the name was found by last (``dns_order``)."""

KINDS = {"LAST": LAST, "A": A, "CNAME": CNAME, "AAAA": AAAA, "SRV": SRV}

HOPS = 8
"""Aliases followed from one name; more are taken for a circle."""

NAME_ERROR = 3
_CODES = {1: "format error", 2: "server failure", 3: "name error", 4: "not implemented", 5: "refused"}

_TTL_MOST = 2**31 - 1


class Server(NamedTuple):
    """A name server."""

    host: str
    port: int = 53

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Record(NamedTuple):
    """One resource record. ``value`` is an address, or the name that an SRV or CNAME record points to."""

    name: str
    kind: int
    ttl: int
    value: str
    port: int = 0
    weight: int = 0
    priority: int = 0


class Reply(NamedTuple):
    """An answer to a question, checked to be one; names are in lower case, without a dot at their end."""

    code: int
    truncated: bool
    answers: tuple[Record, ...]
    additional: tuple[Record, ...] = ()


class Meaning(NamedTuple):
    """What a reply says about a question: records, or an alias without them, or neither.

    ``ttl`` is the shortest of all that led to the records, in seconds.
    """

    records: tuple[Record, ...]
    alias: str
    ttl: int


def kind_name(kind: int) -> str:
    """``A`` for 1, and so on."""
    return next((name for name, each in KINDS.items() if each == kind), str(kind))


def code_text(code: int) -> str:
    """A response code in the words that Kong (lua-resty-dns) has for it."""
    return f"{code} {_CODES.get(code, 'unknown')}"


def read_reply(name: str, kind: int, reply: Reply) -> Meaning:
    """Follow the aliases within a reply from ``name`` to records of ``kind`` (RFC 1034 3.6.2).

    Records that do not belong to the chain are not looked at. A record that counts twice is taken once.
    """
    ttl, seen, at = _TTL_MOST, {name}, name
    while True:
        found = tuple(dict.fromkeys(each for each in reply.answers if each.name == at and each.kind == kind))
        if found:
            return Meaning(found, "", min(ttl, *(each.ttl for each in found), _TTL_MOST))
        alias = next((each for each in reply.answers if each.name == at and each.kind == CNAME), None)
        if alias is None:
            return Meaning((), "" if at == name else at, ttl)
        if alias.value in seen or len(seen) > HOPS:
            return Meaning((), "", ttl)
        ttl, at = min(ttl, alias.ttl), alias.value
        seen.add(at)
