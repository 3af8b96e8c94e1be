"""The pool of connections to PostgreSQL and the pauses between tries: limits kept without a server or real time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.storage.base import StorageError
from kongtwist.storage.postgres.notifications import BackOff
from kongtwist.storage.postgres.sql_connections import Lost, PostgresSettings, Refused
from kongtwist.storage.postgres.sql_pool import PostgresPool


class FakeConnection:
    """What the pool asks of a connection."""

    def __init__(self) -> None:
        self.usable = self.alive = True
        self.closed = self.was_cut = False

    def quiet(self) -> bool:
        return self.alive

    def cut(self) -> None:
        self.was_cut = True

    def close(self) -> None:
        self.closed = True
        self.usable = False


class FakeThreads:
    """Work that blocks until the test lets it go on."""

    def __init__(self) -> None:
        self.started = self.joined = False
        self.waiting: list[Callable[[], None]] = []

    def start(self) -> None:
        self.started = True

    def stop(self) -> None:
        self.joined = True

    def callInThreadWithCallback(
        self, told: Callable[[bool, Any], object], work: Callable[..., Any], *values: Any
    ) -> None:
        def go_on() -> None:
            try:
                result = work(*values)
            except Exception:  # noqa: BLE001 - as a thread pool: a failure is the result
                told(False, Failure())
            else:
                told(True, result)

        self.waiting.append(go_on)


class FakeReactor(Clock):
    """Time, and calls from threads that are none."""

    def callFromThread(self, call: Callable[..., object], *values: Any, **options: Any) -> None:
        call(*values, **options)


class PoolCase(SynchronousTestCase):
    """A pool without threads or sockets."""

    def setUp(self) -> None:
        self.reactor, self.made = FakeReactor(), list[FakeConnection]()
        self.fault: Exception | None = None

    def pool(self, **settings: Any) -> PostgresPool:
        """A pool with these limits."""
        self.threads = FakeThreads()
        threads: Any = self.threads
        pool = PostgresPool(PostgresSettings(**settings), self.reactor, self.connect, threads)
        pool.start()
        return pool

    def connect(self, settings: PostgresSettings) -> Any:
        if self.fault is not None:
            raise self.fault
        self.made.append(FakeConnection())
        return self.made[-1]

    def run_in(self, pool: PostgresPool, work: Callable[[Any], Any] = lambda connection: connection) -> Deferred[Any]:
        """Begin some work, which its thread does when `go_on` is called."""
        return Deferred.fromCoroutine(pool.run(work))

    def go_on(self) -> None:
        """Let the thread that has waited longest do its work."""
        self.threads.waiting.pop(0)()


class PoolTests(PoolCase):
    """Bounds and time limits."""

    def test_connections_are_kept(self) -> None:
        """One after the other on one connection; one that has gone while idle is not used again."""
        pool = self.pool()
        for _ in range(3):
            done = self.run_in(pool)
            self.go_on()
            self.assertIs(self.successResultOf(done), self.made[0])
        self.made[0].alive = False
        done = self.run_in(pool)
        self.go_on()
        self.assertIs(self.successResultOf(done), self.made[1])
        self.assertTrue(self.made[0].closed)

    def test_bound(self) -> None:
        """No more than pg_pool_size at once; the others in turn, in order."""
        pool = self.pool(pool_size=2)
        order: list[int] = []
        all_done = [self.run_in(pool, lambda _: order.append(len(order))) for _ in range(5)]
        self.assertEqual((len(self.threads.waiting), pool.busy), (2, 2))
        for _ in range(5):
            self.assertLessEqual(len(self.threads.waiting), 2)
            self.go_on()
        for done in all_done:
            self.successResultOf(done)
        self.assertEqual((order, len(self.made), pool.busy), ([0, 1, 2, 3, 4], 2, 0))

    def test_bound_of_queries(self) -> None:
        """pg_max_concurrent_queries is one below it."""
        self.assertEqual(self.pool(pool_size=4, max_concurrent_queries=3).size, 3)
        self.assertEqual(self.pool(pool_size=4, max_concurrent_queries=9).size, 4)

    def test_backlog(self) -> None:
        """More than may wait fail at once."""
        pool = self.pool(pool_size=1, backlog=1)
        first, second, third = (self.run_in(pool) for _ in range(3))
        self.assertIn("pg_backlog", str(self.failureResultOf(third, StorageError).value))
        self.go_on()
        self.go_on()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_turn_that_does_not_come(self) -> None:
        """A wait for a connection has an end, and the turn goes to the next."""
        pool = self.pool(pool_size=1, timeout=100, semaphore_timeout=30)
        first, second = self.run_in(pool), self.run_in(pool)
        self.reactor.advance(29)
        third = self.run_in(pool)
        self.reactor.advance(2)
        self.assertIn("pg_semaphore_timeout", str(self.failureResultOf(second, StorageError).value))
        self.go_on()
        self.successResultOf(first)
        self.go_on()
        self.successResultOf(third)

    def test_turn_given_up(self) -> None:
        """Who was cancelled while it waited takes no place."""
        pool = self.pool(pool_size=1)
        first, second, third = (self.run_in(pool) for _ in range(3))
        second.cancel()
        self.failureResultOf(second)
        self.go_on()
        self.go_on()
        self.assertIs(self.successResultOf(first), self.successResultOf(third))
        self.assertEqual((pool.busy, self.threads.waiting), (0, []))

    def test_server_that_does_not_answer(self) -> None:
        """The wait ends in time, the connection is cut, and its place comes back only with the thread."""
        pool = self.pool(pool_size=1, timeout=5)
        early = self.run_in(pool)
        self.go_on()
        self.successResultOf(early)
        late = self.run_in(pool)
        self.reactor.advance(4.9)
        self.assertNoResult(late)
        self.reactor.advance(0.2)
        self.assertIn("did not answer within 5 s", str(self.failureResultOf(late, Lost).value))
        self.assertTrue(self.made[0].was_cut)
        following = self.run_in(pool)
        self.assertEqual(len(self.threads.waiting), 1)  # the late one's
        self.go_on()
        self.assertTrue(self.made[0].closed)
        self.assertNoResult(following)
        self.go_on()
        self.assertIs(self.successResultOf(following), self.made[1])

    def test_connection_that_comes_too_late(self) -> None:
        """It is closed, and nothing is done on it."""
        pool = self.pool(timeout=5)
        worked: list[Any] = []
        late = self.run_in(pool, worked.append)
        self.reactor.advance(6)
        self.failureResultOf(late, Lost)
        self.go_on()
        self.assertEqual((worked, self.made[0].closed), ([], True))

    def test_result_that_comes_too_late(self) -> None:
        """It is handed to whoever can let go of it."""
        pool, discarded = self.pool(timeout=5), list[str]()

        def work(connection: Any) -> str:
            self.reactor.advance(6)  # the time is over while it works
            return "late"

        late = Deferred.fromCoroutine(pool.run(work, discard=discarded.append))
        self.go_on()
        self.failureResultOf(late, Lost)
        self.assertEqual(discarded, ["late"])

    def test_failures(self) -> None:
        """A server that cannot be reached, or that refuses: the place is free again, the connection not used again."""
        pool = self.pool(pool_size=1)
        self.fault = Lost("gone")
        done = self.run_in(pool)
        self.go_on()
        self.failureResultOf(done, Lost)
        self.fault = None

        def refused(connection: Any) -> None:
            raise Refused("no", "53100")

        done = self.run_in(pool, refused)
        self.go_on()
        self.assertEqual(self.failureResultOf(done, Refused).value.sqlstate, "53100")
        self.assertTrue(self.made[0].closed)
        done = self.run_in(pool)
        self.go_on()
        self.assertIs(self.successResultOf(done), self.made[1])

    def test_idle_connections(self) -> None:
        """They are closed after pg_keepalive_timeout, or when the server has gone."""
        pool = self.pool(keepalive=60)
        both = self.run_in(pool), self.run_in(pool)
        self.go_on()
        self.reactor.advance(2)
        self.go_on()
        self.reactor.advance(59)
        pool.sweep()
        self.assertEqual([each.closed for each in self.made], [True, False])
        pool.drop_idle()
        self.assertEqual([each.closed for each in self.made], [True, True])
        self.assertEqual(len(both), 2)

    def test_closing(self) -> None:
        """Work under way is waited for, what waits for a turn and what comes later is refused."""
        pool = self.pool(pool_size=1)
        first, second = self.run_in(pool), self.run_in(pool)
        closed = Deferred.fromCoroutine(pool.close())
        self.failureResultOf(second, Lost)
        self.failureResultOf(self.run_in(pool), Lost)
        self.assertNoResult(closed)
        self.go_on()
        self.successResultOf(first)
        self.successResultOf(closed)
        self.assertTrue(self.made[0].closed and self.threads.joined)
        self.successResultOf(Deferred.fromCoroutine(pool.close()))

    def test_closing_with_a_thread_that_hangs(self) -> None:
        """It is not waited for longer than an operation may take."""
        pool = self.pool(timeout=5)
        hanging = self.run_in(pool)
        closed = Deferred.fromCoroutine(pool.close())
        self.reactor.advance(5.1)
        self.failureResultOf(hanging, Lost)
        self.successResultOf(closed)
        self.assertFalse(self.threads.joined)


class BackOffTests(SynchronousTestCase):
    """Pauses between tries."""

    def pauses(self, clock: Clock, chance: float, count: int) -> list[float]:
        """The pauses of a database that stays away."""
        back_off = BackOff(clock.seconds, lambda: chance)
        found = []
        for _ in range(count):
            found.append(back_off.next())
            clock.advance(found[-1])
        return found

    def test_growing(self) -> None:
        """None, then twice as long each time, up to five seconds."""
        found = self.pauses(Clock(), 0.0, 9)
        self.assertEqual(found, [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])

    def test_chance(self) -> None:
        """Each may be shorter, by a half at the most."""
        self.assertEqual(self.pauses(Clock(), 1.0, 9), [0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.5, 2.5])

    def test_beginning_anew(self) -> None:
        """After a long time without a try the first is made at once; soon after one it is not."""
        clock = Clock()
        back_off = BackOff(clock.seconds, lambda: 0.0)
        self.assertEqual([back_off.next(), back_off.next()], [0, 0.1])
        clock.advance(1)
        self.assertEqual(back_off.next(), 0.2)
        clock.advance(20)
        self.assertEqual(back_off.next(), 0)

    def test_many_tries(self) -> None:
        """A database that is away for days."""
        self.assertEqual(self.pauses(Clock(), 0.0, 3000)[-1], 5.0)
