"""The interface behind which a Kafka library sends records: kafka-python, or librdkafka (`libraries`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..core.chain.host_kafka import KafkaFailed, KafkaPlaced, KafkaRecord
from .causes import Cause

__all__ = ["Outcome", "ProducerClient"]

Outcome = KafkaPlaced | KafkaFailed


class ProducerClient(Protocol):
    """A library's producer. Made and used in the bridge's thread only; outcomes come from any."""

    @property
    def broken(self) -> bool:
        """Whether it never will send again, so that another one is needed."""
        ...

    def knows(self, topic: str) -> bool | None:
        """Whether the topic exists; None while no broker has answered that. Never waits."""
        ...

    def forget(self, topic: str) -> None:
        """Do not look for a topic any more that is not there."""
        ...

    def send(self, record: KafkaRecord, done: Callable[[Outcome], None]) -> None:
        """Send to a topic that is known; never waits, and raises nothing. ``done`` is called once, maybe at once."""
        ...

    def cause(self) -> Cause | None:
        """What failed lately, and was not asked for before."""
        ...

    def close(self, seconds: float) -> None:
        """End it. What has no outcome by then fails."""
        ...
