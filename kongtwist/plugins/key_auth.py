"""key-auth: let clients in that show an API key. Kong 3.9 `key-auth`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ..core.chain.authentication import (
    Guard,
    anonymous_field,
    hide_field,
    is_known,
    nobody,
    preflight_field,
    realm_field,
    unauthorized,
)
from ..core.chain.credentials import Credentials, hide, readable_body
from ..core.chain.plugin import Plugin
from ..core.chain.subprotocols import subprotocol_field, take
from ..core.exchange import Answer, Exchange, Row
from ..core.http.bodies import RequestBody
from ..core.http.lookups import named
from ..entities.entity import Entity
from ..entities.route_limits import searched
from ..entities.schema import Array, Boolean, Foreign, String, Timestamp, Uuid
from ..entities.typedefs import header_name, tags

__all__ = ["CREDENTIALS", "KeyAuth"]

CREDENTIALS = Entity(
    "keyauth_credentials",
    {
        "id": Uuid(),
        "created_at": Timestamp(),
        "consumer": Foreign("consumers", on_delete="cascade", required=True, text="Who the key belongs to."),
        "key": String(required=False, auto=True, unique=True, text="The key; made at random when it is not given."),
        "tags": tags(),
    },
    endpoint_key="key",
    cache_key=("key",),
    admin_name="key-auths",
    nested_name="key-auth",
    ttl=True,
    plugin="key-auth",
    text="An API key of a consumer, for the plugin key-auth.",
    example={"key": "kT9wV2q6", "consumer": {"username": "alice"}, "ttl": 86400},
)
"""API keys. ``ttl`` in the body: seconds until the key is refused; none or 0: for ever."""

_NO_KEY = "No API key found in request"
_DUPLICATE = "Duplicate API key found"
_UNAUTHORIZED = "Unauthorized"


class _NeedsBody(Exception):
    """The key may be in the body, which has not been read yet."""


class _Refused(Exception):
    """No usable key; the argument is the message for the client."""


class Config(Guard):
    """A configuration, ready for requests."""

    __slots__ = ("first", "in_body", "in_header", "in_query", "in_subprotocol", "names", "preflight")

    def __init__(self, conf: Row) -> None:
        super().__init__(conf, "Key")
        self.names: list[tuple[str, bytes]] = [(name, name.lower().encode()) for name in conf["key_names"]]
        self.in_header: bool = conf["key_in_header"]
        self.in_query: bool = conf["key_in_query"]
        self.in_body: bool = conf["key_in_body"]
        self.in_subprotocol: bool = bool(conf.get("key_in_subprotocol"))
        self.preflight: bool = conf["run_on_preflight"]
        # The header that alone is looked at where its value has been seen before.
        self.first = self.names[0][1] if self.names and self.in_header and not self.hide else None


class KeyAuth(Plugin):
    """Find the key, its credential and consumer; tell the upstream who it is."""

    name = "key-auth"
    priority = 1250
    authenticates = True
    scopes = ("service", "route")
    example = {"key_names": ["apikey"], "hide_credentials": True}
    config = {
        "key_names": Array(
            String(checks=(header_name,)), required=True, default=["apikey"], checks=(searched,),
            text="Names under which the key is looked for, in header, query and body.",
        ),
        "hide_credentials": hide_field("the key"),
        "anonymous": anonymous_field(),
        "key_in_header": Boolean(required=True, default=True, text="Look for the key in the headers."),
        "key_in_query": Boolean(required=True, default=True, text="Look for the key in the query string."),
        "key_in_body": Boolean(
            required=True, default=False,
            text="Look for the key in forms, multipart forms and JSON bodies not larger than client_body_buffer_size.",
        ),
        "key_in_subprotocol": subprotocol_field("key", "kong.<key name>.<key>, or bearer.<key>"),
        "run_on_preflight": preflight_field("a key"),
        "realm": realm_field(),
    }  # fmt: skip
    entities = (CREDENTIALS,)

    def __init__(self) -> None:
        self._credentials = Credentials(CREDENTIALS, "key")

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def access(self, exchange: Exchange, conf: Config) -> Answer | Awaitable[Answer | None] | None:
        if not conf.preflight and exchange.method == b"OPTIONS":
            nobody(exchange)
            return None
        if conf.in_subprotocol:
            take(exchange)  # whoever it is, the upstream must not see it
        if conf.anonymous is not None and is_known(exchange, conf.anonymous):
            return None
        if conf.first is not None:
            values = named(exchange.block, conf.first)
            if len(values) == 1:
                known = self._credentials.recall(exchange, values[0])
                if known is not None:
                    known.pass_on(exchange)
                    return None
        try:
            key = self._find_key(exchange, conf, None, unread=conf.in_body and exchange.block.has_body)
        except _Refused as refused:
            return self._refuse(exchange, conf, refused.args[0])
        except _NeedsBody:
            return self._access_with_body(exchange, conf)
        return self._admit(exchange, conf, key)

    async def _access_with_body(self, exchange: Exchange, conf: Config) -> Answer | None:
        """The same, once the body is here. One too large to be held is not looked into."""
        body = await readable_body(exchange)
        try:
            key = self._find_key(exchange, conf, body, unread=False)
        except _Refused as refused:
            return self._refuse(exchange, conf, refused.args[0])
        return self._admit(exchange, conf, key)

    def _find_key(self, exchange: Exchange, conf: Config, body: RequestBody | None, *, unread: bool) -> str:
        """The first name that has a value decides: header before query before body."""
        for name, header in conf.names:
            value: Any = None
            if conf.in_header:
                values = exchange.get_headers(header)
                if values:
                    value = values[0].decode("utf-8", "surrogateescape") if len(values) == 1 else values
            if value is None and conf.in_query and exchange.raw_query:
                found = exchange.query_args().get(name)
                if found:
                    value = found[0] if len(found) == 1 else found
            if unread and (value is None or conf.hide):
                raise _NeedsBody
            if value is None and body is not None:
                value = body.args.get(name)
            if isinstance(value, str):
                if conf.hide:
                    hide(exchange, name, body)
                if not value:
                    break
                return value
            if isinstance(value, list | dict):
                raise _Refused(_DUPLICATE)
        offered = take(exchange).values(name for name, _ in conf.names) if conf.in_subprotocol else []
        if len(offered) > 1:
            raise _Refused(_DUPLICATE)
        if offered and offered[0]:
            return offered[0]
        raise _Refused(_NO_KEY)

    def _admit(self, exchange: Exchange, conf: Config, key: str) -> Answer | None:
        known = self._credentials.find(exchange, key)
        if known is None:
            return self._refuse(exchange, conf, _UNAUTHORIZED)
        if conf.first is not None and (values := named(exchange.block, conf.first)) and values[0]:
            self._credentials.remember(values[0], known)  # a header with a value decides: the key was found there
        known.pass_on(exchange)
        return None

    @staticmethod
    def _refuse(exchange: Exchange, conf: Config, message: str) -> Answer | None:
        return unauthorized(exchange, conf.anonymous, conf.challenge, message)
