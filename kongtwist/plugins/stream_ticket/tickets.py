"""What a ticket holds, and that it is used once.

A ticket is sealed text (AES-256-GCM, see session/sealing.py), so any node that has the secret can read it, and nothing has to be
stored before it is used. That it was used is counted where all nodes count: in the database, or in a Redis server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import urandom
from typing import Any, NamedTuple, Protocol

from ...core.chain.host import RedisClient, Tallies, Tally
from ..session.sealing import ID_SIZE, Sealer, base64url, unbase64url

__all__ = ["CountedUses", "RedisUses", "Ticket", "TicketBook", "Uses"]

_USE = b"stream-ticket"
LONGEST = 4096
"""Characters of a ticket; it has to fit into a request line beside a path."""


class Ticket(NamedTuple):
    """Who a client is, as the plugins that authenticate have found out."""

    route: str  #: id of the Route it was given for, the only one it is good for
    expires: float  #: epoch seconds
    consumer: str | None  #: id
    table: str | None  #: entity of the credential; None: it is none that is stored
    credential: str | None  #: id
    groups: list[str] | None  #: authenticated groups
    fields: dict[str, str]  #: what upstreams are told of the client: header names in lower case to values


class Uses(Protocol):
    """Knows which tickets were used."""

    async def first(self, ticket: str, seconds: int) -> bool:
        """Whether this is the first use of a ticket, which is noted for so many seconds. Raises HostError."""
        ...


class CountedUses:
    """Uses counted in the database, for all its nodes; in the node's memory without one.

    Args:
        tallies: those of the host.
        now: epoch seconds.
    """

    def __init__(self, tallies: Tallies, now: Any) -> None:
        self._tallies, self._now = tallies, now

    async def first(self, ticket: str, seconds: int) -> bool:
        (uses,) = await self._tallies.add([Tally(f"stream-ticket:{ticket}", 0, 1, self._now() + seconds)])
        return uses == 1


class RedisUses:
    """Uses noted in a Redis server."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def first(self, ticket: str, seconds: int) -> bool:
        noted = await self._client.command("SET", f"stream-ticket:{ticket}", 1, "NX", "EX", seconds)
        return noted in (b"OK", "OK")


class TicketBook:
    """Makes and reads tickets.

    Args:
        secret: as configured.
    """

    __slots__ = ("_sealer",)

    def __init__(self, secret: str) -> None:
        self._sealer = Sealer(secret)

    def write(self, ticket: Ticket) -> str:
        """The text that a client gets. Raises ValueError when it would be too long."""
        name = urandom(ID_SIZE)
        text = json.dumps(ticket, separators=(",", ":")).encode()
        made = base64url(name + self._sealer.seal(_USE, name, text))
        if len(made) > LONGEST:
            raise ValueError(f"the ticket would have {len(made)} characters, more than {LONGEST}")
        return made

    def read(self, text: str) -> tuple[str, Ticket] | None:
        """A ticket's name and what it holds; None for what is none of ours. When it ends is for the caller to see."""
        raw = unbase64url(text) if len(text) <= LONGEST else None
        if raw is None or len(raw) <= ID_SIZE:
            return None
        name = raw[:ID_SIZE]
        opened = self._sealer.open(_USE, name, raw[ID_SIZE:])
        return None if opened is None else (base64url(name), Ticket(*json.loads(opened)))


def told_of_client(changes: Mapping[bytes, bytes | None] | None) -> dict[str, str]:
    """What plugins that authenticate have the upstream told of a client."""
    found = {}
    for name, value in (changes or {}).items():
        if value is not None and name.startswith(IDENTITY):
            found[name.decode("latin-1")] = value.decode("latin-1")
    return found


IDENTITY = (b"x-consumer-", b"x-credential-", b"x-authenticated-", b"x-anonymous-")
"""How the names of those headers begin."""
