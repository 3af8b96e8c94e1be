"""Which plugins run, with which configuration, in which order; and what happens when one fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.builder import ChainBuilder
from kongtwist.core.chain.chain import EMPTY_CHAIN, Chain, PluginFailed
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Answer, Exchange, Row


def row(name: str, tag: str = "", **fields: Any) -> Row:
    """A plugin row; ``route="r"`` and the like become references."""
    references = {each: {"id": fields[each]} if each in fields else None for each in ("route", "service", "consumer")}
    return {
        "id": f"{name}/{tag}/{sorted(fields.items())}", "name": name, "config": {"tag": tag}, **references,
        "enabled": fields.get("enabled", True), "protocols": fields.get("protocols", ["http", "https"]),
    }  # fmt: skip


class Tracing(Plugin):
    """Notes what runs in the exchange."""

    def access(self, exchange: Exchange, conf: Any) -> Any:
        exchange.ctx.setdefault("trace", []).append((self.name, conf["tag"]))


class Log(Tracing):
    """A plugin with all later phases and no access."""

    name = "log"
    priority = 5

    access = Plugin.access

    def header_filter(self, exchange: Exchange, conf: Any) -> None:
        exchange.ctx.setdefault("trace", []).append(("header", conf["tag"]))

    def body_filter(self, exchange: Exchange, conf: Any, chunk: bytes, last: bool) -> bytes:
        return chunk + str(conf["tag"]).encode() + (b"." if last else b"")

    def log(self, exchange: Exchange, conf: Any) -> None:
        exchange.ctx.setdefault("trace", []).append(("log", conf["tag"]))


class Telling(Log):
    """Only tells of a request in its log phase."""

    name = "telling"
    priority = 4
    logs_in_batches = True

    def compile(self, conf: Row, plugin: Row) -> Any:
        if conf["tag"] == "broken":
            raise ValueError("no such path")
        return conf


class Choosy(Tracing):
    """Takes part in the phases that its configuration names."""

    name = "choosy"
    priority = 30

    def takes_part(self, conf: Any, phase: str) -> bool:
        return phase in conf["tag"]

    def header_filter(self, exchange: Exchange, conf: Any) -> None:
        raise AssertionError("not asked for")

    def log(self, exchange: Exchange, conf: Any) -> None:
        exchange.ctx.setdefault("trace", []).append(("log", conf["tag"]))


class First(Tracing):
    name = "first"
    priority = 100


class Second(Tracing):
    name = "second"
    priority = 50


class Twin(Tracing):
    name = "twin"
    priority = 50


class Authenticating(Plugin):
    """Finds out who it is in its turn."""

    name = "auth"
    priority = 60

    def access(self, exchange: Exchange, conf: Any) -> None:
        exchange.consumer = {"id": conf["tag"]}


class Doing(Plugin):
    """Does in each phase what the configuration holds."""

    name = "doing"
    priority = 70

    def compile(self, conf: Row, plugin: Row) -> Any:
        if conf["tag"] == "broken":
            raise ValueError("no such policy")
        return conf["tag"]

    def access(self, exchange: Exchange, conf: Any) -> Any:
        return conf()

    def rewrite(self, exchange: Exchange, conf: Any) -> Any:
        return conf()


class FailingLater(Plugin):
    """Raises in all phases after access."""

    name = "later"
    priority = 20

    def header_filter(self, exchange: Exchange, conf: Any) -> None:
        raise RuntimeError("in header_filter")

    def body_filter(self, exchange: Exchange, conf: Any, chunk: bytes, last: bool) -> bytes:
        raise RuntimeError("in body_filter")

    def log(self, exchange: Exchange, conf: Any) -> None:
        raise RuntimeError("in log")


PLUGINS: dict[str, Plugin] = {
    kind.name: kind() for kind in (Log, Telling, Choosy, First, Second, Twin, Authenticating, Doing, FailingLater)
}


def doing(what: Any, **fields: Any) -> Row:
    """A row of `Doing` whose access calls ``what``."""
    made = row("doing", **fields)
    made["config"] = {"tag": what}
    return made


class ChainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reports: list[str] = []
        self.exchange = Exchange()
        self.exchange.gateway = cast(Any, SimpleNamespace(report=self.reports.append))

    def chain(self, *rows: Row) -> Chain:
        return ChainBuilder(rows, PLUGINS).chain("r", "s")

    def trace(self, *rows: Row) -> list[Any]:
        """What the access phase of route r of service s runs."""
        self.exchange.ctx["trace"] = []
        self.assertIsNone(self.chain(*rows).run_access(self.exchange))
        return cast("list[Any]", self.exchange.ctx["trace"])

    # -- selection

    def test_empty_chain_is_one_object(self) -> None:
        """Routes without plugins share the chain that says so in one attribute."""
        self.assertIs(self.chain(), EMPTY_CHAIN)
        self.assertTrue(EMPTY_CHAIN.empty)
        self.assertFalse(self.chain(row("first")).empty)

    def test_most_specific_wins(self) -> None:
        """One configuration per plugin name, by Kong's eight levels."""
        levels = [
            row("first", "global"), row("first", "service", service="s"), row("first", "route", route="r"),
            row("first", "consumer", consumer="c"), row("first", "route+service", route="r", service="s"),
            row("first", "service+consumer", service="s", consumer="c"),
            row("first", "route+consumer", route="r", consumer="c"),
            row("first", "all", route="r", service="s", consumer="c"),
        ]  # fmt: skip
        self.exchange.consumer = {"id": "c"}
        for count in range(1, len(levels) + 1):
            expected = levels[count - 1]["config"]["tag"]
            self.assertEqual(self.trace(*levels[:count]), [("first", expected)])
            self.assertEqual(self.trace(*reversed(levels[:count])), [("first", expected)])

    def test_other_scopes_do_not_run(self) -> None:
        """Rows of other routes, services and consumers are nobody's business here."""
        self.exchange.consumer = {"id": "c"}
        others = (row("first", route="x"), row("second", service="x"), row("twin", consumer="x"))
        self.assertEqual(self.trace(*others), [])

    def test_disabled_and_foreign_protocols(self) -> None:
        """``enabled: false`` and rows for TCP only are not compiled."""
        chain = self.chain(row("first", enabled=False), row("second", protocols=["tcp"]), row("twin", protocols=[]))
        self.assertTrue(chain.empty)

    def test_phases_that_a_configuration_has(self) -> None:
        """In others it is not asked, and if nobody is they cost nothing; of a consumer's configuration, too."""
        chain = self.chain(row("choosy", "access"))
        self.assertEqual((chain.logs, chain.answers), (False, False))
        self.assertTrue(self.chain(row("choosy", "log")).logs)
        self.assertEqual(self.trace(row("choosy", "log")), [])
        self.exchange.consumer = {"id": "c"}
        chain = self.chain(row("choosy", "log", consumer="c"), row("choosy", "access"))
        self.assertIsNone(chain.run_access(self.exchange))
        self.assertIsNone(chain.run_header_filter(self.exchange))
        chain.run_log(self.exchange)
        self.assertEqual(self.exchange.ctx["trace"][-1], ("log", "log"))

    def test_logs_in_batches(self) -> None:
        """Only where all plugins with a log phase allow that, those of consumers included."""
        for rows, expected in (
            ([row("telling")], True),
            ([row("telling"), row("first")], True),
            ([row("telling"), row("first"), row("log")], False),
            ([row("telling"), row("log", consumer="c")], False),
            ([row("telling", "broken", consumer="a"), row("telling", consumer="b")], False),
        ):
            self.assertEqual(self.chain(*rows).logs_in_batches, expected, rows)

    def test_order(self) -> None:
        """Priority descending, equal ones by name in reverse."""
        names = [name for name, _ in self.trace(row("second"), row("twin"), row("first"))]
        self.assertEqual(names, ["first", "twin", "second"])

    def test_consumer_is_looked_at_at_each_turn(self) -> None:
        """A plugin behind authentication sees the consumer, one before it does not."""
        rows = (
            row("auth", "c"), row("first", "anyone"), row("first", "c's", consumer="c"), row("second", "anyone"),
            row("second", "c's", consumer="c"), row("twin", "only c's", consumer="c"),
        )  # fmt: skip
        self.assertEqual(self.trace(*rows), [("first", "anyone"), ("twin", "only c's"), ("second", "c's")])

    def test_later_phases_use_what_access_chose(self) -> None:
        """The consumer's configuration holds for header_filter, body_filter and log too."""
        chain = self.chain(row("auth", "c"), row("log", "anyone"), row("log", "c's", consumer="c"))
        self.assertIsNone(chain.run_access(self.exchange))
        self.assertIsNone(chain.run_header_filter(self.exchange))
        chain.run_log(self.exchange)
        self.assertEqual(self.exchange.ctx["trace"], [("header", "c's"), ("log", "c's")])
        self.assertTrue(chain.filters_body(self.exchange))
        filters = chain.answer_filters(self.exchange)
        assert filters is not None
        self.assertEqual(filters.feed(b"x", True), b"xc's.")

    def test_later_phases_without_access(self) -> None:
        """Where access never ran (an early error) the configuration without a consumer is used."""
        chain = self.chain(row("log", "anyone"), row("log", "c's", consumer="c"))
        chain.run_log(self.exchange)
        self.assertEqual(self.exchange.ctx["trace"], [("log", "anyone")])

    def test_no_body_filters(self) -> None:
        """Nobody looks at the body: the relay must not ask."""
        self.assertFalse(self.chain(row("first")).filters_body(self.exchange))
        self.assertIsNone(self.chain(row("first")).answer_filters(self.exchange))

    def test_rewrite_sees_global_rows_only(self) -> None:
        """Before routing only global configurations can run, also when a route has its own."""
        ran: list[str] = []
        rows = (doing(lambda: ran.append("global")), doing(lambda: ran.append("route"), route="r"))
        builder = ChainBuilder(rows, PLUGINS)
        self.assertIsNone(builder.global_chain.run_rewrite(self.exchange))
        self.assertIsNone(builder.chain("r", "s").run_rewrite(self.exchange))
        self.assertEqual(ran, ["global", "global"])

    # -- answers and waiting

    def test_answer_stops_access_only(self) -> None:
        """Later plugins' access does not run, their later phases do, with their configurations collected."""
        rows = (row("auth", "c"), doing(lambda: Answer(401)), row("second"), row("log", "c's", consumer="c"))
        self.exchange.consumer = {"id": "c"}
        chain = self.chain(*rows)
        answer = chain.run_access(self.exchange)
        assert isinstance(answer, Answer)
        self.assertEqual(answer.status, 401)
        self.assertNotIn("trace", self.exchange.ctx)
        chain.run_log(self.exchange)
        self.assertEqual(self.exchange.ctx["trace"], [("log", "c's")])

    def waiting(self, what: Any, *rows: Row) -> Deferred[Answer | None]:
        """Run access of a chain in which `Doing` returns ``what``; something must wait."""
        result = self.chain(doing(lambda: what), *rows).run_access(self.exchange)
        self.assertNotIsInstance(result, Answer | None)
        return Deferred.fromCoroutine(cast(Any, result))

    def test_waiting_goes_on(self) -> None:
        """Plugins behind one that waits run when it is done, also where the choice depends on the consumer."""
        for extra in ((), (row("twin", "c's", consumer="c"),)):
            self.exchange.ctx["trace"] = []
            self.exchange.consumer = {"id": "c"}
            pause: Deferred[None] = Deferred()
            done = self.waiting(pause, row("second"), *extra)
            self.assertNoResult(done)
            self.assertEqual(self.exchange.ctx["trace"], [])
            pause.callback(None)
            self.assertIsNone(self.successResultOf(done))
            self.assertIn(("second", ""), self.exchange.ctx["trace"])
            self.assertEqual(len(self.exchange.ctx["trace"]), 1 + len(extra))

    def test_waiting_answers(self) -> None:
        """An answer that was waited for stops the chain too."""
        done = self.waiting(succeed(Answer(403)), row("second"), row("log", "c's", consumer="c"))
        answer = self.successResultOf(done)
        assert answer is not None
        self.assertEqual(answer.status, 403)
        self.assertNotIn("trace", self.exchange.ctx)
        self.assertEqual(self.reports, [])

    def test_cancelled_is_passed_on(self) -> None:
        """The client went away while a plugin waited: no 500, no report."""
        done = self.waiting(Deferred(), row("second"))
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(self.reports, [])

    # -- failures

    def fail(self, *_: Any) -> None:  # type: ignore[override]
        raise RuntimeError("broken inside")

    def assert_closed(self, answer: Any, phase: str) -> None:
        self.assertIsInstance(answer, Answer)
        self.assertEqual((answer.status, answer.message), (500, "An unexpected error occurred"))
        self.assertEqual(answer.source, "error")
        (report,) = self.reports
        self.assertIn(phase, report)
        self.assertIn("Traceback", report)
        self.assertNotIn("trace", self.exchange.ctx)

    def test_failing_access_closes(self) -> None:
        """A plugin that raises answers 500, and what stands behind it does not run."""
        answer = self.chain(doing(self.fail), row("second")).run_access(self.exchange)
        self.assert_closed(answer, "plugin doing failed in phase access")
        self.assertIn("broken inside", self.reports[0])

    def test_failing_rewrite_closes(self) -> None:
        """The same before routing."""
        answer = ChainBuilder([doing(self.fail)], PLUGINS).global_chain.run_rewrite(self.exchange)
        self.assert_closed(answer, "plugin doing failed in phase rewrite")

    def test_failing_while_waiting_closes(self) -> None:
        """The same when what it waits for fails."""
        pause: Deferred[None] = Deferred()
        done = self.waiting(pause, row("second"))
        pause.errback(RuntimeError("broken inside"))
        self.assert_closed(self.successResultOf(done), "plugin doing failed in phase access")

    def test_nonsense_from_access_closes(self) -> None:
        """Neither None nor Answer nor awaitable, or an awaitable of nonsense: not taken for "go on"."""
        done = self.waiting(True, row("second"))
        self.assert_closed(self.successResultOf(done), "access")
        self.reports.clear()
        done = self.waiting(succeed("yes"), row("second"))
        self.assert_closed(self.successResultOf(done), "access")

    def test_failing_header_filter_closes(self) -> None:
        """The answer is replaced."""
        answer = self.chain(row("later"), row("log")).run_header_filter(self.exchange)
        self.assert_closed(answer, "plugin later failed in phase header_filter")

    def test_failing_body_filter_cuts(self) -> None:
        """The relay is told to cut."""
        filters = self.chain(row("later")).answer_filters(self.exchange)
        assert filters is not None
        self.assertRaises(PluginFailed, filters.feed, b"x", False)
        self.assertIn("in body_filter", self.reports[0])

    def test_failing_log_is_only_logged(self) -> None:
        """The others' log phases run."""
        self.chain(row("later"), row("log", "l")).run_log(self.exchange)
        self.assertEqual(self.exchange.ctx["trace"], [("log", "l")])
        self.assertIn("in log", self.reports[0])

    def test_unknown_plugin_closes(self) -> None:
        """A stored row whose plugin is not loaded must not let its traffic pass unprotected."""
        chain = self.chain(row("first"), row("not-there"))
        for _ in range(2):
            answer = chain.run_access(self.exchange)
            assert isinstance(answer, Answer)
            self.assertEqual(answer.status, 500)
        (report,) = self.reports
        self.assertIn("plugin not-there", report)
        self.assertEqual(len(ChainBuilder([row("unknown")], PLUGINS).faults), 1)

    def test_configuration_that_does_not_compile_closes(self) -> None:
        """So must one with a configuration that cannot be used."""
        chain = self.chain(doing("broken"))
        answer = chain.run_access(self.exchange)
        assert isinstance(answer, Answer)
        self.assertEqual(answer.status, 500)
        self.assertIn("no such policy", self.reports[0])

    # -- reuse

    def test_chains_are_shared_and_kept(self) -> None:
        """Routes without rows of their own share a chain; what did not change keeps its object over changes."""
        rows = [row("first"), row("second", route="r"), row("twin", service="s")]
        before = ChainBuilder(rows, PLUGINS)
        self.assertIs(before.chain("a", "s"), before.chain("b", "s"))
        self.assertIs(before.chain("a", "x"), before.global_chain)
        self.assertIsNot(before.chain("r", "s"), before.chain("a", "s"))
        kept, changed = before.chain("a", "s"), before.chain("r", "s")
        before.chain("a", "x")
        after = ChainBuilder([rows[0], row("second", "new", route="r"), rows[2]], PLUGINS, before)
        self.assertIs(after.chain("a", "s"), kept)
        self.assertIs(after.global_chain, before.global_chain)
        self.assertIsNot(after.chain("r", "s"), changed)

    def test_rows_are_compiled_once(self) -> None:
        """A configuration is compiled when it changes, not whenever something else does."""
        compiled: list[str] = []

        class Counting(First):
            def compile(self, conf: Row, plugin: Row) -> Any:
                compiled.append(plugin["id"])
                return conf

        rows = [row("first"), row("first", route="r")]
        before = ChainBuilder(rows, {"first": Counting()})
        ChainBuilder([rows[0], row("first", "new", route="r")], {"first": Counting()}, before)
        self.assertEqual(len(compiled), 3)
