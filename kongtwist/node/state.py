"""What the Admin and Status APIs ask of the running node, and what they may tell it.

The node's parent (or its only process) keeps the state and tells its workers, those too that it starts later.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..admin.facts import NodeFacts, resident_bytes
from ..config.shown import configuration
from ..core.health import HEALTHY, UNHEALTHY
from ..core.long_work import Breather
from ..net.resolver import NameNotResolved, Resolver
from ..observability.error_log import notice
from ..observability.node_metrics import NodeMetrics
from .data_plane import DataPlane, limits_of
from .name_lookup import resolver_of
from .publisher import PUBLISH_WAIT
from .worker_link import Message
from .worker_supervisor import mark_message

if TYPE_CHECKING:
    from ..config.load import Conf, Listen
    from ..core.peer import Peer
    from ..core.snapshot.snapshot import Snapshot
    from ..observability.error_log import ErrorLog
    from ..storage.base import BaseStorage
    from .plugin_services import PluginServices
    from .publisher import Publisher
    from .worker_supervisor import Workers

__all__ = ["LogLevel", "NodeState"]

_log = Logger(namespace="kongtwist.admin")

RESOLVE_WAIT = 5.0
"""Seconds that the names of targets may take to be looked up for an answer about their health."""


class LogLevel:
    """The error log's level, which may be another one for a while.

    Args:
        reactor: tells the time.
        configured: the level as configured.
        put: puts a level into effect, in all processes.
    """

    def __init__(self, reactor: Any, configured: str, put: Callable[[str], None]) -> None:
        self._reactor, self._configured, self._put = reactor, configured, put
        self._back: IDelayedCall | None = None
        self.current = configured

    def change(self, level: str, seconds: float) -> None:
        """Log from ``level`` on.

        Args:
            level: one of `observability.error_log.LEVELS`.
            seconds: until the configured level holds again; 0: until the node stops or is reloaded.
        """
        self._forget()
        self._set(level)
        if seconds:
            self._back = self._reactor.callLater(seconds, self._return)

    def reload(self, configured: str) -> None:
        """The configuration was read again: its level holds."""
        self._forget()
        self._configured = configured
        self._set(configured)

    def stop(self) -> None:
        """Leave no timer behind."""
        self._forget()

    def _return(self) -> None:
        self._back = None
        self._set(self._configured)
        notice(_log, "the log level is {name} again", name=self._configured)

    def _set(self, level: str) -> None:
        self.current = level
        self._put(level)

    def _forget(self) -> None:
        if self._back is not None:
            self._back.cancel()
            self._back = None


class GatewayParts(Protocol):
    """What the state of a node rests on; a `gateway.Gateway` has it."""

    conf: Conf
    node_id: str
    plugins: Any
    counters: Any
    storage: BaseStorage
    publisher: Publisher
    plane: DataPlane | None
    workers: Workers | None
    plugin_services: PluginServices | None
    ready: Deferred[None]

    @property
    def listening(self) -> list[tuple[str, Listen, int]]: ...

    @property
    def snapshot(self) -> Snapshot: ...


class NodeState:
    """A running gateway as its Admin and Status APIs see it.

    Args:
        gateway: the gateway.
        reactor: its reactor.

    Attributes:
        error_log: the log whose level may be changed; None where the log is an embedder's.
        console: the node's lines are shown on standard output too, and its workers' with them.
        draining: whether a monitor was told, or the node itself found, that no more traffic should come.
        leaving: connections are ended behind their answers, in workers that are started from now on, too.
    """

    def __init__(self, gateway: GatewayParts, reactor: Any) -> None:
        self._gateway, self._reactor = gateway, reactor
        self.error_log: ErrorLog | None = None
        self.console = False
        self.draining = self.leaving = False
        self._resolver: Resolver | None = None
        self._metrics = (
            NodeMetrics(gateway.conf.metrics_max_series) if gateway.workers is None else gateway.workers.metrics
        )
        self._own = self._metrics.reporter()
        self.log_level = LogLevel(reactor, gateway.conf.log_level, self._put_level)
        if gateway.workers is not None:
            gateway.workers.first_messages = self.first_messages

    def facts(self) -> NodeFacts:
        """What the APIs are told."""
        gateway = self._gateway
        return NodeFacts(
            node_id=gateway.node_id,
            hostname=socket.gethostname(),
            plugins=gateway.plugins,
            configuration=lambda: configuration(gateway.conf, gateway.plugins, gateway.listening),
            counters=gateway.counters.totals,
            pids=self._pids,
            master_pid=os.getpid(),
            memory=lambda: {pid: size for pid in self._pids() if (size := resident_bytes(pid))},
            shared_memory=self._shared_memory,
            ready=self.unready,
            drain=self.drain,
            log_level=lambda: self.log_level.current,
            change_log_level=None if self.error_log is None else self.log_level.change,
            balancer=self._balancer,
            mark=self.mark,
            unresolved=self.unresolved,
            streams=bool(gateway.conf.stream_listen),
            metric_errors=lambda: self._metrics.dropped,
            plugin_metrics=self.plugin_metrics,
            timers=lambda: len(self._reactor.getDelayedCalls()),
        )

    async def plugin_metrics(self, breather: Breather) -> Iterator[tuple[str, str]]:
        """The figures of all processes that serve; workers have `PUBLISH_WAIT` seconds to tell what is new."""
        workers, services = self._gateway.workers, self._gateway.plugin_services
        if workers is not None:
            await self._at_most(workers.collect_metrics())
        elif services is not None:
            for part in services.metrics.slices():
                self._own.absorb(part)
                await breather.breathe()
        return self._metrics.pieces()

    def _pids(self) -> list[int]:
        workers = self._gateway.workers
        return [os.getpid()] if workers is None else workers.pids

    def _shared_memory(self) -> Mapping[str, tuple[int, int]]:
        """Memory that workers share: name -> (bytes in use, bytes at most)."""
        counters: Any = self._gateway.counters
        used = getattr(counters, "memory", None)
        return {} if used is None else {"kongtwist_counters": used()}

    def stop(self) -> None:
        """The gateway stops: no more traffic should come."""
        self.draining = True
        self.log_level.stop()
        if self._resolver is not None:
            self._resolver.close()

    # -- readiness -----------------------------------------------------------------------------------------------------

    def unready(self) -> str | None:
        """Why traffic should not come, in Kong's words; None when it may."""
        gateway = self._gateway
        if self.draining:
            return "draining"
        if not gateway.ready.called:
            connecting = gateway.storage.writable and not gateway.storage.reachable()
            return "failed to connect to database" if connecting else "router builds not yet complete"
        if gateway.workers is not None and not gateway.workers.ready:
            return "router builds not yet complete"
        if not gateway.storage.writable and not any(gateway.storage.load().values()):
            return "no configuration available (empty configuration present)"
        return None

    def drain(self) -> None:
        """Tell monitors that no more traffic should come; the node goes on as it does."""
        self.draining = True
        notice(_log, "draining: the node tells monitors that no more traffic should come")

    # -- log level -----------------------------------------------------------------------------------------------------

    def follow(self, conf: Conf) -> None:
        """The configuration was read again."""
        self.log_level.reload(conf.log_level)
        self._metrics.max_series = conf.metrics_max_series
        self._resolver = None  # made anew, with the limits of now

    def _put_level(self, level: str) -> None:
        if self.error_log is not None:
            self.error_log.level = level
        if self._gateway.workers is not None:
            self._gateway.workers.set_log_level(level)

    # -- targets -------------------------------------------------------------------------------------------------------

    def _balancer(self, upstream: str) -> Any:
        snapshot = self._gateway.publisher.snapshot
        return None if snapshot is None else snapshot.balancers.get(upstream)

    async def unresolved(self, hosts: AbstractSet[str]) -> AbstractSet[str]:
        """Which of these hosts have no address now, or none that could be found out within `RESOLVE_WAIT` seconds."""
        if self._resolver is None:
            conf = self._gateway.conf
            self._resolver = resolver_of(self._reactor, conf, limits_of(conf))
        lost: set[str] = set()
        asked: dict[str, Deferred[str]] = {}
        for host in hosts:
            try:
                if self._resolver.known(host) is None:
                    asked[host] = self._resolver.lookup(host).addTimeout(RESOLVE_WAIT, self._reactor)
            except NameNotResolved:
                lost.add(host)
        answers = await DeferredList(asked.values(), consumeErrors=True)
        return lost | {host for host, (found, _) in zip(asked, answers, strict=True) if not found}

    async def mark(self, upstream: str, target: str, available: bool) -> bool:
        """Let a target, or the peer with this key, be chosen or not, here and in all workers; they have `PUBLISH_WAIT` seconds to
        say that they do.

        Returns:
            whether there is such a target.
        """
        state = HEALTHY if available else UNHEALTHY
        balancer, workers, plane = self._balancer(upstream), self._gateway.workers, self._gateway.plane
        peers: Iterable[Peer] = () if balancer is None else balancer.put(target, state)
        if not peers:
            return False
        if plane is not None:
            for peer in peers:
                plane.target_changed(peer)
        if workers is not None:
            await self._at_most(workers.mark(upstream, target, state))
        return True

    async def _at_most(self, told: Deferred[None]) -> None:
        done: Deferred[None] = Deferred()
        late = self._reactor.callLater(PUBLISH_WAIT, done.callback, None)

        def served(result: object) -> object:
            if late.active():
                late.cancel()
                done.callback(None)
            return result

        self._telling = told.addBoth(served)
        await done

    def first_messages(self) -> Iterator[Message]:
        """What a worker that is started must be told: who is not quite healthy, and how much is logged."""
        snapshot = self._gateway.snapshot
        for upstream, balancer in snapshot.balancers.items():
            for peer in balancer.peers:
                if peer.state != HEALTHY:
                    yield mark_message(snapshot.version, upstream, peer.key, peer.state)
        if self.log_level.current != self._gateway.conf.log_level:
            yield {"type": "level", "level": self.log_level.current}
        if self.leaving:
            yield {"type": "leave"}
