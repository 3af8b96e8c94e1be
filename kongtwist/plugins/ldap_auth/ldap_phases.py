"""The plugin ldap-auth: a name and password in a header are tried at an LDAP server (Kong 3.9.3, ``kong/plugins/ldap-auth``)."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from hashlib import blake2b, sha256
from os import urandom
from typing import Any

from ...core.chain.authentication import (
    Guard,
    anonymous_field,
    hide_field,
    identify,
    is_known,
    realm_field,
    unauthorized,
)
from ...core.chain.credentials import REMEMBERED
from ...core.chain.host import Host
from ...core.chain.plugin import Plugin
from ...core.exchange import Answer, Exchange
from ...core.http.base64_text import decode_base64
from ...core.rows import Row
from ...entities.checks import Conditional
from ...entities.entity import Config as ConfigRecord
from ...entities.schema import Boolean, Integer, Number, String
from ...entities.typedefs import header_value, host
from .._once import Seldom
from .ldap_binds import Binds, Unanswered
from .ldap_messages import escaped

__all__ = ["LDAPAuth"]

HEADERS = (b"proxy-authorization", b"authorization")
"""Where names and passwords are, in the order they are tried."""

_BINDS = 64  # where no configuration says (tests)

CONFIG = ConfigRecord(
    {
        "ldap_host": String(required=True, checks=(host,), text="Name or address of the LDAP server."),
        "ldap_port": Integer(
            required=True, default=389, between=[0, 65535], text="Its TCP port; 636 is usual with ldaps."
        ),
        "ldaps": Boolean(required=True, default=False, text="Speak TLS from the beginning."),
        "start_tls": Boolean(required=True, default=False, text="Begin without TLS and change to it before anybody logs in."),
        "verify_ldap_host": Boolean(
            required=True, default=False,
            text="Demand a certificate of the server's name by an authority of lua_ssl_trusted_certificate; takes TLS.",
        ),
        "base_dn": String(required=True, text="Where the users are: what their distinguished names end with."),
        "attribute": String(required=True, text="Attribute that the distinguished names of users begin with, such as uid or cn."),
        "cache_ttl": Number(
            required=True, default=60,
            text="Seconds for which it is remembered that a name and password are right, or that they are not; 0: not at all.",
        ),
        "hide_credentials": hide_field("the headers with name and password"),
        "timeout": Number(
            default=10000, text="Milliseconds for connecting, and for each answer of the server; null or 0: 10000."
        ),
        "keepalive": Number(
            default=60000, text="Milliseconds for which a connection waits for the next login; null or 0: it is ended."
        ),
        "anonymous": anonymous_field(),
        "header_type": String(
            default="ldap", checks=(header_value,), text="Word before name and password in the header, in any case; ldap or basic."
        ),
        "realm": realm_field(),
    },
    entity_checks=(
        Conditional(
            "ldaps", Boolean(eq=True), "start_tls", Boolean(eq=False),
            {
                "if_field": "ldaps", "if_match": {"eq": True}, "then_field": "start_tls", "then_match": {"eq": False},
                "then_err": "'ldaps' and 'start_tls' cannot be enabled simultaneously",
            },
            "'ldaps' and 'start_tls' cannot be enabled simultaneously",
        ),
    ),
)  # fmt: skip


class Config(Guard):
    """A configuration, ready for requests.

    Attributes:
        binds: the server; set in processes that serve.
    """

    __slots__ = ("binds", "pattern", "place", "row", "suffix", "tell", "ttl")

    def __init__(self, conf: Row) -> None:
        kind = conf["header_type"] or "ldap"
        super().__init__(conf, "LDAP" if kind == "ldap" else kind)
        self.row = conf
        self.ttl: float = conf["cache_ttl"]
        self.pattern = re.compile(rb"\s*" + re.escape(kind.encode()) + rb"\s+", re.IGNORECASE)
        self.suffix = f",{conf['base_dn']}"
        server = f"{conf['ldap_host'].lower()}:{conf['ldap_port']}:{conf['ldaps']}:{conf['start_tls']}"
        self.place = f"{server}:{conf['verify_ldap_host']}:{conf['base_dn']}:{conf['attribute']}:{self.ttl:g}"
        self.binds: Binds | None = None
        self.tell: Seldom | None = None


class LDAPAuth(Plugin):
    """Let in whom an LDAP server lets bind; tell the upstream the name."""

    name = "ldap-auth"
    priority = 1200
    authenticates = True
    scopes = ("service", "route")
    example = {"ldap_host": "ldap.example", "base_dn": "ou=people,dc=example", "attribute": "uid", "start_tls": True}
    config = CONFIG

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        # Passwords are remembered as what a key of this process makes of them.
        self._key = urandom(32)
        self._known: dict[bytes, tuple[float, Row | None]] = {}

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def open(self, conf: Config, plugin: Row, host: Host) -> Config:
        most = _BINDS if host.conf is None else host.conf.plugin_ldap_binds
        conf.binds, conf.tell = Binds(conf.row, host, most), Seldom(host.report, host.now)
        return conf

    def access(self, exchange: Exchange, conf: Config) -> Answer | Awaitable[Answer | None] | None:
        if is_known(exchange, conf.anonymous):
            return None
        shown = [_credentials(conf, values[0]) for name in HEADERS if (values := exchange.get_headers(name))]
        tries = [each for each in shown if each is not None]
        for user, password in tries:
            known = self._remembered(exchange, conf, user, password)
            if known is _UNKNOWN:
                return self._ask(exchange, conf, tries)
            if known is not None:
                _admit(exchange, conf, known)
                return None
        return unauthorized(exchange, conf.anonymous, conf.challenge)

    async def _ask(self, exchange: Exchange, conf: Config, tries: list[tuple[str, bytes]]) -> Answer | None:
        for user, password in tries:
            known = self._remembered(exchange, conf, user, password)
            if known is _UNKNOWN:
                try:
                    known = await self._login(exchange, conf, user, password)
                except Unanswered as fault:
                    if conf.tell is not None:
                        conf.tell(f"ldap-auth: nobody can log in: {fault}")
                    return exchange.error(500, "An unexpected error occurred")
            if known is not None:
                _admit(exchange, conf, known)
                return None
        return unauthorized(exchange, conf.anonymous, conf.challenge)

    async def _login(self, exchange: Exchange, conf: Config, user: str, password: bytes) -> Row | None:
        if conf.binds is None:
            raise Unanswered("this process does not serve")
        name = f"{conf.row['attribute']}={escaped(user)}{conf.suffix}"
        credential: Row | None = None
        if await conf.binds.bind(name, password):
            where = f"{conf.row['ldap_host'].lower()}:{conf.row['ldap_port']}:{name}"
            credential = {
                "id": f"ldap_auth:{sha256(where.encode('utf-8', 'surrogatepass')).hexdigest()}",
                "username": user,
            }
        if conf.ttl > 0:
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[self._digest(conf, user, password)] = exchange.gateway.now() + conf.ttl, credential
        return credential

    def _remembered(self, exchange: Exchange, conf: Config, user: str, password: bytes) -> Any:
        """Credential, None for one that is not let in, or `_UNKNOWN`."""
        if conf.ttl <= 0:
            return _UNKNOWN
        digest = self._digest(conf, user, password)
        until, found = self._known.get(digest, _NEVER)
        if until <= exchange.wall_started:
            self._known.pop(digest, None)
            return _UNKNOWN
        return found

    def _digest(self, conf: Config, user: str, password: bytes) -> bytes:
        parts = (conf.place.encode("utf-8", "surrogatepass"), user.encode("utf-8", "surrogatepass"))
        made = blake2b(key=self._key, digest_size=32)
        for each in (*parts, password):
            made.update(len(each).to_bytes(8, "big") + each)
        return made.digest()


_UNKNOWN = object()
_NEVER: tuple[float, Row | None] = (0.0, None)


def _credentials(conf: Config, value: bytes) -> tuple[str, bytes] | None:
    """Name and password in a header; None: there are none that a bind could be made with."""
    found = conf.pattern.match(value)
    if found is None:
        return None
    text = decode_base64(value[found.end() :].strip())
    if text is None:
        return None
    user, colon, password = text.partition(b":")
    try:
        name = user.decode()
    except UnicodeDecodeError:
        return None
    # A server that takes NUL for an end would see no password, and agree to a bind of nobody (RFC 4513 5.1.2).
    if not colon or not password or b"\0" in text or b"\n" in text:
        return None
    return name, password


def _admit(exchange: Exchange, conf: Config, credential: Row) -> None:
    if conf.hide:
        for name in HEADERS:
            exchange.clear_upstream_header(name)
    identify(exchange, None, credential, credential["username"])
