"""confluent-consume: `kafka-consume` for clusters of Confluent Cloud. Kong 3.15 `confluent-consume`."""

from __future__ import annotations

from ..entities.entity import Config
from ..entities.schema import Boolean, Integer, String
from ._kafka_fields import confluent_fields
from .kafka_consume import KafkaConsume, consume_rules

__all__ = ["ConfluentConsume"]


class ConfluentConsume(KafkaConsume):
    """Answer with records of topics of Confluent Cloud."""

    name = "confluent-consume"
    priority = 754
    scopes = ("route", "service", "consumer")
    example = {
        "bootstrap_servers": [{"host": "pkc-1.eu.confluent.cloud", "port": 9092}],
        "topics": [{"name": "user-events"}],
        "cluster_api_key": "key",
        "cluster_api_secret": "secret",
        "mode": "server-sent-events",
    }
    config = Config({
        **confluent_fields(),
        **{name: field for name, field in KafkaConsume.fields.items() if name not in ("authentication", *confluent_fields())},
        "auto_offset_reset": String(
            default="earliest", one_of=["earliest", "latest"],
            text="Where a client begins that has no position: at the beginning of the topics, or with what comes.",
        ),
        "timeout": Integer(
            default=10000, between=[100, 2147483646], text="Milliseconds in which the cluster has to tell about its topics."
        ),
        "keepalive": Integer(default=60000, gt=0, text="Milliseconds after which an idle connection is closed."),
        "keepalive_enabled": Boolean(default=False, text="Has no effect: connections are always kept."),
    }, checks=(consume_rules,))  # fmt: skip
