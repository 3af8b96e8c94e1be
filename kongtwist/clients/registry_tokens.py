"""What a registry of schemas is shown of us: Basic (RFC 7617), or a token (RFC 6749) that is used for most of its life."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from ..core.chain.host import HTTPClient
from ..core.chain.host_basics import HostError
from ..core.chain.host_schemas import RegistryOAuth, RegistrySettings, SchemaFailed

__all__ = ["Credentials"]

_USED = 0.8
"""Part of a token's life for which it is used again."""
_DIGESTS = {"HS256": hashlib.sha256, "HS512": hashlib.sha512}
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_SECONDS = 60

Header = tuple[bytes, bytes]


class Credentials:
    """The Authorization fields for one registry.

    Args:
        settings: of the registry.
        http: asks for tokens.
        now: seconds that never go back.
        clock: seconds of the epoch.
    """

    def __init__(
        self, settings: RegistrySettings, http: HTTPClient, now: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._http, self._now, self._clock = http, now, clock
        self._token = ""
        self._good_until = 0.0

    @property
    def renewable(self) -> bool:
        """Whether there may be others when these are refused."""
        return self._settings.oauth is not None

    def forget(self) -> None:
        """The token was refused."""
        self._good_until = 0.0

    async def fields(self) -> list[Header]:
        """The header fields. Raises SchemaFailed: there is no token."""
        settings = self._settings
        if settings.oauth is not None:
            return [(b"Authorization", b"Bearer " + (await self._current(settings.oauth)).encode("ascii"))]
        if settings.username is not None:
            return [(b"Authorization", _basic(settings.username, settings.password))]
        return []

    async def _current(self, oauth: RegistryOAuth) -> str:
        if self._now() >= self._good_until:
            asked = self._now()
            token, life = await self._ask(oauth)
            self._token, self._good_until = token, asked + life * _USED
            return token  # though it may live for no time at all
        return self._token

    async def _ask(self, oauth: RegistryOAuth) -> tuple[str, float]:
        fields, form = self._request(oauth)
        try:
            answer = await self._http.request(
                "POST",
                oauth.token_endpoint,
                headers=fields,
                body=urlencode(form).encode(),
                timeout=oauth.timeout,
                keepalive=60.0 if oauth.keepalive else 0.0,
                ssl_verify=oauth.verify,
            )
        except HostError as error:
            remedy = (
                "see that config.schema_registry.confluent.authentication.oauth2.token_endpoint is right and answers"
            )
            raise SchemaFailed(f"there is no token for the registry of schemas: {error}", remedy) from error
        said = _json(answer.body)
        token = said.get("access_token")
        if (
            answer.status != 200
            or not isinstance(token, str)
            or not token.isascii()
            or not token.isprintable()
            or not token
        ):
            why = said.get("error")
            told = f" ({why})" if isinstance(why, str) and why.isprintable() and len(why) < 100 else ""
            raise SchemaFailed(
                f"there is no token for the registry of schemas: {oauth.token_endpoint} answers {answer.status}{told}",
                "look at the credentials in config.schema_registry.confluent.authentication.oauth2",
            )
        life = said.get("expires_in")
        return token, float(life) if isinstance(life, int | float) else 0.0

    def _request(self, oauth: RegistryOAuth) -> tuple[list[Header], list[tuple[str, str]]]:
        """Header fields and form of a request for a token."""
        fields = [(b"Content-Type", b"application/x-www-form-urlencoded"), (b"Accept", b"application/json")]
        form = [("grant_type", oauth.grant_type)]
        if oauth.scopes:
            form.append(("scope", " ".join(oauth.scopes)))
        form += [("audience", each) for each in oauth.audience]
        if oauth.grant_type == "password":
            form += [("username", oauth.username), ("password", oauth.password)]
        if oauth.auth_method == "client_secret_basic":  # RFC 6749 2.3.1
            fields.append(
                (b"Authorization", _basic(quote(oauth.client_id, safe=""), quote(oauth.client_secret, safe="")))
            )
        elif oauth.auth_method == "client_secret_jwt":
            form += [("client_id", oauth.client_id), ("client_assertion_type", _ASSERTION)]
            form.append(("client_assertion", self._assertion(oauth)))
        elif oauth.client_id:
            form.append(("client_id", oauth.client_id))
            if oauth.auth_method == "client_secret_post":
                form.append(("client_secret", oauth.client_secret))
        fields += [
            (name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in oauth.headers
        ]
        return fields, [*form, *oauth.arguments]

    def _assertion(self, oauth: RegistryOAuth) -> str:
        """A JWT that shows that we know the secret (RFC 7523 2.2)."""
        now = int(self._clock())
        claims = {
            "iss": oauth.client_id, "sub": oauth.client_id, "aud": oauth.token_endpoint, "iat": now,
            "exp": now + _ASSERTION_SECONDS, "jti": secrets.token_urlsafe(16),
        }  # fmt: skip
        signed = f"{_part({'alg': oauth.algorithm, 'typ': 'JWT'})}.{_part(claims)}"
        made = hmac.new(oauth.client_secret.encode(), signed.encode(), _DIGESTS[oauth.algorithm]).digest()
        return f"{signed}.{urlsafe_b64encode(made).decode().rstrip('=')}"


def _part(value: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")


def _basic(user: str, password: str) -> bytes:
    return b"Basic " + b64encode(f"{user}:{password}".encode())


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
