"""Configurations are opened once, and closed once, when the last request that began with them is over."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.answers import Answer
from kongtwist.core.chain.builder import ChainBuilder
from kongtwist.core.chain.host import Scope
from kongtwist.core.chain.lifetimes import Lifetimes
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.chain.secrets import Secrets
from kongtwist.core.exchange import Exchange, Row
from kongtwist.core.snapshot.snapshot import Snapshot, finished
from kongtwist.core.storage_contract import Change
from kongtwist.entities.schema import String

from .test_chain import row


class Opened:
    """What an opened configuration is here."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.opens = 1
        self.closes = 0
        self.logged = 0


class Opening(Plugin):
    """Opens its configurations; waits in access while told to."""

    name = "opening"
    priority = 10
    config = {"tag": String(referenceable=True)}

    def __init__(self) -> None:
        self.all: list[Opened] = []
        self.waits = False
        self.closing: Any = None

    def open(self, conf: Any, plugin: Row, host: Scope) -> Opened:
        if conf["tag"] == "broken":
            raise RuntimeError("cannot open")
        self.all.append(Opened(conf["tag"]))
        return self.all[-1]

    def close(self, conf: Opened) -> Awaitable[None] | None:
        conf.closes += 1
        return cast("Awaitable[None] | None", None if self.closing is None else self.closing())

    def access(self, exchange: Exchange, conf: Opened) -> Any:
        self.check(exchange, conf)
        if not self.waits:
            return None
        waiting: Deferred[None] = Deferred()
        exchange.ctx["waiting"] = waiting
        return waiting

    def header_filter(self, exchange: Exchange, conf: Opened) -> None:
        self.check(exchange, conf)

    def log(self, exchange: Exchange, conf: Opened) -> None:
        self.check(exchange, conf)
        conf.logged += 1

    def check(self, exchange: Exchange, conf: Opened) -> None:
        """A request sees one configuration, and not when it is closed."""
        assert conf.closes == 0, conf.name
        seen = exchange.ctx.setdefault(self.name, conf)
        assert seen is conf


class OpeningToo(Opening):
    name = "opening-too"
    priority = 5


class Rewriting(Plugin):
    """Waits in the rewrite phase."""

    name = "rewriting"
    priority = 20

    def __init__(self) -> None:
        self.waiting: Deferred[None] | None = None

    def rewrite(self, exchange: Exchange, conf: Any) -> Any:
        return self.waiting


class Waiting(Plugin):
    """Waits in the access phase, and opens nothing."""

    name = "waiting"
    priority = 15

    def __init__(self) -> None:
        self.waiting: Deferred[None] | None = None

    def access(self, exchange: Exchange, conf: Any) -> Any:
        return self.waiting


class RecordedScope(Scope):
    def __init__(self, released: list[str], name: str) -> None:
        self._released = released
        self._name = name

    async def release(self) -> None:
        self._released.append(self._name)


def spawn(name: str, coroutine: Coroutine[Any, Any, None]) -> Deferred[None]:
    return ensureDeferred(coroutine).addErrback(lambda failure: failure.trap(CancelledError) and None)


class LifeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reports: list[str] = []
        self.released: list[str] = []
        self.opening, self.too, self.rewriting, self.waiting = Opening(), OpeningToo(), Rewriting(), Waiting()
        self.plugins: dict[str, Plugin] = {
            each.name: each for each in (self.opening, self.too, self.rewriting, self.waiting)
        }
        self.lifetimes = Lifetimes(
            lambda row: RecordedScope(self.released, row["config"]["tag"]), spawn, self.reports.append
        )
        self.snapshot = Snapshot.build({}, self.plugins, lifetimes=self.lifetimes)
        self.rows: dict[str, Row] = {}

    def serve(self, *rows: Row) -> None:
        """Serve these plugin rows from now on."""
        changes = [Change("create", "plugins", each, self.rows.get(each["id"])) for each in rows]
        self.rows.update({each["id"]: each for each in rows})
        self.snapshot = self.snapshot.apply(changes)
        self.lifetimes.built()
        self.lifetimes.served()

    def remove(self, *rows: Row) -> None:
        self.snapshot = self.snapshot.apply([Change("delete", "plugins", None, each) for each in rows])
        self.lifetimes.built()
        self.lifetimes.served()

    def request(self) -> Exchange:
        exchange = Exchange()
        exchange.gateway = cast(Any, SimpleNamespace(report=self.reports.append))
        exchange.snapshot = self.snapshot
        return exchange

    def begin(self, route: str | None = None, consumer: str | None = None) -> tuple[Exchange, Any]:
        """A request up to its access phase."""
        exchange = self.request()
        if consumer is not None:
            exchange.consumer = {"id": consumer}
        chain = self.snapshot._chains.chain(route, None)
        exchange.route = cast(Any, SimpleNamespace(chain=chain))
        result = chain.run_access(exchange)
        return exchange, result if result is None or isinstance(result, Answer) else ensureDeferred(cast(Any, result))

    def finish(self, exchange: Exchange) -> None:
        exchange.route.chain.run_log(exchange)
        exchange.release()

    def closes(self) -> list[tuple[str, int]]:
        return [(each.name, each.closes) for each in (*self.opening.all, *self.too.all)]


class ClosingTests(LifeTests):
    def test_opened_once_and_closed_once(self) -> None:
        one = row("opening", "one")
        self.serve(one)
        self.serve(row("opening-too", "two"))
        self.assertEqual(self.closes(), [("one", 0), ("two", 0)])
        self.remove(one)
        self.assertEqual((self.closes(), self.released), ([("one", 1), ("two", 0)], ["one"]))
        self.assertEqual(self.lifetimes.end(), [])
        self.assertEqual((self.closes(), self.released), ([("one", 1), ("two", 1)], ["one", "two"]))
        self.assertEqual(len(self.lifetimes), 0)

    def test_requests_hold_what_they_began_with(self) -> None:
        self.serve(row("opening", "one"))
        first, _ = self.begin()
        self.serve({**row("opening", "two"), "id": row("opening", "one")["id"]})
        second, _ = self.begin()
        self.assertEqual(self.closes(), [("one", 0), ("two", 0)])
        self.finish(second)
        self.assertEqual(self.closes(), [("one", 0), ("two", 0)])
        self.finish(first)
        self.assertEqual(self.closes(), [("one", 1), ("two", 0)])
        self.assertEqual([each.logged for each in self.opening.all], [1, 1])

    def test_configurations_of_consumers_are_held_when_they_are_chosen(self) -> None:
        everyone, bound = row("opening", "all"), row("opening", "bound", consumer="c")
        self.serve(everyone, bound)
        exchange, _ = self.begin(consumer="c")
        self.remove(everyone, bound)
        self.assertEqual(self.closes(), [("all", 1), ("bound", 0)])
        self.finish(exchange)
        self.assertEqual(self.closes(), [("all", 1), ("bound", 1)])

    def test_what_is_yet_to_be_chosen_is_not_closed(self) -> None:
        """A plugin waits; behind it one whose configuration depends on who the request turns out to come from."""
        self.waiting.waiting = Deferred()
        rows = (
            row("waiting", "w"),
            row("opening", "all"),
            row("opening", "bound", consumer="c"),
            row("opening", "other", consumer="d"),
        )
        self.serve(*rows)
        exchange, result = self.begin()
        self.remove(*rows)
        self.serve(row("opening-too", "new"))
        self.assertEqual(self.closes(), [("all", 0), ("bound", 0), ("other", 0), ("new", 0)])
        exchange.consumer = {"id": "c"}
        self.waiting.waiting.callback(None)
        self.assertIsNone(self.successResultOf(result))
        self.assertEqual(self.closes(), [("all", 1), ("bound", 0), ("other", 1), ("new", 0)])
        self.finish(exchange)
        self.assertEqual(self.closes(), [("all", 1), ("bound", 1), ("other", 1), ("new", 0)])

    def test_a_client_that_leaves_while_plugins_wait(self) -> None:
        self.waiting.waiting = Deferred()
        rows = row("waiting", "w"), row("opening", "all"), row("opening", "bound", consumer="c")
        self.serve(*rows)
        exchange, result = self.begin()
        self.remove(*rows)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(self.closes(), [("all", 0), ("bound", 1)])
        self.finish(exchange)
        self.assertEqual(self.closes(), [("all", 1), ("bound", 1)])
        self.assertEqual(self.opening.all[0].logged, 1)

    def test_a_rewrite_phase_that_waits(self) -> None:
        """The route, and so its plugins, are found when it is over; in the configuration the request began with."""
        self.rewriting.waiting = Deferred()
        rows = row("rewriting", "r"), row("opening", "one")
        self.serve(*rows)
        exchange, old = self.request(), self.snapshot
        result = ensureDeferred(cast(Any, old.global_chain.run_rewrite(exchange)))
        self.remove(*rows)
        self.assertEqual(self.closes(), [("one", 0)])
        self.rewriting.waiting.callback(None)
        self.successResultOf(result)
        chain = old._chains.chain(None, None)
        exchange.route = cast(Any, SimpleNamespace(chain=chain))
        self.assertIsNone(chain.run_access(exchange))
        self.assertEqual(self.closes(), [("one", 0)])
        self.finish(exchange)
        self.assertEqual(self.closes(), [("one", 1)])

    def test_answered_before_the_access_phase(self) -> None:
        """A refusal of the route itself runs header filters; they hold what they run with until the log phase is over."""
        for more in ((), (row("opening", "bound", consumer="c"),)):
            one = row("opening", "one")
            self.serve(one, *more)
            exchange = self.request()
            exchange.route = cast(Any, SimpleNamespace(chain=self.snapshot._chains.chain(None, None)))
            self.assertIsNone(exchange.route.chain.run_header_filter(exchange))
            self.remove(one)
            self.assertEqual(self.opening.all[0].closes, 0)
            self.finish(exchange)
            self.assertEqual((self.opening.all[0].closes, self.opening.all[0].logged), (1, 1))
            self.setUp()

    def test_a_configuration_in_both_phases_is_held_once(self) -> None:
        self.serve(row("opening", "one"))
        exchange, _ = self.begin()
        exchange.route.chain.run_header_filter(exchange)
        self.assertEqual(len(exchange.held or ()), 1)

    def test_chains_without_lives_pay_nothing(self) -> None:
        self.serve(row("waiting", "w"))
        exchange, _ = self.begin()
        self.assertIsNone(exchange.held)

    def test_configurations_that_are_not_opened(self) -> None:
        """A plugin may say so of some: they are compiled, and no request counts on them."""
        self.opening.opens = lambda conf: conf["tag"] != "plain"  # type: ignore[method-assign]
        self.opening.check = lambda exchange, conf: None  # type: ignore[method-assign]
        plain = row("opening", "plain")
        self.serve(plain)
        exchange, _ = self.begin()
        self.assertEqual((exchange.held, self.closes(), len(self.lifetimes)), (None, [], 0))
        self.remove(plain)
        self.serve(row("opening", "one"))
        self.assertEqual(self.closes(), [("one", 0)])

    def test_many_changes_while_requests_wait(self) -> None:
        """1,000 changes of a row; each request finishes with what it began with, and each configuration closes once."""
        self.opening.waits = True
        pending: list[tuple[Exchange, Any]] = []
        first = row("opening", "0")
        for number in range(1000):
            self.serve({**first, "config": {"tag": str(number)}})
            pending += [self.begin(), self.begin()]
            if number % 3 == 0:
                self.end(pending.pop(len(pending) // 2))
        while pending:
            self.end(pending.pop(len(pending) // 3))
        self.assertEqual({each.closes for each in self.opening.all[:-1]}, {1})
        self.assertEqual((len(self.opening.all), self.opening.all[-1].closes), (1000, 0))
        self.assertEqual([each.logged for each in self.opening.all], [2] * 1000)
        self.assertEqual((len(self.lifetimes), len(self.released)), (1, 999))
        self.assertEqual(self.reports, [])
        self.assertEqual([len(self.lifetimes._generations), self.lifetimes._fresh, self.lifetimes._gone], [1, [], []])

    def end(self, begun: tuple[Exchange, Any]) -> None:
        exchange, result = begun
        exchange.ctx["waiting"].callback(None)
        self.assertIsNone(self.successResultOf(result))
        self.finish(exchange)


class BuildingTests(LifeTests):
    def test_a_row_that_cannot_open_is_refused(self) -> None:
        self.serve(row("opening", "broken"))
        _, answer = self.begin()
        self.assertEqual(answer.status, 500)
        self.assertIn("cannot run, its requests are answered 500: cannot open", self.snapshot.faults[0])
        self.assertTrue(self.snapshot.faults[0].endswith("; set that right, or disable or remove the plugin"))
        self.assertEqual((self.released, len(self.lifetimes)), (["broken"], 0))

    def test_a_row_whose_open_would_wait_is_refused(self) -> None:
        async def opens(conf: Any, plugin: Row, host: Scope) -> None:
            """Never begun."""

        self.patch(self.opening, "open", opens)
        self.serve(row("opening", "waits"))
        _, answer = self.begin()
        self.assertEqual(answer.status, 500)
        self.assertIn("open must not wait", self.snapshot.faults[0])
        self.assertEqual((self.released, len(self.lifetimes)), (["waits"], 0))

    def test_an_abandoned_build_closes_what_it_opened(self) -> None:
        self.serve(row("opening", "one"))
        changed = {**row("opening", "two"), "id": row("opening", "one")["id"]}
        next(self.snapshot.steps([Change("update", "plugins", changed, self.rows[changed["id"]])]), None)
        self.lifetimes.abandoned()
        self.assertEqual(self.closes(), [("one", 0), ("two", 1)])
        self.serve({**changed, "config": {"tag": "three"}})
        self.assertEqual(self.closes(), [("one", 1), ("two", 1), ("three", 0)])

    def test_a_configuration_is_compiled_anew_when_its_secrets_change(self) -> None:
        """So it is opened anew too, and the one before is closed."""
        secrets = Secrets((), self.plugins, {"TAG": "one"})
        builder = ChainBuilder([row("opening", "{vault://env/tag}")], self.plugins, None, secrets, self.lifetimes)
        self.lifetimes.built()
        finished(builder.steps((), secrets.changed(())))
        self.lifetimes.built()
        self.lifetimes.served()
        self.assertEqual(self.closes(), [("one", 1), ("one", 0)])

    def test_unchanged_rows_stay_open(self) -> None:
        """Also where a wholly new dataset is served."""
        one = row("opening", "one")
        self.serve(one)
        self.snapshot = Snapshot.build({"plugins": {one["id"]: one}, "consumers": {}}, self.plugins, self.snapshot)
        self.lifetimes.built()
        self.lifetimes.served()
        self.assertEqual(self.closes(), [("one", 0)])

    def test_nothing_is_opened_where_nothing_is_served(self) -> None:
        Snapshot.build({"plugins": {"p": {**row("opening", "one"), "id": "p"}}}, self.plugins)
        self.assertEqual(self.opening.all, [])


class EndTests(LifeTests):
    def test_closing_may_wait(self) -> None:
        pending: Deferred[None] = Deferred()
        self.opening.closing = lambda: pending
        self.serve(row("opening", "one"))
        [closing] = self.lifetimes.end()
        self.assertEqual((self.closes(), self.released, len(self.lifetimes)), ([("one", 1)], [], 1))
        pending.callback(None)
        self.successResultOf(cast("Deferred[None]", closing))
        self.assertEqual((self.released, len(self.lifetimes)), (["one"], 0))

    def test_who_waits_too_long_is_cancelled_and_released(self) -> None:
        self.opening.closing = Deferred
        self.serve(row("opening", "one"))
        [closing] = self.lifetimes.end()
        cast("Deferred[None]", closing).cancel()
        self.assertEqual((self.released, len(self.lifetimes)), (["one"], 0))

    def test_raising_is_logged(self) -> None:
        self.opening.closing = self.fail
        self.serve(row("opening", "one"))
        self.assertEqual(self.lifetimes.end(), [])
        self.assertEqual((self.released, len(self.lifetimes)), (["one"], 0))
        self.assertIn("plugin opening", self.reports[0])

    def test_the_end_waits_for_nobody_who_holds(self) -> None:
        """What cut connections leave behind lets go later, and closes nothing again."""
        self.serve(row("opening", "one"))
        exchange, _ = self.begin()
        self.lifetimes.end()
        self.assertEqual(self.closes(), [("one", 1)])
        exchange.release()
        self.assertEqual(self.closes(), [("one", 1)])
