"""How brokers are reached: a `KafkaConnection` in the words of librdkafka, and what that library says of failures."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from ..core.chain.host_basics import TLSSettings
from ..core.chain.host_kafka import KafkaConnection
from .causes import Cause, explained, more_telling
from .connection_settings import Tokens

__all__ = ["NO_ANSWER", "Told", "librdkafka_options"]

NO_ANSWER = "timed out: no broker has answered"
"""What is said where the library tells no cause."""
_PRINCIPAL = "kongtwist"
"""Whom tokens are said to be of; brokers read that in the token."""


class Told(logging.Handler):
    """Keeps the most telling of what a client has logged since it was last asked, and keeps it from standard error.

    Attributes:
        is_broken: the library says that the client never will send again.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._text: str | None = None
        self._guard = threading.Lock()
        self.is_broken = False
        self.logger = logging.Logger("kongtwist.librdkafka")
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Note a line. See `logging.Handler`."""
        self._note(record.getMessage().partition("]: ")[2])

    def failed(self, error: Any) -> None:
        """The client's ``error_cb``. That all brokers are down says nothing that the log does not say better."""
        self.is_broken = self.is_broken or error.fatal()
        if error.name() != "_ALL_BROKERS_DOWN":
            self._note(error.str())

    def _note(self, text: str) -> None:
        with self._guard:
            self._text = more_telling(self._text, text)

    def taken(self) -> Cause | None:
        """What was told, which is then forgotten."""
        with self._guard:
            text, self._text = self._text, None
        return explained(text) if text else None


def librdkafka_options(connection: KafkaConnection, authorities: tuple[str, ...], told: Told) -> dict[str, Any]:
    """What producers and consumers are made with.

    Args:
        connection: to which brokers, and how.
        authorities: PEM texts of whom the gateway trusts where ``connection`` does not say; none: the system's.
        told: hears of failures.

    Raises:
        ValueError: the brokers cannot be reached so: no server, a mechanism without what it needs.
    """
    if not connection.servers:
        raise ValueError("no bootstrap servers are configured")
    options: dict[str, Any] = {
        "bootstrap.servers": ",".join(connection.servers),
        "security.protocol": ("SASL_" if connection.mechanism else "") + ("SSL" if connection.tls else "PLAINTEXT"),
        "reconnect.backoff.max.ms": 500,
        "socket.nagle.disable": True,
        "enable.metrics.push": False,  # to the brokers, which a client should be asked for
        "error_cb": told.failed,
        "logger": told.logger,
    }
    if connection.keepalive:
        options["connections.max.idle.ms"] = connection.keepalive
    if connection.tls is not None:
        options.update(_tls(connection.tls, authorities))
    if connection.mechanism:
        options["sasl.mechanism"] = connection.mechanism
        if connection.mechanism == "OAUTHBEARER":
            if connection.oauth is None:
                raise ValueError("OAUTHBEARER needs a token endpoint")
            options["oauth_cb"] = _token_giver(Tokens(connection.oauth, authorities))
        else:
            options["sasl.username"] = connection.username
            options["sasl.password"] = connection.password
    return options


def _tls(settings: TLSSettings, authorities: tuple[str, ...]) -> dict[str, Any]:
    options: dict[str, Any] = {"enable.ssl.certificate.verification": settings.verify}
    if settings.verify and (trusted := settings.authorities or authorities):
        options["ssl.ca.pem"] = "\n".join(trusted)
    if settings.certificate:
        options["ssl.certificate.pem"] = settings.certificate
        options["ssl.key.pem"] = settings.key
    return options


def _token_giver(tokens: Tokens) -> Any:
    def give(_config: str) -> tuple[str, float, str, dict[str, str]]:
        token = tokens.token()
        return token, time.time() + tokens.seconds_left(), _PRINCIPAL, tokens.extensions()

    return give
