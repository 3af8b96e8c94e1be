"""Faults of kafka-python 3.0.12, mended in place, once, before its first client is made.

Each has a test that fails when the library no longer has it: the repair then goes, and setup.cfg asks for that version. What needs
no change inside the library is done where clients are made (`connection_settings`, `kafka_producer`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import kafka.errors
from kafka.net.transport import KafkaTCPTransport
from kafka.producer.transaction_manager import TransactionManager, TransactionState

from .positions import topic_mark

__all__ = ["finish_rejoining", "has_to_join", "mend", "read_transport", "reset_producer_id", "topic_ids"]

original_reset = TransactionManager.reset_producer_id
original_read = KafkaTCPTransport._read_from_sock

_LAST_WORDS = 0.02
"""Seconds in which what came with the end of a connection is looked at before it counts as lost."""


def mend() -> None:
    """Put the repairs in; a second time changes nothing."""
    TransactionManager.reset_producer_id = reset_producer_id  # type: ignore[method-assign]
    KafkaTCPTransport._read_from_sock = read_transport  # type: ignore[method-assign]


def reset_producer_id(manager: Any) -> None:
    """Forget the producer id, and have the next one asked for. The library stays READY without one: it sends nothing ever after,
    and nothing expires either."""
    with manager._lock:
        original_reset(manager)
        if manager._current_state == TransactionState.READY:
            manager._current_state = TransactionState.UNINITIALIZED


async def read_transport(transport: Any) -> None:
    """Read a socket to its end. The library throws away what comes together with the end of a connection; that is where brokers say
    that a login is refused."""
    while transport._read and not transport._closed:
        await transport._net.wait_read(transport._sock)
        data, error = transport._sock_recv()
        if data:
            transport.last_read = time.monotonic()
            protocol = transport._protocol
            if protocol and protocol._sensors:
                protocol._sensors.bytes_received.record(len(data))
            try:
                protocol.data_received(data)
            except kafka.errors.KafkaProtocolError as fault:
                transport.abort(error=fault)
                return
        if error:
            if data:
                await transport._net.sleep(_LAST_WORDS)
            transport.abort(error=error)
            return


def finish_rejoining(consumer: Any) -> None:
    """Have the next poll go on with joining that a poll has begun. Where it was begun because the partitions known of have changed, and the
    poll's time was over before the broker had answered, the library forgets it, and the member reads nothing ever after.

    Args:
        consumer: a KafkaConsumer with a group.
    """
    coordinator = consumer._coordinator
    if coordinator.rejoining and not coordinator.rejoin_needed:
        coordinator.request_rejoin()


def has_to_join(consumer: Any) -> bool:
    """Whether a member has to join its group before it can read. A poll without time never gets that far.

    Args:
        consumer: a KafkaConsumer with a group.
    """
    coordinator = consumer._coordinator
    return bool(coordinator.rejoining or coordinator.need_rejoin() or coordinator.coordinator_id is None)


def topic_ids(consumer: Any, topics: Iterable[str]) -> dict[str, str]:
    """Marks of the ids (`topic_mark`) of topics that are there, as far as brokers tell them (Kafka 2.8 and later).

    Where a topic was deleted and made anew, the library takes its position for one behind a log that was cut, and goes on where the new
    log ends.

    Args:
        consumer: a KafkaConsumer, or one that has a function of this name.
        topics: their names.
    """
    ask = getattr(consumer, "topic_ids", None)
    if ask is not None:
        return dict(ask(topics))
    cluster = getattr(consumer, "_cluster", None)
    if cluster is None:
        return {}
    return {topic: topic_mark(number) for topic in topics if (number := cluster.topic_id(topic)) is not None}
