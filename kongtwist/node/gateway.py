"""A gateway: configuration, storage, publishing, the data path and the Admin API put together.

`Gateway` is a Twisted service without globals; a program may have several. Under ``twistd kongtwist`` the node's service
(node_service.py) hands it open sockets; embedded, it listens nowhere and its `RouteTree` serves a `GatewayResource`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from .. import WORKSPACE_ID
from ..admin.admin_resource import AdminResource, StatusResource
from ..config.load import Conf, ConfError, Listen, only_live
from ..core.chain.host import Host
from ..core.counters import Counters
from ..core.snapshot.notes import ROUTER_KINDS, SESSION_KINDS
from ..core.snapshot.snapshot import Snapshot
from ..entities import Entity, registry
from ..entities.route_faults import unfit_routes
from ..entities.vaults import ENV_VAULT, own_vault
from ..net.listeners import SERVED_BY_WORKERS, DescriptorRoom, Opened, raise_descriptor_limit
from ..net.resolver import Resolver
from ..net.server_tls import contexts_for
from ..observability.error_log import notice
from ..observability.shared_counters import LocalCounters, SharedCounters
from ..proxy.context import ProxyContext
from ..proxy.tree import RouteTree
from ..storage.base import BaseStorage, StorageError
from ..storage.memory import MemoryStorage
from ..storage.open import storage_for
from ..storage.tallies import Tallies
from .address_keeper import AddressKeeper
from .admin_calls import AdminCalls
from .admin_plane import AdminPlane
from .background_work import BackgroundWork
from .changeover import Changeover
from .configuration_advice import Advice
from .data_plane import DataPlane, Faults, limits_of
from .health_keeper import HealthKeeper
from .health_probes import HealthProbes
from .lua_engines import lua_engine
from .name_lookup import resolver_of
from .plugin_loader import LoadedPlugins, load_plugins
from .plugin_services import PluginServices, own_services
from .prefix import kept_node_id
from .publisher import Publisher, overlaid
from .renewal import RELOAD_WAIT, Renewed, renew
from .rows_access import Answers, RowsAccess
from .snapshot_builder import give_back
from .state import NodeState
from .worker_supervisor import Workers, begin_message, rows_for, sockets_of

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
        opened: the open listeners.
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
        self._reactor, self.conf, self.opened = reactor, conf, list(sockets)
        self._fatal = fatal or (lambda sentence: _log.critical("{sentence}", sentence=sentence))
        self.plugins: LoadedPlugins = load_plugins(conf.plugins)
        self.registry: Mapping[str, Entity] = registry(self.plugins, conf.router_flavor)
        self.node_id = conf.node_id or kept_node_id(conf.prefix if self.opened else None)
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
        self._advice = Advice(reactor, silent=_known(conf))
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
        self._retired: dict[DataPlane, Deferred[None]] = {}
        self.workers: Workers | None = None
        if self.opened and conf.nginx_worker_processes > 1:
            self.counters = SharedCounters.create(rows_for(conf.nginx_worker_processes))
            self.workers = self._make_workers(self.counters)
        else:
            self.counters = LocalCounters()
            self.plane = DataPlane(reactor, conf, self.counters, self.node_id, self._own_services(self.counters))
        self._probes = HealthProbes(reactor, conf)
        self.health = HealthKeeper(reactor, self._probes, self._tell_health)
        self._addresses: AddressKeeper | None = None
        self._resolver: Resolver
        if self.plane is not None:
            self.plane.report_health(self.health.report)
            self.plane.addresses.moved = self.health.moved
        else:
            self._watch_names(conf)
        lifetimes = None if self.plane is None else self.plane.lifetimes
        self.publisher = Publisher(reactor, self.plugins, self.serve, lifetimes, conf.router_flavor)
        if self.workers is not None:
            self.workers.answer = self.answers.answer
            self.workers.hear = self.health.hear
            self.publisher.followers.append(self.workers)
        self.demo = self._make_demo() if demo else None
        self._switching: list[Deferred[Any]] = []
        self.stopping = False
        self.ready: Deferred[None] = Deferred()
        self.stopped: Deferred[None] = Deferred()
        self.state = NodeState(self, reactor)
        self.changeover = Changeover(self, reactor)
        self._room = DescriptorRoom(raise_descriptor_limit()) if self.plane is None else self.plane.room
        self.admin_plane = AdminPlane(reactor, conf, self.opened, self.registry)
        self._starting: Deferred[None] | None = None
        self._expiring: Any = None
        self._expiry: Deferred[Any] | None = None
        self._leaving: list[Deferred[None]] = []

    # -- making --------------------------------------------------------------------------------------------------------

    def _make_demo(self) -> Demo:
        from ..demo import Demo  # its servers are loaded only where they are wanted

        proxy, admin = self._reached("proxy_listen"), self._reached("admin_listen")
        kept = self.conf.path("demo_ports.json") if self.opened else None
        grpc, kafka = "grpc-web" in self.plugins, self.plugins.keys() >= {"kafka-upstream", "kafka-consume"}
        demo = Demo(self._reactor, self.registry, proxy, admin, kept, grpc, kafka)
        demo.setServiceParent(self)
        return demo

    def _reached(self, name: str) -> str:
        """Host and port at which a browser on this machine reaches a listener."""
        for each in self.opened:
            if each.name == name and not each.listen.ssl and each.port:
                return f"localhost:{each.port}"
        return "localhost"

    def _make_workers(self, counters: SharedCounters) -> Workers:
        return Workers(
            self._reactor,
            counters,
            sockets_of(self.opened, self.conf.nginx_worker_processes),
            lambda: begin_message(self.conf, self.node_id, self.state.console),
            lambda: self.snapshot,
            self._fatal,
            max_series=self.conf.metrics_max_series,
        )

    def _watch_names(self, conf: Conf | None) -> None:
        """Follow the names of targets here, where workers serve, by a configuration; None: no more."""
        if self._addresses is not None:
            self._addresses.stop()
            self._resolver.close()
            self._addresses = None
        if conf is not None:
            self._resolver = resolver_of(self._reactor, conf, limits_of(conf))
            self._addresses = AddressKeeper(self._reactor, self._resolver.names, self.health.moved)

    def _own_services(self, counters: LocalCounters) -> PluginServices:
        self.plugin_services = own_services(
            self._reactor, self.conf, self.answers, lambda: self.publisher.snapshot, self._tallies, counters
        )
        return self.plugin_services

    @property
    def listening(self) -> list[tuple[str, Listen, int]]:
        """Property, address and real port of each open listener."""
        return [(each.name, each.listen, each.port) for each in self.opened]

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

    def serve(self, snapshot: Snapshot) -> None:
        """Serve by ``snapshot`` from now on."""
        if self.plane is not None:
            self.plane.publish(snapshot)
        elif self._addresses is not None:
            self._faults.tell(snapshot.faults)
            self._addresses.follow(snapshot.balancers)
        self._advice.tell(snapshot.notes)
        self.health.follow(snapshot)

    def _tell_health(self, upstream: str, peer: Peer) -> None:
        """A target of an upstream is in another state."""
        for plane in self.planes:
            plane.target_changed(peer)
        if self.workers is not None:
            self.workers.mark(upstream, peer.key, peer.state)  # type: ignore[unused-awaitable]

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
        self.publisher.begin(self.whole(stored, self.conf))
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
            self.plane.listen(self.opened)
        self.listen_admin()
        self.expire_later()
        for line in self.demo.lines() if self.demo is not None else ():
            notice(_log, "{line}", line=line)

    def whole(self, dataset: Any, conf: Conf) -> Any:
        """Stored rows, and beside them those that never are: the demo's, and ``vaults`` and ``vault_env_prefix`` as a vault."""
        if (vault := own_vault(conf.vaults, conf.vault_env_prefix)) is not None:
            dataset = overlaid(dataset, {"vaults": {ENV_VAULT: vault}})
        return dataset if self.demo is None else overlaid(dataset, self.demo.overlay())

    def listen_status(self, before: AdminPlane | None = None) -> None:
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
        self.admin_plane.listen("status_listen", status, self._room, before)

    def listen_admin(self, before: AdminPlane | None = None) -> None:
        """Serve the Admin API on its listeners; ``before`` served it so far."""
        self.admin_plane.listen("admin_listen", self.admin_resource(), self._room, before)
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
        """Follow a configuration that was read again: all of it, or nothing where something is wrong with it. An embedded
        gateway, which listens nowhere, follows as far as what runs can (`config.load.only_live`).

        Returns when it is in effect, in all workers.

        Raises:
            ConfError: with all that is wrong; everything is as it was.
        """
        if self.state.leaving:
            raise ConfError("the node is drained (kongtwist drain), and takes up nothing any more")
        if self.opened and not only_live(self.conf, conf):
            await renew(self, self._reactor, conf)
            switching, self._switching = self._switching, []
            await DeferredList(switching)
        else:
            await self._reload_live(conf)

    async def _reload_live(self, conf: Conf) -> None:
        """What runs follows the properties that are ``live``, and reads files again."""
        self.admin_plane.check(conf)
        for name in SERVED_BY_WORKERS:
            if any(each.name == name and each.listen.ssl for each in self.opened):
                contexts_for(conf, name)
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

    def take(self, renewed: Renewed) -> None:
        """Have what was made take the place of what serves (renewal.renew)."""
        conf, old, before, snapshot = renewed.conf, self.plane, self.admin_plane, renewed.builder.snapshot
        assert snapshot is not None
        self.conf, self.plugins, self.registry = conf, renewed.plugins, renewed.registry
        self.admin_plane = renewed.admin
        if self.declarative_loader is not None:
            self.declarative_loader.follow(self.declarative_loader.terms(conf, renewed.registry))
        self.opened = renewed.listeners.opened
        renewed.listeners.commit()
        self.storage.adopt(renewed.registry, renewed.store)
        self._tallies.max_waiting = conf.plugin_max_pending_tallies
        if self.plugin_services is not None:
            self.plugin_services.follow(conf)
        self._probes.follow(conf)
        if self._addresses is not None:
            self._watch_names(conf)
        self._advice.silent = _known(conf)
        self.state.follow(conf)
        calls, self._admin_calls = self._admin_calls, None
        if calls is not None:
            self._leaving.append(Deferred.fromCoroutine(calls.close(conf.nginx_main_worker_shutdown_timeout)))
        if renewed.plane is not None:
            self.plane, self._room = renewed.plane, renewed.plane.room
        self.publisher.adopt(renewed.builder)
        if self.workers is not None:
            sockets = sockets_of(self.opened, conf.nginx_worker_processes)
            self._switching.append(self.workers.switch(sockets, conf.reload_shutdown_timeout))
        renewed.builder.serve = self.serve
        self.serve(snapshot)
        self.listen_status(before)
        self.listen_admin(before)
        if old is not None and self.plane is not None:
            self._retire(old, self.plane)
            self._switching.append(old.ports_closed)
        self._switching += before.closing
        for each in renewed.listeners.gone:
            each.close()

    def _retire(self, old: DataPlane, new: DataPlane) -> None:
        for each in self._retired:
            each.context.successor = (new.tree, new.context)

        def over(result: Any) -> None:
            self._retired.pop(old, None)
            if not self.stopping:
                self.publisher.collector.sweep_later()
            if isinstance(result, Failure) and not result.check(CancelledError):
                _log.failure("what served before a reload could not end", result)

        retired = self._retired[old] = old.retire(new)
        self._retired[old] = retired.addBoth(over)

    @property
    def planes(self) -> list[DataPlane]:
        """The data path of this process, and those of before reloads that have not ended."""
        return [*([] if self.plane is None else [self.plane]), *self._retired]

    def reopen_logs(self) -> None:
        """Open all log files anew."""
        self.admin_plane.reopen_logs()
        for plane in self.planes:
            plane.reopen_logs()
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
        return Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> None:
        await self._own_plane().finish()
        for plane in list(self._retired):
            await plane.quiet()

    def stopService(self) -> Deferred[None]:
        """Stop gracefully, within ``nginx_main_worker_shutdown_timeout``."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.stopping = True
        if self._starting is not None and not self._starting.called:
            self._starting.cancel()
        self.expire_no_more()
        self.state.stop()
        self.health.stop()
        self._watch_names(None)
        late = self.conf.nginx_main_worker_shutdown_timeout
        closing = Deferred.fromCoroutine(self.admin_plane.stop("admin_listen", late))
        if self._admin_calls is not None:
            await self._admin_calls.close(0.0)
        await self._probes.close(0.0)
        stopping = [Deferred.fromCoroutine(plane.stop(late)) for plane in self.planes]
        for each in stopping:
            await each
        await closing
        if self.workers is not None:
            await self.workers.stop()
        await self.admin_plane.stop("status_listen", 0.0)  # monitors are told that the node drains as long as it does
        self.publisher.stop()
        self._advice.stop()
        if self.declarative_loader is not None:
            self.declarative_loader.stop()
        await maybeDeferred(super().stopService)
        self._tallies.close()
        await self.storage.close()
        self._long_work.stop()
        if not self.stopped.called:
            self.stopped.callback(None)

    def abort(self) -> None:
        """End at once what a graceful stop still waits for."""
        self._advice.stop()
        self.admin_plane.abort()
        for plane in self.planes:
            plane.abort()
        if self.workers is not None:
            self.workers.kill()


def _known(conf: Conf) -> frozenset[str]:
    """Kinds of notes that the operator does not need."""
    silent = ROUTER_KINDS if conf.router_flavor == "traditional" else frozenset()
    return silent | (SESSION_KINDS if conf.stream_listen else frozenset())
