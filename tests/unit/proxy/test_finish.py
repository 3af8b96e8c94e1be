"""The end of requests: what is given back, who is told, and when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.exchange import Exchange
from kongtwist.proxy.finish import Finish, NoAccessLog


class Chain:
    """Notes what is logged."""

    def __init__(self, told: list[str], in_batches: bool = True) -> None:
        self.logs = True
        self.logs_in_batches = in_batches
        self._told = told

    def run_log(self, exchange: Exchange) -> None:
        name = exchange.request_id.decode()
        self._told.append(f"log {name}")
        if name == "broken":
            raise RuntimeError("no room for a record")


class AccessLog(NoAccessLog):
    """Notes lines."""

    enabled = True

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def log(self, exchange: Exchange) -> None:
        self._told.append(f"line {exchange.request_id.decode()}")


class FinishTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.told: list[str] = []
        self.batches: list[Any] = []

    def finish(self, batches: list[Any] | None) -> Finish:
        return Finish(AccessLog(self.told), lambda exchange, answer: None, batches)

    def request(self, name: str, in_batches: bool = True) -> Exchange:
        exchange = Exchange()
        exchange.request_id, exchange.client_ip = name.encode(), "192.0.2.1"
        exchange.method, exchange.target, exchange.minor = b"GET", b"/", 1
        exchange.block = cast(Any, SimpleNamespace(host=b"a.example"))
        service = {"id": "s", "name": "s"}
        chain = Chain(self.told, in_batches)
        exchange.route = cast(Any, SimpleNamespace(chain=chain, row={"id": "r", "name": "r"}, service=service))
        exchange.held = [SimpleNamespace(let_go=lambda: self.told.append(f"closed {name}"))]
        exchange.upstream_peer = cast(Any, SimpleNamespace(let_go=lambda: self.told.append(f"target {name}")))
        return exchange

    def test_in_batches(self) -> None:
        """The target is free at once; plugins log when the round is over, and only then what they opened may close."""
        finish = self.finish(self.batches)
        finish.finished(self.request("a"))
        finish.finished(self.request("b"))
        self.assertEqual(self.told, ["target a", "line a", "target b", "line b"])
        self.assertEqual(self.batches, [finish], "once, for all of them")
        self.told.clear()
        finish.flush()
        self.assertEqual(self.told, ["log a", "closed a", "log b", "closed b"])
        finish.finished(self.request("c"))
        self.assertEqual(self.batches, [finish, finish], "and anew in the next round")

    def test_one_that_fails(self) -> None:
        """The others are logged, and it is given back."""
        finish = self.finish(self.batches)
        for name in ("broken", "b"):
            finish.finished(self.request(name))
        self.told.clear()
        finish.flush()
        self.assertEqual(self.told, ["log broken", "closed broken", "log b", "closed b"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_at_once(self) -> None:
        """Where a plugin of its chain wants that, and on reactors that do not tell when a round is over."""
        for batches, in_batches in ((self.batches, False), (None, True)):
            self.finish(batches).finished(self.request("a", in_batches))
            self.assertEqual(self.told, ["target a", "log a", "line a", "closed a"])
            self.assertEqual(self.batches, [])
            self.told.clear()
