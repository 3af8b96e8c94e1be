"""kafka-consume: topics of Kafka over HTTP and as Server-Sent Events. Kong 3.15 `kafka-consume`."""

from .consume_phases import KafkaConsume, consume_rules

__all__ = ["KafkaConsume", "consume_rules"]
