"""Where a client begins that comes with a position."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from kafka import TopicPartition
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_reading import StartAt
from kongtwist.kafka.positions import topic_mark
from kongtwist.kafka.topic_consumers import begin_at

ID = UUID("a0b1c2d3-e4f5-4a6b-8c7d-9e8f00000001")
HERE, ELSEWHERE = topic_mark(ID), topic_mark(UUID("b0b1c2d3-e4f5-4a6b-8c7d-9e8f00000001"))


class Consumer:
    """A topic ``t`` with two partitions, each of the offsets 5 to 99, and a topic ``u`` with one."""

    def __init__(self) -> None:
        self.ids = {"t": ID}
        self._cluster = self

    def topic_id(self, topic: str) -> UUID | None:
        return self.ids.get(topic)

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0, 1} if topic == "t" else {0}

    def beginning_offsets(self, partitions: list[Any], timeout_ms: int) -> dict[Any, int]:
        self.ids = {"t": UUID(int=1)}  # it is made anew at the worst time
        return dict.fromkeys(partitions, 5)

    def end_offsets(self, partitions: list[TopicPartition], timeout_ms: int) -> dict[Any, int]:
        return dict.fromkeys(partitions, 100)


class PositionTests(SynchronousTestCase):
    def begin(self, *last: str) -> tuple[str, list[str]]:
        """The position, and reasons of gaps."""
        topics = ("t",) if len(last) < 2 else ("t", "u")
        start = StartAt(",".join(last).encode()) if last else StartAt(earliest=True)
        position, gaps = begin_at(Consumer(), topics, start, 1.0)
        return bytes(position).decode(), [reason for reason, _ in gaps]

    def test_the_same_topic(self) -> None:
        self.assertEqual(self.begin(f"t@{HERE}:50.60"), (f"t@{HERE}:50.60", []))
        self.assertEqual(self.begin(f"t@{HERE}:1.60"), (f"t@{HERE}:5.60", ["retention"]))

    def test_made_anew(self) -> None:
        """Each of its offsets is there, and none means anything."""
        for numbers in ("50.60", "1.60", "500.60", "50.-", "50", "50.60.70", ""):
            self.assertEqual(self.begin(f"t@{ELSEWHERE}:{numbers}"), (f"t@{HERE}:5.5", ["recreated"]), numbers)

    def test_others_go_on(self) -> None:
        self.assertEqual(self.begin(f"t@{ELSEWHERE}:50.60", "u:70"), (f"t@{HERE}:5.5,u:70", ["recreated"]))

    def test_without_an_id(self) -> None:
        """As gateways wrote them that knew none, and as they are where brokers tell none."""
        self.assertEqual(self.begin("t:50.60"), (f"t@{HERE}:50.60", []))
        self.assertEqual(self.begin(f"t@{HERE}:50.60", f"u@{HERE}:70"), (f"t@{HERE}:50.60,u:70", []))
        self.assertEqual(self.begin(), (f"t@{HERE}:5.5", []))
