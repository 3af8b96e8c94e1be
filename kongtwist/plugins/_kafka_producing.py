"""How a plugin's configuration has records sent to Kafka (Kong 3.15, ``kafka-upstream`` and ``kafka-log``)."""

from __future__ import annotations

from ..core.chain.host import Scope
from ..core.chain.host_kafka import KafkaProducing
from ..core.rows import Row
from ..entities.schema import Boolean, Field, Integer, String
from ._kafka_fields import cluster_fields, kafka_connection
from ._registry_fields import registry_field

__all__ = ["kafka_producing", "producing_fields", "topic_name"]

_TOGETHER = 5
"""Milliseconds that a record waits for others to share a batch with, where somebody waits for its acknowledgement."""


def topic_name(value: str) -> str | None:
    """A topic's name: ASCII letters, digits, ``.``, ``_`` and ``-``, 249 at the most."""
    plain = value.replace(".", "").replace("_", "").replace("-", "")
    good = value.isascii() and (plain.isalnum() or not plain) and 0 < len(value) <= 249 and value not in (".", "..")
    return None if good else f"not a topic: {value}"


def producing_fields() -> dict[str, Field]:
    """The fields of the cluster, and those of the producer."""
    milliseconds = "Milliseconds"
    return {
        **cluster_fields(),
        "topic": String(required=True, checks=(topic_name,), text="Topic that records go to."),
        "timeout": Integer(default=10000, gt=0, text=f"{milliseconds} that a request waits for the acknowledgement."),
        "keepalive": Integer(default=60000, gt=0, text=f"{milliseconds} after which an idle connection is closed."),
        "keepalive_enabled": Boolean(default=False, text="Has no effect: connections are always kept."),
        "key_query_arg": String(text="Query argument whose value is the record's key; null: none."),
        "producer_request_acks": Integer(
            default=-1, one_of=[-1, 0, 1],
            text="Who acknowledges: -1 all replicas in sync, and each record is there once; 1 the leader; 0 nobody. Kong's default is 1.",
        ),
        "producer_request_timeout": Integer(default=2000, gt=0, text=f"{milliseconds} until a broker is asked again."),
        "producer_request_limits_messages_per_request": Integer(
            default=200, text="Has no effect: batches are bounded by bytes."
        ),
        "producer_request_limits_bytes_per_request": Integer(
            default=1048576, between=[1024, 1073741824], text="Bytes of one request to a broker, and so of the largest record."
        ),
        "producer_request_retries_max_attempts": Integer(
            default=10, text="Has no effect: what was sent is tried until brokers take it, so that nothing is lost or doubled."
        ),
        "producer_request_retries_backoff_timeout": Integer(
            default=100, gt=0, text=f"{milliseconds} between two tries."
        ),
        "producer_async": Boolean(
            default=True, text="Answer 202 at once, and send behind that; false: when brokers have acknowledged."
        ),
        "producer_async_flush_timeout": Integer(
            default=1000, between=[0, 600000], text=f"{milliseconds} that a batch is filled before it is sent, where nobody waits."
        ),
        "producer_async_buffering_limits_messages_in_memory": Integer(
            default=50000, gt=0, text="Records that may wait in each worker; more are refused with 503."
        ),
        "schema_registry": registry_field(writes=True),
        "producer_compression": String(
            ours=True, one_of=["gzip"], text="Compression of batches; null: none. Kong has no such field."
        ),
        "producer_linger": Integer(
            ours=True, between=[0, 10000],
            text=f"{milliseconds} that a batch is filled; null: 5 where a client waits, else producer_async_flush_timeout.",
        ),
    }  # fmt: skip


def kafka_producing(conf: Row, host: Scope) -> KafkaProducing:
    """What the host makes a producer of. Raises ValueError: see `kafka_connection`."""
    linger = conf.get("producer_linger")
    if linger is None:
        linger = conf["producer_async_flush_timeout"] if conf["producer_async"] else _TOGETHER
    return KafkaProducing(
        connection=kafka_connection(conf, host),
        acks=conf["producer_request_acks"],
        compression=conf.get("producer_compression"),
        linger=linger,
        largest=conf["producer_request_limits_bytes_per_request"],
        request_timeout=conf["producer_request_timeout"],
        retry_backoff=conf["producer_request_retries_backoff_timeout"],
    )
