"""kafka-python's producer behind the interface that the bridge talks to (`ProducerClient`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import kafka
import kafka.errors
from kafka.net.compat import KafkaNetClient

from ..core.chain.host_kafka import KafkaFailed, KafkaPlaced, KafkaProducing, KafkaRecord
from .causes import Cause, Causes, explained
from .connection_settings import client_options
from .producer_client import Outcome

__all__ = ["KafkaPythonProducer"]

_BOOTSTRAP = 3000
"""Milliseconds in which one try to reach a broker has to succeed; the bridge tries again."""
_NEVER = 24 * 3600 * 1000
"""Milliseconds: what was sent does not expire, because nobody could tell then whether it is in the topic."""
_BATCH = 131072
"""Bytes of a batch. An idempotent producer has one batch under way for each partition, so that small ones are slow."""

_REFUSALS = (
    kafka.errors.MessageSizeTooLargeError, kafka.errors.RecordListTooLargeError, kafka.errors.InvalidTopicError,
    kafka.errors.TopicAuthorizationFailedError, kafka.errors.ClusterAuthorizationFailedError,
    kafka.errors.InvalidRequiredAcksError, kafka.errors.InvalidRecordError, kafka.errors.InvalidTimestampError,
    kafka.errors.UnsupportedForMessageFormatError, kafka.errors.PolicyViolationError,
)  # fmt: skip
"""What brokers answer instead of writing. After any other error, the end of the library's producer above all, a record may be there."""


class _Quiet(kafka.KafkaProducer):
    """Without the library's own end, which takes the logger away from all producers."""

    def __del__(self) -> None:
        pass


class KafkaPythonProducer:
    """See `ProducerClient`. Making it waits for a broker.

    Args:
        settings: how it sends.
        authorities: see `client_options`.

    Raises:
        KafkaFailed: no broker answers, or none lets us in.
    """

    def __init__(self, settings: KafkaProducing, authorities: tuple[str, ...] = ()) -> None:
        self._causes = Causes.installed()
        self._causes.taken(threading.get_ident())
        self._asked: dict[str, Any] = {}
        self._is_told = settings.acks != 0  # else what the library says of offsets is made up
        clients: list[Any] = []

        def kept(**words: Any) -> Any:
            clients.append(KafkaNetClient(**words))
            return clients[-1]

        try:
            self._producer = _Quiet(kafka_client=kept, **_options(settings, authorities))
        except Exception as error:
            for client in clients:  # a constructor that fails leaves them open
                client.close()
            cause = self._causes.taken(threading.get_ident()) or explained(str(error))
            raise KafkaFailed(cause.text, cause.remedy) from error
        self._producer._unregister_cleanup()
        self._sender = self._producer._sender

    @property
    def broken(self) -> bool:
        """See `ProducerClient`. An answer to the request for a producer id that is late ends a producer for good."""
        manager = self._producer._transaction_manager
        return bool(manager is not None and manager.has_fatal_error()) or not self._sender.is_alive()

    def knows(self, topic: str) -> bool | None:
        """See `ProducerClient`. The library's own way waits, for all topics, while one is not there."""
        cluster = self._producer._metadata
        if cluster.partitions_for_topic(topic) is not None:
            self._asked.pop(topic, None)
            return True
        before = self._asked.get(topic)
        if before is not None and not before.is_done:
            return None
        # What brokers say of a topic that is asked for alone becomes the fate of the question.
        answered = before is not None and (
            before.succeeded() or isinstance(before.exception, kafka.errors.BrokerResponseError)
        )
        self._sender.add_topic(topic)
        self._asked[topic] = cluster.request_update()
        self._sender.wakeup()
        return False if answered else None

    def forget(self, topic: str) -> None:
        """See `ProducerClient`."""
        self._asked.pop(topic, None)
        self._producer._metadata._topics.discard(topic)

    def send(self, record: KafkaRecord, done: Callable[[Outcome], None]) -> None:
        """See `ProducerClient`."""
        try:
            future = self._producer.send(record.topic, record.value, record.key, list(record.headers), record.partition)
        except (kafka.errors.KafkaError, ValueError, TypeError) as error:
            if record.partition is not None:  # it may have been added lately
                self._producer._metadata.request_update()
            done(_failed(error, sent=False))
            return
        told = self._is_told
        future._add_cb_eb(
            lambda placed: done(KafkaPlaced(placed.topic, placed.partition, placed.offset if told else -1)),
            lambda error: done(_failed(error, sent=not isinstance(error, _REFUSALS))),
        )

    def cause(self) -> Cause | None:
        """See `ProducerClient`."""
        return self._causes.taken(self._sender.ident)

    def close(self, seconds: float) -> None:
        """See `ProducerClient`."""
        try:
            self._producer.close(seconds)
        except kafka.errors.KafkaTimeoutError:  # and nothing is closed then
            self._sender.force_close()
            self._sender.wakeup()
            self._producer._closed = True
        self._sender.join(3)


def _options(settings: KafkaProducing, authorities: tuple[str, ...]) -> dict[str, Any]:
    options = client_options(settings.connection, authorities)
    options.update(
        acks=settings.acks, linger_ms=settings.linger, max_request_size=settings.largest,
        request_timeout_ms=settings.request_timeout, retry_backoff_ms=settings.retry_backoff, delivery_timeout_ms=_NEVER,
        batch_size=min(_BATCH, settings.largest), bootstrap_timeout_ms=_BOOTSTRAP, compression_type=settings.compression,
        enable_idempotence=settings.acks == -1,
    )  # fmt: skip
    return options


def _failed(error: Exception, sent: bool) -> KafkaFailed:
    if isinstance(error, kafka.errors.MessageSizeTooLargeError | kafka.errors.RecordListTooLargeError):
        return KafkaFailed(
            str(error),
            "raise config.producer_request_limits_bytes_per_request and the topic's max.message.bytes",
            kind="too_large",
        )
    cause = explained(f"{type(error).__name__}: {error}")
    return KafkaFailed(cause.text, cause.remedy, sent, cause.kind)
