"""The kit for testing plugins: no reactor, no sockets, no gateway, a clock that stands still.

    harness = PluginHarness(KeyAuth, hide_credentials=True)
    harness.store("consumers", id="c1", username="bob")
    harness.store("keyauth_credentials", id="k1", key="secret", consumer={"id": "c1"})
    outcome = harness.send("GET", "/?apikey=secret")
    assert outcome.answer is None and outcome.consumer["username"] == "bob"

The configuration goes through the plugin's own schema, so defaults are filled in and a wrong one raises
`kongtwist.entities.errors.EntityError`. What a plugin raises comes out as it is.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from .core.chain.host import Host
from .core.chain.plugin import BodyFilter, Plugin, WholeBody
from .core.exchange import Answer, BodyTooLarge, Exchange, Row
from .core.http.head import HeaderBlock
from .core.http.headers import spread
from .core.routing.router import Match
from .entities import registry
from .observability.shared_counters import LocalCounters

__all__ = ["NOW", "Outcome", "PluginHarness", "StoredRows", "finished"]

NOW = 1700000000.0
"""Where the clock stands at first: 2023-11-14T22:13:20Z."""

_ID = "00000000-0000-4000-8000-000000000000"

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


class StoredRows:
    """Stored entities as plugins find them in ``exchange.snapshot``."""

    def __init__(self) -> None:
        self.version = 1
        self.rows: dict[str, dict[str, Row]] = {"consumers": {}}

    def by(self, entity: str, field: str, value: Any) -> Row | None:
        """The row whose unique ``field`` has this value."""
        return next((row for row in self.rows.get(entity, {}).values() if row.get(field) == value), None)


class _TestExchange(Exchange):
    """An exchange whose body is there already and whose client is nobody."""

    __slots__ = ("body",)

    body: bytes

    async def read_body(self, limit: int) -> bytes:
        if len(self.body) > limit:
            raise BodyTooLarge(f"{len(self.body)} bytes")
        return self.body


class Outcome:
    """What a plugin did with a request.

    Attributes:
        exchange: the exchange, for what has no shorter name here.
        answer: the plugin's answer, or None: the request goes on.
        sent: bytes of the body as the client gets them (after `PluginHarness.respond`).
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.answer: Answer | None = None
        self.sent = b""

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


class PluginHarness:
    """A plugin with one configuration, ready to be sent requests.

    Args:
        kind: the plugin class.
        config: its configuration, as in the Admin API; what is left out has its default.

    Attributes:
        now: the clock, epoch seconds; set it to make time pass.
        reports: texts of failures that would be in the log.
        counters: the node's counters.
    """

    def __init__(self, kind: type[Plugin], **config: Any) -> None:
        self.now = NOW
        self.reports: list[str] = []
        self.plugin = kind()
        self.counters = LocalCounters()
        self.rows = StoredRows()
        self.facilities = Host(
            counters=self.counters, now=lambda: self.now, report=self.reports.append, node_id="node-id",
            hostname="host", worker_pid=1, new_id=lambda: _ID,
        )  # fmt: skip
        self._entities = registry({kind.name: self.plugin})
        self.row = self._entities["plugins"].insert(
            {"name": kind.name, "config": config}, now=int(self.now), new_id=lambda: _ID
        )
        self.conf = self.plugin.compile(self.row["config"], self.row)

    def store(self, entity: str, **row: Any) -> Row:
        """Put a row where plugins look for it; only the fields the plugin reads are needed."""
        rows = self.rows.rows  # not changed in place: a snapshot never is
        self.rows.rows = {**rows, entity: {**rows.get(entity, {}), row["id"]: row}}
        return row

    def request(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        ip: str = "10.0.0.1",
    ) -> Exchange:
        """An exchange for a request.

        Args:
            method: as on the wire.
            target: path and query, as on the wire.
            headers: ``Host: example.com`` and a Content-Length for the body are added where missing.
            body: the whole body.
            ip: the client's address.
        """
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        names = {name.lower() for name, _ in pairs}
        if "host" not in names:
            pairs.insert(0, ("host", "example.com"))
        if body and not names & {"content-length", "transfer-encoding"}:
            pairs.append(("content-length", str(len(body))))
        exchange = _TestExchange()
        exchange.method = method.encode()
        exchange.target = target.encode()
        exchange.minor = 1
        exchange.block = HeaderBlock.from_pairs([(n.encode(), v.encode()) for n, v in pairs])
        exchange.scheme = b"http"
        exchange.peer_ip = exchange.client_ip = ip
        exchange.peer_port, exchange.local_port = 40000, 8000
        exchange.trusted, exchange.sni = False, None
        exchange.started = 1.0
        exchange.wall_started = self.now
        exchange.request_id = b"0" * 32
        exchange.gateway = self.facilities
        exchange.snapshot = cast(Any, self.rows)
        service = {"id": "service-1", "name": "s"}
        exchange.route = cast(Any, SimpleNamespace(row={"id": "route-1", "name": "r"}, service=service))
        exchange.match = Match(exchange.route, b"/", None, exchange.raw_path, b"")
        exchange.body = body
        return exchange

    def send(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        ip: str = "10.0.0.1",
    ) -> Outcome:
        """Make a request (see `request`) and run the phases before the upstream is asked."""
        return self.run(self.request(method, target, headers, body, ip))

    def run(self, exchange: Exchange) -> Outcome:
        """Run rewrite and access for an exchange made by `request`."""
        outcome = Outcome(exchange)
        for phase in ("rewrite", "access"):
            if outcome.answer is None and self._takes_part(phase):
                result = getattr(self.plugin, phase)(exchange, self.conf)
                if result is not None and not isinstance(result, Answer):
                    result = finished(result)
                outcome.answer = result
        return outcome

    def respond(
        self,
        outcome: Outcome,
        status: int = 200,
        headers: Iterable[tuple[str, str]] = (),
        chunks: Sequence[bytes] = (),
    ) -> Outcome:
        """Run header_filter, body_filter and log: with the plugin's own answer, else with this one of the upstream.

        An `Answer` of header_filter is ``outcome.answer`` from then on; a `BodyFilter` or `WholeBody` gets the body.
        """
        exchange = outcome.exchange
        if outcome.answer is not None:
            status = outcome.answer.status
            chunks = [outcome.answer.body or b""]
            exchange.answer_source = outcome.answer.source
        else:
            exchange.upstream_status = status
            exchange.response_fields = HeaderBlock.from_pairs([(n.encode(), v.encode()) for n, v in headers])
        exchange.status = status
        if self._takes_part("header_filter"):
            result = self.plugin.header_filter(exchange, self.conf)
            if isinstance(result, Answer):
                outcome.answer = result
                exchange.status, exchange.answer_source = result.status, result.source
                chunks = [result.body or b""]
            elif isinstance(result, BodyFilter):
                chunks = _filtered(result, chunks or [b""])
            elif isinstance(result, WholeBody):
                if exchange.method != b"HEAD" and exchange.upstream_status not in (204, 304):
                    chunks = self._held(outcome, result, b"".join(chunks))
            elif result is not None:
                raise TypeError(f"expected an Answer, a BodyFilter, a WholeBody or None, not {result!r}")
        for index, chunk in enumerate(chunks):
            if self._takes_part("body_filter"):
                chunk = self.plugin.body_filter(exchange, self.conf, chunk, index == len(chunks) - 1)
            outcome.sent += chunk
        if self._takes_part("log"):
            self.plugin.log(exchange, self.conf)
        return outcome

    @staticmethod
    def _held(outcome: Outcome, whole: WholeBody, body: bytes) -> list[bytes]:
        """What is sent of a body that is held until it is whole."""
        made: bytes | Answer | None
        if len(body) <= whole.limit:
            made = whole.call(body)
        else:
            made = whole.too_large() if whole.too_large is not None else None
        if isinstance(made, Answer):
            outcome.answer = made
            outcome.exchange.status, outcome.exchange.answer_source = made.status, made.source
            return [made.body or b""]
        return [body if made is None else made]

    def _takes_part(self, phase: str) -> bool:
        return getattr(type(self.plugin), phase) is not getattr(Plugin, phase)


def _filtered(body_filter: BodyFilter, chunks: Sequence[bytes]) -> list[bytes]:
    """What a filter of an answer passes on."""
    out = []
    for index, chunk in enumerate(chunks):
        made = body_filter.call(chunk, index == len(chunks) - 1)
        if isinstance(made, Answer):
            raise TypeError("a filter gave an answer where one has begun")
        out.append(made)
    return out
