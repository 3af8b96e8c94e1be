"""A gateway: configuration, storage, publishing, the data path and the Admin API put together.

`Gateway` is a Twisted service without globals; a program may have several. Under ``twistd kongtwist`` the node's service
(tap.py) hands it open sockets; embedded, it listens nowhere and its `RouteTree` serves a `GatewayResource`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web.resource import Resource

from .. import WORKSPACE_ID
from ..admin.admin_resource import AdminResource, StatusResource
from ..config.load import Conf, ConfError, Listen
from ..core.chain.host import Host
from ..core.counters import Counters
from ..core.snapshot.notes import ROUTER_KINDS
from ..core.snapshot.snapshot import Snapshot
from ..entities import registry
from ..entities.route_faults import unfit_routes
from ..entities.vaults import ENV_VAULT, environment_vault
from ..net.listeners import DescriptorRoom, Opened, raise_descriptor_limit
from ..net.server_tls import contexts_for
from ..observability.error_log import notice
from ..observability.shared_counters import LocalCounters, SharedCounters
from ..proxy.context import ProxyContext
from ..proxy.tree import RouteTree
from ..storage.base import BaseStorage, StorageError
from ..storage.memory import MemoryStorage
from ..storage.open import storage_for
from ..storage.tallies import Tallies
from .admin_calls import AdminCalls
from .admin_plane import AdminPlane
from .background_work import BackgroundWork
from .changeover import RELOAD_WAIT, Changeover
from .configuration_advice import Advice
from .data_plane import DataPlane, Faults
from .health_keeper import HealthKeeper
from .health_probes import HealthProbes
from .lua_engines import lua_engine
from .plugin_loader import load_plugins
from .plugin_services import PluginServices, own_services
from .publisher import Publisher, overlaid
from .rows_access import Answers, RowsAccess
from .snapshot_builder import give_back
from .state import NodeState
from .worker_supervisor import Workers, begin_message, sockets_of

if TYPE_CHECKING:
    from ..core.peer import Peer
    from ..demo import Demo
    from .declarative_loader import DeclarativeLoader
    from .take_over import Successor

__all__ = ["Gateway", "GatewayFailed"]

_log = Logger(namespace="kongtwist.gateway")

EXPIRY_INTERVAL = 60.0
"""Seconds between two looks for rows whose time to live is over (a credential that is over is refused at once)."""


class GatewayFailed(Exception):
    """The gateway cannot start. Its text is for the operator: what is wrong, where, and what to do."""


class Gateway(MultiService):
    """One gateway.

    Args:
        reactor: the reactor.
        conf: the configuration.
        sockets: open listeners to serve; none when embedded.
        demo: add the demo's upstreams and routes, which are never stored.
        fatal: told, with a sentence, when the gateway cannot start or go on.
        storage: a back end of the embedder's; by default the one the configuration names.
        successor: this process takes over from another one of the node.

    Attributes:
        ready: fires when the first snapshot serves; fails with `GatewayFailed` where the gateway cannot start.
        stopped: fires when the gateway has stopped.
        health: of the targets.
        plane: the data path of this process; None in the parent of several workers.
        plugin_services: what plugins are given of the node, in its only process.
        sockets: the open listeners.
        answers: does what plugins ask for in the process that has the database.
        changeover: hands over to another process, or takes over from one.

    Raises:
        ConfError: something configured cannot be used.
        PluginLoadError: a plugin cannot be loaded.
    """

    def __init__(
        self,
        reactor: Any,
        conf: Conf,
        *,
        sockets: Sequence[Opened] = (),
        demo: bool = False,
        fatal: Callable[[str], None] | None = None,
        storage: BaseStorage | None = None,
        successor: Successor | None = None,
    ) -> None:
        super().__init__()
        self._reactor, self.conf, self.sockets = reactor, conf, list(sockets)
        self._fatal = fatal or (lambda sentence: _log.critical("{sentence}", sentence=sentence))
        self.plugins = load_plugins(conf.plugins)
        self.registry = registry(self.plugins, conf.router_flavor)
        self.node_id = conf.node_id or _kept_node_id(conf.prefix if self.sockets else None)
        self.storage = storage or storage_for(conf, self.registry, reactor)
        self._successor = successor
        if successor is not None:
            self.storage.inherit(successor.take_lock())
        self.storage.long_work = self._long_work = BackgroundWork(reactor)
        self.declarative_loader: DeclarativeLoader | None = None
        if isinstance(self.storage, MemoryStorage):
            from .declarative_loader import DeclarativeLoader  # readers of YAML, for who has a use for them

            self.declarative_loader = DeclarativeLoader(
                reactor, self.storage, self.registry, conf.plugins, time.time, self._long_work, conf.router_flavor
            )
        self._faults = Faults()
        self._advice = Advice(reactor, silent=ROUTER_KINDS if conf.router_flavor == "traditional" else frozenset())
        self._tallies = Tallies(
            reactor, self.storage.tally, self.storage.tally_timeout, conf.plugin_max_pending_tallies
        )
        self.answers = Answers(self.storage, lambda: self.publisher.sent(), self._tallies)
        if successor is not None:
            successor.answer = self.answers.answer
        self.plugin_services: PluginServices | None = None
        self._admin_calls: AdminCalls | None = None
        self.counters: Counters
        self.plane: DataPlane | None = None
        self.workers: Workers | None = None
        if self.sockets and conf.nginx_worker_processes > 1:
            self.counters = SharedCounters.create(conf.nginx_worker_processes)
            self.workers = self._make_workers(self.counters)
        else:
            self.counters = LocalCounters()
            self.plane = DataPlane(reactor, conf, self.counters, self.node_id, self._own_services(self.counters))
        self._probes = HealthProbes(reactor, conf)
        self.health = HealthKeeper(reactor, self._probes, self._tell_health)
        if self.plane is not None:
            self.plane.report_health(self.health.report)
        lifetimes = None if self.plane is None else self.plane.lifetimes
        self.publisher = Publisher(reactor, self.plugins, self._serve, lifetimes, conf.router_flavor)
        if self.workers is not None:
            self.workers.answer = self.answers.answer
            self.workers.hear = self.health.hear
            self.publisher.followers.append(self.workers)
        self.demo = self._make_demo() if demo else None
        self.ready: Deferred[None] = Deferred()
        self.stopped: Deferred[None] = Deferred()
        self.state = NodeState(self, reactor)
        self.changeover = Changeover(self, reactor)
        self._room = DescriptorRoom(raise_descriptor_limit()) if self.plane is None else self.plane.room
        self.admin_plane = AdminPlane(reactor, conf, self.sockets, self.registry)
        self._starting: Deferred[None] | None = None
        self._expiring: Any = None
        self._expiry: Deferred[Any] | None = None

    # -- making --------------------------------------------------------------------------------------------------------

    def _make_demo(self) -> Demo:
        from ..demo import Demo  # its servers are loaded only where they are wanted

        proxy, admin = self._reached("proxy_listen"), self._reached("admin_listen")
        kept = self.conf.path("demo_ports.json") if self.sockets else None
        grpc, kafka = "grpc-web" in self.plugins, self.plugins.keys() >= {"kafka-upstream", "kafka-consume"}
        demo = Demo(self._reactor, self.registry, proxy, admin, kept, grpc, kafka)
        demo.setServiceParent(self)
        return demo

    def _reached(self, name: str) -> str:
        """Host and port at which a browser on this machine reaches a listener."""
        for each in self.sockets:
            if each.name == name and not each.listen.ssl and each.port:
                return f"localhost:{each.port}"
        return "localhost"

    def _make_workers(self, counters: SharedCounters) -> Workers:
        return Workers(
            self._reactor,
            counters,
            sockets_of(self.sockets, self.conf.nginx_worker_processes),
            lambda: begin_message(self.conf, self.node_id, self.sockets, self.state.console),
            lambda: self.snapshot,
            self._fatal,
            max_series=self.conf.metrics_max_series,
        )

    def _own_services(self, counters: LocalCounters) -> PluginServices:
        self.plugin_services = own_services(
            self._reactor, self.conf, self.answers, lambda: self.publisher.snapshot, self._tallies, counters
        )
        return self.plugin_services

    @property
    def listening(self) -> list[tuple[str, Listen, int]]:
        """Property, address and real port of each open listener."""
        return list(dict.fromkeys((each.name, each.listen, each.port) for each in self.sockets))

    @property
    def tree(self) -> RouteTree:
        """The routes, for a `GatewayResource`; a gateway with several workers has none."""
        return self._own_plane().tree

    @property
    def context(self) -> ProxyContext:
        """The data path's facilities, for a `GatewayResource`."""
        return self._own_plane().context

    def _own_plane(self) -> DataPlane:
        if self.plane is None:
            raise RuntimeError(
                "this gateway serves by worker processes and cannot be mounted; set nginx_worker_processes = 1"
            )
        return self.plane

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that serves; only after `ready`."""
        assert self.publisher.snapshot is not None
        return self.publisher.snapshot

    def _serve(self, snapshot: Snapshot) -> None:
        if self.plane is not None:
            self.plane.publish(snapshot)
        else:
            self._faults.tell(snapshot.faults)
        self._advice.tell(snapshot.notes)
        self.health.follow(snapshot)

    def _tell_health(self, upstream: str, peer: Peer) -> None:
        """A target of an upstream is in another state."""
        if self.plane is not None:
            self.plane.target_changed(peer)
        if self.workers is not None:
            self.workers.mark(upstream, peer.name, peer.state)  # type: ignore[unused-awaitable]

    # -- starting ------------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Open storage, build the first snapshot, then accept connections."""
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        try:
            await self._open()
        except CancelledError:
            raise
        except (StorageError, ConfError) as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 - whatever stops the start is told in one sentence
            _log.failure("the gateway cannot start")
            self._fail(f"the gateway cannot start: {type(error).__name__}: {error}")
        else:
            self.ready.callback(None)

    def _fail(self, sentence: str) -> None:
        """Tell everybody who waits that it cannot start."""
        self._fatal(sentence)
        self.ready.errback(GatewayFailed(sentence))

    async def _open(self) -> None:
        successor = self._successor
        if successor is None:
            self.listen_status()
        await self.storage.open()
        if self.declarative_loader is not None:
            await self.declarative_loader.load_configured(self.conf)
        stored = self.storage.load()
        unfit = unfit_routes(stored.get("routes", {}).values(), self.conf.router_flavor)
        if unfit is not None:
            raise StorageError(unfit)
        self.publisher.begin(self._whole(stored))
        self.storage.subscribe(self.publisher.changed)
        give_back()
        if self.workers is not None:
            self.workers.held = self.workers.shared = successor is not None
            if successor is not None:
                self.workers.receive_streams(successor.streams)
            await self.workers.start()
        if successor is not None:
            await self.changeover.take_over(successor)
        elif self.plane is not None:
            self.plane.listen(self.sockets)
        self.listen_admin()
        self.expire_later()
        for line in self.demo.lines() if self.demo is not None else ():
            notice(_log, "{line}", line=line)

    def _whole(self, dataset: Any) -> Any:
        """Stored rows, and beside them those that never are: the demo's, and ``vault_env_prefix`` as a vault."""
        if self.conf.vault_env_prefix:
            dataset = overlaid(dataset, {"vaults": {ENV_VAULT: environment_vault(self.conf.vault_env_prefix)}})
        return dataset if self.demo is None else overlaid(dataset, self.demo.overlay())

    def listen_status(self) -> None:
        """Answer monitors, from the first moment on: that the node is not ready is for them to know."""
        conf, gate = self.conf, self.admin_plane.gates["status_listen"]
        facts = self.state.facts()
        status = StatusResource(
            self.storage,
            self.registry,
            facts,
            gate=gate,
            added_headers=conf.headers,
            now=time.time,
            long_work=self._long_work,
        )
        self.admin_plane.listen("status_listen", status, self._room)

    def listen_admin(self) -> None:
        """Serve the Admin API on its listeners."""
        self.admin_plane.listen("admin_listen", self.admin_resource(), self._room)
        self.admin_plane.warn()

    def admin_resource(self) -> Resource:
        """The Admin API, for an embedder to mount behind his own protection as well."""
        return AdminResource(
            self.storage,
            self.registry,
            self.state.facts(),
            gate=self.admin_plane.gates["admin_listen"],
            added_headers=self.conf.headers,
            published=self.publisher.published,
            now=time.time,
            declarations=self.declarative_loader,
            long_work=self._long_work,
            host=self._admin_host(),
        )

    def _admin_host(self) -> Host:
        """What endpoints of plugins are given in this process, which serves the Admin API and perhaps no traffic."""
        if self._admin_calls is None:
            self._admin_calls = AdminCalls(self._reactor, self.conf, self._facts_of_admin())
            self._admin_calls.facts.ask_workers = self._ask_workers  # type: ignore[method-assign]
        return self._admin_calls.facts

    async def _ask_workers(self, plugin: str, question: Any) -> list[Any]:
        """See `Host.ask_workers`."""
        if self.workers is not None:
            return await self.workers.ask(plugin, question)
        return [self.plugins[plugin].asked(question, self._own_plane().host)]

    def _facts_of_admin(self) -> Host:
        if self.plane is not None:
            return self.plane.host
        host = Host(
            counters=self.counters,
            now=time.time,
            report=lambda text: _log.error("{text}", text=text),
            conf=self.conf,
            node_id=self.node_id,
            hostname=socket.gethostname(),
            worker_pid=os.getpid(),
            workspace_id=WORKSPACE_ID,
        )
        pending = self.conf.plugin_max_pending_writes
        host.rows = RowsAccess(lambda: self.publisher.snapshot, time.time, self.answers.ask, pending)
        host.tallies = self._tallies
        host.lua = lua_engine(self.conf)
        assert isinstance(self.counters, SharedCounters)
        host.cells = self.counters.named.claim  # type: ignore[method-assign]
        return host

    # -- while it runs -------------------------------------------------------------------------------------------------

    def expire_later(self) -> None:
        """Look for rows that are over from time to time."""
        self._expiring = self._reactor.callLater(EXPIRY_INTERVAL, self._expire)

    def expire_no_more(self) -> None:
        """Leave them to another process, or to the next start."""
        if self._expiring is not None and self._expiring.active():
            self._expiring.cancel()

    def _expire(self) -> None:
        self.expire_later()
        expiry = Deferred.fromCoroutine(self._expired())
        self._expiry = expiry.addErrback(lambda failure: _log.failure("expired rows could not be deleted", failure))

    async def _expired(self) -> None:
        await self.storage.expire()
        await self.storage.expire_tallies()

    async def reload(self, conf: Conf) -> None:
        """Follow a configuration that was read again: all of it, or nothing where something is wrong with it.

        Returns when it is in effect, in all workers.

        Raises:
            ConfError: with all that is wrong; everything is as it was.
        """
        self.admin_plane.check(conf)
        if any(each.name == "proxy_listen" and each.listen.ssl for each in self.sockets):
            contexts_for(conf, "proxy_listen")
        if self.declarative_loader is not None and await self.declarative_loader.load_configured(conf):
            await self.publisher.published(RELOAD_WAIT)
            notice(_log, "the declarative configuration was read again")
        if self.plane is not None:
            self.plane.reload(conf)
        self.admin_plane.reload(conf)
        self.conf = conf
        self.state.log_level.reload(conf.log_level)
        if self.workers is not None:
            complaints = await self.workers.reload(conf)
            if complaints:
                raise ConfError(*complaints)

    def reopen_logs(self) -> None:
        """Open all log files anew."""
        self.admin_plane.reopen_logs()
        if self.plane is not None:
            self.plane.reopen_logs()
        if self.workers is not None:
            self.workers.reopen_logs()

    # -- stopping ------------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Begin to drain: ``/status/ready`` answers 503, and each connection ends behind its answer; new ones are still
        accepted, streams go on."""
        self.state.drain()
        self.state.leaving = True
        if self.plane is not None:
            self.plane.leave()
        if self.workers is not None:
            self.workers.leave()

    def finish(self) -> Deferred[None]:
        """Go on draining: accept no more, close idle connections. Fires when all requests and streams have ended by
        themselves, however long that takes; `stopService` ends them."""
        if self.workers is not None:
            return self.workers.finish()
        return Deferred.fromCoroutine(self._own_plane().finish())

    def stopService(self) -> Deferred[None]:
        """Stop gracefully, within ``nginx_main_worker_shutdown_timeout``."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._starting is not None and not self._starting.called:
            self._starting.cancel()
        self.expire_no_more()
        self.state.stop()
        self.health.stop()
        late = self.conf.nginx_main_worker_shutdown_timeout
        closing = Deferred.fromCoroutine(self.admin_plane.stop("admin_listen", late))
        if self._admin_calls is not None:
            await self._admin_calls.close(0.0)
        await self._probes.close(0.0)
        if self.plane is not None:
            await self.plane.stop(late)
        await closing
        if self.workers is not None:
            await self.workers.stop()
        await self.admin_plane.stop("status_listen", 0.0)  # monitors are told that the node drains as long as it does
        self.publisher.stop()
        self._advice.stop()
        if self.declarative_loader is not None:
            self.declarative_loader.stop()
        await _done(super().stopService())
        self._tallies.close()
        await self.storage.close()
        self._long_work.stop()
        if not self.stopped.called:
            self.stopped.callback(None)

    def abort(self) -> None:
        """End at once what a graceful stop still waits for."""
        self._advice.stop()
        self.admin_plane.abort()
        if self.plane is not None:
            self.plane.abort()
        if self.workers is not None:
            self.workers.kill()


async def _done(result: Any) -> None:
    if isinstance(result, Deferred):
        await result


def _kept_node_id(prefix: str | None) -> str:
    """The node's UUID: kept in ``<prefix>/node_id``; a new one without a prefix."""
    if prefix is None:
        return str(uuid4())
    path = os.path.join(prefix, "node_id")
    try:
        with open(path, encoding="ascii") as file:
            return str(UUID(file.read().strip()))
    except (OSError, ValueError):
        made = str(uuid4())
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(made + "\n")
    except OSError as error:
        raise ConfError(f"prefix cannot be written: {error}") from error
    return made
