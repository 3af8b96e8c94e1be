"""What Kafka's plugins cost: a request that waits for the acknowledgement beside one that is relayed, and an event for each of many
clients."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from kongtwist.kafka.libraries import KAFKA_PYTHON, LIBRDKAFKA, is_installed
from tests.live.kafka_server import KafkaCluster

from .cases import Field
from .measures import Pace, http_cost
from .report import Row
from .servers import Server, Stage
from .usage import Usage

__all__ = ["kafka_rows"]

CLIENTS = 64
"""That wait for acknowledgements at a time."""
EVENT = {"event_type": "click", "user_id": "u-1234567", "page": "/products/42", "more": "x" * 100}
RECORD = json.dumps({"event_type": "click", "user_id": "u-1234567", "more": "x" * 146}).encode()
"""200 bytes."""
MOST = {
    ("SSE", 10): (8.0, "at most 8 us"), ("SSE", 100): (2.0, "at most 2 us"),
    ("WebSocket", 10): (8.8, "at most 8.8 us"), ("WebSocket", 100): (2.2, "at most 2.2 us"),
}  # fmt: skip
"""Microseconds for an event to a client, by kind of client and records a second."""
READS = {"SSE": ("/events", "server-sent-events"), "WebSocket": ("/messages", "websocket")}
"""Where a kind of client reads, and the plugin's mode there."""


def kafka_rows(stage: Stage, wanted: Callable[[str], bool], pace: Pace, *, quick: bool) -> Iterator[Row]:
    """The rows, in place of nginx's column the gateway that relays the same request, or the aim.

    Raises:
        RuntimeError: requests failed.
    """
    clients = 200 if quick else 5000
    produced = {each: f"Kafka, POST acknowledged, {each}" for each in (KAFKA_PYTHON, LIBRDKAFKA) if is_installed(each)}
    events = {(kind, rate): f"Kafka, record to {clients} {kind} clients, {rate} a second" for kind, rate in MOST}
    if not any(wanted(name) for name in (*produced.values(), *events.values())):
        return
    # Apache Kafka itself: a broker that answers at once where it has nothing keeps whoever reads busy with asking.
    folder = Path(stage.folder, "broker")
    folder.mkdir()
    cluster = KafkaCluster(str(folder)).start()
    try:
        for library, name in produced.items():
            if wanted(name):
                yield _produce(stage, cluster.servers, library, name, pace)
        for (kind, rate), name in events.items():
            if wanted(name):
                each = _deliver(stage, cluster.servers, kind, rate, clients, pace)
                most, aim = MOST[kind, rate]
                yield Row(name, "us", most, "", each, each / most, aim)
    finally:
        cluster.kill_all()


def _gateway(stage: Stage, broker: str, library: str) -> Server:
    host, port = broker.split(":")
    cluster = {"bootstrap_servers": [{"host": host, "port": int(port)}]}
    sends = {**cluster, "topic": "produced", "producer_async": False}
    reads = {**cluster, "topics": [{"name": "events"}]}
    upstream = Field(stage).http_upstream
    services = [
        {"name": "relayed", "url": f"http://127.0.0.1:{upstream}", "routes": [{"name": "relayed", "paths": ["/relayed"]}]},
        {"name": "produced", "host": "produced", "routes": [
            {"name": "produced", "paths": ["/produced"], "plugins": [{"name": "kafka-upstream", "config": sends}]},
        ]},
    ]  # fmt: skip
    routes = [
        {"name": kind, "paths": [path], "plugins": [{"name": "kafka-consume", "config": {**reads, "mode": mode}}]}
        for kind, (path, mode) in READS.items()
    ]
    declarative = {"_format_version": "3.0", "services": services, "routes": routes}
    name = f"kafka-{next(stage.numbers)}"
    return stage.kongtwist(name, declarative, conf={"plugin_kafka_client": library})


def _produce(stage: Stage, broker: str, library: str, name: str, pace: Pace) -> Row:
    gateway = _gateway(stage, broker, library)
    body = json.dumps(EVENT)
    turns = [
        [http_cost(stage, gateway, path, pace, body=body, clients=CLIENTS).seconds * 1e6 for path in ("/relayed", "/produced")]
        for _ in range(pace.rounds)
    ]  # fmt: skip
    relayed, produced = (statistics.median(turn[place] for turn in turns) for place in (0, 1))
    ratio = statistics.median(turn[1] / turn[0] for turn in turns)
    stage.end(gateway)
    return Row(name, "us", relayed, "", produced, ratio, "at most 3.0x")


def _deliver(stage: Stage, broker: str, kind: str, rate: int, clients: int, pace: Pace) -> float:
    """Microseconds of the gateway's CPU time for one event to one client."""
    producer: Any = KafkaProducer(bootstrap_servers=broker, enable_idempotence=False, acks=1)
    producer.send("events", RECORD).get(60)  # which creates the topic
    gateway = _gateway(stage, broker, KAFKA_PYTHON)
    words = [
        sys.executable,
        str(Path(__file__).with_name("event_readers.py")),
        str(gateway.port),
        READS[kind][0],
        str(clients),
        *(["ws"] if kind == "WebSocket" else []),
    ]
    readers = stage.spawn(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None)
    assert readers.stdin is not None and readers.stdout is not None
    if readers.stdout.readline() != b"open\n":
        raise RuntimeError("the clients could not be opened")
    _send(producer, rate, pace.warm)
    time.sleep(0.5)
    with Usage([gateway.pid]) as usage:
        sent = _send(producer, rate, pace.seconds)
        time.sleep(0.5)  # what is under way arrives
        used = usage.cost()
    readers.stdin.write(b"%d\n" % (sent + round(rate * pace.warm)))
    readers.stdin.flush()
    told = readers.stdout.readline().split()
    if told != [b"all"]:
        raise RuntimeError(f"events are missing: {told}")
    stage.end(readers)
    stage.end(gateway)
    producer.close(5)
    return used.seconds * 1e6 / (sent * clients)


def _send(producer: Any, rate: int, seconds: float) -> int:
    """Send records, evenly; returns how many."""
    count, begun = round(rate * seconds), time.monotonic()
    for number in range(count):
        producer.send("events", RECORD)
        time.sleep(max(begun + (number + 1) / rate - time.monotonic(), 0.0))
    producer.flush(30)
    return count
