"""basic-auth: let clients in that show a name and a password (RFC 7617). Kong 3.9 `basic-auth`."""

from __future__ import annotations

import re
from collections.abc import Collection
from hashlib import sha1
from hmac import compare_digest

from ..core.chain.authentication import Guard, anonymous_field, hide_field, is_known, realm_field, unauthorized
from ..core.chain.credentials import Known
from ..core.exchange import Answer, Exchange, Row
from ..core.http.base64_text import decode_base64
from ..core.http.lookups import named
from ..entities.schema import String
from ._named_credentials import NamedCredentials, named_credentials

__all__ = ["CREDENTIALS", "BasicAuth", "password_digest"]


def password_digest(password: str, consumer_id: str) -> str:
    """A password as it is stored (Kong 3.9, ``kong/plugins/basic-auth/crypto.lua``): SHA-1 over it and its consumer's id, in hex."""
    return _digest(password.encode("utf-8", "surrogatepass"), consumer_id)


def _digest(password: bytes, consumer_id: str) -> str:
    return sha1(password + consumer_id.encode(), usedforsecurity=False).hexdigest()


def _stored(row: Row, given: Collection[str]) -> Row:
    """The row with its password as it is stored, where this write gives one."""
    if "password" not in given:
        return row
    return row | {"password": password_digest(row["password"], row["consumer"]["id"])}


CREDENTIALS = named_credentials(
    "basicauth_credentials",
    "basic-auth",
    owner="Who the name belongs to.",
    named="The name; up to the first colon of what a client sends.",
    secret={
        "password": String(
            required=True, encrypted=True, text="The password; stored and shown as SHA-1 over it and the consumer's id."
        )
    },
    transform=_stored,
    bound=("password", "consumer"),
    text="A name and a password of a consumer, for the plugin basic-auth.",
    example={"username": "alice", "password": "open-sesame", "consumer": {"username": "alice"}},
)
"""Names and passwords."""

_SENT = re.compile(rb"[Bb]asic\s*(.+)").search
_PARTS = re.compile(rb"([^:]+):(.*)").search
_NOBODY = "00000000-0000-0000-0000-000000000000"


class BasicAuth(NamedCredentials):
    """Look for name and password in Proxy-Authorization, then in Authorization; tell the upstream who it is."""

    name = "basic-auth"
    priority = 1100
    example = {"hide_credentials": True}
    config = {
        "anonymous": anonymous_field(),
        "hide_credentials": hide_field("name and password"),
        "realm": realm_field("service"),
    }
    entities = (CREDENTIALS,)

    def compile(self, conf: Row, plugin: Row) -> Guard:
        return Guard(conf, "Basic")

    def access(self, exchange: Exchange, conf: Guard) -> Answer | None:
        if is_known(exchange, conf.anonymous):
            return None
        alias = None
        if not conf.hide and b"proxy-authorization" not in exchange.block:
            values = named(exchange.block, b"authorization")
            if len(values) == 1:
                alias = values[0]
                known = self._credentials.recall(exchange, alias)
                if known is not None:
                    known.pass_on(exchange)
                    return None
        known = self._authenticated(exchange, conf)
        if known is None:
            return unauthorized(exchange, conf.anonymous, conf.challenge)
        if alias is not None:
            self._credentials.remember(alias, known)
        known.pass_on(exchange)
        return None

    def _authenticated(self, exchange: Exchange, conf: Guard) -> Known | None:
        """Whose name and password the request has. A name that is there decides, right password or not."""
        for header in (b"proxy-authorization", b"authorization"):
            sent = _sent(exchange.get_header(header))
            if conf.hide:
                exchange.clear_upstream_header(header)
            if sent is None:
                continue
            username, password = sent
            known = self._credentials.find(exchange, username)
            # Work the same for a name that is not there, so that the time does not tell.
            consumer_id = _NOBODY if known is None else known.consumer["id"]
            stored = "" if known is None else known.credential["password"]
            right = compare_digest(stored.encode(), _digest(password, consumer_id).encode())
            if known is not None:
                return known if right else None
        return None


def _sent(value: bytes | None) -> tuple[str, bytes] | None:
    """Name and password of a header."""
    found = None if value is None else _SENT(value)
    decoded = None if found is None else decode_base64(found[1].strip())
    parts = None if decoded is None or b":" not in decoded else _PARTS(decoded)
    if parts is None:
        return None
    try:
        return parts[1].decode(), parts[2]
    except UnicodeDecodeError:  # no name is stored in such bytes
        return None
