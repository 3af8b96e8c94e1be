"""What stream-ticket does with requests.

It runs before all plugins that authenticate. ``POST .../kong/ticket`` goes through all of them, and is answered in place of the
upstream when they have let it pass. A handshake with a ticket is let pass as the client that asked for it: they are skipped. All
others (acl, rate-limiting...) run as ever.
"""

from __future__ import annotations

from collections.abc import Awaitable
from math import ceil
from typing import Any

from ...core.chain.authentication import held_until, vouch
from ...core.chain.credentials import expired
from ...core.chain.host import Host, HostError
from ...core.chain.phases import ProxyEndpoint
from ...core.chain.plugin import Plugin
from ...core.exchange import Answer, Exchange
from ...core.http.identity_fields import IDENTITY_FIELDS
from ...core.http.query import parse_query, without_argument
from ...core.rows import Row
from ...entities.checks import Conditional
from ...entities.schema import Any_, Integer, Record, String
from .._made_secret import MadeSecret
from .._redis_fields import redis_fields, redis_settings
from .tickets import CountedUses, RedisUses, Ticket, TicketBook, Uses, told_of_client

__all__ = ["PATH", "StreamTicket"]

PATH = "/kong/ticket"
_NO_STORE = [(b"Cache-Control", b"no-store")]


class Config:
    """A configuration, ready for requests.

    Attributes:
        uses: which tickets were used; None until it is opened.
    """

    __slots__ = ("book", "name", "policy", "redis", "ttl", "uses")

    def __init__(self, conf: Row) -> None:
        self.book = TicketBook(conf["secret"])
        self.ttl: int = conf["ttl"]
        self.name: str = conf["query_name"]
        self.policy: str = conf["policy"]
        self.redis: Row = conf["redis"]
        self.uses: Uses | None = None


def _required(value: str) -> Conditional:
    shown = {
        "if_field": "config.policy", "if_match": {"eq": "redis"}, "then_field": value, "then_match": {"required": True},
    }  # fmt: skip
    return Conditional("config.policy", String(one_of=["redis"]), value, Any_(required=True), shown)


async def _issue(exchange: Exchange, conf: Config) -> Answer:
    """Give the client a ticket; plugins know by now who it is."""
    credential = exchange.credential
    if credential is None:
        return exchange.error(401, "Unauthorized")
    consumer = exchange.consumer
    key = credential.get("id")
    now = exchange.gateway.now()
    expires = min(now + conf.ttl, held_until(exchange))
    ticket = Ticket(
        exchange.route.row["id"],
        expires,
        None if consumer is None else consumer["id"],
        _table_of(exchange, key),
        key,
        exchange.authenticated_groups,
        told_of_client(exchange.request_changes),
    )
    try:
        made = conf.book.write(ticket)
    except ValueError as error:
        exchange.report(f"stream-ticket: {error}", "give the consumer shorter names or fewer groups")
        return exchange.error(500, "An unexpected error occurred")
    return exchange.exit(200, {"ticket": made, "expires_in": max(int(expires - now), 0)}, _NO_STORE)


def _table_of(exchange: Exchange, key: Any) -> str | None:
    """The entity that a credential is a row of."""
    for name, rows in exchange.snapshot.rows.items():
        if name != "consumers" and key in rows:
            return name
    return None


def _endpoint(exchange: Exchange, conf: Config) -> None:
    async def answer(exchange: Exchange) -> Answer:
        return await _issue(exchange, conf)

    exchange.answer_by(answer)


class StreamTicket(Plugin):
    """Give tickets, and let handshakes pass that have one."""

    name = "stream-ticket"
    priority = 2600
    protocols = ("http", "https")
    scopes = ("service", "route")
    example = {"ttl": 30}
    config = {
        "ttl": Integer(
            default=30, between=(1, 300),
            text="Seconds for which a ticket is good; not beyond the end of the token or key it was asked for with.",
        ),
        "query_name": String(
            default="ticket", required=True, len_min=1, text="Query argument in which a handshake brings its ticket."
        ),
        "secret": MadeSecret(
            required=False, encrypted=True, referenceable=True,
            text="What the key of tickets is made from; made at random where it is not given or null. Nodes that are configured by"
            " files need the same.",
        ),
        "policy": String(
            default="cluster", one_of=["cluster", "redis"],
            text="Where it is noted that a ticket was used: in the database, for all its nodes (without one: on this node), or in Redis.",
        ),
        "redis": Record(redis_fields("policy redis"), text="The Redis server of policy redis."),
    }  # fmt: skip
    config_checks = (
        _required("config.redis.host"),
        _required("config.redis.port"),
        _required("config.redis.timeout"),
    )
    proxy_endpoints = (ProxyEndpoint(PATH, _endpoint, ("POST",)),)

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def open(self, conf: Config, plugin: Row, host: Host) -> Config:
        if conf.policy == "redis":
            conf.uses = RedisUses(host.redis(redis_settings(conf.redis)))
        else:
            conf.uses = CountedUses(host.tallies, host.now)
        return conf

    def access(self, exchange: Exchange, conf: Config) -> Answer | Awaitable[Answer | None] | None:
        if b"referer" in exchange.block:
            _clean_referer(exchange, conf.name)
        if b"?" not in exchange.target:
            return None
        path, _, query = exchange.target.partition(b"?")
        tickets = parse_query(query).get(conf.name)
        if not tickets:
            return None
        # From here on nobody finds it: not the upstream, not a plugin behind, not a log.
        rest = without_argument(query, conf.name)
        exchange.target = path + b"?" + rest if rest else path
        exchange.set_upstream_query(rest)
        exchange.set_response_header(b"Referrer-Policy", b"no-referrer")
        if not _is_handshake(exchange):
            return None
        if len(tickets) > 1:
            return exchange.error(401, "Duplicate ticket found")
        return self._redeem(exchange, conf, tickets[0])

    async def _redeem(self, exchange: Exchange, conf: Config, text: str) -> Answer | None:
        found = conf.book.read(text)
        now = exchange.gateway.now()
        if found is None or found[1].expires <= now or found[1].route != exchange.route.row["id"]:
            return exchange.error(401, "Unauthorized")
        name, ticket = found
        try:
            if conf.uses is None:
                raise HostError("uses of tickets cannot be noted in this process")
            first = await conf.uses.first(name, ceil(ticket.expires - now) + 1)
        except HostError as error:
            exchange.report(
                f"stream-ticket: a ticket was refused: {error}", "see that what config.policy names is there"
            )
            return exchange.error(503, "Tickets cannot be checked now")
        if not first or not _authenticate(exchange, ticket):
            return exchange.error(401, "Unauthorized")
        vouch(exchange)
        return None


def _authenticate(exchange: Exchange, ticket: Ticket) -> bool:
    """Let the client be who the ticket says; False: that one is gone."""
    rows = exchange.snapshot.rows
    consumer = rows.get("consumers", {}).get(ticket.consumer) if ticket.consumer is not None else None
    if ticket.consumer is not None and consumer is None:
        return False
    credential: Row | None = {"id": ticket.credential}
    if ticket.table is not None:
        credential = rows.get(ticket.table, {}).get(ticket.credential or "")
        if credential is None or expired(credential, exchange.gateway.now()):
            return False
    exchange.authenticate(consumer, credential)
    exchange.authenticated_groups = ticket.groups
    changes: dict[bytes, bytes | None] = dict(exchange.request_changes or ())
    changes.update(dict.fromkeys(IDENTITY_FIELDS))  # the client's own claims
    changes.update({name.encode("latin-1"): value.encode("latin-1") for name, value in ticket.fields.items()})
    exchange.request_changes = changes
    return True


def _is_handshake(exchange: Exchange) -> bool:
    """Whether a request opens a WebSocket or an event stream, as far as one can tell before its answer."""
    if exchange.method != b"GET":
        return False
    return exchange.block.upgrade_websocket or b"text/event-stream" in (exchange.get_header(b"accept") or b"").lower()


def _clean_referer(exchange: Exchange, name: str) -> None:
    """Take tickets out of the address of the page that asks."""
    referer = exchange.block.first(b"referer") or b""
    path, mark, query = referer.partition(b"?")
    query, hash_mark, fragment = query.partition(b"#")
    if mark and name in parse_query(query):
        rest = without_argument(query, name)
        exchange.set_upstream_header(b"referer", path + (b"?" + rest if rest else b"") + hash_mark + fragment)
