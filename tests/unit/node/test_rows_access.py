"""Rows and counters of plugins: the worker's and the parent's side of the pair, connected without one."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host import HostError, Tally
from kongtwist.core.snapshot.snapshot import Snapshot
from kongtwist.core.tracing.trace import CURRENT, Trace
from kongtwist.entities import EntityError, registry
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.node.rows_access import Answers, Questions, RowsAccess
from kongtwist.node.worker_link import MessageReader, Packet, encode
from kongtwist.storage.base import BaseStorage
from kongtwist.storage.tallies import Tallies

NOW = 1700000000.0
ABSENT = "00000000-0000-4000-8000-000000000000"


class PairTestCase(SynchronousTestCase):
    """A worker and its parent. Messages cross when the test says so."""

    def setUp(self) -> None:
        self.clock = Clock()
        plugins = load_plugins(["key-auth"])
        self.storage = BaseStorage(registry(plugins), lambda: NOW)
        self.tallies = Tallies(self.clock, self.storage.tally, 5.0)
        self.sending: list[Deferred[None]] = []
        self.answers = Answers(self.storage, self.sent, self.tallies)
        self.upwards: list[Packet] = []
        self.downwards: list[Any] = []
        self.unserved: list[Any] = []
        self.questions = Questions(self.upwards.append, self.unserved.append, max_bytes=10_000)
        self.snapshot: Snapshot | None = Snapshot.build({}, plugins)
        self.rows = RowsAccess(lambda: self.snapshot, lambda: NOW, self.questions.ask, max_pending=3)

    async def sent(self) -> None:
        waiting: Deferred[None] = Deferred()
        self.sending.append(waiting)
        await waiting

    def up(self) -> None:
        """What the worker says comes to its parent."""
        while self.upwards:
            for message in MessageReader().feed(self.upwards.pop(0).data):
                self.answers.answer(message, self.downwards.append)

    def down(self) -> None:
        """The changes are on their way, and the answers behind them."""
        sending, self.sending = self.sending, []
        for each in sending:
            each.callback(None)
        while self.downwards:
            for message in MessageReader().feed(encode(self.downwards.pop(0))):
                self.questions.answered(message)

    def serve(self) -> None:
        """The worker serves what has come."""
        unserved, self.unserved[:] = list(self.unserved), []
        for call in unserved:
            call()

    def done(self, work: Any) -> Any:
        """What becomes of something that the worker asks for."""
        running = Deferred.fromCoroutine(work)
        self.up()
        self.down()
        self.serve()
        return self.successResultOf(running)

    def refusal(self, work: Any) -> EntityError:
        """Why it is refused."""
        running = Deferred.fromCoroutine(work)
        self.up()
        self.down()
        error: EntityError = self.failureResultOf(running, EntityError).value
        return error


class WriteTests(PairTestCase):
    """Rows."""

    def test_order(self) -> None:
        """A writer goes on when its row is stored, sent, and served: not before any of that."""
        writing = Deferred.fromCoroutine(self.rows.insert("consumers", {"username": "ann"}))
        self.assertEqual(dict(self.storage.load()["consumers"]), {})
        self.up()
        ((key, row),) = self.storage.load()["consumers"].items()
        self.assertEqual(self.downwards, [])  # not before the changes are on their way
        self.down()
        self.assertNoResult(writing)
        self.serve()
        self.assertEqual(self.successResultOf(writing), row)
        self.assertEqual(row["id"], key)

    def test_verbs(self) -> None:
        """As storage does them."""
        row = self.done(self.rows.insert("consumers", {"username": "ann"}))
        changed = self.done(self.rows.update("consumers", row["id"], {"tags": ["x"]}))
        self.assertEqual(self.storage.get("consumers", row["id"]), changed)
        put = self.done(self.rows.upsert("consumers", ABSENT, {"username": "bob"}))
        self.assertEqual((put["id"], self.storage.get("consumers", ABSENT)), (ABSENT, put))
        for there in (True, False):
            self.assertIs(self.done(self.rows.delete("consumers", ABSENT)), there)
        self.assertIsNone(self.storage.get("consumers", ABSENT))

    def test_refusals(self) -> None:
        """Errors come back whole."""
        self.done(self.rows.insert("consumers", {"username": "ann"}))
        error = self.refusal(self.rows.insert("consumers", {"username": "ann"}))
        self.assertEqual(vars(error), vars(EntityError.unique_violation({"username": "ann"})))
        error = self.refusal(self.rows.insert("consumers", {"username": "\ud800", "nonsense": [1]}))
        self.assertEqual((error.code, error.fields), (2, {"nonsense": "unknown field"}))
        self.assertEqual(self.refusal(self.rows.update("consumers", ABSENT, {})).status, 404)
        error = self.refusal(self.rows.insert("nonsense", {}))
        self.assertEqual(error.message, "cannot insert 'nonsense' entities: there are none")
        error = self.refusal(self.questions.ask("write", "consumers"))
        self.assertEqual(error.status, 500)

    def test_fault_of_our_own(self) -> None:
        """It is logged where it happened, and the worker's plugin is answered."""
        self.patch(self.storage, "insert", cast(Any, None))
        error = self.refusal(self.rows.insert("consumers", {}))
        self.assertEqual((error.status, error.code), (500, 8))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_bounds(self) -> None:
        """So many writes, and so many bytes, are under way at once; then there is room again."""
        writing = [Deferred.fromCoroutine(self.rows.insert("consumers", {"username": str(n)})) for n in range(3)]
        error = self.refusal_now(self.rows.insert("consumers", {"username": "4"}))
        self.assertEqual(
            (error.status, error.message), (503, "3 writes of plugins wait already; see plugin_max_pending_writes")
        )
        self.up()
        self.down()
        self.serve()
        for each in writing:
            self.successResultOf(each)
        large = {"username": "x", "tags": ["y" * 6000]}
        first = Deferred.fromCoroutine(self.rows.insert("consumers", large))
        self.assertIn(
            "bytes of writes are on their way", self.refusal_now(self.rows.insert("consumers", large)).message
        )
        self.up()
        self.down()
        self.serve()
        self.successResultOf(first)
        self.assertEqual(self.refusal(self.rows.insert("consumers", large)).code, 5)

    def refusal_now(self, work: Any) -> EntityError:
        """Why it is refused before anything is said."""
        error: EntityError = self.failureResultOf(Deferred.fromCoroutine(work), EntityError).value
        return error

    def test_what_is_no_json(self) -> None:
        """The caller's mistake leaves nothing behind."""
        self.failureResultOf(Deferred.fromCoroutine(self.rows.insert("consumers", {"username": object()})), TypeError)
        self.assertEqual(self.upwards, [])
        self.done(self.rows.insert("consumers", {"username": "ann"}))

    def test_caller_that_left(self) -> None:
        """Its answer is dropped; the row is stored."""
        writing = Deferred.fromCoroutine(self.rows.insert("consumers", {"username": "ann"}))
        writing.addErrback(lambda failure: None).cancel()
        self.up()
        self.down()
        self.serve()
        self.assertEqual(len(self.storage.load()["consumers"]), 1)
        self.done(self.rows.insert("consumers", {"username": "bob"}))

    def test_refresh(self) -> None:
        """One question for all who wait; who comes behind it has the next one; the changes it brings are served before the answer."""
        waiting = [Deferred.fromCoroutine(self.rows.refresh()) for _ in range(3)]
        self.assertEqual(len(self.upwards), 1)
        waiting[2].addErrback(lambda failure: None).cancel()
        self.up()
        self.down()
        self.assertNoResult(waiting[0])
        self.serve()
        self.successResultOf(waiting[0])
        self.assertNoResult(waiting[1])
        self.assertEqual(len(self.upwards), 1)
        self.up()
        self.down()
        self.serve()
        self.successResultOf(waiting[1])
        self.assertEqual(self.upwards, [])
        self.done(self.rows.refresh())

    def test_refresh_that_fails(self) -> None:
        """Whoever waits is told, and the next one is asked for again."""
        self.patch(self.storage, "refresh", self.away)
        self.assertEqual(self.refusal(self.rows.refresh()).message, "the database is away")
        self.assertEqual(self.refusal(self.rows.refresh()).status, 503)

    async def away(self) -> bool:
        raise EntityError.unavailable("the database is away")

    def test_parent_gone(self) -> None:
        """Who waits is told, and so is who comes."""
        writing = Deferred.fromCoroutine(self.rows.insert("consumers", {"username": "ann"}))
        self.questions.refuse()
        for error in (
            self.failureResultOf(writing, EntityError).value,
            self.refusal_now(self.rows.delete("consumers", ABSENT)),
        ):
            self.assertEqual((error.status, error.message), (503, "the node's parent process is gone"))


class ReadTests(PairTestCase):
    """Rows of the newest snapshot."""

    def test_reading(self) -> None:
        """By id and by fields, references too; what is over is not there."""
        key = {"id": "k", "key": "s", "consumer": {"id": "c"}, "expires_at": NOW + 1}
        over = {"id": "o", "key": "t", "consumer": {"id": "c"}, "expires_at": NOW - 1}
        self.snapshot = Snapshot.build({"keyauth_credentials": {"k": key, "o": over}}, {})
        self.assertEqual(self.rows.get("keyauth_credentials", "k"), key)
        self.assertEqual(self.rows.by("keyauth_credentials", "key", "s"), key)
        self.assertEqual(self.rows.all_by("keyauth_credentials", "consumer", "c"), [key])
        self.assertIsNone(self.rows.get("keyauth_credentials", "o"))
        self.assertIsNone(self.rows.by("keyauth_credentials", "key", "t"))
        self.assertIsNone(self.rows.get("nonsense", "k"))
        self.assertIsNone(self.rows.by("nonsense", "key", "s"))

    def test_before_there_is_one(self) -> None:
        """Nothing is found."""
        self.snapshot = None
        self.assertIsNone(self.rows.get("consumers", "c"))
        self.assertIsNone(self.rows.by("consumers", "username", "c"))


class TallyTests(PairTestCase):
    """Counting over the pair."""

    def setUp(self) -> None:
        super().setUp()
        self.own = Tallies(self.clock, lambda added, wanted: self.questions.ask("tally", added, wanted), 5.0)

    def turn(self) -> None:
        """Messages cross, and both sides have their turn."""
        self.clock.advance(0)
        self.up()
        self.clock.advance(0)
        self.down()

    def test_joined(self) -> None:
        """All calls of a turn are one question, and none waits for a snapshot."""
        calls = [self.own.add([Tally("a", 1, 1, NOW + 9)]) for _ in range(3)]
        read = self.own.read([("a", 1), ("b", 1)])
        self.clock.advance(0)
        self.assertEqual(len(self.upwards), 1)
        self.turn()
        self.assertEqual([self.successResultOf(each) for each in calls], [[1], [2], [3]])
        self.assertEqual(self.successResultOf(read), [3, 0])
        self.assertEqual(self.unserved, [])

    def test_refused(self) -> None:
        """In the database's words, or the parent's silence."""

        async def away(added: Any, wanted: Any) -> Any:
            raise HostError("it is away")

        self.patch(self.tallies, "_exchange", away)
        counting = self.own.add([Tally("a", 1, 1, NOW + 9)])
        self.turn()
        self.assertEqual(str(self.failureResultOf(counting, HostError).value), "it is away")
        waiting = self.own.add([Tally("a", 1, 1, NOW + 9)])
        self.clock.advance(0)
        self.questions.refuse()
        self.assertEqual(str(self.failureResultOf(waiting, HostError).value), "the node's parent process is gone")


class TracedWriteTests(PairTestCase):
    def test_spans(self) -> None:
        """A write for a request that is traced is a span, a refused one too; one for nobody is none."""
        trace = Trace(frozenset(("db_query",)))
        self.done(self.rows.insert("consumers", {"username": "a"}))
        token = CURRENT.set(trace)
        try:
            self.done(self.rows.insert("consumers", {"username": "b"}))
            self.refusal(self.rows.insert("consumers", {"username": "b"}))
        finally:
            CURRENT.reset(token)
        told = [(each.name, each.attributes["db.statement"], each.error, each.end) for each in trace.spans]
        self.assertEqual(
            told,
            [
                ("kong.database.query", "insert consumers", None, NOW),
                ("kong.database.query", "insert consumers", "EntityError", NOW),
            ],
        )
