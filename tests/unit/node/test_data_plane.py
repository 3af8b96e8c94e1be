"""A data plane stops: what its requests have to tell comes before their plugins close."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.config.load import Conf
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Exchange
from kongtwist.node.data_plane import DataPlane
from kongtwist.node.plugin_services import PluginServices
from kongtwist.observability.plugin_metrics import Metrics
from kongtwist.observability.process_figures import ProcessFigures
from kongtwist.observability.shared_counters import LocalCounters
from kongtwist.storage.tallies import Tallies


class Reactor(MemoryReactorClock):
    """One that tells when a round is over, as ours."""

    def __init__(self) -> None:
        super().__init__()
        self.to_flush_last: list[Any] = []

    def callFromThread(self, callable: Any, *args: Any, **kwargs: Any) -> None:
        self.callLater(0, callable, *args, **kwargs)


class StopTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        counters, metrics = LocalCounters(), Metrics(10)
        nobody: Any = None
        tallies = Tallies(self.reactor, nobody, 1.0, 10)
        figures = ProcessFigures(self.reactor, metrics, 0)
        services = PluginServices(nobody, tallies, counters.named, metrics, figures)
        conf = Conf({"prefix": self.mktemp(), "proxy_access_log": "off", "admin_listen": "off"})
        self.plane = DataPlane(self.reactor, conf, counters, "0" * 32, services)

    def test_requests_that_ended_just_now(self) -> None:
        """The last requests end, or are cut, in the round in which plugins close: they are logged before."""
        told: list[str] = []
        context = self.plane.context

        class Connection:
            """Ends as soon as it is cut."""

            def drain(self) -> None:
                """It is busy."""

            def cut(self) -> None:
                context.connections.discard(self)
                chain = SimpleNamespace(logs=True, logs_in_batches=True, run_log=lambda exchange: told.append("logged"))
                exchange = Exchange()
                exchange.route = cast(Any, SimpleNamespace(chain=chain))
                context.finished(exchange)

        class Telling(Plugin):
            name = "telling"

            def close(self, conf: Any) -> None:
                told.append("closed")

        self.plane.lifetimes.open(Telling(), None, {"name": "telling", "id": "1"})
        context.connections.add(Connection())
        stopping = Deferred.fromCoroutine(self.plane.stop(0.0))
        self.reactor.pump([0.1] * 10)
        self.successResultOf(stopping)
        self.assertEqual(told, ["logged", "closed"])
