"""What a process that serves gives plugins of the node: rows, counters of all nodes, and what its workers share.

The only process of a gateway asks its own storage; a worker asks its parent over the pair.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..config.load import Conf
from ..core.address_caps import AddressCounts
from ..core.counters import Counters
from ..core.grpc.call_counts import CallCounts
from ..core.snapshot.snapshot import Snapshot
from ..core.stream_registry import StreamRegistry
from ..observability.plugin_metrics import Metrics
from ..observability.process_figures import ProcessFigures
from ..observability.shared_cells import LocalCells
from ..storage.open import tally_timeout
from ..storage.tallies import Tallies
from .rows_access import Answers, Questions, RowsAccess

__all__ = ["PluginServices", "own_services", "worker_services"]


class PluginServices:
    """The node's part of a `kongtwist.core.chain.host.Host`.

    Args:
        rows: the configuration's rows.
        tallies: counters of all nodes.
        cells: integers that the node's workers share; to be claimed and released by name.
        metrics: figures for ``/metrics``.
        process: those of this process.

    Attributes:
        addresses: what this process counts of client addresses.
        calls, streams: counts of gRPC calls, and streams, with which those of a further `DataPlane` are counted together.
    """

    def __init__(
        self, rows: RowsAccess, tallies: Tallies, cells: LocalCells, metrics: Metrics, process: ProcessFigures
    ) -> None:
        self.rows, self.tallies, self.cells, self.metrics, self.process = rows, tallies, cells, metrics, process
        self.addresses = AddressCounts()
        self.calls: CallCounts | None = None
        self.streams: StreamRegistry | None = None

    def follow(self, conf: Conf) -> None:
        """Keep to the bounds of a configuration that was read again. What is counted goes on."""
        self.rows.max_pending = conf.plugin_max_pending_writes
        self.tallies.max_waiting = conf.plugin_max_pending_tallies
        self.metrics.max_series = conf.metrics_max_series

    def close(self) -> None:
        """Refuse who still counts; called when no plugin is open any more."""
        self.tallies.close()


def own_services(
    reactor: Any,
    conf: Conf,
    answers: Answers,
    snapshot: Callable[[], Snapshot | None],
    tallies: Tallies,
    counters: Counters,
) -> PluginServices:
    """Those of a gateway in one process."""
    rows = RowsAccess(snapshot, time.time, answers.ask, conf.plugin_max_pending_writes, conf.database)
    metrics = Metrics(conf.metrics_max_series)
    return PluginServices(rows, tallies, _cells(counters), metrics, ProcessFigures(reactor, metrics, 0))


def worker_services(
    reactor: Any,
    conf: Conf,
    questions: Questions,
    snapshot: Callable[[], Snapshot | None],
    counters: Counters,
    row: int,
) -> PluginServices:
    """Those of a worker.

    Args:
        reactor: for turns and time limits.
        conf: the configuration.
        questions: go to its parent.
        snapshot: the newest.
        counters: the node's.
        row: the worker's number.
    """

    async def exchange(added: Any, wanted: Any) -> tuple[list[float], list[float]]:
        values, found = await questions.ask("tally", added, wanted)
        return values, found

    rows = RowsAccess(snapshot, time.time, questions.ask, conf.plugin_max_pending_writes, conf.database)
    tallies = Tallies(reactor, exchange, tally_timeout(conf), conf.plugin_max_pending_tallies)
    metrics = Metrics(conf.metrics_max_series)
    return PluginServices(rows, tallies, _cells(counters), metrics, ProcessFigures(reactor, metrics, row))


def _cells(counters: Any) -> LocalCells:
    named: LocalCells = counters.named
    return named
