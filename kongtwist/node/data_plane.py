"""The data path of one process: listeners, route tree, context, logs. The gateway has one, and so has each worker."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import WORKSPACE_ID
from ..clients.waiting import Ended, within
from ..config.authorities import trusted_authorities
from ..config.error_templates import error_templates
from ..config.kinds import Listen
from ..config.load import Conf
from ..core.address_caps import AddressCaps, AddressCounts
from ..core.chain.host import Host, Scope, Streams
from ..core.chain.lifetimes import Lifetimes
from ..core.chain.phases import CertificateChoice, ClientHello
from ..core.counters import ACTIVE, Counters
from ..core.http.headers import ResponseHeaders
from ..core.http.real_ip import RealIP
from ..core.limits import KONG_READ_TIMEOUT, Limits
from ..core.peer import Peer
from ..core.rows import Row
from ..core.snapshot.snapshot import Snapshot
from ..core.stream_registry import GOING_AWAY, SERVICE_RESTART, StreamRegistry
from ..core.tracing.trace import instrumented
from ..http1.factory import HTTP1Factory
from ..http2.http2_channel import HTTP2Channel
from ..net.listeners import SERVED_BY_WORKERS, DescriptorRoom, listen_on, raise_descriptor_limit
from ..net.proxied_connections import ProxyRules
from ..net.run_steps import run_steps
from ..net.server_tls import ServerContexts, contexts_for, reconfigure
from ..observability.log_lines import LineKeeper
from ..observability.masking import configured_names
from ..proxy.capped_tree import capped
from ..proxy.context import ProxyContext
from ..proxy.request_debug import RequestDebug
from ..proxy.session_channel import SessionFactory
from ..proxy.session_datagrams import SessionPort
from ..proxy.session_ends import SessionDoor
from ..proxy.tree import RouteTree, TellingTimedTree, TellingTree, TimedTree
from ..proxy.websocket_route import WebSocketRoute
from .address_keeper import AddressKeeper
from .debug_token import debug_token
from .goodbyes import Goodbyes, GoodbyeSettings
from .headless_connections import HeadlessConnections
from .log_files import access_log_for, session_log_for, stream_log_for
from .lua_engines import lua_engine
from .name_lookup import resolver_of
from .plugin_services import PluginServices
from .shown_certificate import shown_certificate

if TYPE_CHECKING:
    from ..clients.scopes import Services

__all__ = ["DataPlane", "Faults", "ListenerSocket", "limits_of"]

_log = Logger(namespace="kongtwist.proxy")


LAST_WORDS = 2.0
"""Seconds that plugins have at a stop, though requests and streams have used up its time. Less than what a node that is late
has until it is ended by force (node_service.py)."""
_PATIENCE = 5.0
"""Seconds that clients over HTTP/2 have to hear that the connection takes no more requests; after a reload."""
_LOOK = 0.5
"""Seconds between two looks at whether all that began before a reload is over."""
LEAVING = 3.0
"""Seconds that an idle connection is left alone when another process takes over: one that is in use ends behind its next answer, and
closing it would cross with a request."""
CUT_TIME = 0.3
"""Seconds that what was cut or cancelled may take to end, at a stop; it takes a few turns of the reactor."""


class ListenerSocket(Protocol):
    """What is needed of an opened listener (listeners.Opened)."""

    name: str
    listen: Any

    def sockets_for(self, worker: int) -> Sequence[socket.socket]: ...


def limits_of(conf: Conf) -> Limits:
    """The bounds of the data path as configured."""
    header_buffers, header_buffer_size = conf.nginx_http_large_client_header_buffers
    count, size = conf.nginx_proxy_proxy_buffers
    return Limits(
        head_timeout=conf.nginx_http_client_header_timeout,
        keepalive_timeout=conf.nginx_http_keepalive_timeout,
        keepalive_requests=conf.nginx_http_keepalive_requests,
        header_buffers=header_buffers,
        header_buffer_size=header_buffer_size,
        max_headers=conf.nginx_http_max_headers,
        client_max_body_size=conf.nginx_http_client_max_body_size,
        client_body_buffer_size=conf.client_body_buffer_size,
        client_body_timeout=conf.nginx_http_client_body_timeout,
        send_timeout=conf.nginx_http_send_timeout,
        default_read_timeout=conf.nginx_proxy_proxy_read_timeout or KONG_READ_TIMEOUT,
        proxy_buffer_size=conf.nginx_proxy_proxy_buffer_size,
        high_water=count * size,
        upstream_keepalive_pool_size=conf.upstream_keepalive_pool_size,
        upstream_keepalive_max_requests=conf.upstream_keepalive_max_requests,
        upstream_keepalive_idle_timeout=conf.upstream_keepalive_idle_timeout,
        http2_max_concurrent_streams=conf.http2_max_concurrent_streams,
        http2_stream_window_size=conf.http2_stream_window_size,
        http2_connection_window_size=conf.http2_connection_window_size,
        http2_max_block_size=conf.http2_max_block_size,
        http2_max_continuations=conf.http2_max_continuations,
        http2_reset_burst=conf.http2_reset_burst,
        http2_reset_rate=conf.http2_reset_rate,
        http2_idle_frames=conf.http2_idle_frames,
        http2_ping_interval=conf.http2_ping_interval,
        upstream_http2_ping_interval=conf.upstream_http2_ping_interval,
        http2_unsent_answers=conf.http2_unsent_answers,
        upstream_http2_connections=conf.upstream_http2_connections,
        upstream_http2_queue=conf.upstream_http2_queue,
        grpc_methods=conf.grpc_methods_counted,
        dns_valid_ttl=conf.dns_valid_ttl,
        preread_timeout=conf.nginx_stream_preread_timeout,
        preread_buffer_size=conf.nginx_stream_preread_buffer_size,
        handshake_timeout=conf.nginx_stream_ssl_handshake_timeout,
        udp_sessions=conf.stream_udp_sessions,
        udp_backlog=conf.stream_udp_backlog,
        dns_error_ttl=conf.dns_error_ttl,
        dns_stale_ttl=conf.dns_stale_ttl,
        dns_cache_size=conf.dns_cache_size,
    )


def _caps(conf: Conf, counts: AddressCounts) -> AddressCaps | None:
    """What one client address may have; None: any number of connections and requests."""
    connections, requests = conf.max_connections_per_address, conf.max_requests_per_address
    if not connections and not requests and not counts.open:
        return None
    return AddressCaps(counts, connections, requests, conf.address_prefix_ipv4, conf.address_prefix_ipv6)


def _facts(conf: Conf, counters: Counters, node_id: str, shown: Any) -> dict[str, Any]:
    """What plugins are told of the node, as keywords of `Host`."""
    return {
        "counters": counters,
        "now": time.time,
        "report": _report,
        "conf": conf,
        "node_id": node_id,
        "hostname": socket.gethostname(),
        "worker_pid": os.getpid(),
        "body_limit": conf.client_body_buffer_size,
        "grpc_message_size": conf.plugin_grpc_message_size,
        "shown": shown,
        "workspace_id": WORKSPACE_ID,
        "instrumentations": instrumented(conf.tracing_instrumentations),
        "sampling_rate": conf.tracing_sampling_rate,
        "error_templates": error_templates(conf),
        "host_ports": {int(own): int(published) for published, own in (each.split(":") for each in conf.port_maps)},
    }


class Faults:
    """What is wrong with a configuration, told in the log: once, and again when it was right in between."""

    def __init__(self) -> None:
        self._told: frozenset[str] = frozenset()

    def tell(self, sentences: Iterable[str]) -> None:
        """Log what was not wrong before."""
        found = list(sentences)
        for sentence in found:
            if sentence not in self._told:
                _log.error("{sentence}", sentence=sentence)
        self._told = frozenset(found)


class DataPlane:
    """Serves traffic by the newest snapshot.

    Args:
        reactor: listens, connects, tells the time.
        conf: the configuration.
        counters: this process's view of the node's counters.
        node_id: the node's UUID.
        services: what plugins are given of the node.

    Attributes:
        tree: finds routes; also for a `GatewayResource`.
        context: facilities of the data path.
        streams: open WebSockets and event streams.
        lifetimes: opens and closes the plugins' configurations.
        addresses: of the names of targets.
        conf: the configuration.
        counters: as given.
        goodbyes: ends streams that must.
        ports_closed: once it is retired, fires when its sockets are closed.
    """

    _retiring: Deferred[None] | None = None

    def __init__(self, reactor: Any, conf: Conf, counters: Counters, node_id: str, services: PluginServices) -> None:
        self._reactor = reactor
        self.conf = conf
        self.counters = counters
        self._faults = Faults()
        self._plugin_rows: Mapping[str, Any] | None = None
        self.access_log = access_log_for(conf, "proxy_access_log", reactor)
        self.host = Host(**_facts(conf, counters, node_id, self.access_log.shown))
        self.host.rows, self.host.tallies = services.rows, services.tallies
        self.host.metrics = self._metrics = services.metrics
        self.host.cells = services.cells.claim  # type: ignore[method-assign]
        self.host.lua = lua_engine(conf)
        self.host.log_lines = LineKeeper(conf.log_level, reactor.callFromThread).lines  # type: ignore[method-assign]
        self.lifetimes = Lifetimes(self._scope_for, _closing, _report)
        limits = limits_of(conf)
        self.context = ProxyContext(
            reactor,
            self.host,
            limits=limits,
            resolver=resolver_of(reactor, conf, limits),
            access_log=self.access_log,
            headers=ResponseHeaders(conf.headers),
            send_request_id=bool(conf.headers_upstream) and "off" not in conf.headers_upstream,
            real_ip=RealIP([str(each) for each in conf.trusted_ips], conf.real_ip_header, conf.real_ip_recursive),
            error_default_type=conf.error_default_type,
            upstream_http2=conf.upstream_http2,
            caps=_caps(conf, services.addresses),
            tls_defaults=shown_certificate(conf),
        )
        self.addresses = AddressKeeper(reactor, self.context.resolver.names)
        self._process = services.process
        self.streams: StreamRegistry = self.context.streams
        if services.calls is None or services.streams is None:
            services.calls, services.streams = self.context.calls, self.streams
            services.metrics.sources += (services.calls.tell, self.streams.counts.tell)
        else:  # a plane of before a reload counts on beside this one
            self.context.calls = services.calls
            self.streams.count_with(services.streams)
        self.goodbyes = Goodbyes(reactor, self.streams, GoodbyeSettings.of(conf))
        self.host.streams = cast(Streams, self.streams)
        self._stream_log = stream_log_for(conf, reactor, self.context)
        self.streams.log = self._stream_log
        self._session_log = session_log_for(conf, reactor)
        self._trusted = _pem(conf)
        self._clients: Services | None = None
        trees = (TellingTimedTree, TimedTree) if "router" in self.host.instrumentations else (TellingTree, RouteTree)
        tree = trees[0 if conf.allow_debug_header else 1]
        if self.context.caps is not None and (self.context.caps.requests or services.addresses.open):
            tree = capped(tree, self.context.caps)
        self.tree = tree(self.context, WebSocketRoute.maker(reactor))
        self._debug_token = debug_token(conf) if conf.request_debug else ""
        if conf.request_debug:
            self.tree.debug = RequestDebug(self.context, lambda: self._debug_token)
        self.room = DescriptorRoom(
            raise_descriptor_limit(conf.nginx_main_worker_rlimit_nofile),
            self.context.limits.accept_pause,
            self._may_accept if conf.nginx_http_max_connections else None,
        )
        self._ports: list[Any] = []
        self._headless = HeadlessConnections(lambda: self.context, self.counters.cells)
        self._ending, self._ended = False, Ended()
        self.ports_closed: Deferred[Any] = Deferred()
        self._contexts: list[tuple[str, ServerContexts]] = []

    # -- configuration ---------------------------------------------------------------------------------------------

    def publish(self, snapshot: Snapshot) -> None:
        """Serve by ``snapshot`` from now on; tell the log of what it could not compile."""
        self._faults.tell(snapshot.faults)
        rows = snapshot.rows["plugins"]
        if rows is not self._plugin_rows:
            self._plugin_rows = rows
            self.access_log.hide(configured_names(rows.values()))
        self.addresses.follow(snapshot.balancers)
        self.tree.publish(snapshot)

    def reload(self, conf: Conf) -> None:
        """Follow a configuration that was read again. Raises ConfError and changes nothing."""
        for name, contexts in self._contexts:
            reconfigure(contexts, conf, name)
        self.goodbyes.settings = GoodbyeSettings.of(conf)
        self.conf = conf
        self.room.may_accept = self._may_accept if conf.nginx_http_max_connections else None

    def report_health(self, told: Callable[[Peer, int], None]) -> None:
        """Have what traffic says of targets told: see `HealthKeeper.report`."""
        self.context.report = told

    def target_changed(self, peer: Peer) -> None:
        """A target has another state: end its streams where it is unhealthy and streams shall not stay on such a target."""
        if not peer.available and self.conf.upstream_close_unhealthy_streams:
            lost = [record for record in self.streams if record.peer is peer]
            self.goodbyes.end_streams(lost, SERVICE_RESTART, "the upstream is unhealthy")

    def reopen_logs(self) -> None:
        """Open the access log anew (after rotation or a reload); a reload may have made a new token for request debugging."""
        if self.conf.request_debug:
            self._debug_token = debug_token(self.conf)
        try:
            self.access_log.reopen()
            for each in (self._stream_log, self._session_log):
                if each is not None:
                    each.reopen()
        except OSError as error:
            _log.error("cannot reopen the access log: {why}", why=error.strerror)

    # -- life ------------------------------------------------------------------------------------------------------

    def listen(self, opened: Iterable[ListenerSocket], worker: int = 0) -> None:
        """Accept connections on those among ``opened`` that clients of Routes use."""
        for each in opened:
            if each.name in SERVED_BY_WORKERS:
                for sock in each.sockets_for(worker):
                    self.listen_as(each.name, sock, each.listen)

    def listen_as(self, name: str, sock: socket.socket, listen: Listen) -> None:
        """Serve one socket of the property ``name``; a duplicate of it is used."""
        if name == "proxy_listen":
            self.listen_on(sock, listen)
        else:
            self._listen_for_sessions(sock, listen)

    def _listen_for_sessions(self, sock: socket.socket, listen: Listen) -> None:
        """Take sessions of stream routes."""
        self._process.begin()
        kind = "udp" if listen.udp else "tls" if listen.ssl else "tcp"
        door = SessionDoor(self.context, lambda: self.tree.snapshot, kind, self._session_log)
        if listen.udp:
            self._ports.append(SessionPort(door, sock, self.room.highest))
            return
        contexts = None
        if listen.ssl:
            contexts = contexts_for(self.conf, "stream_listen", self._certificate_for, self._choose_certificate)
            self._contexts.append(("stream_listen", contexts))
        proxied = None
        if listen.proxy_protocol:
            proxied = ProxyRules(self.context.limits.head_timeout, self._headless.begun, self._headless.over)
        self._ports.append(listen_on(self._reactor, sock, SessionFactory(door, contexts), self.room, proxied=proxied))

    def listen_on(self, sock: socket.socket, listen: Listen) -> None:
        """Accept connections on one listening socket; a duplicate of it is used. HTTP/2 is spoken with TLS where the
        address has the flag ``http2``, without TLS always (the client begins with it, RFC 9113 3.3)."""
        self._process.begin()
        contexts = None
        http2 = listen.http2 or not listen.ssl
        if listen.ssl:
            contexts = contexts_for(self.conf, "proxy_listen", self._certificate_for, self._choose_certificate, http2)
            self._contexts.append(("proxy_listen", contexts))
        take_over = HTTP2Channel.take_over if http2 else None
        factory = HTTP1Factory(self.tree, self.context, bool(listen.ssl), take_over)
        proxied = None
        if listen.proxy_protocol:
            proxied = ProxyRules(self.context.limits.head_timeout, self._headless.begun, self._headless.over)
        self._ports.append(listen_on(self._reactor, sock, factory, self.room, contexts=contexts, proxied=proxied))

    def _may_accept(self) -> bool:
        """Whether one more client connection may be there (``nginx_http_max_connections``); those that have become streams count."""
        return self.counters.cells[ACTIVE] < self.conf.nginx_http_max_connections

    def _certificate_for(self, sni: str | None) -> Any:
        snapshot = self.tree.snapshot
        return None if snapshot is None else snapshot.certificate_for(sni)

    def _choose_certificate(self, hello: ClientHello) -> CertificateChoice | None:
        snapshot = self.tree.snapshot
        return snapshot.global_chain.certificate(hello) if snapshot is not None else None

    def retire(self, successor: DataPlane) -> Deferred[None]:
        """Accept no more: ``successor``, which listens already, does, and has the clients that are connected from their next
        request on. What is under way goes on here, for ``reload_shutdown_timeout`` at most.

        Returns:
            fires when all has ended, and what this plane had is given back.
        """
        self.context.successor = (successor.tree, successor.context)
        ports, self._ports = self._ports, []
        run_steps(*(port.accept_waiting for port in ports))  # of an address that is left nobody else does
        self.ports_closed = DeferredList([maybeDeferred(port.stopListening) for port in ports])
        self.context.hand_over()
        self.addresses.stop()  # the successor's follow the names of the same balancers
        self.room.close()
        self._retiring = Deferred.fromCoroutine(self._retired(successor))
        return self._retiring

    async def _retired(self, successor: DataPlane) -> None:
        context, reactor = self.context, self._reactor
        late = reactor.seconds() + _PATIENCE
        while any(not each.draining for each in context.connections if hasattr(each, "draining")):
            if reactor.seconds() >= late:  # the client has not seen yet that it shall go
                run_steps(*(each.stop_now for each in list(context.connections) if hasattr(each, "draining")))
            await self._pause(_LOOK)
        self.lifetimes.retire()
        late = reactor.seconds() + (successor.conf.reload_shutdown_timeout or inf)
        while context.connections or len(self.streams):
            if reactor.seconds() >= late:
                seconds = successor.conf.nginx_main_worker_shutdown_timeout
                self.goodbyes.settings = successor.goodbyes.settings
                self.goodbyes.end_all(SERVICE_RESTART, "the gateway was reloaded", context.connections, seconds)
                await self._quiet(seconds)
                break
            await self._pause(min(_LOOK, late - reactor.seconds()))
        self._retiring = None
        seconds = successor.conf.nginx_main_worker_shutdown_timeout
        await self._end(reactor.seconds() + seconds, seconds)

    async def discard(self) -> None:
        """This plane is not going to serve: give back what it has."""
        ports, self._ports = self._ports, []
        await DeferredList([maybeDeferred(port.stopListening) for port in ports])
        await self._end(self._reactor.seconds(), 0.0)

    async def _pause(self, seconds: float) -> None:
        pause: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self._reactor.callLater(seconds, pause.callback, None)
        await pause

    def leave(self) -> None:
        """Go on accepting, and have each connection end behind its answer: clients shall go elsewhere."""
        self.context.leave()

    async def finish(self) -> None:
        """Accept no more, close idle connections, and let requests and streams end by themselves; returns when they have."""
        await self._stop_listening()
        self.context.close_idle()
        await self.quiet()

    async def quiet(self) -> None:
        """Wait until no client is connected and no stream is open."""
        await self._quiet(inf)

    async def let_go(self) -> None:
        """Accept no more, as another process serves, and have each connection end behind its answer. See `departure.depart`."""
        await self._stop_listening()
        self.context.leave()

    async def say_goodbye(self, reason: str, seconds: float) -> None:
        """End all connections and streams, whose clients find another process here, but for sessions of UDP: these cannot be told, and
        end by themselves. Returns when all have ended, or ``seconds`` are over; what is open then goes on.

        Args:
            reason: for the peers.
            seconds: for all of it.
        """
        idle = min(LEAVING, seconds)
        self.goodbyes.end_all(SERVICE_RESTART, reason, self.context.connections, seconds, idle, spared="udp")
        await self._quiet(seconds)

    def resume(self) -> None:
        """Serve on, whatever has begun of a departure. The caller listens again."""
        self.goodbyes.stop()
        self.context.stopping = False

    async def stop(self, seconds: float, code: int = GOING_AWAY, reason: str = "the gateway is stopping") -> None:
        """Accept no more; end streams politely; let requests finish, for ``seconds`` at most; then cut. What is left of the
        time, and `LAST_WORDS` at least, is for what plugins still have to send and to write."""
        late = self._reactor.seconds() + seconds
        if self._retiring is not None:
            retiring, self._retiring = self._retiring, None
            retiring.addErrback(lambda failure: failure.trap(CancelledError)).cancel()
        await self._stop_listening()
        self.context.leave()
        self.goodbyes.end_all(code, reason, self.context.connections, seconds)
        await self._quiet(seconds)
        await self._end(late, seconds)

    async def _end(self, late: float, seconds: float) -> None:
        """Give back what there is, once. What is still open is cut; ``late`` is when plugins have had their time."""
        if self._ending:
            await self._ended.wait()
            return
        self._ending = True
        try:
            await self._give_back(late, seconds)
        finally:
            self._ended.end()

    async def _give_back(self, late: float, seconds: float) -> None:
        self.abort()
        await self._quiet(CUT_TIME)
        self.context.log_waiting()  # the log phase of what was cut comes before plugins close
        late = max(late, self._reactor.seconds() + min(seconds, LAST_WORDS))
        if self._clients is not None:
            self._clients.stop(max(late - self._reactor.seconds(), 0.0))
        await self._close_configurations(max(late - self._reactor.seconds(), 0.0))
        if self._clients is not None:
            await self._clients.close(max(late - self._reactor.seconds(), 0.0))
        self.addresses.stop()
        self.context.resolver.close()
        if self._clients is not None:
            self._metrics.sources.remove(self._clients.kafka_counts.tell)
        self.streams.leave_counts()
        for log in (self.access_log, self._stream_log, self._session_log):
            if log is not None:
                log.close()

    def _scope_for(self, row: Row) -> Scope:
        if self._clients is None:
            self._clients = self._made_clients()
            self._metrics.sources.append(self._clients.kafka_counts.tell)
        return self._clients.scope(self.host, row["name"], row)

    def _made_clients(self) -> Services:
        from ..clients.grpc_calls import GRPCLimits
        from ..clients.schema_registry import RegistryLimits
        from ..clients.scopes import ClientLimits, Services  # megabytes, for who has plugins that use them
        from ..clients.tls import Trust

        conf = self.conf
        return Services(
            self._reactor,
            self.context.resolver,
            trust=Trust(self._trusted, conf.lua_ssl_verify_depth, tuple(conf.lua_ssl_protocols.split())),
            limits=ClientLimits(
                threads=conf.plugin_threads,
                thread_backlog=conf.plugin_thread_backlog,
                queue_bytes=conf.plugin_queue_bytes or None,
                kafka_replays=conf.plugin_kafka_replays,
                kafka_fetches=conf.plugin_kafka_fetches,
                kafka_groups=conf.plugin_kafka_groups,
                grpc=GRPCLimits(conf.plugin_grpc_threads, conf.plugin_grpc_message_size, conf.plugin_grpc_channels),
                kafka_bytes=conf.plugin_kafka_bytes,
                kafka_window=conf.plugin_kafka_window,
                registries=RegistryLimits(conf.plugin_kafka_schemas, conf.plugin_kafka_registry_bytes),
                kafka_library=conf.plugin_kafka_client,
            ),
        )

    async def _close_configurations(self, seconds: float) -> None:
        """Close what plugins opened; who waits longer than ``seconds`` is cancelled."""
        closing = [each for each in self.lifetimes.end() if isinstance(each, Deferred)]
        for each in closing:
            each.addTimeout(seconds, self._reactor)  # type: ignore[unused-awaitable]
        over = Ended()
        DeferredList(closing).addCallback(lambda _: over.end())  # type: ignore[unused-awaitable]
        try:
            await within(self._reactor, seconds + CUT_TIME, over.wait(), TimeoutError)
        except TimeoutError:
            _log.error(
                "{count} plugins still close, although they were cancelled, and are left", count=len(self.lifetimes)
            )

    async def _stop_listening(self) -> None:
        self._process.end()
        ports, self._ports = self._ports, []
        await DeferredList([maybeDeferred(port.stopListening) for port in ports])

    async def _quiet(self, seconds: float) -> None:
        """Wait until no client is connected and no stream is open, ``seconds`` at most."""
        late = self._reactor.seconds() + seconds
        while self.context.busy and self._reactor.seconds() < late:
            pause: Deferred[None] = Deferred()
            self._reactor.callLater(0.02, pause.callback, None)
            await pause

    def abort(self) -> None:
        """Cut everything at once."""
        self.goodbyes.stop()
        self.streams.cut_all()
        self.context.close()
        self.room.close()


def _pem(conf: Conf) -> tuple[str, ...]:
    """Authorities that plugins' clients trust; none: the system's own store. Raises ConfError."""
    if conf.lua_ssl_trusted_certificate == ["system"]:
        return ()
    return tuple(trusted_authorities(conf).values())


def _report(text: str) -> None:
    _log.error("{text}", text=text)


def _closing(name: str, coroutine: Coroutine[Any, Any, None]) -> Deferred[None]:
    """Run the closing of a configuration."""

    def log(failure: Failure) -> None:
        if failure.check(CancelledError, TimeoutError):
            _log.error("{name} took too long and was given up", name=name)
        else:
            _log.failure("{name} failed", failure, name=name)

    return Deferred.fromCoroutine(coroutine).addErrback(log)
