"""What the gateway tells of itself: ``exchange.gateway``.

Plain values and functions, so that a plugin under test needs no gateway. The data path only reads them. What does I/O for
plugins is asked of a `kongtwist.core.chain.host.Host`, which is these facts and more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from .counters import Counters
from .error_lines import without_query

__all__ = ["GatewayFacts", "random_id"]


def random_id() -> str:
    """A random UUID (RFC 9562 version 4) as text."""
    return str(uuid4())


class GatewayFacts:
    """Facts of one gateway in one process.

    Args:
        counters: the node's counters and rate-limit windows.
        now: epoch seconds.
        report: takes the text of a failure (with traceback) and logs it at error level; must not raise. For what
            concerns a request `Exchange.report` says which.
        conf: the configuration, read-only; None where there is none (tests).
        node_id: the node's UUID.
        hostname: the machine's name.
        worker_pid: process id of this worker.
        body_limit: bytes of a request body that may be held in memory for plugins (``client_body_buffer_size``).
        grpc_message_size: bytes of the largest gRPC message that is held to be translated (``plugin_grpc_message_size``).
        shown: a request target as it may stand in a log, credentials masked; without the whole query by default.
        new_id: a new UUID as text.
        workspace_id: id of the workspace that all rows are in; None where there is none (tests).
        instrumentations: what spans are noted of (``tracing_instrumentations``; `entities.trace_fields.INSTRUMENTATIONS`).
        sampling_rate: the share of traces that is sampled, where a plugin does not say (``tracing_sampling_rate``).
        host_ports: ports of ours -> those that clients connect to in their place (``port_maps``).
    """

    def __init__(
        self,
        *,
        counters: Counters,
        now: Callable[[], float],
        report: Callable[[str], None],
        conf: Any = None,
        node_id: str = "",
        hostname: str = "",
        worker_pid: int = 0,
        body_limit: int = 8192,
        grpc_message_size: int = 4194304,
        shown: Callable[[bytes], bytes] = without_query,
        new_id: Callable[[], str] = random_id,
        workspace_id: str | None = None,
        instrumentations: frozenset[str] = frozenset(),
        sampling_rate: float = 0.01,
        host_ports: Mapping[int, int] | None = None,
    ) -> None:
        self.counters = counters
        self.now = now
        self.report = report
        self.conf = conf
        self.node_id = node_id
        self.hostname = hostname
        self.worker_pid = worker_pid
        self.body_limit = body_limit
        self.grpc_message_size = grpc_message_size
        self.shown = shown
        self.new_id = new_id
        self.workspace_id = workspace_id
        self.instrumentations = instrumentations
        self.sampling_rate = sampling_rate
        self.host_ports = host_ports or {}
