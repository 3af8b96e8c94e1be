"""`GatewayResource`: whose turn it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.limits import Limits
from kongtwist.proxy.mount import GatewayResource


class Exchange:
    """A request of a Site's client, as far as its turn matters."""

    def __init__(self, behind: bool = False) -> None:
        self.open, self.backlogged, self.closing = True, behind, False
        self.begun = False
        self.request = SimpleNamespace()
        self.go_on: Any = None

    def get_header(self, name: bytes) -> None:
        """It has none."""

    def abort(self) -> None:
        self.open = False

    def when_taken(self, go_on: Any) -> None:
        self.go_on = go_on


class TurnTests(SynchronousTestCase):
    """A Site gives requests as fast as they are answered."""

    def setUp(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.served: list[Any] = []
        route = SimpleNamespace(serve=self.served.append)
        reactor = SimpleNamespace(callLater=lambda seconds, *call: self.calls.append(call))
        context = SimpleNamespace(reactor=reactor, limits=Limits())
        gateway: Any = SimpleNamespace(context=context, tree=SimpleNamespace(find=lambda exchange: route))
        self.resource = GatewayResource(gateway)

    def turn(self) -> None:
        """What a reactor does in a turn: calls made meanwhile have the next one."""
        calls, self.calls = self.calls, []
        for call, *arguments in calls:
            call(*arguments)

    def give(self, exchange: Any) -> None:
        self.resource._in_turn(exchange)

    def test_turns(self) -> None:
        """In a turn of the reactor so many are served; the others follow in order, one turn after the other."""
        exchanges = [Exchange() for _ in range(70)]
        for each in exchanges:
            self.give(each)
        self.assertEqual(self.served, exchanges[:32])
        self.turn()
        self.assertEqual(self.served, exchanges[:64])
        self.turn()
        self.assertEqual(self.served, exchanges)
        self.turn()
        self.assertEqual(self.calls, [])

    def test_gone(self) -> None:
        """Who went while others had their turn is not served."""
        exchanges = [Exchange() for _ in range(33)]
        for each in exchanges:
            self.give(each)
        exchanges[32].open = False
        self.turn()
        self.assertEqual(self.served, exchanges[:32])

    def test_behind(self) -> None:
        """Who has not taken the answers before waits until he has."""
        exchange = Exchange(behind=True)
        self.give(exchange)
        self.assertEqual(self.served, [])
        exchange.backlogged = False
        exchange.go_on(exchange)
        self.assertEqual(self.served, [exchange])

    def test_closing(self) -> None:
        """What comes on a connection that the Site has closed, which TLS lets through, is not served."""
        exchange = Exchange()
        exchange.closing = True
        self.give(exchange)
        self.assertEqual((self.served, exchange.open), ([], False))
