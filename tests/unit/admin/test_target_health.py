"""What is told of targets that are names: each address for itself (Kong 3.9.3, kong/runloop/balancer)."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.admin.endpoints.target_health import health_of, peers_by_target, without_address
from kongtwist.core.balancing.balancer import Balancer
from kongtwist.core.health import UNHEALTHY
from kongtwist.core.names import Address

from ..core.balancing.test_addresses import plain
from ..core.balancing.test_balancer import targets, upstream


class Facts:
    """Stands for the node: notes the names that are looked up for an answer."""

    def __init__(self) -> None:
        self.asked: list[AbstractSet[str]] = []

    async def unresolved(self, hosts: AbstractSet[str]) -> AbstractSet[str]:
        self.asked.append(hosts)
        return hosts & {"lost"}


class TargetHealthTests(SynchronousTestCase):
    def told(self, balancer: Balancer, number: int = 0, checked: bool = True) -> Any:
        row = balancer.targets[number]
        return health_of(row, peers_by_target(balancer).get(row["target"], ()), checked, False)

    def test_each_address(self) -> None:
        balancer = Balancer(upstream(), targets(a=10))
        balancer.move({"a": plain("10.0.0.1", "10.0.0.2")})
        balancer.put("a:8000 10.0.0.2:8000", UNHEALTHY)
        told = self.told(balancer)
        self.assertEqual(told["health"], "HEALTHY")
        self.assertEqual(told["data"], {
            "host": "a", "port": 8000, "dns": "A", "nodeWeight": 10, "weight": {"total": 20, "available": 10, "unavailable": 10},
            "addresses": [
                {"ip": "10.0.0.1", "port": 8000, "weight": 10, "health": "HEALTHY"},
                {"ip": "10.0.0.2", "port": 8000, "weight": 10, "health": "UNHEALTHY"},
            ],
        })  # fmt: skip
        balancer.put("a:8000", UNHEALTHY)
        self.assertEqual(self.told(balancer)["health"], "UNHEALTHY")

    def test_kinds_of_records(self) -> None:
        for addresses, kind in (
            (plain("::1"), "AAAA"), (plain("10.0.0.1"), "A"), ((Address("10.0.0.1", 81, 5, "x"),), "SRV"),
        ):  # fmt: skip
            balancer = Balancer(upstream(), targets(a=10))
            balancer.move({"a": addresses})
            told = self.told(balancer, checked=False)
            self.assertEqual((told["data"]["dns"], told["health"]), (kind, "HEALTHCHECKS_OFF"))
            self.assertEqual(told["data"]["addresses"][0]["health"], "HEALTHCHECKS_OFF")

    def test_without_address(self) -> None:
        """Names that the balancer was told of are not looked up."""
        balancer = Balancer(upstream(), targets(a=1, b=1, c=1, lost=1))
        balancer.move({"a": plain("10.0.0.1"), "b": ()})
        facts = Facts()
        asked = without_address(facts, balancer, [row["target"] for row in balancer.targets])  # type: ignore[arg-type]
        lost = self.successResultOf(Deferred.fromCoroutine(asked))
        self.assertEqual((lost, facts.asked), ({"b:8000", "lost:8000"}, [{"c", "lost"}]))
