"""What tests of the Kafka plugins share: a route that puts requests into a topic, and what is in a topic."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic  # type: ignore[attr-defined]
from kafka.errors import KafkaError

from tests.live.kafka_server import KafkaCluster
from tests.live.support import GatewayProcess, group_sockets, wait_until

__all__ = [
    "broker_connections", "create_topic", "delete_records", "kafka_route", "new_topic", "recreate_topic", "topic_records", "topic_values",
]  # fmt: skip

JSON = {"Content-Type": "application/json"}


def new_topic() -> str:
    """A name that no other test uses."""
    return f"topic-{uuid.uuid4().hex[:12]}"


def create_topic(cluster: KafkaCluster, partitions: int = 1, replicas: int = 1, name: str | None = None) -> str:
    """Create a topic; returns its name."""
    name = name or new_topic()
    admin = KafkaAdminClient(bootstrap_servers=cluster.servers)
    try:
        admin.create_topics([NewTopic(name, partitions, replicas)])
    finally:
        admin.close()
    return name


def recreate_topic(cluster: KafkaCluster, topic: str, partitions: int = 1) -> None:
    """Delete a topic, and create another one of its name."""
    admin = KafkaAdminClient(bootstrap_servers=cluster.servers)

    def made() -> bool:
        try:
            admin.create_topics([NewTopic(topic, partitions, 1)])
        except KafkaError:  # the end of the former one takes a while
            return False
        return True

    try:
        admin.delete_topics([topic])
        wait_until(lambda: topic not in admin.list_topics(), "the end of the topic", 60)
        wait_until(made, "the topic", 60)
    finally:
        admin.close()


def delete_records(cluster: KafkaCluster, topic: str, partition: int, before: int) -> None:
    """Take the records of a partition before an offset, as retention does."""
    admin = KafkaAdminClient(bootstrap_servers=cluster.servers)
    try:
        admin.delete_records({TopicPartition(topic, partition): before})
    finally:
        admin.close()


def kafka_route(gateway: GatewayProcess, servers: str, path: str = "/events", **config: Any) -> None:
    """A service without a host, and a route to it whose requests go to Kafka."""
    name = path.strip("/")
    gateway.create("/services", name=name)
    fields = {"bootstrap_servers": servers, "producer_async": False, **config}
    gateway.create(f"/services/{name}/plugins", name="kafka-upstream", config=fields)
    gateway.create(f"/services/{name}/routes", name=name, paths=[path], methods=["POST"])
    # Changes are served in order, so that the rest is served where this is.
    gateway.create("/routes", name=f"{name}-served", paths=[path], methods=["GET"])
    gateway.create(f"/routes/{name}-served/plugins", name="request-termination", config={"status_code": 204})
    wait_until(lambda: gateway.get(path).status == 204, f"the route {path}")


@contextmanager
def _reader(cluster: KafkaCluster, topic: str) -> Iterator[tuple[KafkaConsumer, list[TopicPartition]]]:
    consumer = KafkaConsumer(bootstrap_servers=cluster.servers, enable_auto_commit=False, auto_offset_reset="earliest")
    try:
        numbers = wait_until(lambda: consumer.partitions_for_topic(topic), f"the topic {topic}")
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        yield consumer, partitions
    finally:
        consumer.close()


def topic_records(cluster: KafkaCluster, topic: str) -> list[Any]:
    """All records that are in a topic now, by partition and offset."""
    with _reader(cluster, topic) as (consumer, partitions):
        ends = consumer.end_offsets(partitions)
        consumer.seek_to_beginning(*partitions)
        found: list[Any] = []

        def read() -> bool:
            for records in consumer.poll(200).values():
                found.extend(records)
            return all(consumer.position(each) >= ends[each] for each in partitions)

        wait_until(read, f"all records of {topic}", 60)
    return sorted(found, key=lambda each: (each.partition, each.offset))


def topic_values(cluster: KafkaCluster, topic: str) -> list[Any]:
    """The values of all records, as JSON."""
    return [json.loads(each.value) for each in topic_records(cluster, topic)]


def broker_connections(cluster: KafkaCluster, gateway: GatewayProcess) -> int:
    """How many connections a gateway has to the brokers."""
    ports = {int(each.rpartition(":")[2]) for each in cluster.servers.split(",")}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {each[9] for each in lines if int(each[2].rpartition(":")[2], 16) in ports}
    return len(inodes & group_sockets(gateway.pid))
