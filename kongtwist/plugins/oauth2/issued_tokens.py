"""Tokens that requests show, and whose they are; whoever was found is remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from ...core.chain.authentication import holds_until, identity_headers
from ...core.chain.credentials import REMEMBERED, expired
from ...core.chain.host import Rows
from ...core.exchange import Exchange
from ...core.http.headers import PreparedChanges, encoded
from ...core.rows import Row
from ...core.views import SnapshotView

__all__ = ["SCOPE", "USER", "IssuedTokens", "TokenHolder"]

SCOPE = b"x-authenticated-scope"
USER = b"x-authenticated-userid"

_TABLES = ("oauth2_tokens", "oauth2_credentials", "consumers")


class TokenHolder:
    """Whose a token is.

    Attributes:
        token: its row.
        service_id: the service it holds for; None: all with global_credentials.
        until: epoch seconds up to which the token and its row hold.
    """

    __slots__ = ("_changes", "_consumer", "_credential", "_generation", "service_id", "token", "until")

    def __init__(self, token: Row, credential: Row, consumer: Row, generation: int) -> None:
        self.token = token
        self._credential = credential
        self._consumer = consumer
        self._generation = generation
        self.service_id: str | None = None if token["service"] is None else token["service"]["id"]
        gone = token.get("expires_at")
        over = token["created_at"] + token["expires_in"] if token["expires_in"] > 0 else inf
        self.until: float = over if gone is None else min(over, gone)
        changes = identity_headers(consumer, credential["client_id"])
        self._changes = PreparedChanges(
            {**changes, SCOPE: _text(token["scope"]), USER: _text(token["authenticated_userid"])}
        )

    def pass_on(self, exchange: Exchange) -> None:
        """Note in the request who it comes from, and tell the upstream."""
        exchange.consumer = self._consumer
        exchange.credential = self._credential
        changes = exchange.request_changes
        exchange.request_changes = {**changes, **self._changes} if changes else self._changes
        if self.until != inf:
            holds_until(exchange, self.until)


def _text(value: str | None) -> bytes | None:
    return None if value is None else encoded(value.encode("utf-8", "surrogatepass"))


class IssuedTokens:
    """Finds tokens by their text.

    What is remembered holds until the row of the token, of its client or of the consumer changes, and no longer than the row
    lives. No more than `REMEMBERED` are.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._rows: Mapping[str, Mapping[str, Row]] = {}
        self._generation = 0
        self._found: dict[str, TokenHolder] = {}
        self._aliases: dict[bytes, TokenHolder] = {}

    def recall(self, snapshot: SnapshotView, field: bytes, now: float) -> TokenHolder | None:
        """Who was remembered with `remember`, if that still holds, the token's own time included."""
        known = self._aliases.get(field)
        if known is None:
            return None
        if self._rows is not snapshot.rows:
            self._moved(snapshot)
        if now < known.until and (known._generation == self._generation or self._holds(snapshot, known, now)):
            return known
        del self._aliases[field]
        return None

    def remember(self, field: bytes, known: TokenHolder) -> None:
        """Find a token by a whole header field from now on."""
        if len(self._aliases) >= self._most:
            self._aliases.clear()
        self._aliases[field] = known

    def find(self, snapshot: SnapshotView, text: str, now: float) -> TokenHolder | None:
        """Whose the token is; None for one that is unknown, expired with its row, or whose client or consumer is gone.

        Args:
            snapshot: the rows of the request.
            text: the token.
            now: epoch seconds.
        """
        if self._rows is not snapshot.rows:
            self._moved(snapshot)
        known = self._found.get(text)
        if known is not None:
            if self._holds(snapshot, known, now):
                return known
            del self._found[text]
        token = snapshot.by("oauth2_tokens", "access_token", text)
        if token is None or expired(token, now):
            return None
        rows = snapshot.rows
        found = self._held(token, lambda entity, key: rows.get(entity, {}).get(key))
        if found is not None:
            if len(self._found) >= self._most:
                self._found.clear()
            self._found[text] = found
        return found

    def look_up(self, rows: Rows, text: str) -> TokenHolder | None:
        """The same in the newest rows. It is not remembered: what is remembered is checked against a request's rows."""
        token = rows.by("oauth2_tokens", "access_token", text)
        return None if token is None else self._held(token, rows.get)

    def _held(self, token: Row, get: Callable[[str, str], Row | None]) -> TokenHolder | None:
        credential = get("oauth2_credentials", token["credential"]["id"])
        consumer = None if credential is None else get("consumers", credential["consumer"]["id"])
        if credential is None or consumer is None:
            return None
        return TokenHolder(token, credential, consumer, self._generation)

    def _holds(self, snapshot: SnapshotView, known: TokenHolder, now: float) -> bool:
        if known._generation != self._generation:
            rows = snapshot.rows
            mine = (known.token, known._credential, known._consumer)
            if any(rows.get(table, {}).get(row["id"]) is not row for table, row in zip(_TABLES, mine, strict=True)):
                return False
            known._generation = self._generation
        return not expired(known.token, now)

    def _moved(self, snapshot: SnapshotView) -> None:
        """Other rows than last time: if they are of our tables, each one remembered has to be looked at again."""
        rows, before = snapshot.rows, self._rows
        self._rows = rows
        if any(rows.get(table) is not before.get(table) for table in _TABLES):
            self._generation += 1
