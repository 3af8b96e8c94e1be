"""The authorization and the token endpoint of the plugin oauth2, on the paths that it guards (Kong 3.9.3)."""

from __future__ import annotations

import re
from typing import Any

from ...core.chain.authentication import challenge
from ...core.chain.failures import is_cancelled
from ...core.chain.host import Host, Rows
from ...core.exchange import Answer, BodyTooLarge, Exchange
from ...core.http.base64_text import decode_base64
from ...core.http.bodies import decode_body
from ...core.http.lookups import variable
from ...core.rows import Row
from ...entities.paths import normalise
from .._once import Seldom
from .client_secrets import needs_rehash, verified
from .grants import (
    Authorization,
    NewCode,
    NewToken,
    Policy,
    Refusal,
    Site,
    TokenRequest,
    authorize,
    redirected,
    told,
)
from .oauth2_fields import CODE_TTL

__all__ = ["BODIES", "Endpoints", "endpoint_of", "parameters_of"]

BODIES = frozenset((b"PATCH", b"POST", b"PUT"))
"""Methods of requests whose bodies have parameters."""

_BASIC = re.compile(rb"[Bb]asic\s*(.+)", re.DOTALL)
_NO_STORE = [(b"Cache-Control", b"no-store"), (b"Pragma", b"no-cache")]  # RFC 6749 5.1

TOKEN = "token"
AUTHORIZATION = "authorization"


def endpoint_of(path: bytes) -> str | None:
    """Which endpoint a request's path is, if it is one: by its end, a slash more allowed.

    Args:
        path: as received, without query.
    """
    if b"oauth2" not in path and b"%" not in path:
        return None
    ending = normalise(path).removesuffix(b"/")
    if ending.endswith(b"/oauth2/token"):
        return TOKEN
    return AUTHORIZATION if ending.endswith(b"/oauth2/authorize") else None


async def parameters_of(exchange: Exchange) -> dict[str, Any]:
    """A request's parameters: its query, and over it its body where it is a form or JSON that may be held."""
    found: dict[str, Any] = {
        name: values[0] if len(values) == 1 else values for name, values in exchange.query_args().items()
    }
    if exchange.method in BODIES and exchange.block.has_body:
        try:
            raw = await exchange.read_body(exchange.gateway.body_limit)
        except BodyTooLarge:
            return found
        body = decode_body(exchange.get_header(b"content-type"), raw)
        if body is not None:
            found.update(body.args)
    return found


class _Rows:
    """Rows as decisions look them up."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def client(self, client_id: str) -> Row | None:
        return self._rows.by("oauth2_credentials", "client_id", client_id)

    def code(self, code: str) -> Row | None:
        return self._rows.by("oauth2_authorization_codes", "code", code)

    def refreshed_by(self, refresh_token: str) -> Row | None:
        return self._rows.by("oauth2_tokens", "refresh_token", refresh_token)


class Endpoints:
    """Both endpoints of one configuration.

    Args:
        conf: the configuration, and ``policy`` of it.
        plugin_id: its id.
        host: rows and threads.
    """

    __slots__ = ("_header", "_host", "_http_allowed", "_plugin_id", "_policy", "_realm", "_rows", "_tell")

    def __init__(self, conf: Row, policy: Policy, plugin_id: str, host: Host) -> None:
        self._policy, self._plugin_id, self._host = policy, plugin_id, host
        self._realm: str | None = conf["realm"]
        self._rows = _Rows(host.rows)
        self._header: bytes = (conf["auth_header_name"] or "authorization").lower().encode()
        self._http_allowed: bool = conf["accept_http_if_already_terminated"]
        self._tell = Seldom(host.report, host.now)

    async def answer(self, exchange: Exchange, endpoint: str) -> Answer:
        """What a request to one of them is answered."""
        if exchange.method != b"POST":
            return self._wrong_method(exchange, endpoint)
        parameters = await parameters_of(exchange)
        if (fault := self._insecure(exchange)) is not None:
            return _answered(fault, parameters.get("state"))
        service = exchange.route.service
        site = Site(self._plugin_id, None if service is None else service["id"])
        if site.service_id is None and not self._policy.global_credentials:
            exchange.report(
                "oauth2: a token would hold for no service",
                "give the route a Service, or set config.global_credentials",
            )
            return exchange.error(500, "An unexpected error occurred")
        try:
            if endpoint == AUTHORIZATION:
                return await self._authorize(site, parameters)
            return await self._issue(exchange, site, parameters)
        except Exception as error:
            if is_cancelled(error):
                raise
            self._tell(f"oauth2: no code or token could be given: {error}")
            return exchange.error(500, "An unexpected error occurred")

    def _wrong_method(self, exchange: Exchange, endpoint: str) -> Answer:
        method = exchange.method.decode("latin-1")
        text = f"The HTTP method {method} is invalid for the {endpoint} endpoint"
        error = f'error="invalid_method" error_description="{text}"'
        return exchange.exit(
            405,
            {"error": "invalid_method", "error_description": text},
            [(b"WWW-Authenticate", challenge("Bearer", self._realm, error))],
        )

    def _insecure(self, exchange: Exchange) -> Refusal | None:
        """Secrets come over TLS only (RFC 6749 3.1, 3.2)."""
        if exchange.scheme == b"https":
            return None
        if self._http_allowed and exchange.trusted:
            said = exchange.get_headers(b"x-forwarded-proto")
            if len(said) > 1 or any(b"," in each for each in said):
                return Refusal("access_denied", "Only one X-Forwarded-Proto header allowed")
            if said and said[0].lower() == b"https":
                return None
        return Refusal("access_denied", "You must use HTTPS")

    # -- authorization -------------------------------------------------------------------------------------------------

    async def _authorize(self, site: Site, parameters: dict[str, Any]) -> Answer:
        found = authorize(self._policy, site, parameters, self._rows)
        decision = found.decision
        if isinstance(decision, NewCode):
            values = decision.values | {"ttl": CODE_TTL}
            await self._host.rows.insert("oauth2_authorization_codes", values)
        elif isinstance(decision, NewToken):
            await self._write(decision)
        return self._sent_on(found)

    @staticmethod
    def _sent_on(found: Authorization) -> Answer:
        """Kong tells who asked where to send the browser; the redirect is up to your login page."""
        decision, state = found.decision, found.state
        if isinstance(decision, Refusal):
            said: Row = {"error": decision.error, "error_description": decision.description}
        elif isinstance(decision, NewCode):
            said = {"code": decision.values["code"]}
        else:
            said = told(decision)
        if state is not None:
            said["state"] = state
        if found.redirect_uri is not None:
            fragment = isinstance(decision, NewToken)
            said = {"redirect_uri": redirected(found.redirect_uri, said, fragment=fragment)}
        return Exchange.exit(400 if isinstance(decision, Refusal) else 200, said, list(_NO_STORE))

    # -- tokens --------------------------------------------------------------------------------------------------------

    async def _issue(self, exchange: Exchange, site: Site, parameters: dict[str, Any]) -> Answer:
        state = parameters.get("state")
        asked = TokenRequest(self._policy, parameters, self._basic(exchange), self._rows)
        decision = asked.decide(site, await self._fits(asked))
        if isinstance(decision, Refusal) and decision.description in _MISSED:
            # What it shows may have been given by another process or node a moment ago.
            await self._host.rows.refresh()
            asked = TokenRequest(self._policy, parameters, self._basic(exchange), self._rows)
            decision = asked.decide(site, await self._fits(asked))
        if isinstance(decision, NewToken):
            fault = await self._write(decision)
            if fault is None:
                return Exchange.exit(200, told(decision, state), list(_NO_STORE))
            decision = fault
        return _answered(decision, state)

    async def _fits(self, asked: TokenRequest) -> bool:
        """Whether a secret is the one whose hash is stored. One that was hashed in another way is hashed anew."""
        if asked.to_verify is None or asked.client is None:
            return False
        secret, stored = asked.to_verify
        fits = await self._host.threads(verified, secret, stored)
        if fits and needs_rehash(stored):
            try:
                values = {"client_secret": secret, "hash_secret": True}
                await self._host.rows.update("oauth2_credentials", asked.client["id"], values)
            except Exception as error:
                if is_cancelled(error):
                    raise
                self._tell(f"oauth2: the secret of a client could not be hashed anew: {error}")
        return fits

    def _basic(self, exchange: Exchange) -> tuple[str | None, str | None] | None:
        """Client and secret in the header (RFC 6749 2.3.1). A colon more ends the secret, as in Kong."""
        values = variable(exchange.block, self._header)
        if not values:
            return None
        found = _BASIC.search(values[0])
        decoded = None if found is None else decode_base64(found[1].strip())
        text = "" if decoded is None else decoded.decode("utf-8", "surrogateescape")
        client_id, _, rest = text.partition(":")
        return client_id or None, rest.partition(":")[0] if ":" in text else None

    async def _write(self, token: NewToken) -> Refusal | None:
        """Write a token. What it is given for is used up at the end: who finds it gone gets nothing."""
        rows = self._host.rows
        values = token.values if token.ttl is None else token.values | {"ttl": token.ttl}
        if token.replaces is not None:
            values = {name: value for name, value in values.items() if name != "refresh_token"}
            await rows.update("oauth2_tokens", token.replaces, values | {"created_at": int(self._host.now())})
            return None
        made = await rows.insert("oauth2_tokens", values)
        if token.used_up is None or await rows.delete(*token.used_up):
            return None
        await rows.delete("oauth2_tokens", made["id"])
        what = "refresh_token" if token.used_up[0] == "oauth2_tokens" else "code"
        return Refusal("invalid_request", f"Invalid {what}")


_MISSED = frozenset(("Invalid code", "Invalid refresh_token", "Invalid client authentication"))


def _answered(fault: Refusal, state: Any) -> Answer:
    body: Row = {"error": fault.error, "error_description": fault.description}
    if state is not None:
        body["state"] = state
    headers = list(_NO_STORE)
    if fault.challenge is not None:
        headers.append((b"WWW-Authenticate", fault.challenge))
    return Exchange.exit(fault.status, body, headers)
