"""The plugin oauth2: requests with tokens are let in, and two paths give tokens (Kong 3.9.3, ``kong/plugins/oauth2``)."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Any

from ...core.chain.authentication import challenge, is_known, use_anonymous
from ...core.chain.credentials import hide, readable_body
from ...core.chain.host import Host
from ...core.chain.plugin import Plugin
from ...core.chain.subprotocols import take
from ...core.exchange import Answer, Exchange
from ...core.http.bodies import RequestBody
from ...core.http.lookups import named, variable
from ...core.rows import Row
from ...entities.errors import EntityError
from .grants import GLOBAL, INVALID, Policy, Refusal, verdict
from .issued_tokens import SCOPE, USER, IssuedTokens, TokenHolder
from .oauth2_endpoints import BODIES, Endpoints, endpoint_of
from .oauth2_fields import CODES, CONFIG, CREDENTIALS, TOKENS

__all__ = ["OAuth2"]

_PARTICULAR = re.compile(rb"[?%]|oauth2")
"""What a target has that may be an endpoint or bring a token."""

_MISSING = Refusal("invalid_request", "The access token is missing", 401)
_SEVERAL = Refusal("invalid_request", "More than one access token is given", 401)
_ARGUMENT = "access_token"


class Config:
    """A configuration, ready for requests.

    Attributes:
        endpoints, host: set in processes that serve.
    """

    __slots__ = (
        "anonymous",
        "endpoints",
        "header",
        "hide",
        "host",
        "plugin_id",
        "policy",
        "quick",
        "row",
        "subprotocol",
    )

    def __init__(self, conf: Row, plugin: Row) -> None:
        self.row = conf
        self.plugin_id: str = plugin["id"]
        self.policy = Policy(conf)
        self.anonymous: str | None = conf["anonymous"]
        self.hide: bool = conf["hide_credentials"]
        self.subprotocol = bool(conf.get("token_in_subprotocol"))
        self.header: bytes = (conf["auth_header_name"] or "authorization").lower().encode()
        # Whether a header that was seen before is looked at first, and alone.
        self.quick = not self.hide and not self.subprotocol
        self.host: Host | None = None
        self.endpoints: Endpoints | None = None


class OAuth2(Plugin):
    """Give tokens on ``/oauth2/token`` and ``/oauth2/authorize``; let in who shows one; tell the upstream who it is."""

    name = "oauth2"
    priority = 1400
    authenticates = True
    scopes = ("service", "route")
    example = {"scopes": ["read", "write"], "enable_authorization_code": True}
    config = CONFIG
    entities = (CREDENTIALS, CODES, TOKENS)

    def __init__(self) -> None:
        self._tokens = IssuedTokens()

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf, plugin)

    def open(self, conf: Config, plugin: Row, host: Host) -> Config:
        conf.host = host
        conf.endpoints = Endpoints(conf.row, conf.policy, conf.plugin_id, host)
        return conf

    def access(self, exchange: Exchange, conf: Config) -> Answer | Awaitable[Answer | None] | None:
        target = exchange.target
        if conf.quick and exchange.credential is None and not _PARTICULAR.search(target):
            fields = named(exchange.block, conf.header)
            if len(fields) == 1:
                known = self._tokens.recall(exchange.snapshot, fields[0], exchange.wall_started)
                service = exchange.route.service
                if known is not None and service is not None and known.service_id == service["id"]:
                    known.pass_on(exchange)
                    return None
        endpoint = endpoint_of(exchange.raw_path)
        if endpoint is not None and conf.endpoints is not None:
            return conf.endpoints.answer(exchange, endpoint)
        if conf.subprotocol:
            take(exchange)  # whoever it is, the upstream must not see it
        if is_known(exchange, conf.anonymous):
            exchange.clear_upstream_header(SCOPE)
            exchange.clear_upstream_header(USER)
            return None
        values = variable(exchange.block, conf.header)
        if not values:
            if exchange.method in BODIES and exchange.block.has_body and not _in_query(exchange):
                return self._access_with_body(exchange, conf)
            return self._from_arguments(exchange, conf, None)
        text = _token_of(values[0])
        others = {_token_of(each) for each in values[1:]} | set(_in_arguments(exchange, conf))
        if others - {text}:  # RFC 6750 2: which one counts must not be a matter of who looks
            return self._refuse(exchange, conf, _SEVERAL)
        if conf.hide:
            exchange.clear_upstream_header(conf.header)
            if _in_query(exchange):
                hide(exchange, _ARGUMENT)
        return self._admit(exchange, conf, text)

    async def _access_with_body(self, exchange: Exchange, conf: Config) -> Answer | None:
        """The token may be in a form (RFC 6750 2.2). A body too large to be held is not looked into."""
        body = await readable_body(exchange)
        answer = self._from_arguments(exchange, conf, body)
        return answer if answer is None or isinstance(answer, Answer) else await answer

    def _from_arguments(
        self, exchange: Exchange, conf: Config, body: RequestBody | None
    ) -> Answer | Awaitable[Answer | None] | None:
        found: list[Any] = [*_in_arguments(exchange, conf)]
        if body is not None and _ARGUMENT in body.args:
            inside = body.args[_ARGUMENT]
            found += inside if isinstance(inside, list) else [inside]
        if not found or not isinstance(found[0], str):
            return self._refuse(exchange, conf, _MISSING)
        if any(each != found[0] for each in found):
            return self._refuse(exchange, conf, _SEVERAL)
        if conf.hide:
            hide(exchange, _ARGUMENT, body)
        return self._admit(exchange, conf, found[0])

    def _admit(self, exchange: Exchange, conf: Config, text: str) -> Answer | Awaitable[Answer | None] | None:
        if not text:
            return self._refuse(exchange, conf, _MISSING)
        known = self._tokens.find(exchange.snapshot, text, exchange.wall_started)
        if known is None and conf.host is not None:
            return self._admit_late(exchange, conf, text)
        return self._judge(exchange, conf, known)

    async def _admit_late(self, exchange: Exchange, conf: Config, text: str) -> Answer | None:
        """The token is not known here: it may have been given by another process or node a moment ago."""
        assert conf.host is not None
        try:
            await conf.host.rows.refresh()
        except EntityError:  # the database is away: what is known here must do
            pass
        return self._judge(exchange, conf, self._tokens.look_up(conf.host.rows, text))

    def _judge(self, exchange: Exchange, conf: Config, known: TokenHolder | None) -> Answer | None:
        if known is None:
            return self._refuse(exchange, conf, INVALID)
        service = exchange.route.service
        service_id = None if service is None else service["id"]
        fault = verdict(conf.policy, service_id, known.token, exchange.wall_started)
        if fault is not None:
            return self._refuse(exchange, conf, fault)
        known.pass_on(exchange)
        if conf.quick and len(fields := named(exchange.block, conf.header)) == 1:
            self._tokens.remember(fields[0], known)  # a header that is there decides: the token was found in it
        return None

    @staticmethod
    def _refuse(exchange: Exchange, conf: Config, fault: Refusal) -> Answer | None:
        if conf.anonymous is not None and fault is not GLOBAL:
            exchange.clear_upstream_header(SCOPE)
            exchange.clear_upstream_header(USER)
            return use_anonymous(exchange, conf.anonymous)
        told = INVALID if fault is GLOBAL else fault
        error = "" if fault is _MISSING else f'error="{told.error}" error_description="{told.description}"'
        return exchange.exit(
            fault.status,
            {"error": fault.error, "error_description": fault.description},
            [(b"WWW-Authenticate", challenge("Bearer", conf.row["realm"], error))],
        )


def _token_of(value: bytes) -> str:
    """The token in a header: behind ``Bearer`` or ``token``, else all of it."""
    words = value.split()
    token = words[1] if len(words) == 2 and words[0].lower() in (b"bearer", b"token") else value
    return token.decode("utf-8", "surrogateescape")


def _in_arguments(exchange: Exchange, conf: Config) -> list[str]:
    """Tokens in the query, and those offered as subprotocols."""
    found = _in_query(exchange)
    return [*found, *take(exchange).values((_ARGUMENT,))] if conf.subprotocol else found


def _in_query(exchange: Exchange) -> list[str]:
    query = exchange.raw_query
    if not query or (b"access_token" not in query and b"%" not in query):
        return []
    return exchange.query_args().get(_ARGUMENT, [])
