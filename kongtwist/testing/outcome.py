"""What came of a request under test, and the rows that plugins find."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred

from ..core.answers import Answer
from ..core.chain.phases import BodyFilter, WholeBody
from ..core.exchange import BodyTooLarge, Exchange
from ..core.http.error_bodies import error_body
from ..core.http.headers import spread
from ..core.rows import Row
from ..entities.references import SecretMissing

__all__ = ["Outcome", "StoredRows", "UnderTest", "body_of", "finished"]

_T = TypeVar("_T")


def finished(waiting: Awaitable[_T]) -> _T:
    """The result of an awaitable that needs nothing from outside.

    Raises:
        AssertionError: it waits for something that this kit does not have.
    """
    try:
        next(iter(waiting.__await__()))
    except StopIteration as end:
        return cast(_T, end.value)
    raise AssertionError("the plugin waits for something outside; give it what it needs ready made")


def body_of(exchange: Exchange, answer: Answer) -> bytes:
    """The body of an answer as it is sent where no plugin looks at it; what an error says is told in the form the client
    accepts."""
    if answer.message is None:
        return answer.body or b""
    return error_body(answer.status, answer.message, exchange.request_id, exchange.block.first(b"accept"))[1]


class StoredRows:
    """Stored entities as plugins find them in ``exchange.snapshot``.

    Attributes:
        rows: entity to id to row; never changed in place.
        secrets: references to vaults, and what they stand for.
    """

    def __init__(self) -> None:
        self.version = 1
        self.rows: dict[str, dict[str, Row]] = {"consumers": {}, "vaults": {}}
        self.secrets: dict[str, str] = {}

    def by(self, entity: str, field: str, value: Any) -> Row | None:
        """The row whose unique ``field`` has this value."""
        return next((row for row in self.rows.get(entity, {}).values() if row.get(field) == value), None)

    def all_by(self, entity: str, field: str, value: Any) -> tuple[Row, ...]:
        """The rows whose ``field`` has this value; of a reference it is the id."""
        rows = self.rows.get(entity, {}).values()
        return tuple(row for row in rows if row.get(field) in (value, {"id": value}))

    def secret(self, reference: str) -> str:
        """What a reference to a vault stands for. Raises SecretMissing."""
        if reference not in self.secrets:
            raise SecretMissing("there is no such secret in this test")
        return self.secrets[reference]


class UnderTest(Exchange):
    """An exchange whose body is there already and whose client is nobody."""

    __slots__ = ("body", "peer_port", "shown", "sni")

    body: bytes
    shown: bytes | None

    @property
    def client_certificate(self) -> bytes | None:
        """See `Exchange.client_certificate`; ``shown`` sets it."""
        return self.shown

    async def read_body(self, limit: int) -> bytes:
        if len(self.body) > limit:
            raise BodyTooLarge(f"{len(self.body)} bytes")
        return self.body


class Outcome:
    """What a plugin did with a request.

    Attributes:
        exchange: the exchange, for what has no shorter name here.
        answer: the plugin's answer, or None: the request goes on.
        waiting: what a plugin waits for; None when all have decided.
        passed: bytes of the request's body as the upstream gets them (after `PluginHarness.upload`).
        returned: what ``header_filter`` asked for of the answer's body (after `PluginHarness.respond`), by plugin.
        sent: bytes of the body as the client gets them (after `PluginHarness.respond`).
        streamed: who sends a streamed answer; None when all is sent.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.answer: Answer | None = None
        self.waiting: Deferred[None] | None = None
        self.passed = b""
        self.returned: dict[str, BodyFilter | WholeBody] = {}
        self.sent = b""
        self.streamed: Deferred[None] | None = None

    @property
    def consumer(self) -> Row | None:
        """Who the plugin says this is."""
        return self.exchange.consumer

    @property
    def credential(self) -> Row | None:
        """By what it was recognised."""
        return self.exchange.credential

    @property
    def upstream_headers(self) -> dict[str, str]:
        """Request headers set for the upstream, by name in lower case; several of a name are joined by ", "."""
        changes = self.exchange.request_changes or {}
        return {
            name.decode(): value.decode().replace("\0", ", ") for name, value in changes.items() if value is not None
        }

    @property
    def removed_headers(self) -> set[str]:
        """Request headers the upstream does not get, in lower case."""
        return {name.decode() for name, value in (self.exchange.request_changes or {}).items() if value is None}

    @property
    def upstream_query(self) -> str | None:
        """The query string the upstream gets in place of the client's; None when it was left alone."""
        query = self.exchange.upstream_query
        return None if query is None else query.decode()

    @property
    def upstream_body(self) -> bytes | None:
        """The body the upstream gets in place of the client's; None when it was left alone."""
        return self.exchange.upstream_body

    @property
    def response_headers(self) -> dict[str, str]:
        """Headers the client gets from the plugin, by name in lower case; several of a name are joined by ", "."""
        out: dict[str, str] = {}
        for how, name, value in spread(self.exchange.response_changes or ()):
            key = name.decode().lower()
            if how == "clear":
                out.pop(key, None)
            elif how == "add" and key in out:
                out[key] += f", {value.decode()}"
            else:
                out[key] = value.decode()
        return out

    @property
    def answer_headers(self) -> dict[str, str]:
        """Headers of the answer itself, by name in lower case."""
        found = self.answer.headers if self.answer is not None else []
        return {name.decode().lower(): value.decode() for name, value in found}

    @property
    def answer_json(self) -> Any:
        """The answer's body, decoded."""
        assert self.answer is not None and self.answer.body is not None
        return json.loads(self.answer.body)
