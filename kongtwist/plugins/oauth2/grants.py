"""What a request to the authorization or token endpoint gets (RFC 6749, RFC 7636; words and order of Kong 3.9.3). No I/O here.

A request becomes a decision: a `Refusal`, or a `NewCode` or `NewToken` that says what is to be written. Rows are looked up
through `Lookup`; whoever asks writes what was decided, and answers with it.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from collections.abc import Mapping
from hashlib import sha256
from math import ceil
from typing import Any, NamedTuple, Protocol

from ...core.http.query import parse_arguments
from ...core.rows import Row
from .client_secrets import same
from .oauth2_fields import random_text

__all__ = [
    "GLOBAL", "INVALID", "Authorization", "Lookup", "NewCode", "NewToken", "Policy", "Refusal", "Site", "TokenRequest", "authorize",
    "redirected", "told", "verdict",
]  # fmt: skip

Parameters = Mapping[str, Any]
"""A request's parameters: query, and over it the body. Text; a list where one came several times; any value in JSON."""

BASIC = b'Basic realm="OAuth2.0"'
"""The challenge for a client that came with a header (RFC 6749 5.2)."""

_UNSAFE = re.compile(rb"[^A-Za-z0-9_]")
_CHALLENGE = 512
"""Characters of the longest code_challenge: what SHA-256 gives has 43."""


class Policy:
    """A configuration, as decisions need it: its fields."""

    __slots__ = (
        "client_credentials", "codes", "expiration", "global_credentials", "implicit", "mandatory_scope", "password", "pkce",
        "provision_key", "reuse", "scopes", "ttl",
    )  # fmt: skip

    def __init__(self, conf: Row) -> None:
        self.scopes: list[str] | None = conf["scopes"]
        self.mandatory_scope: bool = conf["mandatory_scope"]
        self.provision_key: str = conf["provision_key"]
        self.expiration = int(conf["token_expiration"])
        self.codes: bool = conf["enable_authorization_code"]
        self.implicit: bool = conf["enable_implicit_grant"]
        self.client_credentials: bool = conf["enable_client_credentials"]
        self.password: bool = conf["enable_password_grant"]
        self.global_credentials: bool = conf["global_credentials"]
        self.ttl: int | None = ceil(conf["refresh_token_ttl"]) or None
        self.reuse: bool = conf["reuse_refresh_token"]
        self.pkce: str | None = conf["pkce"]

    def provisioned(self, parameters: Parameters) -> bool:
        """Whether the request comes from who may say which user has authenticated."""
        given = parameters.get("provision_key")
        return isinstance(given, str) and same(given, self.provision_key)

    def proof_needed(self, client: Row) -> bool:
        """Whether this client's codes must be proven (RFC 7636)."""
        if client["client_type"] == "public":
            return self.pkce != "none"
        return self.pkce == "strict"


class Site(NamedTuple):
    """Where a request was made."""

    plugin_id: str
    service_id: str | None


class Lookup(Protocol):
    """Rows that have not expired, by what a request shows."""

    def client(self, client_id: str) -> Row | None: ...

    def code(self, code: str) -> Row | None: ...

    def refreshed_by(self, refresh_token: str) -> Row | None: ...


class Refusal(NamedTuple):
    """An error (RFC 6749 5.2)."""

    error: str
    description: str
    status: int = 400
    challenge: bytes | None = None  #: for WWW-Authenticate


class NewCode(NamedTuple):
    """A code to be written."""

    values: Row


class NewToken(NamedTuple):
    """A token to be written.

    Attributes:
        values: of the row.
        ttl: seconds the row lives; None: for ever.
        used_up: entity and id of the row that this one is given for. It must be there to be deleted, else the token must not be
            given: somebody else was faster.
        replaces: id of the row that these values go into, in place of a new one.
    """

    values: Row
    ttl: int | None
    used_up: tuple[str, str] | None = None
    replaces: str | None = None


_CLIENT = Refusal("invalid_client", "Invalid client authentication")
_PROVISION = Refusal("invalid_provision_key", "Invalid provision_key")
_USER = Refusal("invalid_authenticated_userid", "Missing authenticated_userid parameter")
_REDIRECT = Refusal(
    "invalid_request",
    "Invalid redirect_uri that does not match with any redirect_uri created with the application",
)
_CODE = Refusal("invalid_request", "Invalid code")
_NOT_PROVEN = Refusal("invalid_grant", "Invalid code")
_REFRESH = Refusal("invalid_request", "Invalid refresh_token")


def _blank(value: Any) -> bool:
    return not isinstance(value, str) or not value.strip()


def _scope(policy: Policy, parameters: Parameters) -> str | Refusal | None:
    """The scope asked for; None where none is given."""
    asked = parameters.get("scope")
    if asked is None:
        return Refusal("invalid_scope", "You must specify a scope") if policy.mandatory_scope else None
    if policy.scopes is None:
        return None
    if not isinstance(asked, str):
        return Refusal("invalid_scope", "scope must be a string")
    names = asked.split()
    for name in names:
        if name not in policy.scopes:
            return Refusal("invalid_scope", f'"{name}" is an invalid scope')
    if not names and policy.mandatory_scope:  # Kong lets a blank one pass
        return Refusal("invalid_scope", "You must specify a scope")
    return " ".join(names) or None


def _challenge(parameters: Parameters) -> tuple[str | None, str | None] | Refusal:
    """Challenge and method of a request (RFC 7636 4.3), the challenge in base64url without padding."""
    challenge, method = parameters.get("code_challenge"), parameters.get("code_challenge_method")
    if challenge is None:
        if method is not None:
            return Refusal("invalid_request", "code_challenge is required when code_method is present")
        return None, None
    if method not in (None, "S256", "s256"):
        return Refusal("invalid_request", "code_challenge_method is not supported, must be S256")
    if not isinstance(challenge, str) or not challenge or len(challenge) > _CHALLENGE:
        return Refusal("invalid_request", "code_challenge is not valid")
    return _base64url(challenge), "S256"


def _base64url(text: str) -> str:
    """The same bytes spelled as RFC 7636 has them; text that is no base64 stays."""
    plain = text.translate(str.maketrans("+/", "-_")).rstrip("=")
    try:
        data = urlsafe_b64decode(plain + "=" * (-len(plain) % 4))
    except (Error, ValueError):
        return text
    return urlsafe_b64encode(data).rstrip(b"=").decode()


# -- the authorization endpoint ----------------------------------------------------------------------------------------------


class Authorization(NamedTuple):
    """What the authorization endpoint decides.

    Attributes:
        decision: what to write, or what is wrong.
        redirect_uri: where the browser goes with it; None: that is not known.
        state: the client's own text, which goes back to it.
    """

    decision: Refusal | NewCode | NewToken
    redirect_uri: str | None = None
    state: Any = None


def authorize(policy: Policy, site: Site, parameters: Parameters, rows: Lookup) -> Authorization:
    """Who has authenticated at your login page allows a client (RFC 6749 4.1.1, 4.2.1). The last fault found is told."""
    state = parameters.get("state")
    if not policy.provisioned(parameters):
        return Authorization(_PROVISION, None, state)
    if _blank(parameters.get("authenticated_userid")):
        return Authorization(_USER, None, state)
    fault: Refusal | None = None
    kind = parameters.get("response_type")
    if not ((kind == "code" and policy.codes) or (kind == "token" and policy.implicit)):
        fault = Refusal("unsupported_response_type", "Invalid response_type")
    scope = _scope(policy, parameters)
    if isinstance(scope, Refusal):
        fault = scope
    client_id = parameters.get("client_id")
    client = rows.client(client_id) if isinstance(client_id, str) and client_id else None
    if client is None or not client["redirect_uris"]:
        return Authorization(_CLIENT, None, state)
    registered: list[str] = client["redirect_uris"]
    asked = parameters.get("redirect_uri")
    redirect_uri = registered[0] if asked is None else asked
    if redirect_uri not in registered:
        fault, redirect_uri = _REDIRECT, registered[0]
    proof = _challenge(parameters)
    if isinstance(proof, Refusal):
        fault = proof
    elif proof[0] is None and policy.proof_needed(client):
        fault = Refusal("invalid_request", f"code_challenge is required for {client['client_type']} clients")
    if fault is not None:
        return Authorization(fault, redirect_uri, state)
    assert not isinstance(scope, Refusal) and not isinstance(proof, Refusal)
    userid = parameters["authenticated_userid"]
    if kind == "token":
        return Authorization(_new_token(policy, site, client, userid, scope, refresh=False), redirect_uri, state)
    values = {
        "code": random_text(), "service": _service(policy, site), "credential": {"id": client["id"]},
        "authenticated_userid": userid, "scope": scope, "challenge": proof[0], "challenge_method": proof[1],
        "plugin": {"id": site.plugin_id}, "redirect_uri": asked,
    }  # fmt: skip
    return Authorization(NewCode(values), redirect_uri, state)


def _escaped(text: bytes) -> str:
    """Percent-encoded as Kong does it: all but letters, digits and ``_``."""
    return _UNSAFE.sub(lambda found: f"%{found[0][0]:02x}".encode(), text).decode()


def redirected(uri: str, parameters: Mapping[str, Any], *, fragment: bool) -> str:
    """A redirect URI with parameters in its query or its fragment, all of them in order of their names.

    Args:
        uri: as registered: no fragment.
        parameters: values are text, numbers or lists of them; others are left out.
        fragment: where to put them.
    """
    head, mark, query = uri.partition("?")
    arguments = {} if fragment else parse_arguments(query.encode("utf-8", "surrogateescape"))
    for name, value in parameters.items():
        values = value if isinstance(value, list) else [value]
        texts = [str(each) for each in values if isinstance(each, str | int | float)]
        if texts:
            arguments[name.encode()] = [each.encode("utf-8", "surrogateescape") for each in texts]
    joined = "&".join(
        _escaped(name) if value is None else f"{_escaped(name)}={_escaped(value)}"
        for name, found in sorted(arguments.items())
        for value in found
    )
    return f"{head}{mark}{query}#{joined}" if fragment else f"{head}?{joined}"


# -- the token endpoint --------------------------------------------------------------------------------------------------------


class TokenRequest:
    """A request for a token, in two steps: who the client is, and, once its secret was looked at, what it gets.

    Args:
        policy: the configuration.
        parameters: the request's.
        basic: client and secret of its header, either None where the header does not tell; None: no such header.
        rows: looks them up.

    Attributes:
        client: the client that it names.
        to_verify: the secret that was given, and the hash it must be of; None: there is nothing to hash.
    """

    def __init__(
        self, policy: Policy, parameters: Parameters, basic: tuple[str | None, str | None] | None, rows: Lookup
    ) -> None:
        self._policy, self._parameters, self._rows = policy, parameters, rows
        client_id, secret = parameters.get("client_id"), parameters.get("client_secret")
        self._by_header = basic is not None and (client_id is None or secret is None)
        if basic is not None and self._by_header:
            client_id, secret = basic
        elif client_id is None or secret is None:
            secret = None
        self._secret: str | None = secret if isinstance(secret, str) else None
        self._odd_secret = secret is not None and self._secret is None
        self.client = rows.client(client_id) if isinstance(client_id, str) and client_id else None
        self.to_verify: tuple[str, str] | None = None
        client = self.client
        if client is not None and client["client_type"] == "confidential" and client["hash_secret"]:
            stored = client["client_secret"]
            if self._secret is not None and isinstance(stored, str):
                self.to_verify = self._secret, stored

    def decide(self, site: Site, secret_fits: bool = False) -> Refusal | NewToken:
        """What the client gets. Of faults before the grant itself the last is told.

        Args:
            site: where it was asked.
            secret_fits: what came of `to_verify`.
        """
        policy, grant = self._policy, self._parameters.get("grant_type")
        fault: Refusal | None = None
        if not (
            grant in ("authorization_code", "refresh_token")
            or (grant == "client_credentials" and policy.client_credentials)
            or (grant == "password" and policy.password)
        ):
            fault = Refusal("unsupported_grant_type", "Invalid grant_type")
        if grant != "client_credentials":
            fault = self._redirect_fault() or fault
        client = self.client
        if client is not None:
            fault = self._secret_fault(client, secret_fits) or fault
        if fault is not None:
            return fault
        if grant == "client_credentials":
            return self._for_client(site)
        assert client is not None  # else `_redirect_fault` has told
        if grant == "authorization_code":
            return self._for_code(site, client)
        return self._for_password(site, client) if grant == "password" else self._for_refresh(site, client)

    # -- the client ----------------------------------------------------------------------------------------------------

    def _not_the_client(self) -> Refusal:
        return _CLIENT._replace(status=401, challenge=BASIC) if self._by_header else _CLIENT

    def _redirect_fault(self) -> Refusal | None:
        client = self.client
        if client is None or client["redirect_uris"] is None:
            return self._not_the_client()
        registered: list[str] = client["redirect_uris"]
        asked = self._parameters.get("redirect_uri")
        if not registered or (asked is not None and asked not in registered):
            return _REDIRECT
        return None

    def _secret_fault(self, client: Row, secret_fits: bool) -> Refusal | None:
        if client["client_type"] == "public":
            if self._odd_secret or (self._secret or "").strip():
                return Refusal("invalid_request", "client_secret is disallowed for public clients")
            return None
        if client["hash_secret"]:
            fits = self.to_verify is not None and secret_fits
        else:
            stored = client["client_secret"]
            fits = self._secret is not None and isinstance(stored, str) and same(self._secret, stored)
        return None if fits else self._not_the_client()

    # -- grants --------------------------------------------------------------------------------------------------------

    def _for_client(self, site: Site) -> Refusal | NewToken:
        """RFC 6749 4.4. Who holds the provision key may say for which user."""
        policy, userid = self._policy, self._parameters.get("authenticated_userid")
        if userid is not None and not policy.provisioned(self._parameters):
            return _PROVISION
        if self.client is None:
            return _CLIENT
        scope = _scope(policy, self._parameters)
        if isinstance(scope, Refusal):
            return scope
        userid = userid if isinstance(userid, str) else None
        return _new_token(policy, site, self.client, userid, scope, refresh=False)

    def _for_password(self, site: Site, client: Row) -> Refusal | NewToken:
        """RFC 6749 4.3. The password has been checked by who holds the provision key."""
        if not self._policy.provisioned(self._parameters):
            return _PROVISION
        userid = self._parameters.get("authenticated_userid")
        if _blank(userid):
            return _USER
        scope = _scope(self._policy, self._parameters)
        if isinstance(scope, Refusal):
            return scope
        return _new_token(self._policy, site, client, userid, scope)

    def _for_code(self, site: Site, client: Row) -> Refusal | NewToken:
        """RFC 6749 4.1.3, RFC 7636 4.5."""
        policy = self._policy
        given = self._parameters.get("code")
        code = self._rows.code(given) if isinstance(given, str) and given else None
        if code is None or code["credential"]["id"] != client["id"]:
            return _CODE
        if not policy.global_credentials and _id(code["service"]) != site.service_id:
            return _CODE
        if fault := self._proof_fault(code, client):
            return fault
        sent_to, asked = code.get("redirect_uri"), self._parameters.get("redirect_uri")
        if (
            sent_to is not None and asked is not None and asked != sent_to
        ):  # RFC 6749 4.1.3, 10.6; Kong does not compare
            return _NOT_PROVEN
        if policy.global_credentials and code["plugin"] is not None and code["plugin"]["id"] != site.plugin_id:
            return _CODE
        made = _new_token(policy, site, client, code["authenticated_userid"], code["scope"])
        return made._replace(used_up=("oauth2_authorization_codes", code["id"]))

    def _proof_fault(self, code: Row, client: Row) -> Refusal | None:
        verifier = self._parameters.get("code_verifier")
        if not code["challenge_method"] and not self._policy.proof_needed(client):
            # RFC 9700 2.1.1: who proves a code that asks for no proof is given another's, its challenge taken away.
            return None if verifier is None else _NOT_PROVEN
        if verifier is None:
            return Refusal("invalid_request", "code_verifier is required for PKCE authorization requests")
        if not isinstance(verifier, str):
            return Refusal("invalid_request", "code_verifier is not a string")
        if not 43 <= len(verifier) <= 128:
            return Refusal("invalid_request", "code_verifier must be between 43 and 128 characters")
        digest = sha256(verifier.encode("utf-8", "surrogatepass")).digest()
        expected = urlsafe_b64encode(digest).rstrip(b"=").decode()
        return None if code["challenge"] and same(expected, code["challenge"]) else _NOT_PROVEN

    def _for_refresh(self, site: Site, client: Row) -> Refusal | NewToken:
        """RFC 6749 6. The scope stays what it was, whatever is asked for."""
        policy = self._policy
        given = self._parameters.get("refresh_token")
        token = self._rows.refreshed_by(given) if isinstance(given, str) and given else None
        if token is None:
            return _REFRESH
        # Kong makes of one service's token one for all where global_credentials is set: nobody has allowed that.
        bound = _id(token["service"])
        if bound != site.service_id and not (bound is None and policy.global_credentials):
            return _REFRESH
        if token["credential"]["id"] != client["id"]:
            return _CLIENT
        if any(name not in (policy.scopes or ()) for name in (token["scope"] or "").split()):
            return Refusal("invalid_scope", "Scope mismatch")
        made = _new_token(policy, site, client, token["authenticated_userid"], token["scope"])
        if not policy.reuse:
            return made._replace(used_up=("oauth2_tokens", token["id"]))
        values = {name: made.values[name] for name in ("access_token", "expires_in")}
        return made._replace(values=values | {"refresh_token": token["refresh_token"]}, replaces=token["id"])


def _id(reference: Row | None) -> str | None:
    return None if reference is None else reference["id"]


def _service(policy: Policy, site: Site) -> Row | None:
    return None if policy.global_credentials or site.service_id is None else {"id": site.service_id}


def _new_token(
    policy: Policy, site: Site, client: Row, userid: str | None, scope: str | None, *, refresh: bool = True
) -> NewToken:
    lasting = policy.expiration <= 0
    values = {
        "service": _service(policy, site), "credential": {"id": client["id"]}, "authenticated_userid": userid,
        "expires_in": policy.expiration, "access_token": random_text(),
        "refresh_token": random_text() if refresh and not lasting else None, "scope": scope,
    }  # fmt: skip
    return NewToken(values, None if lasting else policy.ttl)


def told(token: NewToken, state: Any = None) -> Row:
    """What the client is told of a token (RFC 6749 5.1)."""
    values = token.values
    found: Row = {"access_token": values["access_token"], "token_type": "bearer"}
    if values["expires_in"] > 0:
        found["expires_in"] = values["expires_in"]
    if values["refresh_token"] is not None:
        found["refresh_token"] = values["refresh_token"]
    if state is not None:
        found["state"] = state
    return found


# -- requests with a token -----------------------------------------------------------------------------------------------------

INVALID = Refusal("invalid_token", "The access token is invalid or has expired", 401)
GLOBAL = Refusal(
    "invalid_token",
    "The access token is global, but the current plugin is configured without 'global_credentials'",
    401,
)


def verdict(policy: Policy, service_id: str | None, token: Row, now: float) -> Refusal | None:
    """Whether a token holds for a request to a service: None, or what is wrong (RFC 6750 3.1).

    Args:
        policy: the configuration that guards the service.
        service_id: the service; None: the route has none.
        token: its row.
        now: epoch seconds.
    """
    service = token["service"]
    if service is None:
        if not policy.global_credentials:
            return GLOBAL
    elif service["id"] != service_id:
        return INVALID
    if 0 < token["expires_in"] < now - token["created_at"]:
        return INVALID
    return None
