"""A pipeline that counts the events of a page: out of one topic of Kafka, into another. It knows nothing of the gateway.

Run it beside a broker, as often as the first topic has partitions::

    python examples/analytics/event_counter.py                    # a broker at localhost:9092, until Ctrl-C
    python examples/analytics/event_counter.py kafka-1:9092       # or elsewhere

It joins the group `analytics-group`, so that several share the work. A record of `user-events` is what the gateway's plugin
kafka-upstream makes of ``{"event_type": ..., "user_id": ...}``. `event-counts` gets all counts of a partition in one record, with the
offset up to which they are counted: whoever goes on with that partition begins there, so each event counts once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic  # type: ignore[attr-defined]
from kafka.errors import KafkaError, TopicAlreadyExistsError

EVENTS, COUNTS, GROUP = "user-events", "event-counts", "analytics-group"
PARTITIONS = 3
"""Of `user-events`, where this program has to create it."""
KINDS = 100
"""Types of events that are counted by name; further ones are counted together, as `OTHER`."""
OTHER, UNREADABLE = "(other)", "(unreadable)"
EVERY = 0.25
"""Seconds between two records of counts, at the least."""
LOOK = 20
"""Milliseconds that records are waited for at a time."""
SESSION = 10_000
"""Milliseconds after which another member of the group goes on with the partitions of one that has died."""
PATIENCE = 1.0
"""Seconds between two tries to reach the broker."""
BOUND = "--bound"


@dataclass
class Counts:
    """What is counted of one partition.

    Attributes:
        offset: of the next event.
        by_type: type of event -> how many there were.
        changed: whether the topic of counts does not know it yet.
    """

    offset: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    changed: bool = False

    def take(self, offset: int, value: bytes | None) -> None:
        """Count an event, unless it has been counted before."""
        if offset < self.offset:
            return
        kind = event_type(value)
        if kind not in self.by_type and len(self.by_type) >= KINDS:
            kind = OTHER
        self.by_type[kind] = self.by_type.get(kind, 0) + 1
        self.offset = offset + 1
        self.changed = True


def event_type(value: bytes | None) -> str:
    """The type of an event: of the JSON that a page has sent, or of what the gateway makes of it."""
    try:
        event = json.loads(value or b"")
        kind = event.get("body_args", event)["event_type"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return UNREADABLE
    return kind[:64] if isinstance(kind, str) and kind else UNREADABLE


def kept(broker: str, partition: int, end: int) -> Counts:
    """What was counted of a partition before, by the newest record of the topic of counts.

    Args:
        broker: address.
        partition: of `user-events`.
        end: its end. Counts that go further are those of a topic that was deleted since.
    """
    found = Counts()
    with closing(KafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False)) as consumer:
        place = TopicPartition(COUNTS, 0)
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        last = consumer.end_offsets([place])[place]
        while consumer.position(place) < last:
            for record in (each for records in consumer.poll(500).values() for each in records):
                told = json.loads(record.value)
                if told["partition"] == partition:
                    found = Counts(told["offset"], told["counts"])
    return found if found.offset <= end else Counts()


def create_topics(broker: str) -> None:
    """Create both topics, where they are not there. Of the counts only the newest of each partition have to be kept."""
    compact = {"cleanup.policy": "compact", "segment.ms": "3600000"}
    with closing(KafkaAdminClient(bootstrap_servers=broker)) as admin:
        for topic in (NewTopic(EVENTS, PARTITIONS, 1), NewTopic(COUNTS, 1, 1, topic_configs=compact)):
            try:
                admin.create_topics([topic])
            except TopicAlreadyExistsError:
                pass


def count(broker: str, consumer: Any, producer: Any) -> None:
    """Count until interrupted."""
    partitions: dict[Any, Counts] = {}
    due = 0.0
    while True:
        records = consumer.poll(timeout_ms=LOOK)
        mine = consumer.assignment()
        for place in set(partitions) - mine:  # another member of the group goes on with it
            del partitions[place]
        for place in mine - set(partitions):
            partitions[place] = kept(broker, place.partition, consumer.end_offsets([place])[place])
        for place, some in records.items():
            for record in some if place in partitions else ():
                partitions[place].take(record.offset, record.value)
        changed = [(place, each) for place, each in partitions.items() if each.changed]
        if not records:
            # A small broker answers at once that there is nothing, and waiting in poll would ask it again and again.
            time.sleep(EVERY)
        if not changed or time.monotonic() < due:
            continue
        for place, each in changed:
            told = {"partition": place.partition, "offset": each.offset, "counts": each.by_type}
            producer.send(COUNTS, key=str(place.partition).encode(), value=json.dumps(told).encode())
            each.changed = False
        producer.flush()
        consumer.commit()
        due = time.monotonic() + EVERY


def run(broker: str) -> None:
    """Count until interrupted; a broker that is not there yet is waited for."""
    while True:
        try:
            create_topics(broker)
            with closing(KafkaProducer(bootstrap_servers=broker)) as producer, closing(
                KafkaConsumer(
                    EVENTS, bootstrap_servers=broker, group_id=GROUP, enable_auto_commit=False,
                    auto_offset_reset="earliest", session_timeout_ms=SESSION,
                )
            ) as consumer:  # fmt: skip
                print(f"counts {EVENTS} into {COUNTS} at {broker}", flush=True)
                count(broker, consumer, producer)
        except KafkaError as error:
            print(f"event_counter.py: {broker}: {error}; trying again", file=sys.stderr, flush=True)
            time.sleep(PATIENCE)


def _end_with_input() -> None:
    """End when standard input does, which is a pipe from whoever started us."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _ended(_number: int, _frame: Any) -> None:
    raise SystemExit


def main(*words: str) -> None:
    """Count until interrupted. ``--bound``: also end when standard input does, which is how a parent's end shows."""
    signal.signal(signal.SIGTERM, _ended)
    if BOUND in words:
        # Ctrl-C goes to all of a terminal; our parent decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        Thread(target=_end_with_input, daemon=True).start()
    broker, *_ = [word for word in words if word != BOUND] or ["localhost:9092"]
    try:
        run(broker)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
