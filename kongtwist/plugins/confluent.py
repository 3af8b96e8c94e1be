"""confluent: `kafka-upstream` for clusters of Confluent Cloud. Kong 3.15 `confluent`."""

from __future__ import annotations

from ._kafka_fields import confluent_fields
from .kafka_upstream import KafkaUpstream

__all__ = ["Confluent"]


class Confluent(KafkaUpstream):
    """Put requests into a topic of Confluent Cloud."""

    name = "confluent"
    priority = 752
    example = {
        "bootstrap_servers": [{"host": "pkc-1.eu.confluent.cloud", "port": 9092}],
        "topic": "orders",
        "cluster_api_key": "key",
        "cluster_api_secret": "secret",
        "producer_async": False,
    }
    config = {
        **confluent_fields(),
        **{name: field for name, field in KafkaUpstream.config.items() if name not in ("authentication", *confluent_fields())},
    }  # fmt: skip
