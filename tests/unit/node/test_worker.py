"""The worker's side of the pair, with a data path that only notes what it is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.config.kinds import ConfError
from kongtwist.config.load import Conf
from kongtwist.core.health import (
    HEALTHY,
    MOSTLY_HEALTHY,
    MOSTLY_UNHEALTHY,
    SUCCESS,
    TCP_FAILURE,
    UNHEALTHY,
    PassiveChecks,
)
from kongtwist.core.peer import Peer
from kongtwist.core.snapshot.snapshot import SLICE, Snapshot
from kongtwist.entities import EntityError
from kongtwist.node.data_plane import DataPlane
from kongtwist.node.worker import Worker
from kongtwist.node.worker_link import Message, MessageReader, encode
from kongtwist.observability.error_log import ErrorLog

CONSUMER = {"id": "c1", "username": "bob", "custom_id": None}


class FakePlane:
    """Stands for the data path."""

    lifetimes = None

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.confs: list[Conf] = []
        self.reopened = 0
        self.stopping: list[float] = []
        self.quiet: Deferred[None] = Deferred()
        self.left = 0
        self.changed: list[Peer] = []
        self.told: Callable[[Peer, int], None] | None = None
        self.finished: Deferred[None] = Deferred()
        self.retired: Deferred[None] = Deferred()
        self.ports_closed: Deferred[None] = Deferred()
        self.successor: FakePlane | None = None
        self.context = SimpleNamespace(report=self.report_health, successor=None)
        self.tree = None

    def leave(self) -> None:
        self.left += 1

    def report_health(self, told: Callable[[Peer, int], None]) -> None:
        self.told = told

    def target_changed(self, peer: Peer) -> None:
        self.changed.append(peer)

    async def finish(self) -> None:
        await self.finished

    def publish(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def reload(self, conf: Conf) -> None:
        if conf.ssl_cert:
            raise ConfError("ssl_cert: no such file")
        self.confs.append(conf)

    def reopen_logs(self) -> None:
        self.reopened += 1

    async def stop(self, seconds: float) -> None:
        self.stopping.append(seconds)
        await self.quiet

    def retire(self, successor: FakePlane) -> Deferred[None]:
        self.successor = successor
        return self.retired

    async def discard(self) -> None:
        self.stopping.append(-1)


class FakeLog:
    """Stands for the error log."""

    def become(self, other: ErrorLog) -> None:
        other.close()
        self.level = other.level

    level = "notice"
    reopened = 0

    def reopen(self) -> None:
        self.reopened += 1


class WorkerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.exits: list[int] = []
        self.plane = FakePlane()
        self.log = FakeLog()
        self.services = cast(Any, None)
        self.worker = Worker(
            self.clock,
            self.exits.append,
            lambda worker, conf, message: (cast(DataPlane, self.plane), {}, self.services),
            lambda conf, console: cast(ErrorLog, self.log),
        )
        self.transport = StringTransport()
        self.worker.link.makeConnection(self.transport)

    def tell(self, kind: str, **more: Any) -> list[Message]:
        """Say something to the worker; returns what it says then."""
        self.worker.link.dataReceived(encode({"type": kind, **more}))
        return self.said()

    def said(self) -> list[Message]:
        """What it has said since."""
        said = list(MessageReader().feed(self.transport.value()))
        self.transport.clear()
        return said

    def begin(self) -> None:
        given = {"nginx_main_worker_shutdown_timeout": "7s"}
        said = self.tell("begin", given=given, source=None, node_id="n", console=False, listeners=[], row=0, workers=2)
        self.assertEqual(said, [])

    def load(self) -> list[Message]:
        self.begin()
        self.tell("rows", entity="consumers", rows=[CONSUMER])
        return self.tell("dataset", version=3)

    def test_begins(self) -> None:
        """It says so when the dataset serves, and accepts connections only when it is told to."""
        said = self.load()
        self.assertEqual(said, [{"type": "served", "version": 3}, {"type": "loaded"}])
        self.assertEqual(self.plane.snapshots[-1].rows["consumers"]["c1"]["username"], "bob")
        self.assertEqual(self.tell("listen"), [{"type": "listening"}])

    def test_questions(self) -> None:
        """An answer is handed over when the changes in front of it serve, even where those take many turns."""
        self.load()
        asking = Deferred.fromCoroutine(self.worker.questions.ask("insert", "consumers", {"username": "ann"}))
        routes = [
            ["create", "consumers", {"id": f"n{n}", "username": f"n{n}", "custom_id": None}, None]
            for n in range(3 * SLICE)
        ]
        (question,) = MessageReader().feed(self.transport.value())
        self.assertEqual((question["type"], question["what"]), ("ask", "insert"))
        self.transport.clear()
        self.tell("changes", version=4, changes=routes)
        self.tell("answer", id=question["id"], served=True, result={"id": "n1"})
        self.assertNoResult(asking)
        while self.clock.getDelayedCalls() and not asking.called:
            self.clock.advance(0)
        self.assertEqual(self.successResultOf(asking), {"id": "n1"})
        self.assertIn("n1", self.plane.snapshots[-1].rows["consumers"])

    def test_parent_gone_with_questions(self) -> None:
        """Who waits for it is told, and the worker ends."""
        self.load()
        asking = Deferred.fromCoroutine(self.worker.questions.ask("delete", "consumers", "x"))
        self.worker.link.connectionLost()
        self.assertEqual(self.failureResultOf(asking, EntityError).value.status, 503)
        self.assertEqual(self.plane.stopping, [7.0])

    def test_changes(self) -> None:
        """Each publication is served before it is acknowledged, in order; one without changes too."""
        self.load()
        other = {**CONSUMER, "id": "c2", "username": "ann"}
        said = self.tell("changes", version=4, changes=[["create", "consumers", other, None]])
        self.assertEqual(said, [{"type": "served", "version": 4}])
        self.assertEqual(sorted(self.plane.snapshots[-1].rows["consumers"]), ["c1", "c2"])
        self.tell("changes", version=5, changes=[["delete", "consumers", None, CONSUMER]])
        self.assertEqual(sorted(self.plane.snapshots[-1].rows["consumers"]), ["c2"])
        self.assertEqual(self.tell("changes", version=6, changes=[]), [{"type": "served", "version": 6}])

    def test_changes_in_several_messages(self) -> None:
        """They serve together, when the last is there."""
        self.load()
        others = [["create", "consumers", {**CONSUMER, "id": f"c{number}"}, None] for number in (2, 3)]
        served = len(self.plane.snapshots)
        self.assertEqual(self.tell("changes", version=4, changes=others[:1], more=True), [])
        self.assertEqual(len(self.plane.snapshots), served)
        self.assertEqual(self.tell("changes", version=4, changes=others[1:]), [{"type": "served", "version": 4}])
        self.assertEqual(len(self.plane.snapshots), served + 1)
        self.assertEqual(sorted(self.plane.snapshots[-1].rows["consumers"]), ["c1", "c2", "c3"])

    def test_many_changes_are_worked_in_by_slices(self) -> None:
        """They are acknowledged when they serve, and so is what was said behind them."""
        self.load()
        rows = [{**CONSUMER, "id": f"c{number}"} for number in range(2, 3 * SLICE)]
        self.assertEqual(self.tell("changes", version=4, changes=[["create", "consumers", r, None] for r in rows]), [])
        self.assertEqual(self.tell("changes", version=5, changes=[]), [])
        self.clock.advance(0)
        said = list(MessageReader().feed(self.transport.value()))
        self.assertEqual(said, [{"type": "served", "version": 4}, {"type": "served", "version": 5}])
        self.assertEqual(len(self.plane.snapshots[-1].rows["consumers"]), 3 * SLICE - 1)

    def test_whole_new_dataset(self) -> None:
        """It replaces everything, and is no second beginning."""
        self.load()
        self.tell("rows", entity="consumers", rows=[])
        self.assertEqual(self.tell("dataset", version=9), [{"type": "served", "version": 9}])
        self.assertEqual(dict(self.plane.snapshots[-1].rows.get("consumers", {})), {})

    def test_stop(self) -> None:
        """It drains within the configured time, then exits with 0; once, however often it is told."""
        self.load()
        self.tell("stop")
        self.worker.end()
        self.assertEqual((self.plane.stopping, self.exits), ([7.0], []))
        self.plane.quiet.callback(None)
        self.assertEqual(self.exits, [0])

    def test_parent_gone(self) -> None:
        """The end of the pair means the same as the word to stop."""
        self.load()
        self.worker.link.connectionLost()
        self.plane.quiet.callback(None)
        self.assertEqual((self.plane.stopping, self.exits), ([7.0], [0]))

    def test_parent_gone_before_it_began(self) -> None:
        """There is nothing to finish."""
        self.worker.link.connectionLost()
        self.assertEqual(self.exits, [0])

    def test_out_of_step(self) -> None:
        """What cannot be understood or done ends the process: it must not serve what nobody configured."""
        self.load()
        self.tell("changes", version=4, changes=[["create"]])
        self.assertEqual(self.exits, [1])
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        served = len(self.plane.snapshots)
        self.assertEqual(self.tell("changes", version=5, changes=[]), [])
        self.assertEqual((len(self.plane.snapshots), self.exits), (served, [1]))

    def test_unknown_word(self) -> None:
        """A parent of another version is not obeyed halfway."""
        self.load()
        self.tell("sing")
        self.assertEqual(self.exits, [1])
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_reload(self) -> None:
        """Log level and data path follow; a configuration that cannot be used changes nothing."""
        self.load()
        said = self.tell("reload", given={"log_level": "debug"}, source=None)
        self.assertEqual(said, [{"type": "reloaded", "error": None}])
        self.assertEqual((self.log.level, len(self.plane.confs)), ("debug", 1))
        broken = {"log_level": "error", "ssl_cert": "/nowhere", "ssl_cert_key": "/nowhere"}
        said = self.tell("reload", given=broken, source=None)
        self.assertEqual(said, [{"type": "reloaded", "error": "ssl_cert: no such file"}])
        self.assertEqual((self.log.level, len(self.plane.confs), self.exits), ("debug", 1, []))

    def test_renewal(self) -> None:
        """All is made anew aside, and serves when the parent says so; what served ends by itself, and a stop ends both."""
        self.load()
        old, self.plane = self.plane, FakePlane()
        given = {"prefix": self.mktemp(), "log_level": "warn"}
        os.makedirs(os.path.join(given["prefix"], "logs"))
        self.assertEqual(self.tell("renew", given=given, source=None, listeners=[]), [])
        self.tell("rows", entity="consumers", rows=[CONSUMER, CONSUMER | {"id": "c2", "username": "ann"}])
        self.assertEqual(self.tell("dataset", version=9), [{"type": "reloaded", "error": None}])
        self.assertEqual((len(self.plane.snapshots[-1].rows["consumers"]), old.successor), (2, None))
        self.assertEqual(self.tell("switch"), [{"type": "served", "version": 9}])
        self.assertIs(old.successor, self.plane)
        old.ports_closed.callback(None)
        self.assertEqual((self.said(), self.log.level), ([{"type": "switched"}], "warn"))
        snapshots = len(old.snapshots)
        self.tell("changes", version=10, changes=[["delete", "consumers", None, {"id": "c2"}]])
        self.assertEqual((len(self.plane.snapshots[-1].rows["consumers"]), len(old.snapshots)), (1, snapshots))
        self.tell("reopen")
        self.assertEqual((old.reopened, self.plane.reopened), (1, 1))
        self.tell("stop")
        self.assertEqual((len(old.stopping), len(self.plane.stopping)), (1, 1))
        for each in (old, self.plane):
            each.quiet.callback(None)
        self.assertEqual(self.exits, [0])

    def test_renewal_that_is_not_wanted(self) -> None:
        """What cannot be made is told; what is not wanted is given back; this worker goes on as it was."""
        self.load()
        old, self.plane = self.plane, FakePlane()
        self.tell("renew", given={"log_level": "loud"}, source=None, listeners=[])
        (said,) = self.tell("dataset", version=4)
        self.assertRegex(said["error"], "^log_level has an invalid value")
        self.tell("keep")
        self.tell("renew", given={}, source=None, listeners=[])
        self.assertEqual(self.tell("dataset", version=5), [{"type": "reloaded", "error": None}])
        self.tell("keep")
        self.assertEqual((self.plane.stopping, old.successor, self.exits), ([-1], None, []))
        self.assertEqual(self.tell("changes", version=6, changes=[]), [{"type": "served", "version": 6}])

    def test_drain(self) -> None:
        """Connections end behind their answers, then nothing new is accepted, and it ends when all is over."""
        self.load()
        self.tell("leave")
        self.assertEqual(self.plane.left, 1)
        self.tell("finish")
        self.assertEqual(self.exits, [])
        self.plane.finished.callback(None)
        self.assertEqual((self.plane.stopping, self.exits), ([7.0], []))
        self.plane.quiet.callback(None)
        self.assertEqual(self.exits, [0])

    def test_log_level(self) -> None:
        """It holds until another one is set."""
        self.load()
        self.assertEqual(self.tell("level", level="debug"), [])
        self.assertEqual(self.log.level, "debug")

    def test_mark(self) -> None:
        """A target is marked before that is acknowledged; one that is just gone is no harm."""
        self.begin()
        upstream = {"id": "u", "name": "up", "algorithm": "round-robin", "hash_on": "none", "slots": 10}
        target = {"id": "t", "target": "127.0.0.1:80", "weight": 1, "created_at": 1, "upstream": {"id": "u"}}
        self.tell("rows", entity="upstreams", rows=[upstream])
        self.tell("rows", entity="targets", rows=[target])
        self.tell("dataset", version=3)
        (peer,) = self.plane.snapshots[-1].balancers["u"].peers
        for state in (UNHEALTHY, MOSTLY_UNHEALTHY, MOSTLY_HEALTHY, HEALTHY):
            available = state in (MOSTLY_HEALTHY, HEALTHY)
            said = self.tell("mark", version=3, upstream="u", target="127.0.0.1:80", state=state)
            self.assertEqual((peer.state, self.plane.changed), (state, [peer]))
            self.plane.changed.clear()
            self.assertEqual((said, peer.available), ([{"type": "served", "version": 3}], available))
        for gone in ({"upstream": "v", "target": "127.0.0.1:80"}, {"upstream": "u", "target": "127.0.0.1:81"}):
            said = self.tell("mark", version=3, state=UNHEALTHY, **gone)
            self.assertEqual((said, peer.available), ([{"type": "served", "version": 3}], True))

    def test_health(self) -> None:
        """What traffic says of targets is gathered for a moment, in its order, and told once."""
        self.begin()
        told = self.plane.told
        assert told is not None
        first, second, unchecked = (Peer(f"127.0.0.{number}:80", 1, None) for number in (1, 2, 3))
        first.checks = second.checks = PassiveChecks("u", {}, (1, 1, 1, 1))
        for peer, kind in (
            (first, TCP_FAILURE),
            (first, TCP_FAILURE),
            (second, SUCCESS),
            (first, SUCCESS),
            (first, TCP_FAILURE),
            (unchecked, TCP_FAILURE),
        ):
            told(peer, kind)
        self.assertEqual(self.said(), [])
        self.clock.advance(1)
        runs = [[TCP_FAILURE, 2], [SUCCESS, 1], [TCP_FAILURE, 1]]
        reports = [["u", "127.0.0.1:80", runs], ["u", "127.0.0.2:80", [[SUCCESS, 1]]]]
        self.assertEqual(self.said(), [{"type": "health", "reports": reports}])
        self.clock.advance(1)
        self.assertEqual(self.said(), [])

    def test_reopen(self) -> None:
        """Both logs go on in new files."""
        self.load()
        self.tell("reopen")
        self.assertEqual((self.plane.reopened, self.log.reopened), (1, 1))
