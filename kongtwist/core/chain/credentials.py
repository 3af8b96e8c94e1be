"""Credentials of consumers: found by a unique field, remembered while they hold, hidden from the upstream.

What plugins do with whom they found, and where they found nobody, is in authentication.py.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from ...entities.entity import Entity
from ...entities.references import SecretMissing, is_reference
from ..exchange import BodyTooLarge, Exchange
from ..http.bodies import RequestBody, decode_body
from ..http.headers import PreparedChanges
from ..rows import Row
from ..views import SnapshotView
from .authentication import identity_headers

__all__ = ["REMEMBERED", "Credentials", "Known", "expired", "hide", "readable_body"]

REMEMBERED = 16384
"""Credentials that are remembered for each plugin, and as many of the texts they were found by."""


def _id_of(credential: Row) -> str | None:
    found: str | None = credential["id"]
    return found


class Known:
    """Whose a credential is, and what the upstream is told of it.

    Attributes:
        consumer, credential: their rows.
        changes: to the upstream's request headers.
        expires: epoch seconds at which the credential does; None: never.
    """

    __slots__ = ("_generation", "_secrets", "changes", "consumer", "credential", "expires")

    def __init__(self, consumer: Row, credential: Row, identifier: str | None, generation: int) -> None:
        self.consumer = consumer
        self.credential = credential
        self.changes = PreparedChanges(identity_headers(consumer, identifier))
        self.expires: float | None = credential.get("expires_at")
        self._generation = generation
        self._secrets: tuple[object, dict[str, Any]] | None = None

    def pass_on(self, exchange: Exchange) -> None:
        """Note in the request who it comes from, and tell the upstream."""
        exchange.consumer = self.consumer
        exchange.credential = self.credential
        changes = exchange.request_changes
        exchange.request_changes = {**changes, **self.changes} if changes else self.changes


class Credentials:
    """A plugin's credentials, found by the value of a unique field; whoever was found is remembered.

    What is remembered holds until the row of the credential or of its consumer changes; changes of other rows, of these
    tables too, cost one look. No more than `REMEMBERED` are.

    Args:
        entity: the credentials'.
        field: the unique field they are found by.
        identifier: what X-Credential-Identifier says of a credential; its id by default.
    """

    def __init__(
        self, entity: Entity, field: str, identifier: Callable[[Row], str | None] = _id_of, most: int = REMEMBERED
    ) -> None:
        self._entity = entity
        self._name = entity.name
        self._field = field
        self._identifier = identifier
        self._most = most
        self._rows: Mapping[str, Mapping[str, Row]] = {}
        self._generation = 0
        self._found: dict[Any, Known] = {}
        self._aliases: dict[Hashable, Known] = {}

    def find(self, exchange: Exchange, value: Any) -> Known | None:
        """Whose the credential with this value is; None for an unknown or expired one, or one whose consumer is gone."""
        known = self._found.get(value)
        if known is not None:
            if self.holds(exchange, known):
                return known
            del self._found[value]
        snapshot = exchange.snapshot
        credential = snapshot.by(self._name, self._field, value)
        if credential is None:
            return None
        consumer = snapshot.rows["consumers"].get(credential["consumer"]["id"])
        if consumer is None or expired(credential, exchange.wall_started):
            return None
        if self._rows is not snapshot.rows:
            self._moved(snapshot)
        if len(self._found) >= self._most:
            self._found.clear()
        known = self._found[value] = Known(consumer, credential, self._identifier(credential), self._generation)
        return known

    def recall(self, exchange: Exchange, alias: Hashable) -> Known | None:
        """Who was remembered with `remember`, if that still holds."""
        known = self._aliases.get(alias)
        if known is None:
            return None
        if self._rows is exchange.snapshot.rows and known._generation == self._generation:
            if known.expires is None or known.expires > exchange.wall_started:  # `holds`, without a call
                return known
        elif self.holds(exchange, known):
            return known
        del self._aliases[alias]
        return None

    def remember(self, alias: Hashable, known: Known) -> None:
        """Find a credential by something that says as much as its value and costs less, such as a whole header field."""
        if len(self._aliases) >= self._most:
            self._aliases.clear()
        self._aliases[alias] = known

    def secret(self, exchange: Exchange, known: Known, field: str) -> Any:
        """A field of a credential; what it refers to, if the field may refer to a vault and does. None: that stands for
        nothing."""
        value: Any = known.credential.get(field)
        if not is_reference(value) or not self._entity.fields[field].referenceable:
            return value
        vaults = exchange.snapshot.rows["vaults"]
        if known._secrets is None or known._secrets[0] is not vaults:
            known._secrets = (vaults, {})
        secrets = known._secrets[1]
        if field not in secrets:
            try:
                secrets[field] = exchange.snapshot.secret(value)
            except SecretMissing as missing:
                exchange.report(f"{self._name} {known.credential['id']}: {field} refers to {value}, but {missing}")
                secrets[field] = None
        return secrets[field]

    def holds(self, exchange: Exchange, known: Known) -> bool:
        """Whether what is remembered is true of the rows of this request, and not expired."""
        snapshot = exchange.snapshot
        if self._rows is snapshot.rows and known._generation == self._generation:  # the usual case
            return known.expires is None or known.expires > exchange.wall_started
        if self._rows is not snapshot.rows:
            self._moved(snapshot)
        if known._generation != self._generation and not self._still(snapshot, known):
            return False
        return not expired(known.credential, exchange.wall_started)

    def _moved(self, snapshot: SnapshotView) -> None:
        """Other rows than last time: if they are of our tables, each one remembered has to be looked at again."""
        rows, before = snapshot.rows, self._rows
        self._rows = rows
        if any(rows.get(table) is not before.get(table) for table in (self._name, "consumers")):
            self._generation += 1

    def _still(self, snapshot: SnapshotView, known: Known) -> bool:
        rows = snapshot.rows
        if rows.get(self._name, {}).get(known.credential["id"]) is not known.credential:
            return False
        if rows["consumers"].get(known.consumer["id"]) is not known.consumer:
            return False
        known._generation = self._generation
        return True


async def readable_body(exchange: Exchange) -> RequestBody | None:
    """The request's body, to look for a credential in it; None: it is too large to be held, and is not looked into."""
    try:
        raw = await exchange.read_body(exchange.gateway.body_limit)
    except BodyTooLarge:
        return None
    return decode_body(exchange.get_header(b"content-type"), raw)


def hide(exchange: Exchange, name: str, body: RequestBody | None = None) -> None:
    """Take a credential out of all that goes to the upstream: header, query argument and member of the body ``name``.

    Args:
        exchange: the request.
        name: as configured; a header of this name in any case, also with ``-`` for ``_``.
        body: the decoded body, if it was looked at.
    """
    header = name.lower().encode()
    exchange.clear_upstream_header(header if header in exchange.block else header.replace(b"_", b"-"))
    if exchange.raw_query and name in exchange.query_args():
        exchange.clear_query_arg(name)
    if body is not None and name in body.args:
        exchange.set_upstream_body(body.without(name))


def expired(credential: Row, now: float) -> bool:
    """Whether a credential's time to live is over. Rows that expire have ``expires_at``, epoch seconds."""
    expires: float | None = credential.get("expires_at")
    return expires is not None and expires <= now
