"""Kong's queue, told as transcripts: what is added when, what is sent when, and what the log says (kongtwist/clients/queue.py)."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from kongtwist.clients.queue import Queue, QueueCounts, Queues
from kongtwist.clients.queue_state import FULL
from kongtwist.core.chain.host import QueueSettings
from tests.unit.clients.log_lines import LogLines

BEGIN = "[http-log plugin 5d3c (audit)] queue target: "


def into(batches: list[Any]) -> Any:
    """A `send` that keeps the batches."""

    async def send(batch: list[Any]) -> None:
        batches.append(batch)

    return send


class QueueCase(TestCase):
    """A queue on a clock, and a log of what happens when.

    Attributes:
        seen: (seconds, what was sent, or how a try ended).
    """

    with_debug = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.queues = Queues(self.clock)
        self.seen: list[Any] = []
        self.log = LogLines(self, "kongtwist.queue", debug=self.with_debug)
        self.answer: Any = None  # what `send` gives or raises

    def send(self, batch: list[Any]) -> Any:
        self.seen.append((round(self.clock.seconds(), 3), batch))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or succeed(None)

    def take(self, send: Any = None, **settings: Any) -> Queue:
        """The queue of a key, with these settings."""
        chosen = QueueSettings(**settings)
        return self.queues.take("key", chosen, send or self.send, name="target", tag="http-log plugin 5d3c (audit)")

    def at(self, seconds: float) -> None:
        """Let time pass until then, from one timer to the next."""
        while calls := [call for call in self.clock.getDelayedCalls() if call.getTime() <= seconds]:
            self.clock.advance(max(0, min(call.getTime() for call in calls) - self.clock.seconds()))
        self.clock.advance(max(0, seconds - self.clock.seconds()))

    def lines(self) -> list[str]:
        """What was logged since, without the beginning that all lines share."""
        lines = self.log.taken()
        self.assertEqual([line for line in lines if BEGIN not in line], [])
        return [line.replace(BEGIN, "") for line in lines]


class CountTests(QueueCase):
    def test_what_a_full_queue_drops_is_counted(self) -> None:
        """Once at the beginning, and then how many, once a minute."""
        queue = self.take(max_entries=2, max_batch_size=2, max_coalescing_delay=3600)
        self.answer = Deferred()
        for number in range(2):
            queue.add(number)
        self.at(0)
        self.log.taken()
        for second in range(180):
            self.at(second)
            queue.add(second)
        lines = [line for line in self.lines() if "capacity" not in line]
        self.assertEqual(lines, [
            f"error {FULL}",
            f"error {FULL} (60 queue entries were dropped since this was said last)",
            f"error {FULL} (60 queue entries were dropped since this was said last)",
        ])  # fmt: skip
        self.assertEqual(queue.counts.dropped, 178)
        self.answer.callback(None)

    def test_offered(self) -> None:
        """Where the old ones are to stay a new one goes, counted; the log says so once a minute."""
        queue = self.take(max_entries=2, max_batch_size=2, max_coalescing_delay=3600)
        self.answer = Deferred()
        self.assertEqual([queue.offer(number) for number in range(3)], [True, True, False])
        self.at(1)
        self.assertEqual([queue.offer(number) for number in range(9)], [True, True] + [False] * 7)
        self.at(61)
        self.assertFalse(queue.offer("x"))
        lines = [line for line in self.lines() if "capacity" not in line]
        self.assertEqual(lines, [
            "error queue full, new queue entries are dropped",
            "error queue full, new queue entries are dropped (8 queue entries were dropped since this was said last)",
        ])  # fmt: skip
        self.assertEqual(queue.counts.dropped, 9)
        self.assertEqual(self.seen, [(0, [0, 1])])
        self.answer.callback(None)

    def test_offered_without_limit_of_concurrency(self) -> None:
        """What is on its way counts there."""
        queue = self.take(max_entries=2, concurrency_limit=-1)
        self.answer = Deferred()
        self.assertEqual([queue.offer(number) for number in range(3)], [True, True, False])
        self.answer.callback(None)


class BatchTests(QueueCase):
    def test_one_by_one_without_waiting(self) -> None:
        """With Kong's default, a batch of one is full: it is sent in the next turn, never in the middle of a request."""
        queue = self.take()
        queue.add("a")
        queue.add("b")
        self.assertEqual(self.seen, [])
        self.clock.advance(0)
        self.assertEqual(self.seen, [(0, ["a"]), (0, ["b"])])
        self.assertEqual(queue.counts, QueueCounts(sent=2))

    def test_until_full(self) -> None:
        queue = self.take(max_batch_size=3, max_coalescing_delay=10)
        queue.add("a")
        self.at(1)
        queue.add("b")
        self.at(2)
        self.assertEqual(self.seen, [])
        queue.add("c")
        queue.add("d")
        self.at(11.9)
        self.assertEqual(self.seen, [(2, ["a", "b", "c"])])
        self.at(12.1)
        self.assertEqual(self.seen[1:], [(12, ["d"])])

    def test_until_the_delay_is_over(self) -> None:
        """The delay counts from the first entry of a batch."""
        queue = self.take(max_batch_size=100, max_coalescing_delay=2)
        self.at(1)
        queue.add("a")
        self.at(2.5)
        queue.add("b")
        self.at(2.9)
        self.assertEqual(self.seen, [])
        self.at(3.05)
        self.assertEqual(self.seen, [(3, ["a", "b"])])

    def test_a_small_rest_is_not_waited_for(self) -> None:
        """An entry within the last 0.05 s of the delay sends the batch; so does a delay below 0.05 s."""
        queue = self.take(max_batch_size=100, max_coalescing_delay=1)
        queue.add("a")
        self.at(0.97)
        queue.add("b")
        self.clock.advance(0)
        self.assertEqual(self.seen, [(0.97, ["a", "b"])])
        hasty = self.take(max_batch_size=100, max_coalescing_delay=0.04)
        hasty.add("c")
        self.clock.advance(0)
        self.assertEqual(self.seen[1:], [(0.97, ["c"])])

    def test_one_batch_at_a_time(self) -> None:
        """What comes while a batch is sent waits, and is the next batch."""
        queue = self.take(max_batch_size=2)
        first = self.answer = Deferred[None]()
        for entry in "abcde":
            queue.add(entry)
        self.at(5)
        self.assertEqual(self.seen, [(0, ["a", "b"])])
        self.assertEqual(queue.counts.waiting, 5)
        self.answer = None
        first.callback(None)
        self.assertEqual(self.seen[1:], [(5, ["c", "d"])])
        self.at(6.1)
        self.assertEqual(self.seen[2:], [(6, ["e"])])

    def test_no_timer_is_left_when_empty(self) -> None:
        queue = self.take(max_batch_size=2)
        queue.add("a")
        queue.add("b")
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_entry_added_while_sending(self) -> None:
        """A `send` that adds to its own queue starts no second batch beside the first."""

        async def send(batch: list[Any]) -> None:
            self.seen.append(batch)
            if len(self.seen) < 3:
                queue.add("more")

        queue = self.take(send)
        queue.add("a")
        self.at(1)
        self.assertEqual(self.seen, [["a"], ["more"], ["more"]])


class DebugTests(QueueCase):
    with_debug = True

    def test_lines_of_a_batch(self) -> None:
        queue = self.take(max_batch_size=2)
        queue.add("a")
        queue.add("b")
        self.clock.advance(0)
        self.assertEqual(
            self.lines(),
            [
                "debug queue created",
                "debug processing queue",
                "debug passing 2 entries to handler",
                "debug handler processed 2 entries successfully",
                "debug done processing queue",
            ],
        )


class RetryTests(QueueCase):
    def test_back_off_until_the_time_is_over(self) -> None:
        """Pauses double from initial_retry_delay up to max_retry_delay; the batch is lost at the first failure behind
        max_retry_time, and the next has its turn."""
        queue = self.take(initial_retry_delay=0.1, max_retry_delay=0.5, max_retry_time=1.5)
        self.answer = OSError("connection refused")
        queue.add("a")
        queue.add("b")
        self.at(1.69)
        self.assertEqual([at for at, _ in self.seen], [0, 0.1, 0.3, 0.7, 1.2])
        self.assertEqual(self.lines(), ["warn handler could not process entries: connection refused"] * 5)
        self.answer = None
        self.at(1.8)
        self.assertEqual(self.seen[5:], [(1.7, ["a"]), (1.7, ["b"])])
        self.assertEqual(queue.counts, QueueCounts(sent=2))

    def test_lost(self) -> None:
        queue = self.take(max_batch_size=2, initial_retry_delay=1, max_retry_time=2)
        self.answer = RuntimeError()
        queue.add("a")
        queue.add("b")
        self.at(4)
        self.assertEqual([at for at, _ in self.seen], [0, 1, 3])
        self.assertEqual(
            self.lines(),
            [
                "warn handler could not process entries: RuntimeError",
                "warn handler could not process entries: RuntimeError",
                "warn handler could not process entries: RuntimeError",
                "error could not send entries due to max_retry_time exceeded. 2 queue entries were lost",
            ],
        )
        self.assertEqual(queue.counts, QueueCounts(failed=2))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_failure_that_comes_later(self) -> None:
        queue = self.take(initial_retry_delay=1)
        first = self.answer = Deferred[None]()
        queue.add("a")
        self.at(3)
        first.errback(OSError("reset"))
        self.answer = None
        self.at(4.1)
        self.assertEqual(self.seen, [(0, ["a"]), (4, ["a"])])
        self.assertEqual(self.lines(), ["warn handler could not process entries: reset"])

    def test_a_cancelled_try_is_tried_again(self) -> None:
        """As when what it was sent with is closed."""
        queue = self.take(initial_retry_delay=1)
        first = self.answer = Deferred[None]()
        queue.add("a")
        self.clock.advance(0)
        first.cancel()
        self.answer = None
        self.at(1.1)
        self.assertEqual(len(self.seen), 2)
        self.assertEqual(queue.counts, QueueCounts(sent=1))


class CapacityTests(QueueCase):
    def test_oldest_out(self) -> None:
        """A warning at 80 %, and one error until entries are taken again."""
        queue = self.take(max_entries=5, max_batch_size=5)
        blocked = self.answer = Deferred[None]()
        for entry in "ABCDE":
            queue.add(entry)
        self.clock.advance(0)  # these are on their way, and count no longer
        self.lines()
        for entry in "abcd":
            queue.add(entry)
        self.assertEqual(self.lines(), [])
        queue.add("e")
        self.assertEqual(self.lines(), ["warn queue at 80% capacity"])
        queue.add("f")
        queue.add("g")
        self.assertEqual(self.lines(), ["error queue full, dropping old entries until processing is successful again"])
        self.assertEqual(queue.counts, QueueCounts(waiting=10, dropped=2))
        self.answer = None
        blocked.callback(None)
        self.assertEqual(self.seen[1:], [(0, ["c", "d", "e", "f", "g"])])
        self.assertEqual(self.lines(), ["info queue resumed processing"])

    def test_warned_again_after_it_was_better(self) -> None:
        queue = self.take(max_entries=5, max_batch_size=5, max_coalescing_delay=10)
        for entry in "abcde":
            queue.add(entry)
        self.assertEqual(self.lines(), ["warn queue at 80% capacity"])
        self.at(1)
        for entry in "abcde":
            queue.add(entry)
        self.assertEqual(self.lines(), ["warn queue at 80% capacity"])

    def test_bytes(self) -> None:
        """The oldest go until the new one fits; what never would is refused."""
        queue = self.take(max_bytes=10, max_batch_size=9)
        for entry in (b"aaaa", b"bbbb", "cc"):
            queue.add(entry)
        queue.add("ééé")  # 6 bytes of UTF-8
        self.assertEqual(self.lines(), ["error byte capacity exceeded, old queue entries are dropped"])
        queue.add(b"x" * 11)
        self.assertEqual(
            self.lines(), ["error string to be queued is longer (11 bytes) than the queue's max_bytes (10 bytes)"]
        )
        self.assertEqual(queue.counts, QueueCounts(waiting=2, dropped=3))
        self.at(2)
        self.assertEqual(self.seen, [(1, ["cc", "ééé"])])
        self.assertEqual(self.lines(), ["info queue resumed processing"])

    def test_bytes_that_nobody_bounded(self) -> None:
        """Ten thousand entries may be long. What has no length counts nothing, and is not complained of."""
        self.queues.max_bytes = 10
        for limit in (1, -1):
            queue = self.queues.take(limit, QueueSettings(concurrency_limit=limit), self.send, name="target", tag="t")
            self.answer = Deferred[None]()
            for entry in (b"12345678", b"1234", b"x" * 11, {"a": 1}):
                queue.add(entry)
                self.clock.advance(0)
            self.assertEqual(queue.counts.dropped, 2 - (limit == 1), "the first is on its way, with one at a time")
        self.assertNotIn("non-string", str(self.log.taken()))

    def test_no_flood_of_lines(self) -> None:
        """A minute at least between two lines about one reason; the numbers add up, also when nothing more is dropped."""
        for limit in ({"max_bytes": 1}, {"max_entries": 1}):
            queue = self.take(max_batch_size=9, max_coalescing_delay=1000, **limit)
            for step in range(13):
                self.clock.advance(15)
                queue.add(b"%x" % step)
            told = [re.findall(r"\((\d+) queue entries", line) for line in self.lines() if "drop" in line]
            self.assertEqual((told, queue.counts.dropped), ([[], ["4"], ["4"]], 12))
            self.clock.advance(1000)
            queue.add(b"1")
            self.assertIn("3 queue entries were dropped", str(self.lines()))
            self.queues = Queues(self.clock)

    def test_entries_without_a_size(self) -> None:
        queue = self.take(max_bytes=10)
        queue.add({"a": 1})
        self.assertEqual(
            self.lines(),
            [
                "error queuing non-string entry to a queue that has queue.max_bytes set, "
                "capacity monitoring will not be correct"
            ],
        )


class UnlimitedTests(QueueCase):
    """concurrency_limit -1."""

    def test_each_alone_and_at_once(self) -> None:
        queue = self.take(concurrency_limit=-1, max_batch_size=50)
        self.answer = Deferred[None]()
        for entry in "abc":
            queue.add(entry)
        self.assertEqual(self.seen, [])
        self.clock.advance(0)
        self.assertEqual(self.seen, [(0, ["a"]), (0, ["b"]), (0, ["c"])])

    def test_each_has_its_own_tries(self) -> None:
        queue = self.take(concurrency_limit=-1, initial_retry_delay=1, max_retry_time=0.5)
        self.answer = OSError("refused")
        queue.add("a")
        self.at(0.5)
        queue.add("b")
        self.at(3)
        self.assertEqual(self.seen, [(0, ["a"]), (0.5, ["b"]), (1, ["a"]), (1.5, ["b"])])
        self.assertEqual(queue.counts, QueueCounts(failed=2))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bounded(self) -> None:
        """The oldest is given up for a newer one."""
        queue = self.take(concurrency_limit=-1, max_entries=2)
        cancelled: list[object] = []
        self.answer = Deferred[None](cancelled.append)
        queue.add("a")
        self.clock.advance(0)
        self.answer = Deferred[None]()
        queue.add("b")
        queue.add("c")
        self.clock.advance(0)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(queue.counts, QueueCounts(waiting=2, dropped=1))
        self.assertEqual(self.lines(), ["error queue full, dropping old entries until processing is successful again"])

    def test_bounded_in_bytes(self) -> None:
        queue = self.take(concurrency_limit=-1, max_bytes=10)
        self.answer = Deferred[None]()
        for entry in (b"aaaa", b"bbbb", b"cccc", b"x" * 11):
            queue.add(entry)
        self.clock.advance(0)
        self.assertEqual(queue.counts, QueueCounts(waiting=2, dropped=2))
        self.assertEqual(
            self.lines(),
            [
                "error queue full, dropping old entries until processing is successful again",
                "error string to be queued is longer (11 bytes) than the queue's max_bytes (10 bytes)",
            ],
        )
        self.answer.callback(None)
        self.answer = Deferred[None]()
        queue.add(b"d" * 10)
        self.assertEqual(queue.counts, QueueCounts(waiting=1, sent=2, dropped=2))

    def test_a_server_that_is_away_does_not_flood_the_log(self) -> None:
        """Ten lines a second about failed tries, whatever comes."""
        queue = self.take(concurrency_limit=-1, max_retry_time=0, initial_retry_delay=0.01)
        self.answer = OSError("refused")
        for _ in range(500):
            queue.add("a")
        self.at(0.5)
        self.assertEqual(len(self.lines()), 10)
        self.at(2)
        queue.add("a")
        self.at(3)
        first, *rest = self.lines()
        self.assertEqual(first, "warn handler could not process entries: refused (1490 lines like this were left out)")
        self.assertNotIn("left out", str(rest))
        self.assertEqual(self.queues.counts.failed, 501)


class HolderTests(QueueCase):
    def test_newest_send(self) -> None:
        """A row that was changed: entries of the old one go out by the new one's send, retries too."""
        old = self.take(max_batch_size=9, initial_retry_delay=1)
        self.answer = OSError("refused")
        old.add("a")
        self.at(1.5)
        newer: list[Any] = []
        new = self.take(into(newer), max_batch_size=9, initial_retry_delay=1)
        released = Deferred.fromCoroutine(old.release(60))
        self.successResultOf(released)
        old.add("late")
        new.add("b")
        self.at(4)
        self.assertEqual((self.seen, newer), ([(1, ["a"])], [["a"], ["b"]]))

    def test_newest_send_while_others_hold_it(self) -> None:
        queue = self.take()
        newest: list[Any] = []
        self.take(into(newest))
        queue.add("a")
        self.clock.advance(0)
        self.assertEqual((newest, self.seen), ([["a"]], []))

    def test_back_to_the_one_that_is_left(self) -> None:
        left: list[Any] = []
        queue = self.take(into(left))
        newest = self.take()
        self.successResultOf(Deferred.fromCoroutine(newest.release(60)))
        queue.add("a")
        self.clock.advance(0)
        self.assertEqual((left, self.seen), ([["a"]], []))

    def test_settings_of_the_newest(self) -> None:
        queue = self.take(max_batch_size=9, max_entries=9, max_coalescing_delay=100)
        for entry in range(6):
            queue.add(entry)
        self.take(max_batch_size=9, max_entries=3, max_coalescing_delay=1)
        queue.add(6)
        self.at(2)
        self.assertEqual([batch for _, batch in self.seen], [[4, 5, 6]])

    def test_the_last_waits_until_all_is_sent(self) -> None:
        """The delay is cut, and so is the pause before the next try; then the queue is gone."""
        queue = self.take(max_batch_size=9, max_coalescing_delay=3600, initial_retry_delay=1)
        self.at(1)
        queue.add("a")
        self.at(2)
        self.answer = OSError("refused")
        released = Deferred.fromCoroutine(queue.release(60))
        self.at(2.5)
        self.assertNoResult(released)
        self.answer = None
        self.at(3.5)
        self.successResultOf(released)
        self.assertEqual([at for at, _ in self.seen], [2, 2, 3])
        self.assertEqual((len(self.queues), self.clock.getDelayedCalls()), (0, []))
        self.assertEqual(self.queues.counts, QueueCounts(sent=1))

    def test_the_last_does_not_wait_for_ever(self) -> None:
        queue = self.take(initial_retry_delay=1)
        self.answer = OSError("refused")
        queue.add("a")
        queue.add("b")
        self.at(0.5)
        released = Deferred.fromCoroutine(queue.release(10))
        self.at(10.4)
        self.assertNoResult(released)
        self.lines()
        self.at(10.6)
        self.successResultOf(released)
        self.assertEqual(self.lines(), ["error stopped before all was sent. 2 queue entries were lost"])
        self.assertEqual((len(self.queues), self.clock.getDelayedCalls()), (0, []))
        self.assertEqual(self.queues.counts, QueueCounts(failed=2))

    def test_a_release_that_is_given_up(self) -> None:
        """What the queue sends with is gone then, so nothing is sent any more."""
        queue = self.take(max_batch_size=9, max_coalescing_delay=1)
        queue.add("a")
        self.clock.advance(0)
        released = Deferred.fromCoroutine(queue.release(60))
        released.cancel()
        self.failureResultOf(released, CancelledError)
        self.assertEqual(self.lines(), ["error stopped before all was sent. 1 queue entries were lost"])
        self.assertEqual((self.seen, len(self.queues), self.clock.getDelayedCalls()), ([], 0, []))

    def test_a_try_that_never_ends(self) -> None:
        """It is cancelled when the time of the last holder is over."""
        queue = self.take()
        cancelled: list[object] = []
        self.answer = Deferred[None](cancelled.append)
        queue.add("a")
        self.clock.advance(0)
        released = Deferred.fromCoroutine(queue.release(10))
        self.at(10.1)
        self.successResultOf(released)
        self.assertEqual((len(cancelled), len(self.queues), self.clock.getDelayedCalls()), (1, 0, []))

    def test_a_try_of_one_that_leaves(self) -> None:
        """It is waited for, as it uses what is released next; after its time it is left to the others."""
        old = self.take(initial_retry_delay=1)
        self.answer = Deferred[None]()
        old.add("a")
        self.clock.advance(0)
        newer: list[Any] = []
        self.take(into(newer), initial_retry_delay=1)
        released = Deferred.fromCoroutine(old.release(10))
        self.at(9)
        self.assertNoResult(released)
        self.at(10.1)
        self.successResultOf(released)
        self.at(12)
        self.assertEqual(newer, [["a"]])

    def test_taken_again_while_it_empties(self) -> None:
        queue = self.take(initial_retry_delay=1)
        self.answer = OSError("refused")
        queue.add("a")
        self.clock.advance(0)
        released = Deferred.fromCoroutine(queue.release(60))
        self.assertNoResult(released)
        newer: list[Any] = []
        again = self.take(into(newer), initial_retry_delay=1)
        self.successResultOf(released)
        again.add("b")
        self.at(2)
        self.assertEqual((newer, len(self.queues)), ([["a"], ["b"]], 1))

    def test_stop(self) -> None:
        """The gateway stops: batches wait 0.05 s at the most, those of entries that come now too."""
        queue = self.take(max_batch_size=9, max_coalescing_delay=3600)
        queue.add("a")
        self.clock.advance(0)
        self.queues.stop()
        queue.add("b")
        self.at(0.06)
        self.assertEqual(self.seen, [(0.05, ["a", "b"])])
        queue.add("c")
        self.at(0.2)
        self.assertEqual(self.seen[1:], [(0.11, ["c"])])

    def test_stop_in_a_long_pause(self) -> None:
        """The server was away for long; at the stop it is asked at once, and each second from then on."""
        queue = self.take(initial_retry_delay=30, max_retry_time=1000)
        self.answer = OSError("refused")
        queue.add("a")
        self.at(40)
        self.queues.stop()
        self.answer = None
        queue.add("b")
        self.at(42)
        self.assertEqual(self.seen, [(0, ["a"]), (30, ["a"]), (40, ["a"]), (41, ["a"]), (41, ["b"])])
        self.assertEqual(self.queues.counts.sent, 2)

    def test_taken_while_the_gateway_stops(self) -> None:
        self.queues.stop()
        self.take(max_batch_size=9, max_coalescing_delay=3600).add("a")
        self.at(0.06)
        self.assertEqual(self.seen, [(0.05, ["a"])])
