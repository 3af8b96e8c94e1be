"""Which targets are probed when, and who is told what of them."""

from __future__ import annotations

from random import Random
from typing import Any
from uuid import uuid4

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.clients.probes import Finding
from kongtwist.core.health import BAD_STATUS, HEALTHY, MOSTLY_HEALTHY, SUCCESS, TCP_FAILURE, UNHEALTHY, ActiveChecks
from kongtwist.core.names import Address
from kongtwist.core.peer import Peer
from kongtwist.core.snapshot.snapshot import Snapshot
from kongtwist.core.storage_contract import Change
from kongtwist.entities.upstreams import UPSTREAMS
from kongtwist.node.health_keeper import HealthKeeper

Row = dict[str, Any]


def upstream(number: int = 1, **active: Any) -> Row:
    """An upstream that probes and listens to its traffic."""
    healthy, unhealthy = {"interval": 10, "successes": 1}, {"interval": 1, "http_failures": 2, "tcp_failures": 1}
    checks = {
        "active": {"healthy": healthy, "unhealthy": unhealthy, **active},
        "passive": {"healthy": {"successes": 1}, "unhealthy": {"tcp_failures": 2}},
    }
    row = UPSTREAMS.insert({"name": f"up{number}", "healthchecks": checks}, now=1.0, new_id=lambda: str(uuid4()))
    return {**row, "id": f"u{number}"}


def target(number: int, weight: int = 1, of: int = 1) -> Row:
    name = f"127.0.0.{number}:80"
    return {
        "id": f"t{of}.{number}",
        "target": name,
        "weight": weight,
        "created_at": number,
        "upstream": {"id": f"u{of}"},
    }


class Probes:
    """Stands for what probes: notes targets and is told what to find."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Deferred[Finding]]] = {}
        self.asked: list[tuple[str, tuple[str, str]]] = []
        self.cancelled: list[str] = []

    async def probe(self, peer: Peer, checks: ActiveChecks, certificate: tuple[str, str]) -> Finding:
        self.asked.append((peer.name, certificate))
        answer: Deferred[Finding] = Deferred()
        self.waiting.setdefault(peer.name, []).append(answer)
        try:
            return await answer
        except CancelledError:
            self.cancelled.append(peer.name)
            raise

    def find(self, number: int, kind: int | None) -> None:
        self.waiting[f"127.0.0.{number}:80"].pop(0).callback(Finding(kind, "as told"))

    def taken(self) -> list[int]:
        """Numbers of the targets that were asked since."""
        asked, self.asked = self.asked, []
        return [int(name.split(":")[0].rsplit(".", 1)[1]) for name, _ in asked]


class KeeperTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.probes = Probes()
        self.told: list[tuple[str, str, int]] = []
        self.keeper = HealthKeeper(self.clock, self.probes, self.tell, Random(1))
        self.snapshot = Snapshot({})

    def tell(self, upstream: str, peer: Peer) -> None:
        self.told.append((upstream, peer.name, peer.state))

    def change(self, *rows: Row, gone: bool = False) -> None:
        """Rows are new, changed or gone."""
        changes = []
        for row in rows:
            entity = "targets" if "target" in row else "certificates" if "cert" in row else "upstreams"
            old = self.snapshot.rows.get(entity, {}).get(row["id"])
            if gone:
                changes.append(Change("delete", entity, None, old))
            else:
                changes.append(Change("update" if old else "create", entity, row, old))
        self.snapshot = self.snapshot.apply(changes)
        self.keeper.follow(self.snapshot)

    def peers(self, of: str = "u1") -> tuple[Peer, ...]:
        return self.snapshot.balancers[of].peers

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)

    # -- rounds --------------------------------------------------------------------------------------------------------

    def test_intervals(self) -> None:
        """Healthy targets are probed at one interval, unhealthy ones at another; those without weight never."""
        self.change(upstream(), target(1), target(2), target(3, weight=0))
        self.pass_time(9.9)
        self.assertEqual(self.probes.taken(), [])
        self.pass_time(1.2)
        self.assertEqual(self.probes.taken(), [1, 2])
        self.probes.find(1, TCP_FAILURE)
        self.probes.find(2, SUCCESS)
        self.assertEqual(self.told, [("u1", "127.0.0.1:80", UNHEALTHY)])
        self.pass_time(3)
        self.assertEqual(self.probes.taken(), [1])  # its first round is not answered
        self.probes.find(1, None)
        self.pass_time(1)
        self.assertEqual(self.probes.taken(), [1])
        self.probes.find(1, SUCCESS)
        self.assertEqual(self.told[1:], [("u1", "127.0.0.1:80", HEALTHY)])
        self.pass_time(4)
        self.assertEqual(self.probes.taken(), [])
        self.pass_time(4)
        self.assertEqual(self.probes.taken(), [1, 2])

    def test_concurrency(self) -> None:
        """So many at a time as configured; each is followed by the next of its share."""
        self.change(upstream(concurrency=2), *map(target, (1, 2, 3, 4, 5)))
        self.pass_time(12)
        self.assertEqual(self.probes.taken(), [1, 2])
        self.probes.find(2, SUCCESS)
        self.assertEqual(self.probes.taken(), [4])
        self.probes.find(1, SUCCESS)
        self.probes.find(3, SUCCESS)
        self.assertEqual(self.probes.taken(), [3, 5])

    def test_changes(self) -> None:
        """A change that does not concern probes leaves the rounds alone; targets come and go with the next one."""
        self.change(upstream(), target(1), target(2))
        self.pass_time(8)
        self.change({**upstream(), "slots": 100}, target(3))
        self.change(target(2), gone=True)
        self.pass_time(3.5)
        self.assertEqual(self.probes.taken(), [1, 3])
        self.change(target(1), gone=True)
        self.probes.find(1, TCP_FAILURE)
        self.probes.find(3, BAD_STATUS)
        self.assertEqual(self.told, [("u1", "127.0.0.3:80", MOSTLY_HEALTHY)])

    def test_other_checks(self) -> None:
        """Probes of another kind begin anew; those under way are ended."""
        self.change(upstream(), target(1))
        self.pass_time(11.5)
        self.change(upstream(http_path="/other"))
        self.assertEqual((self.probes.taken(), self.probes.cancelled), ([1], ["127.0.0.1:80"]))
        self.pass_time(9)
        self.assertEqual(self.probes.taken(), [])
        self.pass_time(3)
        self.assertEqual(self.probes.taken(), [1])

    def test_ends(self) -> None:
        """With its upstream a probe ends; with the last upstream nothing is left, nor when the node stops."""
        self.change(upstream(), target(1), upstream(2), target(2, of=2))
        self.pass_time(11.5)
        self.change(upstream(), target(1), gone=True)
        self.assertEqual((self.probes.cancelled, len(self.keeper)), (["127.0.0.1:80"], 1))
        self.change(upstream(2, healthy={"interval": 0}, unhealthy={"interval": 0}))
        self.assertEqual((len(self.keeper), self.clock.getDelayedCalls()), (0, []))
        self.change(upstream(2))
        self.pass_time(11.5)
        self.keeper.stop()
        self.assertEqual((len(self.keeper), self.clock.getDelayedCalls()), (0, []))
        self.assertEqual(self.probes.cancelled, ["127.0.0.1:80", "127.0.0.2:80", "127.0.0.2:80"])
        self.change(upstream(3), target(1, of=3))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_fault(self) -> None:
        """A probe that fails of itself says nothing, and the others of its share follow."""
        self.change(upstream(concurrency=1), target(1), target(2))
        self.pass_time(11.5)
        self.probes.waiting["127.0.0.1:80"].pop().errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.probes.taken(), self.told), ([1, 2], []))

    def test_certificate(self) -> None:
        """The certificate of the upstream is shown, also a renewed one."""
        self.change({"id": "c", "cert": "C", "key": "K"})
        self.change({**upstream(), "client_certificate": {"id": "c"}}, target(1), upstream(2), target(2, of=2))
        self.pass_time(11.5)
        first, second = "127.0.0.1:80", "127.0.0.2:80"
        self.assertEqual(sorted(self.probes.asked), [(first, ("C", "K")), (second, ("", ""))])
        self.probes.asked.clear()
        self.change({"id": "c", "cert": "D", "key": "L"})
        self.assertEqual(self.probes.cancelled, [first])
        self.pass_time(11.5)
        self.assertEqual(self.probes.asked, [(first, ("D", "L"))])

    # -- reports -------------------------------------------------------------------------------------------------------

    def test_reports(self) -> None:
        """What workers' traffic says counts in its order; each new state is told once, with the last of a message."""
        self.change(upstream(), target(1), target(2))
        first = "127.0.0.1:80"
        self.keeper.hear("u1", first, [[TCP_FAILURE, 1], [SUCCESS, 1], [TCP_FAILURE, 1]])
        self.assertEqual(self.told, [("u1", first, MOSTLY_HEALTHY)])
        self.keeper.hear("u1", first, [[TCP_FAILURE, 1000]])
        self.keeper.hear("u1", first, [[TCP_FAILURE, 1000]])
        self.assertEqual(self.told[1:], [("u1", first, UNHEALTHY)])
        self.keeper.hear("u1", first, [[SUCCESS, 1], [TCP_FAILURE, 2]])
        self.assertEqual(self.told[2:], [])
        for upstream_id, name in (("u2", first), ("u1", "127.0.0.9:80")):
            self.keeper.hear(upstream_id, name, [[TCP_FAILURE, 5]])
        self.assertEqual([peer.state for peer in self.peers()], [UNHEALTHY, HEALTHY])

    def test_addresses_of_a_name(self) -> None:
        """Each has a health of its own; those that come are probed, those that go are not."""
        row = {**target(1), "target": "a.test:80"}
        self.change(upstream(), row)
        balancer = self.snapshot.balancers["u1"]
        found = [Address(f"10.0.0.{number}", None, None, "a.test") for number in (1, 2, 3)]
        balancer.move({"a.test": tuple(found[:2])})
        self.keeper.moved("u1")
        self.keeper.hear("u1", "a.test:80 10.0.0.1:80", [[TCP_FAILURE, 2]])
        self.assertEqual([peer.state for peer in balancer.peers], [UNHEALTHY, HEALTHY])
        self.assertEqual(self.told, [("u1", "a.test:80", UNHEALTHY)])
        self.pass_time(11.5)
        probed = len(self.probes.asked)
        self.assertEqual(probed, 2, "one of the healthy, one of the unhealthy")
        balancer.hear("a.test:80 10.0.0.3:80", UNHEALTHY)
        balancer.move({"a.test": tuple(found[1:])})
        self.told.clear()
        self.keeper.moved("u1")
        self.assertEqual(self.told, [("u1", "a.test:80", UNHEALTHY)], "who looks names up for himself has to know")
        self.keeper.moved("u9")
        self.assertEqual(
            [each.target for each in self.keeper.states()], ["a.test:80 10.0.0.2:80", "a.test:80 10.0.0.3:80"]
        )

    def test_addresses_of_a_name_made_again(self) -> None:
        """What is remembered of addresses waits until they are known again."""
        row = {**target(1), "target": "a.test:80"}
        self.change(upstream(), row)
        found = tuple(Address(f"10.0.0.{number}", None, None, "a.test") for number in (1, 2))
        self.snapshot.balancers["u1"].move({"a.test": found})
        self.keeper.hear("u1", "a.test:80 10.0.0.1:80", [[TCP_FAILURE, 2]])
        self.change(row, upstream(), gone=True)
        self.change({**upstream(), "id": "u7"})
        self.change({**row, "id": "t7", "upstream": {"id": "u7"}})
        self.snapshot.balancers["u7"].move({"a.test": found})
        self.assertEqual([peer.state for peer in self.peers("u7")], [UNHEALTHY, HEALTHY])

    def test_own_traffic(self) -> None:
        """The traffic of this process counts at once."""
        self.change(upstream(), target(1))
        (peer,) = self.peers()
        self.keeper.report(peer, TCP_FAILURE)
        self.keeper.report(peer, TCP_FAILURE)
        self.assertEqual([state for _, _, state in self.told], [MOSTLY_HEALTHY, UNHEALTHY])
        self.keeper.report(Peer("127.0.0.1:80", 1, None), TCP_FAILURE)
        self.assertEqual(len(self.told), 2)

    def test_made_again(self) -> None:
        """The unhealthy targets of a deleted upstream are unhealthy under its name for some minutes; others begin healthy."""
        for seconds, state in ((299.0, UNHEALTHY), (301.0, HEALTHY)):
            self.change(upstream(), target(1), target(2))
            self.keeper.hear("u1", "127.0.0.1:80", [[TCP_FAILURE, 2]])
            self.change(target(1), target(2), upstream(), gone=True)
            self.told.clear()
            self.pass_time(seconds)
            self.change({**upstream(), "id": "u7"})
            self.change(target(1, of=7), target(2, of=7))
            self.clock.advance(0)
            self.assertEqual([peer.state for peer in self.peers("u7")], [state, HEALTHY])
            self.assertEqual(self.told, [("u7", "127.0.0.1:80", state)] if state else [])
            self.keeper.hear("u7", "127.0.0.1:80", [[SUCCESS, 1]])
            self.change(target(1, of=7), target(2, of=7), {**upstream(), "id": "u7"}, gone=True)

    def test_states(self) -> None:
        """All targets of all upstreams, as metrics tell of them."""
        off = UPSTREAMS.insert({"name": "off"}, now=1.0, new_id=lambda: str(uuid4()))
        self.change(upstream(), target(1), target(2, weight=0), {**off, "id": "u2"}, target(3, of=2))
        self.keeper.hear("u1", "127.0.0.1:80", [[TCP_FAILURE, 2]])
        told = [(each.name, each.target, each.weight, each.checked, each.state) for each in self.keeper.states()]
        self.assertEqual(
            sorted(told, reverse=True),
            [
                ("up1", "127.0.0.2:80", 0, True, HEALTHY),
                ("up1", "127.0.0.1:80", 1, True, UNHEALTHY),
                ("off", "127.0.0.3:80", 1, False, HEALTHY),
            ],
        )

    def test_threshold(self) -> None:
        """What was found out while another configuration was made holds in it."""
        row = upstream()
        row["healthchecks"]["threshold"] = 60
        self.change(row, target(1), target(2))
        made = self.snapshot.apply([Change("create", "targets", target(3, weight=0), None)])
        self.keeper.hear("u1", "127.0.0.1:80", [[TCP_FAILURE, 2]])
        self.keeper.follow(made)
        self.assertIsNone(made.balancers["u1"].pick(None))
