"""What a request's token must hold, and what is remembered of one that does."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from ...core.chain.authentication import challenge, holds_until, is_known, nobody, use_anonymous
from ...core.chain.credentials import REMEMBERED, Credentials, Known
from ...core.chain.plugin import Plugin
from ...core.chain.subprotocols import take
from ...core.exchange import Answer, Exchange, Row
from ...core.http.base64_text import decode_base64url
from ...core.http.cookies import read_cookies
from ...core.http.lookups import named
from .signed_token import BadToken, SignedToken, UnusableKey, read_token, verifies
from .token_fields import CHECKS, CONFIG, SECRETS

__all__ = ["Jwt"]

AUTHENTICATED = "authenticated_jwt_token"
"""Where other plugins find the token by which a client was recognised, as in Kong."""

LONGEST = 4096
"""Bytes of a field or token that is remembered; longer ones are verified each time."""

MOST_KEPT = 16 * 1024 * 1024
"""Bytes of fields and tokens that are remembered for each configuration; `REMEMBERED` bounds their number."""

_LARGEST = 1e300
"""No number in a claim is larger: what a double cannot hold never comes."""

_BEARER = re.compile(rb"[Bb]earer\s+(.+)").search


class _Refused(Exception):
    """No usable token.

    Attributes:
        body: what the client is told.
        plain: nothing was wrong with a token: there is none.
        unchallenged: the answer has no WWW-Authenticate.
    """

    def __init__(self, message: str | dict[str, Any], *, plain: bool = False, unchallenged: bool = False) -> None:
        super().__init__()
        self.body = {"message": message} if isinstance(message, str) else message
        self.plain, self.unchallenged = plain, unchallenged


class _Verified(NamedTuple):
    """A token that held."""

    known: Known
    until: float  #: epoch seconds at which it holds no more
    token: str


class Config:
    """A configuration, ready for requests; remembers tokens that it has verified."""

    __slots__ = (
        "anonymous", "base64", "bearer", "challenge", "claims", "cookies", "faulty", "headers", "kept", "key_claim",
        "most_ahead", "preflight",
        "queries", "subprotocol", "verified",
    )  # fmt: skip

    def __init__(self, conf: Row) -> None:
        self.anonymous: str | None = conf["anonymous"]
        self.base64: bool = conf["secret_is_base64"]
        self.key_claim: str = conf["key_claim_name"] or "iss"
        self.claims = tuple(sorted(set(conf["claims_to_verify"] or ())))
        self.most_ahead: float = conf["maximum_expiration"] or 0
        self.preflight: bool = conf["run_on_preflight"]
        self.subprotocol = bool(conf.get("token_in_subprotocol"))
        self.queries: tuple[str, ...] = tuple(conf["uri_param_names"] or ())
        self.cookies = tuple([name.lower().encode() for name in conf["cookie_names"] or ()])
        self.headers = tuple([name.lower().encode() for name in conf["header_names"] or ()])
        # The one header that is looked at before anything else: where it is the only place, its value tells all.
        self.bearer = self.headers[0] if len(self.headers) == 1 and not self.cookies and not self.subprotocol else None
        self.challenge = challenge("Bearer", conf["realm"])
        self.faulty = challenge("Bearer", conf["realm"], 'error="invalid_token"')
        # By token, and by the whole field where that is the only place. Verdicts depend on the configuration.
        self.verified: dict[bytes, _Verified] = {}
        self.kept = 0


class Jwt(Plugin):
    """Find the token, its key and consumer; look at signature and claims; tell the upstream who it is."""

    name = "jwt"
    priority = 1450
    authenticates = True
    scopes = ("service", "route")
    example = {"claims_to_verify": ["exp"], "key_claim_name": "iss"}
    config = CONFIG
    config_checks = CHECKS
    entities = (SECRETS,)

    def __init__(self) -> None:
        self._credentials = Credentials(SECRETS, "key", lambda row: row["key"])

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def access(self, exchange: Exchange, conf: Config) -> Answer | None:
        if not conf.preflight and exchange.method == b"OPTIONS":
            nobody(exchange)
            return None
        if conf.subprotocol:
            take(exchange)  # whoever it is, the upstream must not see it
        if conf.anonymous is not None and is_known(exchange, conf.anonymous):
            return None
        field = None
        plain = b"?" not in exchange.target and exchange.upstream_query is None
        if conf.bearer is not None and (plain or not conf.queries or not exchange.raw_query):
            values = named(exchange.block, conf.bearer)
            if len(values) == 1:
                field = values[0]
                verified = self._recalled(exchange, conf, field)
                if verified is not None:
                    return self._pass_on(exchange, verified)
        try:
            if field is None:
                verified = self._authenticated(exchange, conf)
            else:
                bearer = _BEARER(field)
                if bearer is None:
                    raise _Refused("Unauthorized", plain=True)
                verified = self._verified(exchange, conf, bearer[1])
        except _Refused as refused:
            if conf.anonymous is not None:
                return use_anonymous(exchange, conf.anonymous)
            value = conf.challenge if refused.plain else conf.faulty
            return exchange.exit(401, refused.body, None if refused.unchallenged else [(b"WWW-Authenticate", value)])
        if field is not None:
            _remember(conf, field, verified)
        return self._pass_on(exchange, verified)

    @staticmethod
    def _pass_on(exchange: Exchange, verified: _Verified) -> None:
        verified.known.pass_on(exchange)
        exchange.ctx[AUTHENTICATED] = verified.token
        if verified.until != math.inf:
            holds_until(exchange, verified.until)

    def _recalled(self, exchange: Exchange, conf: Config, text: bytes) -> _Verified | None:
        """What was verified before, if that still holds: not over, and key and consumer unchanged."""
        verified = conf.verified.get(text)
        if verified is None:
            return None
        if verified.until > exchange.wall_started and self._credentials.holds(exchange, verified.known):
            return verified
        del conf.verified[text]
        return None

    def _authenticated(self, exchange: Exchange, conf: Config) -> _Verified:
        """The request's one token, verified."""
        tokens = _tokens(exchange, conf)
        if not tokens:
            raise _Refused("Unauthorized", plain=True)
        if len(tokens) > 1:
            raise _Refused("Multiple tokens provided")
        (token,) = tokens
        verified = self._recalled(exchange, conf, token)
        if verified is None:
            verified = self._verified(exchange, conf, token)
            _remember(conf, token, verified)
        return verified

    def _verified(self, exchange: Exchange, conf: Config, token: bytes) -> _Verified:
        try:
            read = read_token(token)
        except BadToken as bad:
            raise _Refused(f"Bad token; {bad}") from None
        key = _key_of(read, conf.key_claim)
        known = self._credentials.find(exchange, key)
        row = exchange.snapshot.by(SECRETS.name, "key", key) if known is None else known.credential
        if row is None:
            raise _Refused(f"No credentials found for given '{conf.key_claim}'")
        # The algorithm is the key's, never the token's to choose.
        if read.header["alg"] != (row["algorithm"] or "HS256"):
            raise _Refused("Invalid algorithm")
        secret = _secret_of(row, read.header["alg"], conf.base64)
        try:
            right = verifies(read, secret)
        except UnusableKey:
            raise _Refused("Invalid key/secret") from None
        if not right:
            raise _Refused("Invalid signature")
        until = _claims_hold(read, conf, exchange.wall_started)
        if known is None:
            raise _Refused(f"Could not find consumer for '{conf.key_claim}={key}'", unchallenged=True)
        return _Verified(known, until, token.decode("utf-8", "surrogateescape"))


def _tokens(exchange: Exchange, conf: Config) -> set[bytes]:
    """All tokens of a request, equal ones once. Of a header that comes several times all values count: Kong reads the first,
    and an upstream may read another."""
    found: set[bytes] = set()
    if conf.queries and exchange.raw_query:
        args = exchange.query_args()
        for name in conf.queries:
            found.update([each.encode("utf-8", "surrogateescape") for each in args.get(name, ())])
    if conf.cookies and (fields := exchange.get_headers(b"cookie")):
        found.update([value for name, value in read_cookies(fields).items() if name.lower() in conf.cookies])
    for header in conf.headers:
        for value in exchange.get_headers(header):
            bearer = _BEARER(value)
            if bearer is not None:
                found.add(bearer[1])
    if conf.subprotocol:
        offered = take(exchange).values(conf.queries or ("jwt",))
        found.update([each.encode("utf-8", "surrogateescape") for each in offered])
    found.discard(b"")
    return found


def _key_of(token: SignedToken, claim: str) -> str:
    """What names the key: the claim, or else the header's member."""
    key = token.claims.get(claim)
    if key is None or key is False:
        key = token.header.get(claim)
    if key is None or key is False:
        raise _Refused(f"No mandatory '{claim}' in claims")
    if not isinstance(key, str) or not key:
        raise _Refused(f"Invalid '{claim}' in claims")
    return key


def _secret_of(row: Row, algorithm: str, base64: bool) -> bytes | str:
    if not algorithm.startswith("HS"):
        secret: bytes | str | None = row["rsa_public_key"]
    else:
        text = (row["secret"] or "").encode("utf-8", "surrogatepass")
        secret = decode_base64url(text) if base64 else text
    if not secret:
        raise _Refused("Invalid key/secret")
    return secret


def _claims_hold(token: SignedToken, conf: Config, now: float) -> float:
    """When a token that holds now will hold no more, epoch seconds. Whole seconds count, as in Kong."""
    claims: Any = token.claims
    seconds = int(now)
    errors = {}
    for name in conf.claims:
        value = claims.get(name)
        if not _is_number(value):
            errors[name] = "must be a number"
        elif name == "exp" and value <= seconds:
            errors[name] = "token expired"
        elif name == "nbf" and value > seconds:
            errors[name] = "token not valid yet"
    if errors:
        raise _Refused(errors)
    expires = claims.get("exp")
    if conf.most_ahead > 0 and (not _is_number(expires) or expires - seconds > conf.most_ahead):
        raise _Refused({"exp": "exceeds maximum allowed expiration"})
    return float(min(expires, 1e15)) if "exp" in conf.claims else math.inf


def _is_number(value: Any) -> bool:
    return value.__class__ in _NUMBERS and abs(value) <= _LARGEST


_NUMBERS = (int, float)  # what a JSON decoder makes of numbers, and bool is neither


def _remember(conf: Config, text: bytes, verified: _Verified) -> None:
    if len(text) <= LONGEST:
        conf.kept += len(text)
        if len(conf.verified) >= REMEMBERED or conf.kept > MOST_KEPT:
            conf.verified.clear()
            conf.kept = len(text)
        conf.verified[text] = verified
