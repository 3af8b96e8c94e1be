"""A reload: all that serves is made anew beside what serves, and takes its place at once, or nothing happens.

Storage, health, counters and figures go on. What depends on the configuration is made again: plugins and entities where their list
has changed, the data path with its limits, logs and clients, the Admin API. The new data path listens on the same sockets before
the old one stops to, so that nobody is refused; requests and streams that have begun go on in the old one until they end. Of a
property nobody has to say that it can be reloaded: whatever the new data path reads is in effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..config.load import Conf, ConfError
from ..core.counters import Counters
from ..core.snapshot.snapshot import Snapshot
from ..core.storage_contract import Dataset
from ..entities import Entity, registry
from ..entities.route_faults import unfit_routes
from ..net.listener_changes import ListenerChange, changed_listeners
from ..net.listeners import Opened
from ..storage.base import BaseStorage, StorageError
from ..storage.row_store import RowStore
from .admin_plane import AdminPlane
from .data_plane import DataPlane
from .health_keeper import HealthKeeper
from .plugin_loader import LoadedPlugins, PluginLoadError, load_plugins
from .plugin_services import PluginServices
from .publisher import Publisher
from .snapshot_builder import SnapshotBuilder
from .start_checks import startup_faults
from .worker_supervisor import Workers, sockets_of

if TYPE_CHECKING:
    from .declarative_loader import DeclarativeLoader

__all__ = ["RELOAD_WAIT", "Renewed", "renew"]

RELOAD_WAIT = 60.0
"""Seconds that a reload waits for all workers to serve what was read."""


class Renewed(NamedTuple):
    """What takes the place of what serves.

    Attributes:
        conf: the configuration.
        plugins: by name.
        registry: the entities.
        store: see `BaseStorage.candidate`.
        listeners: the change of the sockets.
        admin: the Admin and Status APIs, which do not listen yet.
        builder: has made the first snapshot.
        plane: the data path, which listens already; None where workers serve.
    """

    conf: Conf
    plugins: LoadedPlugins
    registry: Mapping[str, Entity]
    store: RowStore
    listeners: ListenerChange
    admin: AdminPlane
    builder: SnapshotBuilder
    plane: DataPlane | None


class Renewable(Protocol):
    """What is needed of a gateway (gateway.Gateway)."""

    conf: Conf
    plugins: LoadedPlugins
    registry: Mapping[str, Entity]
    storage: BaseStorage
    publisher: Publisher
    health: HealthKeeper
    counters: Counters
    node_id: str
    plane: DataPlane | None
    workers: Workers | None
    plugin_services: PluginServices | None
    declarative_loader: DeclarativeLoader | None
    stopping: bool

    @property
    def opened(self) -> list[Opened]: ...

    @property
    def snapshot(self) -> Snapshot: ...

    def whole(self, dataset: Dataset, conf: Conf) -> Dataset: ...

    def take(self, renewed: Renewed) -> None:
        """Serve by this from now on."""

    def serve(self, snapshot: Snapshot) -> None: ...


async def renew(gateway: Renewable, reactor: Any, conf: Conf) -> None:
    """Serve by another configuration.

    Args:
        gateway: what serves.
        reactor: its reactor.
        conf: the configuration.

    Raises:
        ConfError: with all that is wrong; everything is as it was.
    """
    faults = startup_faults(conf)
    if faults:
        raise ConfError(*faults)
    plugins, entities = _declared(gateway, conf)
    listeners = changed_listeners(gateway.opened, conf.listeners(), conf.nginx_worker_processes)
    admin = AdminPlane(reactor, conf, listeners.opened, entities)
    loader, rows = gateway.declarative_loader, None
    try:
        admin.prepare()
        if loader is not None:
            rows = await loader.read_configured(conf, loader.terms(conf, entities))
        await gateway.storage.hold()
        try:
            await gateway.publisher.hold()
            try:
                store = await _candidate(gateway, conf, entities)
                dataset = gateway.whole(store.dataset(), conf)
                plane, builder = await _made(gateway, reactor, conf, plugins, dataset, listeners)
                if gateway.stopping:
                    if plane is not None:
                        await plane.discard()
                    if gateway.workers is not None:
                        gateway.workers.keep()
                    raise ConfError("the node is stopping")
                gateway.take(Renewed(conf, plugins, entities, store, listeners, admin, builder, plane))
            finally:
                gateway.publisher.release()
        finally:
            gateway.storage.release()
    except BaseException:
        if gateway.conf is not conf:
            admin.refuse()
            listeners.refuse()
        raise
    if rows is not None and loader is not None:
        await loader.put(rows)
        await gateway.publisher.published(RELOAD_WAIT)


def _declared(gateway: Renewable, conf: Conf) -> tuple[LoadedPlugins, Mapping[str, Entity]]:
    """The plugins and the entities of a configuration: those that are there, as far as they stay the same."""
    same = conf.plugins == gateway.conf.plugins
    if same and conf.router_flavor == gateway.conf.router_flavor:
        return gateway.plugins, gateway.registry
    plugins = gateway.plugins
    if not same:
        try:
            plugins = load_plugins(conf.plugins)
        except PluginLoadError as error:
            raise ConfError(str(error)) from error
        for name, plugin in gateway.plugins.items():
            if type(plugins.get(name)) is type(plugin):  # what it remembers goes on
                plugins[name] = plugin
    return plugins, registry(plugins, conf.router_flavor)


async def _candidate(gateway: Renewable, conf: Conf, entities: Mapping[str, Entity]) -> RowStore:
    try:
        store = await gateway.storage.candidate(entities)
    except StorageError as error:
        raise ConfError(str(error)) from error
    unfit = unfit_routes(store.dataset().get("routes", {}).values(), conf.router_flavor)
    if unfit is not None:
        raise ConfError(unfit)
    return store


async def _made(
    gateway: Renewable,
    reactor: Any,
    conf: Conf,
    plugins: LoadedPlugins,
    dataset: Dataset,
    listeners: ListenerChange,
) -> tuple[DataPlane | None, SnapshotBuilder]:
    """A data path that listens, where this process serves, and what makes its snapshots."""
    if gateway.plane is None:
        builder = gateway.publisher.builder(plugins, gateway.serve, None, conf.router_flavor)
        assert gateway.workers is not None
        snapshot = await builder.follow(gateway.snapshot, dataset)
        sockets = sockets_of(listeners.opened, conf.nginx_worker_processes)
        complaints = await gateway.workers.prepare(conf, sockets, snapshot.version, snapshot.rows)
        if complaints:
            gateway.workers.keep()
            builder.stop()
            raise ConfError(*complaints)
        return None, builder
    assert gateway.plugin_services is not None
    plane = DataPlane(reactor, conf, gateway.counters, gateway.node_id, gateway.plugin_services)
    builder = gateway.publisher.builder(plugins, plane.publish, plane.lifetimes, conf.router_flavor)
    try:
        await builder.follow(gateway.snapshot, dataset)
        plane.report_health(gateway.health.report)
        plane.addresses.moved = gateway.health.moved
        plane.listen(listeners.opened)
    except BaseException:
        builder.stop()
        await plane.discard()
        raise
    return plane, builder
