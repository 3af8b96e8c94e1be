"""Which names are watched, and who is told of their addresses."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.balancing.balancer import Balancer
from kongtwist.core.names import Address
from kongtwist.node.address_keeper import AddressKeeper

from ..core.balancing.test_addresses import plain
from ..core.balancing.test_balancer import targets, upstream

Addresses = tuple[Address, ...]


class KnownNames:
    """Stands for the resolver: knows what it is told."""

    def __init__(self) -> None:
        self.addresses: dict[str, Addresses] = {}
        self.watched: dict[str, list[Callable[[Addresses], None]]] = {}

    def known(self, name: str) -> Addresses | None:
        return self.addresses.get(name)

    def watch(self, name: str, changed: Callable[[Addresses], None]) -> Callable[[], None]:
        self.watched.setdefault(name, []).append(changed)

        def end() -> None:
            self.watched[name].remove(changed)
            if not self.watched[name]:
                del self.watched[name]

        return end

    def change(self, name: str, addresses: Addresses) -> None:
        self.addresses[name] = addresses
        for changed in self.watched.get(name, ()):
            changed(addresses)


class AddressKeeperTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.names, self.moved = Clock(), KnownNames(), list[str]()
        self.keeper = AddressKeeper(self.clock, self.names, self.moved.append)

    def addresses(self, balancer: Balancer) -> list[str]:
        return [peer.address for peer in balancer.peers]

    def test_known_and_found_later(self) -> None:
        self.names.addresses["a"] = plain("10.0.0.1")
        one, two = Balancer(upstream(), targets(a=1, b=1)), Balancer(upstream(id="v"), targets(b=1))
        self.keeper.follow({"u": one, "v": two})
        self.assertEqual((self.addresses(one), self.moved), (["10.0.0.1", "b"], ["u"]))
        self.assertEqual({name: len(each) for name, each in self.names.watched.items()}, {"a": 1, "b": 1})
        self.names.change("b", plain("10.0.0.2"))
        self.names.change("a", ())
        self.names.change("b", plain("10.0.0.3"))
        self.assertEqual(self.addresses(one), ["10.0.0.1", "b"], "not while others are at work")
        self.clock.advance(0)
        self.assertEqual((self.addresses(one), self.addresses(two)), (["10.0.0.3"], ["10.0.0.3"]))
        self.assertEqual(sorted(self.moved), ["u", "u", "v"], "once for all that changed")

    def test_configurations_change(self) -> None:
        one = Balancer(upstream(), targets(a=1, b=1))
        self.keeper.follow({"u": one})
        self.names.change("a", plain("10.0.0.1"))
        two = Balancer(upstream(), targets(a=1, c=1), one)
        self.keeper.follow({"u": two})
        self.assertEqual(self.addresses(two), ["10.0.0.1", "c"], "news on their way are not lost")
        self.assertEqual((set(self.names.watched), len(self.keeper)), ({"a", "c"}, 2))
        self.clock.advance(0)
        self.assertEqual(self.addresses(two), ["10.0.0.1", "c"])
        self.names.change("c", plain("10.0.0.3"))
        self.keeper.follow({})
        self.assertEqual((self.names.watched, len(self.keeper)), ({}, 0))
        self.clock.advance(0)
        self.assertEqual(self.addresses(two), ["10.0.0.1", "c"])

    def test_a_name_that_another_upstream_has_too_is_watched_on(self) -> None:
        one, two = Balancer(upstream(), targets(a=1)), Balancer(upstream(id="v"), targets(a=1))
        self.keeper.follow({"u": one, "v": two})
        self.keeper.follow({"v": two})
        self.names.change("a", plain("10.0.0.1"))
        self.clock.advance(0)
        self.assertEqual((self.addresses(one), self.addresses(two)), (["a"], ["10.0.0.1"]))

    def test_stop(self) -> None:
        self.keeper.follow({"u": Balancer(upstream(), targets(a=1))})
        self.names.change("a", plain("10.0.0.1"))
        self.keeper.stop()
        self.assertEqual((self.names.watched, self.clock.getDelayedCalls()), ({}, []))
        self.keeper.follow({"u": Balancer(upstream(), targets(a=1))})
        self.assertEqual(self.names.watched, {})
