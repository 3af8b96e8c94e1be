"""How brokers are reached: a `KafkaConnection` in the words of kafka-python.

The library knocks where it is told from threads of its own, so names are looked up by the system there, and tokens are asked for there.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from base64 import b64encode
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from kafka.net.sasl.oauth import AbstractTokenProvider

from ..core.chain.host_basics import TLSSettings
from ..core.chain.host_kafka import KafkaConnection, KafkaOAuth
from .repairs import mend

__all__ = ["Tokens", "client_options", "tls_context"]

_TOKEN_SECONDS = 10.0
_TOKEN_BYTES = 1 << 20
_TOKEN_USED = 0.8
"""Part of a token's life for which it is used again."""


def client_options(connection: KafkaConnection, authorities: tuple[str, ...] = ()) -> dict[str, Any]:
    """Arguments for KafkaProducer, KafkaConsumer and KafkaAdminClient. Puts the `repairs` in.

    Args:
        connection: to which brokers, and how.
        authorities: PEM texts of whom the gateway trusts where ``connection`` does not say; none: the system's.

    Raises:
        ValueError: the brokers cannot be reached so: no server, a certificate that is none, a mechanism without what it needs.
    """
    mend()
    if not connection.servers:
        raise ValueError("no bootstrap servers are configured")
    options: dict[str, Any] = {
        "bootstrap_servers": list(connection.servers),
        "security_protocol": ("SASL_" if connection.mechanism else "") + ("SSL" if connection.tls else "PLAINTEXT"),
        "reconnect_backoff_max_ms": 500,  # by default 30 s: a broker that is back would wait so long for us
        "metrics_enabled": False,  # a third of all work
    }
    if connection.keepalive:
        options["connections_max_idle_ms"] = connection.keepalive
    if connection.tls is not None:
        options["ssl_context"] = tls_context(connection.tls, authorities)
    if connection.mechanism:
        options["sasl_mechanism"] = connection.mechanism
        if connection.mechanism == "OAUTHBEARER":
            if connection.oauth is None:
                raise ValueError("OAUTHBEARER needs a token endpoint")
            options["sasl_oauth_token_provider"] = Tokens(connection.oauth, authorities)
        else:
            options["sasl_plain_username"] = connection.username
            options["sasl_plain_password"] = connection.password
    return options


def tls_context(settings: TLSSettings, authorities: tuple[str, ...] = ()) -> ssl.SSLContext:
    """What the library speaks TLS with.

    Raises:
        ValueError: a certificate or key is not in PEM form, or they do not fit each other.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if not settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif trusted := settings.authorities or authorities:
            context.load_verify_locations(cadata="\n".join(trusted))
        else:
            context.load_default_certs()
        if settings.certificate:
            _show(context, settings.certificate, settings.key)
    except (ssl.SSLError, OSError) as error:
        raise ValueError(f"TLS to Kafka cannot be set up: {error}") from error
    return context


def _show(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Have the context show a certificate. It reads files only: one in memory keeps the key off the disk."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "w", encoding="ascii", closefd=False) as file:
            file.write(f"{key.strip()}\n{certificate.strip()}\n")
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


class Tokens(AbstractTokenProvider):
    """Tokens of a client (RFC 6749 4.4), each used for most of its life. Called in the library's threads, and blocks them.

    Args:
        oauth: where they come from.
        authorities: see `client_options`.
    """

    def __init__(self, oauth: KafkaOAuth, authorities: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._oauth = oauth
        context = tls_context(TLSSettings(verify=oauth.verify), authorities)
        self._opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
        self._token = ""
        self._good_until = 0.0

    def token(self) -> str:
        """A token that is still good.

        Raises:
            OSError, ValueError: the endpoint is away, or gives none.
        """
        if time.monotonic() >= self._good_until:
            asked = time.monotonic()
            self._token, life = self._ask()
            self._good_until = asked + life * _TOKEN_USED
        return self._token

    def seconds_left(self) -> float:
        """For how long the last token is used."""
        return max(self._good_until - time.monotonic(), 0.0)

    def extensions(self) -> dict[str, str]:
        """What goes to the broker with the token (RFC 7628 3.1)."""
        return dict(self._oauth.extensions)

    def _ask(self) -> tuple[str, float]:
        oauth = self._oauth
        if not oauth.token_endpoint.startswith(("http://", "https://")):
            raise ValueError(f"{oauth.token_endpoint} is no URL of a token endpoint")
        form = {"grant_type": "client_credentials"}
        if oauth.scopes:
            form["scope"] = " ".join(oauth.scopes)
        user = f"{quote(oauth.client_id, safe='')}:{quote(oauth.client_secret, safe='')}"  # RFC 6749 2.3.1
        headers = {"Accept": "application/json", "Authorization": "Basic " + b64encode(user.encode()).decode()}
        request = Request(oauth.token_endpoint, urlencode(form).encode(), headers)
        with self._opener.open(request, timeout=_TOKEN_SECONDS) as answer:
            said = json.loads(answer.read(_TOKEN_BYTES))
        token = said.get("access_token") if isinstance(said, dict) else None
        if not isinstance(token, str) or not token:
            raise ValueError(f"{oauth.token_endpoint} gave no access_token")
        life = said.get("expires_in")
        return token, float(life) if isinstance(life, int | float) else 0.0
