"""Properties of what plugins do with Kafka; part of config/properties.py by length only."""

from __future__ import annotations

from .kinds import INTEGER, SIZE, Property, enum

__all__ = ["KafkaServices"]


class KafkaServices:
    """Kafka: the library, and what plugins may take up, in each worker. All of it is ours."""

    plugin_kafka_client = Property(
        enum("kafka-python", "librdkafka"),
        "kafka-python",
        "Library that speaks with Kafka; members of consumer groups are always kafka-python's. librdkafka takes less of the CPU, and"
        " needs the package confluent-kafka (pip install 'kongtwist[librdkafka]').",
    )
    plugin_kafka_bytes = Property(
        SIZE,
        "64m",
        "Bytes of records that wait for Kafka's brokers, and their acknowledgement, of each producer (one for each distinct connection"
        " settings) in each worker; more are refused (503).",
    )
    plugin_kafka_window = Property(
        INTEGER.within(1, 100000),
        "500",
        "Records of each producer that are given to the Kafka library at a time. What still waits can be taken back when a client's time"
        " is over; what was given cannot.",
    )
    plugin_kafka_keys = Property(
        INTEGER.within(1, 10000000),
        "10000",
        "Idempotency keys of kafka-upstream that each worker remembers where the plugin has no Redis server for them; the oldest go. With"
        " one: outcomes that may wait for the server to come back.",
    )
    plugin_kafka_replays = Property(
        INTEGER.within(1, 1000),
        "8",
        "Clients of kafka-consume that are read records again at once, in each worker, because they come back to what the window no"
        " longer holds; each takes a thread and a connection to each broker meanwhile. Others wait.",
    )
    plugin_kafka_fetches = Property(
        INTEGER.within(1, 1000),
        "16",
        "Requests of kafka-consume in mode http-get that are under way at once, in each worker; each takes a thread and a connection to"
        " each broker, but for those that go on where the one before has ended, which take turns. One more is answered 503.",
    )
    plugin_kafka_groups = Property(
        INTEGER.within(1, 1000),
        "16",
        "Consumer groups of Kafka that a worker is a member of at a time, for clients of kafka-consume; each takes a thread and a"
        " connection to each broker. A client of one more is answered 503.",
    )
    plugin_kafka_schemas = Property(
        INTEGER.within(1, 1000000),
        "500",
        "Schemas of each registry (config.schema_registry of plugins for Kafka) that are kept in memory, in each worker; the oldest go.",
    )
    plugin_kafka_registry_bytes = Property(
        SIZE,
        "16m",
        "Bytes of records that wait for one registry of schemas, in each worker; more are refused (503), or dropped by kafka-log.",
    )
