"""Registries of schemas (Confluent's REST interface), as plugins are given them: what records of Kafka are written with."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from .host_kafka import KafkaFailed

__all__ = ["RegistryOAuth", "RegistrySettings", "SchemaFailed", "SchemaMismatch", "SchemaRegistry", "Subject"]


class SchemaFailed(KafkaFailed):
    """The registry is away, refuses, or does not have the schema; or the schema cannot be used.

    Args:
        text, remedy: see `KafkaFailed`.
        final: asking again will not help: there is no such schema, or it cannot be used.
    """

    def __init__(self, text: str, remedy: str = "", final: bool = False) -> None:
        super().__init__(text, remedy)
        self.final = final


class SchemaMismatch(KafkaFailed):
    """Data do not fit their schema. The text says where, and holds nothing of the data."""


@dataclass(frozen=True, slots=True)
class RegistryOAuth:
    """Where tokens for a registry come from (RFC 6749)."""

    token_endpoint: str  #: URL, http or https
    grant_type: str = "client_credentials"  #: or password
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    audience: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  #: sent with the request for a token
    arguments: tuple[tuple[str, str], ...] = field(default=(), repr=False)  #: sent in its body
    auth_method: str = "client_secret_post"  #: or client_secret_basic, client_secret_jwt, none
    algorithm: str = "HS512"  #: of client_secret_jwt: HS256 or HS512
    timeout: float = 10.0  #: seconds
    keepalive: bool = True  #: keep the connection
    verify: bool = True  #: demand a certificate of a trusted authority


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """One registry, and how it is asked (Kong 3.15, ``config.schema_registry.confluent``). Equal ones share what they know."""

    url: str
    verify: bool = True  #: demand a certificate of a trusted authority
    ttl: float = 300.0  #: seconds for which the answer is kept which schema a version of a subject is
    username: str | None = None  #: for Basic (RFC 7617); None: without
    password: str = field(default="", repr=False)
    oauth: RegistryOAuth | None = None


class Subject(NamedTuple):
    """A line of versions of a schema."""

    name: str
    version: str = "latest"  #: or a number


class SchemaRegistry(Protocol):
    """Has records written with schemas. Schemas are kept, so that the registry is seldom asked."""

    @property
    def room(self) -> int:
        """Bytes of records that may wait for the registry."""
        ...

    def encode(self, subject: Subject, value: bytes, timeout: float) -> Awaitable[bytes]:
        """Check JSON against a schema, and write it as that asks.

        Args:
            subject: has the schema.
            value: JSON.
            timeout: seconds for the registry to answer.

        Returns:
            Confluent's wire format: a zero, the schema's id, the data.

        Raises:
            SchemaMismatch, SchemaFailed: see there.
            KafkaFull: too much waits for the registry.
        """
        ...

    def encode_now(self, subject: Subject, value: bytes) -> bytes | None:
        """See `encode`; None where the registry has to be asked first."""
        ...
