"""`kongtwist.observability.stream_log`: lines about long streams."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.message_spans import MessageSpans, together
from kongtwist.core.message_times import EGRESS, INGRESS
from kongtwist.net.deadlines import Deadlines
from kongtwist.observability.stream_log import StreamLog


class Record:
    """A stream."""

    id = b"0123456789abcdef0123456789abcdef"
    kind = "websocket"
    client_ip = "192.0.2.7"
    consumer_id = None
    route = SimpleNamespace(row={"id": "1", "name": "chat"}, service={"id": "2", "name": "rooms"})

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.started = 1000.0 + clock.seconds()
        self.bytes_in = self.bytes_out = self.messages_in = self.messages_out = 0
        self.end = ("closed", 1000)
        self.times: MessageSpans | None = None

    def time_messages(self, times: MessageSpans) -> None:
        times.begin(self.clock.seconds)
        self.times = times


class StreamLogTests(SynchronousTestCase):
    """What is written, and when."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.prefix = self.mktemp()
        deadlines = Deadlines(self.clock, self.clock.seconds)
        self.log = StreamLog(
            "logs/streams.log", self.clock, 10.0, deadlines, self.clock.seconds, prefix=self.prefix,
            wall=lambda: 1000.0 + self.clock.seconds(),
        )  # fmt: skip
        self.addCleanup(self.log.close)

    def lines(self) -> list[dict[str, Any]]:
        self.log.flush()
        with open(os.path.join(self.prefix, "logs/streams.log"), encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def test_life(self) -> None:
        """One line when it opens, one every interval, one when it closes; figures count from the beginning."""
        record: Any = Record(self.clock)
        logged = self.log.opened(record)
        self.assertEqual([line["event"] for line in self.lines()], ["open"])
        for step in (2.0, 1.0, 4.0):
            self.clock.advance(step)
            record.messages_out += 1
            record.bytes_out += 100
            record.times.passed(EGRESS)
        self.clock.pump([0.5] * 18)
        logged.closed()
        opened, interval, closed = self.lines()
        self.assertEqual((interval["event"], closed["event"]), ("interval", "close"))
        self.assertEqual((interval["messages_out"], interval["bytes_out"], interval["messages_in"]), (3, 300, 0))
        self.assertEqual((interval["first_message_out"], interval["longest_gap_out"]), (2.0, 4.0))
        self.assertEqual((interval["first_message_in"], interval["longest_gap_in"]), (None, None))
        self.assertEqual((closed["cause"], closed["close_code"], closed["duration"]), ("closed", 1000, 16.0))
        self.assertEqual((opened["route"], opened["service"], opened["client_ip"]), ("chat", "rooms", "192.0.2.7"))
        self.assertEqual(opened["request_id"], "0123456789abcdef0123456789abcdef")
        self.assertEqual(logged.summary and logged.summary["event"], "close")
        self.clock.advance(60)
        self.assertEqual(len(self.lines()), 3)

    def test_moved(self) -> None:
        """A stream that goes to another process has one line when it opens and one when it closes, and the other process goes on with its
        intervals."""
        record: Any = Record(self.clock)
        first = self.log.opened(record)
        self.clock.advance(4)
        due = first.deadline
        first.left()
        self.clock.advance(1)
        again = self.log.taken_up(record, due)
        self.clock.advance(5)
        self.clock.advance(1)
        again.closed()
        self.assertEqual([line["event"] for line in self.lines()], ["open", "interval", "close"])
        opened, between, closed = (line["duration"] for line in self.lines())
        self.assertEqual((opened, closed), (0.0, 11.0))
        self.assertTrue(10.0 <= between <= 11.0, between)
        unknown = self.log.taken_up(record, None)
        self.clock.advance(12)
        unknown.closed()
        self.assertEqual([line["event"] for line in self.lines()[3:]], ["interval", "close"])

    def test_short_calls(self) -> None:
        """A call of gRPC that is over soon is none that lasts: nothing is told of it."""
        record: Any = Record(self.clock)
        call = self.log.call(record)
        self.clock.advance(0.5)
        call.closed()
        self.clock.advance(60)
        self.assertEqual((self.lines(), call.summary), ([], None))

    def test_long_calls(self) -> None:
        """One that lasts has its lines; when messages come is not measured."""
        record: Any = Record(self.clock)
        call = self.log.call(record)
        self.clock.pump([0.2] * 10)
        call.closed()
        opened, closed = self.lines()
        self.assertEqual((opened["event"], closed["event"]), ("open", "close"))
        self.assertIsNone(closed["longest_gap_out"])


class SpanTests(SynchronousTestCase):
    """When messages pass."""

    def test_directions(self) -> None:
        """Each direction has its own times."""
        clock = Clock()
        spans = MessageSpans()
        spans.begin(clock.seconds)
        for direction, step in ((INGRESS, 1.0), (EGRESS, 2.0), (INGRESS, 4.0), (EGRESS, 0.5)):
            clock.advance(step)
            spans.passed(direction)
        self.assertEqual((spans.first, spans.longest), ([1.0, 3.0], [6.0, 4.5]))

    def test_together(self) -> None:
        """Two that want to know are both told."""
        clock = Clock()
        one, other = MessageSpans(), MessageSpans()
        for each in (one, other):
            each.begin(clock.seconds)
        self.assertIs(together(None, one), one)
        both = together(one, other)
        clock.advance(1)
        both.passed(EGRESS, 2)
        self.assertEqual((one.first[EGRESS], other.first[EGRESS]), (1.0, 1.0))
