"""librdkafka's producer (confluent-kafka) behind the interface that the bridge talks to (`ProducerClient`).

A thread of its own takes outcomes from the library. What waits, as questions for topics do, is done in further threads that end with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ..core.chain.host_kafka import KafkaFailed, KafkaPlaced, KafkaProducing, KafkaRecord
from .causes import Cause, explained
from .librdkafka_settings import NO_ANSWER, Told, librdkafka_options
from .producer_client import Outcome

__all__ = ["LibrdkafkaProducer"]

_BOOTSTRAP = 3.0
"""Seconds in which one try to reach a broker has to succeed; the bridge tries again."""
_ANSWER = 1.0
"""Seconds that brokers have to tell of a topic, before they are asked again."""
_POLL = 0.1
"""Seconds of one look for outcomes: so long an end may take."""
_BATCH = 131072
_BEHIND = -1
_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
_UNKNOWN = (
    KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TOPIC_EXCEPTION,
)  # fmt: skip

_REFUSALS = (
    *_TOO_LARGE, *_UNKNOWN, KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.INVALID_REQUIRED_ACKS, KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP, KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT, KafkaError.POLICY_VIOLATION,
    KafkaError._UNKNOWN_PARTITION, KafkaError._PURGE_QUEUE,
)  # fmt: skip
"""What is answered instead of writing, or said of what was not sent. After any other error a record may be there."""


class LibrdkafkaProducer:
    """See `ProducerClient`. Making it waits for a broker.

    Args:
        settings: how it sends.
        authorities: see `librdkafka_options`.

    Raises:
        KafkaFailed: no broker answers, or none lets us in.
    """

    def __init__(self, settings: KafkaProducing, authorities: tuple[str, ...] = ()) -> None:
        self._told = Told()
        self._topics: dict[str, bool | None] = {}
        self._asking = False
        self._guard = threading.Lock()
        self._closed = threading.Event()
        try:
            self._producer: Producer | None = Producer(_options(settings, authorities, self._told))
        except (KafkaException, ValueError) as error:
            raise KafkaFailed(f"the Kafka library refuses the settings: {error}") from error
        self._poller = threading.Thread(target=self._take_outcomes, name="kafka-outcomes", daemon=True)
        self._poller.start()
        try:
            self._producer.cluster_id(timeout=_BOOTSTRAP)
        except KafkaException as error:
            self.close(0)
            cause = self._told.taken() or explained(NO_ANSWER)
            raise KafkaFailed(cause.text, cause.remedy) from error

    @property
    def broken(self) -> bool:
        """See `ProducerClient`."""
        return self._told.is_broken

    def knows(self, topic: str) -> bool | None:
        """See `ProducerClient`."""
        with self._guard:
            known = self._topics.get(topic)
            if known:
                return True
            self._topics[topic] = None  # an answer counts once: the topic may be created meanwhile
            begin, self._asking = not self._asking, True
        if begin:
            threading.Thread(target=self._ask, name="kafka-topics", daemon=True).start()
        return known

    def _ask(self) -> None:
        """Ask for topics until all have an answer."""
        while not self._closed.is_set():
            with self._guard:
                topic = next((each for each, known in self._topics.items() if known is None), None)
                if topic is None:
                    self._asking = False
                    return
            known = self._is_there(topic)
            with self._guard:
                if topic in self._topics and known is not None:
                    self._topics[topic] = known

    def _is_there(self, topic: str) -> bool | None:
        producer = self._producer
        if producer is None:
            return None
        try:
            told = producer.list_topics(topic, timeout=_ANSWER).topics[topic]
        except KafkaException:
            self._closed.wait(_POLL)  # it may fail at once
            return None
        if told.error is None:
            return True
        return False if told.error.code() in _UNKNOWN else None

    def forget(self, topic: str) -> None:
        """See `ProducerClient`."""
        with self._guard:
            self._topics.pop(topic, None)

    def send(self, record: KafkaRecord, done: Callable[[Outcome], None]) -> None:
        """See `ProducerClient`."""

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                done(_failed(error, sent=error.code() not in _REFUSALS))
                return
            offset = message.offset()
            done(
                KafkaPlaced(record.topic, message.partition() or 0, _BEHIND if offset is None else max(offset, _BEHIND))
            )

        producer = self._producer
        assert producer is not None
        partition = -1 if record.partition is None else record.partition
        try:
            producer.produce(
                record.topic, record.value, record.key, partition, delivered, headers=list(record.headers) or None
            )
        except KafkaException as error:
            done(_failed(error.args[0], sent=False))
        except (BufferError, TypeError, ValueError) as error:
            done(KafkaFailed(f"{type(error).__name__}: {error}"))

    def cause(self) -> Cause | None:
        """See `ProducerClient`."""
        return self._told.taken()

    def close(self, seconds: float) -> None:
        """See `ProducerClient`."""
        producer = self._producer
        if producer is None:
            return
        if producer.flush(seconds):
            producer.purge()
            producer.flush(_POLL)
        self._closed.set()
        self._poller.join(3)
        producer.close()
        self._producer = None

    def _take_outcomes(self) -> None:
        producer = self._producer
        assert producer is not None
        while not self._closed.is_set():
            producer.poll(_POLL)


def _options(settings: KafkaProducing, authorities: tuple[str, ...], told: Told) -> dict[str, Any]:
    options = librdkafka_options(settings.connection, authorities, told)
    options.update({
        "acks": settings.acks, "enable.idempotence": settings.acks == -1, "linger.ms": settings.linger,
        "message.timeout.ms": 0,  # what was sent does not expire: nobody could tell then whether it is in the topic
        "message.max.bytes": settings.largest, "batch.size": min(_BATCH, settings.largest),
        "request.timeout.ms": settings.request_timeout, "socket.timeout.ms": max(settings.request_timeout, 10),
        "retry.backoff.ms": settings.retry_backoff, "retry.backoff.max.ms": max(settings.retry_backoff, 1000),
        "compression.type": settings.compression or "none",
        "partitioner": "murmur2_random",  # a key goes where other clients of Kafka put it
        # The bridge bounds both: what the library refused would not be told apart from a failure.
        "queue.buffering.max.messages": 0, "queue.buffering.max.kbytes": 2147483647,
    })  # fmt: skip
    return options


def _failed(error: KafkaError, sent: bool) -> KafkaFailed:
    if error.code() in _TOO_LARGE:
        return KafkaFailed(
            error.str(),
            "raise config.producer_request_limits_bytes_per_request and the topic's max.message.bytes",
            kind="too_large",
        )
    cause = explained(f"{error.name()}: {error.str()}")
    return KafkaFailed(cause.text, cause.remedy, sent, cause.kind)
