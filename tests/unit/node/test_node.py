"""Supervision of worker processes, with processes and sockets that are not there."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.config.load import Conf
from kongtwist.core.counters import ACTIVE, REQUESTS
from kongtwist.core.storage_contract import Change
from kongtwist.node.worker_link import MessageReader, encode
from kongtwist.node.worker_supervisor import (
    COUNTERS_FD,
    CRASH_SPAN,
    CRASHES,
    FIRST_SOCKET_FD,
    LINK_FD,
    PREPARE_TIME,
    SOCKETS_FD,
    Workers,
)
from kongtwist.observability.shared_counters import SharedCounters


class FakeProcess:
    """A spawned process as its protocol and the test see it."""

    def __init__(self, protocol: Any, arguments: list[str], env: dict[str, str], fds: dict[int, int], pid: int) -> None:
        self.protocol = protocol
        self.arguments = arguments
        self.env = env
        self.fds = fds
        self.pid = pid
        self.signals: list[str] = []
        self.pair = StringTransport()
        self.taking = os.dup(fds[SOCKETS_FD])
        self.link: Any = None

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    def told(self) -> list[Any]:
        """The messages it was sent since the last look."""
        found = list(MessageReader().feed(self.pair.value()))
        self.pair.clear()
        return found

    def kinds(self) -> list[str]:
        return [message["type"] for message in self.told()]

    def says(self, kind: str, **more: Any) -> None:
        self.link.dataReceived(encode({"type": kind, **more}))

    def dies(self) -> None:
        self.link.connectionLost()
        self.protocol.processEnded(Failure(ProcessTerminated(signal=9)))


class FakeReactor(Clock):
    """Starts no process and adopts no socket, but notes them."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[FakeProcess] = []

    def spawnProcess(
        self, protocol: Any, executable: str, args: list[str], env: dict[str, str], childFDs: dict[int, int]
    ) -> None:
        process = FakeProcess(protocol, args, env, childFDs, 1000 + len(self.spawned))
        self.spawned.append(process)
        protocol.makeConnection(process)

    def end(self) -> None:
        """Close what the processes would have closed."""
        for process in self.spawned:
            os.close(process.taking)

    def adoptStreamConnection(self, fd: int, family: int, factory: Any) -> None:
        process = self.spawned[-1]
        process.link = factory.buildProtocol(None)
        process.link.makeConnection(process.pair)


class WorkersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.counters = SharedCounters.create(3, sets=1)
        self.addCleanup(self.counters.close)
        self.addCleanup(self.reactor.end)
        self.served = SimpleNamespace(version=3, rows={"routes": {"r": {"id": "r"}}})
        self.sentences: list[str] = []
        sockets = [[(("proxy_listen", 0), row + 20), (("proxy_listen", 1), row + 21)] for row in (0, 10)]
        self.workers = Workers(
            self.reactor, self.counters, sockets, lambda: {"type": "begin", "given": {}}, lambda: self.served,
            self.sentences.append, {"X": "y"},
        )  # fmt: skip
        self.started = self.workers.start()

    def serve(self, *processes: FakeProcess) -> None:
        """Let processes come up and forget what they were told."""
        for process in processes or self.reactor.spawned:
            process.says("loaded")
            process.says("listening")
            process.told()

    def test_each_gets_what_it_needs(self) -> None:
        """Its sockets, the pair, the counters, then configuration and rows, and its own row number."""
        for row, process in enumerate(self.reactor.spawned):
            self.assertEqual(process.arguments[1:], ["-P", "-m", "kongtwist.node.worker"])
            self.assertEqual(process.env, {"X": "y"})
            self.assertEqual(process.fds[COUNTERS_FD], self.counters.fileno())
            self.assertIn(LINK_FD, process.fds)
            self.assertEqual([process.fds[FIRST_SOCKET_FD + n] for n in (0, 1)], [[20, 21], [30, 31]][row])
            begin, rows, dataset = process.told()
            self.assertEqual((begin["row"], begin["workers"]), (row, 3))
            self.assertEqual(rows["rows"], [{"id": "r"}])
            self.assertEqual(dataset, {"type": "dataset", "version": 3})

    def test_listens_only_with_everything(self) -> None:
        """Changes made while a worker loads are in front of the word to accept connections."""
        process = self.reactor.spawned[0]
        process.told()
        self.successResultOf(self.workers.send(4, [Change("create", "routes", {"id": "q"}, None)]))
        process.says("loaded")
        changes, listen = process.told()
        self.assertEqual(changes["changes"], [["create", "routes", {"id": "q"}, None]])
        self.assertEqual(listen, {"type": "listen"})

    def test_questions(self) -> None:
        """What a worker asks is answered to it alone; one that has died meanwhile gets nothing, and no fault comes of it."""
        first, second = self.reactor.spawned
        self.serve()
        asked: list[tuple[Any, Any]] = []
        self.workers.answer = lambda question, send: asked.append((question["id"], send))
        first.says("ask", id=1, what="insert", arguments=[])
        second.says("ask", id=1, what="insert", arguments=[])
        asked[1][1]({"type": "answer", "id": 1, "result": "b"})
        self.assertEqual((first.told(), second.told()), ([], [{"type": "answer", "id": 1, "result": "b"}]))
        first.dies()
        asked[0][1]({"type": "answer", "id": 1, "result": "a"})
        self.assertEqual(first.told(), [])
        self.assertFalse(asked[0][1].__self__._queue, "nothing may pile up")

    def test_metrics(self) -> None:
        """All workers are asked once; a slow one is not asked again; one that dies is waited for no more."""
        first, second = self.reactor.spawned
        self.serve()
        collecting = [self.workers.collect_metrics(), self.workers.collect_metrics()]
        self.assertEqual((first.kinds(), second.kinds()), (["metrics"], ["metrics"]))
        figures = [
            ["family", "c", "counter", []],
            ["new", 0, "c", []],
            ["family", "g", "gauge", []],
            ["new", 1, "g", []],
        ]
        first.says("metrics", report=[*figures, ["count", 0, 2], ["gauge", 1, 5]], more=True)
        self.assertNoResult(collecting[0])
        first.says("metrics", report=[], more=False)
        self.assertNoResult(collecting[0])
        second.says("metrics", report=[*figures, ["count", 0, 3], ["gauge", 1, 1]], more=False)
        for each in collecting:
            self.successResultOf(each)
        self.assertEqual(self.workers.metrics.text(), "# TYPE c counter\nc 5\n# TYPE g gauge\ng 6\n")
        again = self.workers.collect_metrics()
        self.assertEqual(first.kinds(), ["metrics"])
        second.says("metrics", report=[], more=False)
        first.dies()
        self.successResultOf(again)
        self.assertEqual(self.workers.metrics.text(), "# TYPE c counter\nc 5\n# TYPE g gauge\ng 1\n")

    def test_new_workers_are_told(self) -> None:
        """What was set while the node runs holds in a worker that is started later, and after its rows."""
        self.workers.first_messages = lambda: [{"type": "level", "level": "debug"}]
        self.serve()
        self.reactor.spawned[0].dies()
        self.assertEqual(self.reactor.spawned[-1].kinds(), ["begin", "rows", "dataset", "level"])

    def test_complete(self) -> None:
        """Only while all workers accept connections."""
        self.assertFalse(self.workers.complete)
        self.serve()
        self.assertTrue(self.workers.complete)
        self.reactor.spawned[0].dies()
        self.assertFalse(self.workers.complete)

    def test_marks_and_levels(self) -> None:
        """All workers are told; a mark is waited for until all have said that it holds."""
        self.serve()
        self.workers.set_log_level("debug")
        marked = self.workers.mark("u", "a:80", 3)
        for process in self.reactor.spawned:
            level, mark = process.told()
            self.assertEqual(level, {"type": "level", "level": "debug"})
            expected = {"type": "mark", "version": 3, "upstream": "u", "target": "a:80", "state": 3}
            self.assertEqual(mark, expected)
            self.assertNoResult(marked)
            process.says("served", version=3)
        self.successResultOf(marked)

    def test_started_when_all_listen(self) -> None:
        """The node is up when the last of its workers is."""
        first, second = self.reactor.spawned
        self.serve(first)
        self.assertNoResult(self.started)
        self.serve(second)
        self.successResultOf(self.started)
        self.assertEqual(self.workers.pids, [1000, 1001])

    def test_change_waits_for_all(self) -> None:
        """A change is published when every worker has said so; a later version says so too."""
        self.serve()
        first, second = self.reactor.spawned
        four, five = self.workers.send(4, []), self.workers.send(5, [])
        first.says("served", version=4)
        second.says("served", version=5)
        self.successResultOf(four)
        self.assertNoResult(five)
        first.says("served", version=5)
        self.successResultOf(five)

    def test_change_does_not_wait_for_the_dead(self) -> None:
        """Nor for a successor that is still loading: that one gets the change with its dataset."""
        self.serve()
        first, second = self.reactor.spawned
        change = self.workers.send(4, [])
        second.says("served", version=4)
        first.dies()
        self.successResultOf(change)
        change = self.workers.send(5, [])
        second.says("served", version=5)
        self.successResultOf(change)

    def test_replace(self) -> None:
        """A whole new dataset goes to all and is waited for."""
        self.serve()
        self.served = SimpleNamespace(version=9, rows={"routes": {}})
        replaced = self.workers.replace()
        for process in self.reactor.spawned:
            self.assertNoResult(replaced)
            self.assertEqual(process.kinds(), ["rows", "dataset"])
            process.says("served", version=9)
        self.successResultOf(replaced)

    def test_dead_worker_is_replaced(self) -> None:
        """A successor with the same row and sockets and the newest rows; the dead one's connections count no more."""
        self.serve()
        self.counters._rows[1][ACTIVE] = 5
        self.counters._rows[1][REQUESTS] = 50
        self.served = SimpleNamespace(version=8, rows={})
        self.reactor.spawned[1].dies()
        self.assertEqual(len(self.reactor.spawned), 3)
        successor = self.reactor.spawned[2]
        self.assertEqual(successor.fds[FIRST_SOCKET_FD], 30)
        begin, dataset = successor.told()
        self.assertEqual((begin["row"], dataset["version"]), (1, 8))
        totals = self.counters.totals()
        self.assertEqual((totals["active"], totals["requests"]), (0, 50))
        self.assertEqual(self.workers.pids, [1000, 1002])

    def test_crash_loop(self) -> None:
        """Five within ten seconds: no more are started, and one sentence says so."""
        for _ in range(CRASHES - 1):
            self.reactor.spawned[-1].dies()
        self.assertEqual(self.sentences, [])
        count = len(self.reactor.spawned)
        self.reactor.spawned[-1].dies()
        self.assertEqual(len(self.reactor.spawned), count)
        (sentence,) = self.sentences
        self.assertIn("5 workers ended within 10 s", sentence)

    def test_now_and_then_is_no_crash_loop(self) -> None:
        """Workers that die more slowly are replaced for ever."""
        for _ in range(3 * CRASHES):
            self.reactor.spawned[-1].dies()
            self.reactor.advance(CRASH_SPAN / (CRASHES - 2))
        self.assertEqual(self.sentences, [])

    def test_worker_that_closes_the_pair_is_killed(self) -> None:
        """It cannot be told anything any more: its successor can."""
        self.serve()
        process = self.reactor.spawned[0]
        process.link.connectionLost()
        self.assertEqual(process.signals, ["KILL"])

    def test_stop(self) -> None:
        """All are asked to finish; the dying are not replaced; the node has stopped when all are gone."""
        self.serve()
        stopped = self.workers.stop()
        for process in self.reactor.spawned:
            self.assertNoResult(stopped)
            self.assertEqual(process.kinds(), ["stop"])
            process.dies()
            self.assertEqual(process.signals, [])
        self.successResultOf(stopped)
        self.assertEqual(len(self.reactor.spawned), 2)

    def test_stop_without_workers(self) -> None:
        """Nothing to wait for."""
        stopped = self.workers.stop()
        for process in self.reactor.spawned:
            process.dies()
        self.successResultOf(stopped)
        self.successResultOf(self.workers.stop())

    def test_reload(self) -> None:
        """It is over when all have said how it went; one that dies meanwhile begins with the new configuration anyway."""
        self.serve()
        one, two = self.reactor.spawned
        reloaded = self.workers.reload(Conf())
        one.says("reloaded", error="ssl_cert cannot read '/none'")
        self.assertNoResult(reloaded)
        two.says("reloaded", error=None)
        (complaint,) = self.successResultOf(reloaded)
        self.assertRegex(complaint, r"^worker 0 \(pid \d+\) goes on as it was: ssl_cert cannot read '/none'$")
        reloaded = self.workers.reload(Conf())
        one.says("reloaded", error=None)
        two.dies()
        self.assertEqual(self.successResultOf(reloaded), [])

    def renewing(self, *shares: list[tuple[tuple[str, int], int]]) -> tuple[Deferred[list[str]], list[list[Any]]]:
        """Have the workers make ready for these shares of sockets; gives what they are told."""
        shared = [*shares]
        preparing = Deferred.fromCoroutine(
            self.workers.prepare(Conf({"log_level": "debug"}), shared, 7, {"routes": {"r": {"id": "r"}}})
        )
        return preparing, [process.told() for process in self.reactor.spawned]

    def sockets(self) -> tuple[int, int]:
        """Two descriptors."""
        one, two = os.pipe()
        for fd in (one, two):
            self.addCleanup(os.close, fd)
        return one, two

    def test_renewal(self) -> None:
        """Each is given its sockets, the configuration and all rows; it serves by them when all can, and more are started."""
        self.serve()
        one, two = self.sockets()
        shares = [
            [(("proxy_listen", 0), one)],
            [(("proxy_listen", 0), one), (("proxy_listen", 1), two)],
            [(("proxy_listen", 1), two)],
        ]
        preparing, told = self.renewing(*shares)
        for number, (renew, rows, dataset) in enumerate(told):
            self.assertEqual((renew["type"], renew["given"]["log_level"]), ("renew", "debug"))
            self.assertEqual(renew["listeners"], [[*place] for place, _ in shares[number]])
            self.assertEqual((rows["rows"], dataset), ([{"id": "r"}], {"type": "dataset", "version": 7}))
        first, second = self.reactor.spawned
        first.says("reloaded", error=None)
        self.assertNoResult(preparing)
        second.says("reloaded", error=None)
        self.assertEqual(self.successResultOf(preparing), [])
        switching = self.workers.switch(shares, 0)
        self.assertEqual([first.kinds()[0], second.kinds()[0]], ["switch", "switch"])
        third = self.reactor.spawned[2]
        begin = third.told()[0]
        self.assertEqual(
            (begin["row"], begin["listeners"], third.fds[FIRST_SOCKET_FD]), (2, [["proxy_listen", 1]], two)
        )
        first.says("switched")
        second.says("switched")
        self.assertTrue(self.workers.ready)
        self.assertFalse(self.workers.complete)
        self.assertNoResult(switching)
        self.serve(third)
        self.successResultOf(switching)
        self.assertTrue(self.workers.complete)

    def test_renewal_refused(self) -> None:
        """One that cannot keeps all from it; one that says nothing for long counts as one that cannot."""
        self.serve()
        one, _ = self.sockets()
        preparing, _ = self.renewing([(("proxy_listen", 0), one)], [(("proxy_listen", 0), one)])
        self.reactor.spawned[0].says("reloaded", error="no such plugin")
        self.reactor.advance(PREPARE_TIME)
        complaints = self.successResultOf(preparing)
        self.assertRegex(complaints[0], "goes on as it was: no such plugin$")
        self.assertRegex(complaints[1], "not ready within 60 s$")
        self.workers.keep()
        self.assertEqual([process.kinds() for process in self.reactor.spawned], [["keep"], ["keep"]])
        self.reactor.spawned[1].says("reloaded", error=None)  # too late, and no harm

    def test_fewer(self) -> None:
        """One that is too many finishes what it does, within the time there is; its row is free for another when it has ended."""
        self.serve()
        one, two = self.sockets()
        preparing, _ = self.renewing([(("proxy_listen", 0), one), (("proxy_listen", 1), two)])
        first, second = self.reactor.spawned
        first.says("reloaded", error=None)
        self.assertEqual(self.successResultOf(preparing), [])
        self.assertEqual(second.told(), [])
        switching = self.workers.switch([[(("proxy_listen", 0), one), (("proxy_listen", 1), two)]], 5)
        first.says("switched")
        self.successResultOf(switching)
        self.assertEqual(second.kinds(), ["finish"])
        self.assertEqual(self.workers.pids, [first.pid, second.pid])
        self.assertNoResult(self.workers.send(8, []))  # it is told, and not waited for
        first.says("served", version=8)
        self.reactor.advance(5)
        self.assertEqual(second.kinds(), ["changes", "stop"])
        second.dies()
        self.assertEqual((self.workers.pids, len(self.reactor.spawned)), ([first.pid], 2))
        self.assertTrue(self.workers.complete)
        preparing, _ = self.renewing([(("proxy_listen", 0), one)], [(("proxy_listen", 0), two)])
        first.says("reloaded", error=None)
        self.successResultOf(preparing)
        self.assertNoResult(self.workers.switch([[(("proxy_listen", 0), one)], [(("proxy_listen", 0), two)]], 0))
        self.assertEqual(self.reactor.spawned[2].told()[0]["row"], 1)

    def test_no_room(self) -> None:
        """More workers than the memory of counters has rows for are refused before anything happens."""
        self.serve()
        one, _ = self.sockets()
        preparing, told = self.renewing(
            [(("proxy_listen", 0), one)],
            [(("proxy_listen", 0), one)],
            [(("proxy_listen", 0), one)],
            [(("proxy_listen", 0), one)],
        )
        (complaint,) = self.successResultOf(preparing)
        self.assertRegex(complaint, "^there is no room for 4 workers")
        self.assertEqual(told, [[], []])

    def test_drain(self) -> None:
        """Told to leave all go on; told to finish they end when they like, and none is replaced; a stop shortens it."""
        self.serve()
        self.workers.leave()
        self.assertEqual([process.kinds() for process in self.reactor.spawned], [["leave"], ["leave"]])
        finished = self.workers.finish()
        one, two = self.reactor.spawned
        self.assertEqual((one.kinds(), two.kinds()), (["finish"], ["finish"]))
        one.dies()
        self.assertNoResult(finished)
        stopped = self.workers.stop()
        self.assertEqual(two.kinds(), ["stop"])
        two.dies()
        self.successResultOf(finished)
        self.successResultOf(stopped)
        self.assertEqual(len(self.reactor.spawned), 2)

    def test_kill_and_reopen(self) -> None:
        """The second signal ends them; rotation and reload reach them."""
        self.serve()
        reloaded = self.workers.reload(Conf({"log_level": "debug", "prefix": "somewhere"}))
        for process in self.reactor.spawned:
            (message,) = process.told()
            self.assertEqual((message["type"], message["given"]["log_level"]), ("reload", "debug"))
            self.assertTrue(os.path.isabs(message["given"]["prefix"]))
        self.assertNoResult(reloaded)
        self.workers.reopen_logs()
        self.assertEqual([process.kinds() for process in self.reactor.spawned], [["reopen"], ["reopen"]])
        self.workers.kill()
        self.assertEqual([process.signals for process in self.reactor.spawned], [["KILL"], ["KILL"]])
