"""The data path of one process: listeners, route tree, context, logs. The gateway has one, and so has each worker."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import WORKSPACE_ID
from ..clients.waiting import Ended, within
from ..config.authorities import trusted_authorities
from ..config.kinds import Listen
from ..config.load import Conf
from ..core.chain.host import Host, Scope, Streams
from ..core.chain.lifetimes import Lifetimes
from ..core.chain.phases import CertificateChoice, ClientHello
from ..core.counters import Counters
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
from ..net.listeners import DescriptorRoom, listen_on, raise_descriptor_limit
from ..net.server_tls import ServerContexts, contexts_for, reconfigure
from ..observability.log_lines import LineKeeper
from ..observability.masking import configured_names
from ..proxy.context import ProxyContext
from ..proxy.request_debug import RequestDebug
from ..proxy.tree import RouteTree, TellingTimedTree, TellingTree, TimedTree
from ..proxy.websocket_route import WebSocketRoute
from .debug_token import debug_token
from .goodbyes import Goodbyes, GoodbyeSettings
from .log_files import access_log_for, stream_log_for
from .lua_engines import lua_engine
from .plugin_services import PluginServices

if TYPE_CHECKING:
    from ..clients.scopes import Services

__all__ = ["DataPlane", "Faults", "ListenerSocket", "limits_of"]

_log = Logger(namespace="kongtwist.proxy")


LAST_WORDS = 2.0
"""Seconds that plugins have at a stop, though requests and streams have used up its time. Less than what a node that is late
has until it is ended by force (tap.py)."""
LEAVING = 3.0
"""Seconds that an idle connection is left alone when another process takes over: one that is in use ends behind its next answer, and
closing it would cross with a request."""
CUT_TIME = 0.3
"""Seconds that what was cut or cancelled may take to end, at a stop; it takes a few turns of the reactor."""


class ListenerSocket(Protocol):
    """What is needed of an opened listener (listeners.Opened)."""

    name: str
    listen: Any

    def socket_for(self, worker: int) -> socket.socket: ...


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
        http2_unsent_answers=conf.http2_unsent_answers,
        upstream_http2_connections=conf.upstream_http2_connections,
        upstream_http2_queue=conf.upstream_http2_queue,
        grpc_methods=conf.grpc_methods_counted,
        dns_positive_ttl=30.0 if conf.dns_valid_ttl is None else conf.dns_valid_ttl,
        dns_error_ttl=conf.dns_error_ttl,
        dns_stale_ttl=conf.dns_stale_ttl,
        dns_cache_size=conf.dns_cache_size,
    )


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
        goodbyes: ends streams that must.
    """

    def __init__(self, reactor: Any, conf: Conf, counters: Counters, node_id: str, services: PluginServices) -> None:
        self._reactor = reactor
        self._conf = conf
        self._counters = counters
        self._faults = Faults()
        self._plugin_rows: Mapping[str, Any] | None = None
        self.access_log = access_log_for(conf, "proxy_access_log", reactor)
        facts: dict[str, Any] = {
            "counters": counters,
            "now": time.time,
            "report": _report,
            "conf": conf,
            "node_id": node_id,
            "hostname": socket.gethostname(),
            "worker_pid": os.getpid(),
            "body_limit": conf.client_body_buffer_size,
            "grpc_message_size": conf.plugin_grpc_message_size,
            "shown": self.access_log.shown,
            "workspace_id": WORKSPACE_ID,
            "instrumentations": instrumented(conf.tracing_instrumentations),
            "sampling_rate": conf.tracing_sampling_rate,
        }
        self.host = Host(**facts)
        self.host.rows, self.host.tallies = services.rows, services.tallies
        self.host.metrics = self._metrics = services.metrics
        self.host.cells = services.cells.claim  # type: ignore[method-assign]
        self.host.lua = lua_engine(conf)
        self.host.log_lines = LineKeeper(conf.log_level, reactor.callFromThread).lines  # type: ignore[method-assign]
        self.lifetimes = Lifetimes(self._scope_for, _closing, _report)
        self.context = ProxyContext(
            reactor,
            self.host,
            limits=limits_of(conf),
            access_log=self.access_log,
            headers=ResponseHeaders(conf.headers),
            send_request_id=bool(conf.headers_upstream) and "off" not in conf.headers_upstream,
            real_ip=RealIP([str(each) for each in conf.trusted_ips], conf.real_ip_header, conf.real_ip_recursive),
            error_default_type=conf.error_default_type,
            upstream_http2=conf.upstream_http2,
        )
        self._process = services.process
        services.metrics.sources.append(self.context.calls.tell)
        self.streams: StreamRegistry = self.context.streams
        services.metrics.sources.append(self.streams.counts.tell)
        self.goodbyes = Goodbyes(reactor, self.streams, GoodbyeSettings.of(conf))
        self.host.streams = cast(Streams, self.streams)
        self._stream_log = stream_log_for(conf, reactor, self.context)
        self.streams.log = self._stream_log
        self._trusted = _pem(conf)
        self._clients: Services | None = None
        trees = (TellingTimedTree, TimedTree) if "router" in self.host.instrumentations else (TellingTree, RouteTree)
        tree = trees[0 if conf.allow_debug_header else 1]
        self.tree = tree(self.context, WebSocketRoute.maker(reactor))
        self._debug_token = debug_token(conf) if conf.request_debug else ""
        if conf.request_debug:
            self.tree.debug = RequestDebug(self.context, lambda: self._debug_token)
        most = conf.nginx_http_max_connections
        connections = self.context.connections
        self.room = DescriptorRoom(
            raise_descriptor_limit(conf.nginx_main_worker_rlimit_nofile),
            self.context.limits.accept_pause,
            (lambda: len(connections) < most) if most else None,
        )
        self._ports: list[Any] = []
        self._contexts: list[tuple[str, ServerContexts]] = []

    # -- configuration ---------------------------------------------------------------------------------------------

    def publish(self, snapshot: Snapshot) -> None:
        """Serve by ``snapshot`` from now on; tell the log of what it could not compile."""
        self._faults.tell(snapshot.faults)
        rows = snapshot.rows["plugins"]
        if rows is not self._plugin_rows:
            self._plugin_rows = rows
            self.access_log.hide(configured_names(rows.values()))
        self.tree.publish(snapshot)

    def reload(self, conf: Conf) -> None:
        """Follow a configuration that was read again. Raises ConfError and changes nothing."""
        for name, contexts in self._contexts:
            reconfigure(contexts, conf, name)
        self.goodbyes.settings = GoodbyeSettings.of(conf)
        self._conf = conf

    def report_health(self, told: Callable[[Peer, int], None]) -> None:
        """Have what traffic says of targets told: see `HealthKeeper.report`."""
        self.context.report = told

    def target_changed(self, peer: Peer) -> None:
        """A target has another state: end its streams where it is unhealthy and streams shall not stay on such a target."""
        if not peer.available and self._conf.upstream_close_unhealthy_streams:
            lost = [record for record in self.streams if record.peer is peer]
            self.goodbyes.end_streams(lost, SERVICE_RESTART, "the upstream is unhealthy")

    def reopen_logs(self) -> None:
        """Open the access log anew (after rotation or a reload); a reload may have made a new token for request debugging."""
        if self._conf.request_debug:
            self._debug_token = debug_token(self._conf)
        try:
            self.access_log.reopen()
            if self._stream_log is not None:
                self._stream_log.reopen()
        except OSError as error:
            _log.error("cannot reopen the access log: {why}", why=error.strerror)

    # -- life ------------------------------------------------------------------------------------------------------

    def listen(self, opened: Iterable[ListenerSocket], worker: int = 0) -> None:
        """Accept connections on the proxy listeners among ``opened``."""
        for each in opened:
            if each.name == "proxy_listen":
                self.listen_on(each.socket_for(worker), each.listen)

    def listen_on(self, sock: socket.socket, listen: Listen) -> None:
        """Accept connections on one listening socket; a duplicate of it is used. HTTP/2 is spoken with TLS where the
        address has the flag ``http2``, without TLS always (the client begins with it, RFC 9113 3.3)."""
        self._process.begin()
        contexts = None
        http2 = listen.http2 or not listen.ssl
        if listen.ssl:
            contexts = contexts_for(self._conf, "proxy_listen", self._certificate_for, self._choose_certificate, http2)
            self._contexts.append(("proxy_listen", contexts))
        take_over = HTTP2Channel.take_over if http2 else None
        factory = HTTP1Factory(self.tree, self.context, bool(listen.ssl), take_over)
        self._ports.append(listen_on(self._reactor, sock, factory, self.room, contexts=contexts))

    def _certificate_for(self, sni: str | None) -> Any:
        snapshot = self.tree.snapshot
        return None if snapshot is None else snapshot.certificate_for(sni)

    def _choose_certificate(self, hello: ClientHello) -> CertificateChoice | None:
        snapshot = self.tree.snapshot
        return snapshot.global_chain.certificate(hello) if snapshot is not None else None

    def leave(self) -> None:
        """Go on accepting, and have each connection end behind its answer: clients shall go elsewhere."""
        self.context.leave()

    async def finish(self) -> None:
        """Accept no more, close idle connections, and let requests and streams end by themselves; returns when they have."""
        await self._stop_listening()
        self.context.close_idle()
        await self._quiet(inf)

    async def retire(
        self,
        seconds: float,
        move: Callable[[float], Awaitable[object]] | None = None,
        reason: str = "the gateway restarts",
    ) -> None:
        """Accept no more, as another process serves; move streams there, and say goodbye to the others. Returns when all requests and
        streams have ended, or ``seconds`` are over; `stop` cuts what is left, `resume` takes it back.

        Args:
            seconds: for all of it.
            move: moves streams, in so many seconds at most; None: none can move.
            reason: for the peers of the others.
        """
        late = self._reactor.seconds() + seconds
        await self._stop_listening()
        self.context.leave()
        if move is not None:
            await move(seconds / 2)
        left = max(late - self._reactor.seconds(), 0.0)
        self.goodbyes.end_all(SERVICE_RESTART, reason, self.context.connections, left, min(LEAVING, left))
        await self._quiet(left)

    def resume(self) -> None:
        """Serve on, whatever `retire` had begun. The caller listens again."""
        self.goodbyes.stop()
        self.context.stopping = False

    async def stop(self, seconds: float, code: int = GOING_AWAY, reason: str = "the gateway is stopping") -> None:
        """Accept no more; end streams politely; let requests finish, for ``seconds`` at most; then cut. What is left of the
        time, and `LAST_WORDS` at least, is for what plugins still have to send and to write."""
        late = self._reactor.seconds() + seconds
        await self._stop_listening()
        self.context.leave()
        self.goodbyes.end_all(code, reason, self.context.connections, seconds)
        await self._quiet(seconds)
        self.abort()
        await self._quiet(CUT_TIME)  # the log phase of what was cut comes before plugins close
        late = max(late, self._reactor.seconds() + min(seconds, LAST_WORDS))
        if self._clients is not None:
            self._clients.stop(max(late - self._reactor.seconds(), 0.0))
        await self._close_configurations(max(late - self._reactor.seconds(), 0.0))
        if self._clients is not None:
            await self._clients.close(max(late - self._reactor.seconds(), 0.0))
        self.access_log.close()
        if self._stream_log is not None:
            self._stream_log.close()

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

        conf = self._conf
        return Services(
            self._reactor,
            self.context.resolver,
            trust=Trust(self._trusted, conf.lua_ssl_verify_depth),
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
        while (self.context.connections or len(self.streams)) and self._reactor.seconds() < late:
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
