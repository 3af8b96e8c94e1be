"""Kafka, as plugins are given it: to which brokers, how they are reached, and what fails."""

from __future__ import annotations

from dataclasses import dataclass, field

from .host_basics import HostError, TLSSettings

__all__ = ["KafkaConnection", "KafkaFailed", "KafkaOAuth"]


class KafkaFailed(HostError):
    """Kafka did not do what it was asked, or does not answer."""


@dataclass(frozen=True, slots=True)
class KafkaOAuth:
    """Where a token for OAUTHBEARER comes from (RFC 6749 4.4, RFC 7628)."""

    token_endpoint: str  #: URL, http or https
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    scopes: tuple[str, ...] = ()
    extensions: tuple[tuple[str, str], ...] = ()  #: names and values that go to the broker with the token
    verify: bool = True  #: demand a certificate of a trusted authority of the endpoint


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """One cluster, and how its brokers are reached (Kong 3.15, plugins ``kafka-*``). Equal ones share a client."""

    servers: tuple[str, ...]  #: ``host:port`` of brokers that are asked for all others
    tls: TLSSettings | None = None  #: None: plain TCP
    mechanism: str | None = None  #: of SASL: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER; None: no login
    username: str = ""
    password: str = field(default="", repr=False)
    oauth: KafkaOAuth | None = None
    keepalive: int | None = (
        None  #: milliseconds after which an idle connection is closed; None: the library's 9 minutes
    )
    cluster: str = ""  #: a name for logs
