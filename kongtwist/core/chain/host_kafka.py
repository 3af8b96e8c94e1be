"""Kafka, as plugins are given it: to which brokers, how they are reached, what is sent, and what fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from .host_basics import HostError, TLSSettings

__all__ = [
    "KafkaConnection", "KafkaFailed", "KafkaFull", "KafkaLate", "KafkaOAuth", "KafkaPlaced", "KafkaProducer", "KafkaProducing",
    "KafkaRecord", "Settled",
]  # fmt: skip


class KafkaFailed(HostError):
    """Kafka did not do what it was asked, or does not answer.

    Args:
        text: why.
        remedy: what the operator can do about it.
        sent: of a record: it may be in the topic all the same; else it certainly is not, and never will be.
        kind: one word, by which failures are counted; None: that of the class.
    """

    kind = "other"

    def __init__(self, text: str, remedy: str = "", sent: bool = False, kind: str | None = None) -> None:
        super().__init__(text)
        if kind is not None:
            self.kind = kind
        self.remedy = remedy
        self.sent = sent


class KafkaFull(KafkaFailed):
    """As much waits for the brokers as may: the record was not taken."""

    kind = "full"


class KafkaLate(KafkaFailed):
    """No acknowledgement in time. See `KafkaFailed`."""

    kind = "late"


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


@dataclass(frozen=True, slots=True)
class KafkaProducing:
    """How records are sent. Equal ones share a producer in each process."""

    connection: KafkaConnection
    acks: int = -1  #: -1: all replicas in sync, and each record once; 1: the leader; 0: nobody
    compression: str | None = None  #: ``gzip``
    linger: int = 0  #: milliseconds that a batch waits for further records
    largest: int = 1048576  #: bytes of one request, and so of one record
    request_timeout: int = 2000  #: milliseconds for a broker's answer, before it is asked again
    retry_backoff: int = 100  #: milliseconds between two tries


class KafkaRecord(NamedTuple):
    """What is sent."""

    topic: str
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None  #: None: by the key; without a key the producer chooses


class KafkaPlaced(NamedTuple):
    """Where an acknowledged record is."""

    topic: str
    partition: int
    offset: int  #: -1: nobody was to acknowledge it (``acks`` 0)


Settled = Callable[[KafkaPlaced | KafkaFailed], None]
"""Is told once what became of a record, however late and whoever still waits for it. Does not raise."""


class KafkaProducer(Protocol):
    """Sends records. A record that was given to the brokers is tried until they take it, however long they are away."""

    def send(self, record: KafkaRecord, timeout: float, settled: Settled | None = None) -> Awaitable[KafkaPlaced]:
        """Send a record, and wait for the acknowledgement.

        Args:
            record: what to send.
            timeout: seconds to wait.
            settled: told what became of the record, also behind the time-out. Not told of a record that was never taken (KafkaFull).

        Raises:
            KafkaFull, KafkaLate, KafkaFailed: see there. Cancelled before it was sent it is never sent.
        """
        ...

    def offer(self, record: KafkaRecord, most: int, settled: Settled | None = None) -> None:
        """Take a record, and send it in the background. What becomes of it stands in the log where it fails.

        Args:
            record: what to send.
            most: records of this producer that may wait, this one included.
            settled: see `send`.

        Raises:
            KafkaFull: as many wait.
        """
        ...
