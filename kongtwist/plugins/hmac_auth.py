"""hmac-auth: let clients in that sign parts of their requests with a shared secret (draft-cavage-http-signatures). Kong 3.9
`hmac-auth`."""

from __future__ import annotations

import re
from base64 import b64encode
from calendar import timegm
from collections.abc import Awaitable
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest, digest
from typing import NamedTuple

from ..core.chain.authentication import Guard, anonymous_field, hide_field, is_known, realm_field, unauthorized
from ..core.chain.credentials import Known
from ..core.exchange import Answer, BodyTooLarge, Exchange, Row
from ..core.http.base64_text import decode_base64
from ..core.http.lookups import all_spellings, variable
from ..entities.schema import Array, Boolean, Number, String
from ._named_credentials import NamedCredentials, named_credentials

__all__ = ["CREDENTIALS", "HmacAuth", "http_time"]

CREDENTIALS = named_credentials(
    "hmacauth_credentials",
    "hmac-auth",
    owner="Who signs with the secret.",
    named="The name that a client gives beside its signature.",
    secret={"secret": String(auto=True, text="What requests are signed with; made at random when it is not given.")},
    text="A secret with which a consumer signs requests, for the plugin hmac-auth.",
    example={"username": "alice", "secret": "R5hSyWv2", "consumer": {"username": "alice"}},
)
"""Names and secrets."""

_ALGORITHMS = ("hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512")

_NOT_VALID = "HMAC signature cannot be verified"
_NOT_SAME = "HMAC signature does not match"
_DATE_FIELDS = frozenset((b"x-date", b"date"))
_NO_DATE = f"{_NOT_VALID}, a valid date or x-date header is required for HMAC Authentication"

# No value has a quote in it: what Kong lets pass there takes time that grows with the fourth power of the field's length.
_SENT = re.compile(
    rb'[Hh]mac\s*username="([^"]+)",\s*algorithm="([^"]+)",\s*headers="([^"]+)",\s*signature="([^"]+)"'
).search


class _Refused(Exception):
    """The request cannot pass; the argument is the message for the client."""


class _Signature(NamedTuple):
    """What a client says of its signature."""

    username: str
    algorithm: str
    headers: list[bytes]  #: names as listed
    signature: bytes  #: base64


class Config(Guard):
    """A configuration, ready for requests."""

    __slots__ = ("algorithms", "body", "enforced", "skew")

    def __init__(self, conf: Row) -> None:
        super().__init__(conf, "hmac")
        self.skew: float = conf["clock_skew"] if conf["clock_skew"] is not None else 300
        self.body: bool = conf["validate_request_body"]
        self.enforced = frozenset([name.encode() for name in conf["enforce_headers"] or ()])
        self.algorithms = frozenset(conf["algorithms"] or ())


class HmacAuth(NamedCredentials):
    """Compare the signature in Proxy-Authorization, or Authorization, with our own; tell the upstream who it is."""

    name = "hmac-auth"
    priority = 1030
    example = {"enforce_headers": ["date", "@request-target"], "validate_request_body": True}
    config = {
        "hide_credentials": hide_field("the signature"),
        "clock_skew": Number(
            default=300, gt=0, text="Seconds that X-Date or Date may differ from the gateway's clock at the most."
        ),
        "anonymous": anonymous_field(),
        "validate_request_body": Boolean(
            required=True, default=False,
            text="Compare the body with Digest; bodies larger than client_body_buffer_size are refused.",
        ),
        "enforce_headers": Array(
            String(), default=[], text="Names that must be among those signed, as a client lists them."
        ),
        "algorithms": Array(
            String(one_of=list(_ALGORITHMS)), default=list(_ALGORITHMS), text="Algorithms that may be used."
        ),
        "realm": realm_field(),
    }  # fmt: skip
    entities = (CREDENTIALS,)

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def access(self, exchange: Exchange, conf: Config) -> Answer | Awaitable[Answer | None] | None:
        if is_known(exchange, conf.anonymous):
            return None
        try:
            known = self._authenticated(exchange, conf)
        except _Refused as refused:
            return unauthorized(exchange, conf.anonymous, conf.challenge, refused.args[0])
        if conf.body:
            return self._pass_with_body(exchange, conf, known)
        known.pass_on(exchange)
        return None

    async def _pass_with_body(self, exchange: Exchange, conf: Config, known: Known) -> Answer | None:
        """Let the request pass if its body is what Digest says."""
        try:
            body = await exchange.read_body(exchange.gateway.body_limit)
        except BodyTooLarge:
            return unauthorized(exchange, conf.anonymous, conf.challenge, _NOT_SAME)
        if not _is_body(body, variable(exchange.block, b"digest")):
            return unauthorized(exchange, conf.anonymous, conf.challenge, _NOT_SAME)
        known.pass_on(exchange)
        return None

    def _authenticated(self, exchange: Exchange, conf: Config) -> Known:
        """Whose signature the request has."""
        sent, proxy = exchange.get_header(b"authorization"), exchange.get_header(b"proxy-authorization")
        if sent is None and proxy is None:
            raise _Refused("Unauthorized")
        if not any(_is_near(exchange, name, conf.skew) for name in _DATE_FIELDS):
            raise _Refused(_NO_DATE)
        given, header = _read(proxy), b"proxy-authorization"
        if given is None:
            given, header = _read(sent), b"authorization"
        if conf.hide:
            exchange.clear_upstream_header(header)
        if given is not None and not _is_signed_near(exchange, given.headers, conf.skew):
            raise _Refused(_NO_DATE)
        if given is None or given.algorithm not in conf.algorithms or not conf.enforced <= set(given.headers):
            raise _Refused(_NOT_VALID)
        known = self._credentials.find(exchange, given.username)
        if known is None:
            raise _Refused(_NOT_VALID)
        text, signature = _signed_text(exchange, given.headers), decode_base64(given.signature)
        if text is None or signature is None:
            raise _Refused(_NOT_SAME)
        secret = (known.credential["secret"] or "").encode("utf-8", "surrogatepass")
        if not secret or not compare_digest(digest(secret, text, given.algorithm[5:]), signature):
            raise _Refused(_NOT_SAME)
        return known


def _read(value: bytes | None) -> _Signature | None:
    found = None if value is None else _SENT(value)
    if found is None:
        return None
    try:
        return _Signature(found[1].decode(), found[2].decode(), found[3].split(b" "), found[4])
    except UnicodeDecodeError:  # no name is stored in such bytes
        return None


def _signed_text(exchange: Exchange, names: list[bytes]) -> bytes | None:
    """What the signature is over: a line for each name, in the order listed. None where a field comes several times: only one of its
    values could be signed, and an upstream may read another."""
    lines = []
    for name in names:
        values = variable(exchange.block, name.lower())
        if values and len(all_spellings(exchange.block, name.lower())) > 1:
            return None
        if values:
            lines.append(b"%b: %b" % (name, values[0]))
        elif name == b"@request-target":
            lines.append(b"@request-target: %b %b" % (exchange.method.lower(), exchange.target))
        elif name == b"request-line":
            version = exchange.http_version.encode()
            lines.append(
                b"%b %b HTTP/%b" % (exchange.method, exchange.target, version if b"." in version else version + b".0")
            )
        else:
            lines.append(name + b":")
    return b"\n".join(lines)


def _is_body(body: bytes, digests: list[bytes]) -> bool:
    """Whether a body is the one that Digest tells (RFC 3230 4.3.2). None is needed where there is no body."""
    if not digests:
        return not body
    return len(digests) == 1 and compare_digest(b"SHA-256=" + b64encode(sha256(body).digest()), digests[0])


# -- dates -----------------------------------------------------------------------------------------------------------

_MONTHS = {name: at for at, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_DATES = tuple(
    re.compile(form).match
    for form in (
        rb"[A-Z][a-z]{2}, (?P<d>\d\d) (?P<m>[A-Z][a-z]{2}) (?P<y>\d{4}) (?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d) GMT\Z",
        rb"[A-Z][a-z]+, (?P<d>\d\d)-(?P<m>[A-Z][a-z]{2})-(?P<y>\d\d) (?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d) GMT\Z",
        rb"[A-Z][a-z]{2} (?P<m>[A-Z][a-z]{2}) (?P<d>[ \d]\d) (?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d) (?P<y>\d{4})\Z",
    )
)
"""The three forms of a date (RFC 9110 5.6.7)."""


@lru_cache(maxsize=1024)
def http_time(text: bytes) -> int | None:
    """Epoch seconds of a date in a header (RFC 9110 5.6.7); None for what is no date."""
    for match in _DATES:
        found = match(text)
        if found is None:
            continue
        year, month, day = int(found["y"]), _MONTHS.get(found["m"]), int(found["d"])
        if len(found["y"]) == 2:
            year += 2000 if year < 70 else 1900
        hour, minute, second = int(found["H"]), int(found["M"]), int(found["S"])
        if month is None or not 1 <= day <= 31 or hour > 23 or minute > 59 or second > 60:
            return None
        return timegm((year, month, day, hour, minute, second))
    return None


def _is_signed_near(exchange: Exchange, names: list[bytes], skew: float) -> bool:
    """Whether a date that is signed is near to now; True where none is. One that anybody may add beside it says nothing: with it, a
    request that was overheard once would hold for ever."""
    dates = [small for name in names if (small := name.lower()).replace(b"_", b"-") in _DATE_FIELDS]
    return not dates or any(_is_near(exchange, name, skew) for name in dates)


def _is_near(exchange: Exchange, name: bytes, skew: float) -> bool:
    """Whether a header has a date near to now."""
    value = exchange.get_header(name)
    told = None if value is None else http_time(value)
    return told is not None and abs(int(exchange.wall_started) - told) <= skew
