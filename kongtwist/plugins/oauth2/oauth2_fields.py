"""What an oauth2 plugin is configured with, and its rows: clients, tokens, codes (Kong 3.9.3, ``kong/plugins/oauth2``)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from secrets import token_urlsafe
from typing import Any

from ...core.chain.authentication import anonymous_field, hide_field, realm_field
from ...core.chain.subprotocols import subprotocol_field
from ...core.rows import Row
from ...entities.checks import Conditional
from ...entities.entity import Config as ConfigRecord
from ...entities.entity import Entity
from ...entities.schema import Any_, Array, Boolean, Foreign, Integer, Number, String, Timestamp, Uuid
from ...entities.typedefs import header_name, header_value, tags
from .client_secrets import hashed, is_hash

__all__ = ["CODES", "CODE_TTL", "CONFIG", "CREDENTIALS", "TOKENS", "random_text"]

CODE_TTL = 300
"""Seconds for which an authorization code can be used."""

_NOT_IN_TEXTS = str.maketrans({"-": "a", "_": "b"})
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?[^/?#@:]")
_FLOWS = ("enable_authorization_code", "enable_implicit_grant", "enable_client_credentials", "enable_password_grant")


def random_text() -> str:
    """32 letters and digits that nobody can guess: a token, a code."""
    return token_urlsafe(24).translate(_NOT_IN_TEXTS)


class _Made(String):
    """A text that is made at random where none is given; no document shows it."""

    made = True

    def filled(self, value: Any) -> Any:
        value = super().filled(value)
        return random_text() if value is None else value


def _redirect_uri(value: str) -> str | None:
    """An absolute URI with a host (RFC 6749 3.1.2), so no script; what comes back goes into its query or fragment."""
    if _URI.match(value) is None:
        return f"cannot parse '{value}'"
    if "#" in value:
        return f"fragment not allowed in '{value}'"
    return header_value(value)


def _flow(conf: Mapping[str, Any]) -> str | None:
    if any(conf.get(each) for each in _FLOWS):
        return None
    return f"at least one of these fields must be true: {', '.join(_FLOWS)}"


def _with_hash(row: Row, given: Collection[str]) -> Row:
    """The secret hashed, where this write gives it; one that is a hash already stays (a file that was exported)."""
    if not row["hash_secret"] or not {"hash_secret", "client_secret"} & set(given) or is_hash(row["client_secret"]):
        return row
    return row | {"client_secret": hashed(row["client_secret"])}


CONFIG = ConfigRecord(
    {
        "scopes": Array(
            String(), text="Names of the scopes that clients may ask for; null: what they ask for is not looked at."
        ),
        "mandatory_scope": Boolean(required=True, default=False, text="Refuse clients that ask for no scope at all."),
        "provision_key": _Made(
            required=True, auto=True, unique=True, encrypted=True,
            text="What your own login page shows, to be let say who has authenticated; made at random when it is not given.",
        ),
        "token_expiration": Number(
            required=True, default=7200,
            text="Seconds for which an access token holds; 0: for ever, and there are no refresh tokens.",
        ),
        "enable_authorization_code": Boolean(
            required=True, default=False, text="Give authorization codes (RFC 6749 4.1)."
        ),
        "enable_implicit_grant": Boolean(
            required=True, default=False, text="Give tokens by the authorization endpoint (RFC 6749 4.2)."
        ),
        "enable_client_credentials": Boolean(
            required=True, default=False, text="Give tokens to clients for themselves (RFC 6749 4.4)."
        ),
        "enable_password_grant": Boolean(
            required=True, default=False,
            text="Give tokens for users whose password your own login page has checked (RFC 6749 4.3).",
        ),
        "token_in_subprotocol": subprotocol_field("token", "bearer.<token>, or kong.access_token.<token>"),
        "hide_credentials": hide_field("the token"),
        "accept_http_if_already_terminated": Boolean(
            required=True, default=False,
            text="Serve the endpoints without TLS to those of trusted_ips that say X-Forwarded-Proto: https.",
        ),
        "anonymous": anonymous_field(),
        "global_credentials": Boolean(
            required=True, default=False, text="Give tokens that hold for all services whose oauth2 plugin says so too."
        ),
        "auth_header_name": String(
            default="authorization", checks=(header_name,), text="Header that carries the token, and clients' names and secrets."
        ),
        "refresh_token_ttl": Number(
            required=True, default=1209600, between=[0, 100000000],
            text="Seconds after which a token is forgotten, and cannot be refreshed any more; 0: never.",
        ),
        "reuse_refresh_token": Boolean(
            required=True, default=False, text="Let a refresh token be used again and again; false: each use gives a new one."
        ),
        "pkce": String(
            required=False, default="lax", one_of=["none", "lax", "strict"],
            text="Who must prove that a code is theirs (RFC 7636): lax: public clients; strict: all; none: those who began it.",
        ),
        "realm": realm_field(),
    },
    checks=(_flow,),
    entity_checks=(
        Conditional(
            "mandatory_scope", Boolean(eq=True), "scopes", Any_(required=True),
            {"if_field": "mandatory_scope", "if_match": {"eq": True}, "then_field": "scopes", "then_match": {"required": True}},
        ),
    ),
)  # fmt: skip

CREDENTIALS = Entity(
    "oauth2_credentials",
    {
        "id": Uuid(),
        "created_at": Timestamp(),
        "consumer": Foreign("consumers", on_delete="cascade", required=True, text="Who answers for the application."),
        "name": String(required=True, text="The application's name."),
        "client_id": String(
            required=False, auto=True, unique=True, text="What the application is known by; made when it is not given."
        ),
        "client_secret": String(
            required=False, auto=True, encrypted=True,
            text="What a confidential application proves itself with; made when it is not given.",
        ),
        "hash_secret": Boolean(
            required=True, default=False, text="Keep a hash of the secret only. It is not shown any more then, not even once."
        ),
        "redirect_uris": Array(
            String(checks=(_redirect_uri,)), required=False,
            text="Where browsers may be sent to with a code or a token; the first one where the application names none.",
        ),
        "tags": tags(),
        "client_type": String(
            required=True, default="confidential", one_of=["confidential", "public"],
            text="Whether the application can keep a secret; public ones have none, and prove codes by PKCE.",
        ),
    },
    endpoint_key="client_id",
    cache_key=("client_id",),
    admin_name="oauth2",
    transform=_with_hash,
    changed_together=(("hash_secret", "client_secret"),),
    plugin="oauth2",
    text="An application of a consumer, a client of the plugin oauth2.",
    example={
        "name": "Calendar", "redirect_uris": ["https://calendar.example/back"], "consumer": {"username": "alice"},
    },
)  # fmt: skip
"""Clients (RFC 6749 2)."""

TOKENS = Entity(
    "oauth2_tokens",
    {
        "id": Uuid(),
        "created_at": Timestamp(),
        "service": Foreign(
            "services", on_delete="cascade", default=None, text="The service it holds for; null: all with global_credentials."
        ),
        "credential": Foreign(
            "oauth2_credentials", on_delete="cascade", required=True, text="The application that it was given to."
        ),
        "token_type": String(required=True, one_of=["bearer"], default="bearer", text="How it is used (RFC 6750)."),
        "expires_in": Integer(required=True, text="Seconds after created_at for which it holds; 0: for ever."),
        "access_token": String(required=False, auto=True, unique=True, text="What a request shows; made when it is not given."),
        "refresh_token": String(required=False, unique=True, text="What it is renewed with; null: it cannot be."),
        "authenticated_userid": String(required=False, text="Whom it stands for, by your own name for the user; null: nobody."),
        "scope": String(text="What it allows: names of scopes, divided by blanks; null: not said."),
    },
    endpoint_key="access_token",
    cache_key=("access_token",),
    ttl=True,
    plugin="oauth2",
    text="A token that the plugin oauth2 has given. Deleting it takes it back.",
    example={"credential": {"client_id": "calendar"}, "expires_in": 7200, "scope": "read"},
)  # fmt: skip
"""Access tokens with their refresh tokens. ``ttl`` in the body: seconds until the row is gone; none or 0: never."""

CODES = Entity(
    "oauth2_authorization_codes",
    {
        "id": Uuid(),
        "created_at": Timestamp(),
        "service": Foreign("services", on_delete="cascade", default=None, text="The service it was given for; null: any."),
        "credential": Foreign(
            "oauth2_credentials", on_delete="cascade", required=True, text="The application that it was given to."
        ),
        "code": String(required=False, auto=True, unique=True, text="What a token is given for, once."),
        "authenticated_userid": String(required=False, text="Whom it stands for."),
        "scope": String(text="What the token will allow; null: not said."),
        "challenge": String(required=False, text="What code_verifier must hash to (RFC 7636 4.2); null: nothing to prove."),
        "challenge_method": String(required=False, one_of=["S256"], text="How it hashes."),
        "plugin": Foreign("plugins", on_delete="cascade", default=None, text="The configuration that gave it."),
        "redirect_uri": String(required=False, text="Where it was sent to, if the application had said; null: it had not."),
    },
    ttl=True,
    plugin="oauth2",
    exported=False,
    in_admin=False,
    text="A code on its way from the authorization endpoint to the token endpoint.",
)  # fmt: skip
