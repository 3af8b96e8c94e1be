"""Which library speaks with Kafka: kafka-python, which is always there, or librdkafka where confluent-kafka is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.chain.host_kafka import KafkaProducing
from .late_names import LOADING
from .producer_client import ProducerClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from .consumer_client import OpenConsumer

__all__ = ["KAFKA_PYTHON", "LIBRDKAFKA", "consumer_opener", "is_installed", "made_producer"]

KAFKA_PYTHON, LIBRDKAFKA = "kafka-python", "librdkafka"


def is_installed(library: str) -> bool:
    """Whether it can be chosen."""
    if library == LIBRDKAFKA:
        try:
            import confluent_kafka  # noqa: F401 - it may be there and lack what it needs
        except ImportError:
            return False
    return True


def made_producer(library: str, settings: KafkaProducing, authorities: tuple[str, ...]) -> ProducerClient:
    """Called in a producer's thread, which imports the library: that would take the reactor's thread too long.

    Raises:
        KafkaFailed: no broker answers, or none lets us in.
    """
    made: Callable[[KafkaProducing, tuple[str, ...]], ProducerClient]
    with LOADING:
        if library == LIBRDKAFKA:
            from .librdkafka_producer import LibrdkafkaProducer as made
        else:
            from .kafka_producer import KafkaPythonProducer as made
    return made(settings, authorities)


def consumer_opener(library: str) -> OpenConsumer:
    """What opens consumers (`topic_consumers.open_consumer`). Those that one has opened share what they can."""
    if library == LIBRDKAFKA:
        with LOADING:
            from .librdkafka_consumer import LibrdkafkaConsumers

        return LibrdkafkaConsumers().open
    from .topic_consumers import open_consumer

    return open_consumer
