"""The Admin and Status APIs of a node on their listeners: gate, connections, TLS, access logs, start and end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger
from twisted.web.http import Request
from twisted.web.resource import Resource

from ..admin.access.browser_guard import Guard, exposure
from ..admin.access.gate import Gate
from ..admin.access.path_mask import PathMask
from ..admin.access.tokens import Tokens
from ..admin.server.bounded_channel import AdminSite, ConnectionLimits
from ..config.load import Conf, ConfError
from ..entities import Entity
from ..net.listeners import DescriptorRoom, Opened, listen_on
from ..net.proxied_connections import ProxyRules
from ..net.server_tls import ServerContexts, contexts_for, reconfigure
from ..net.tls_transport import TLSTransport
from ..observability.access_log import AccessLog
from .log_files import access_log_for

__all__ = ["AdminPlane"]

_log = Logger(namespace="kongtwist.admin")

NAMES = ("admin_listen", "status_listen")


class AdminPlane:
    """Serves the Admin and Status APIs, in the node's parent process.

    Args:
        reactor: listens and tells the time.
        conf: the configuration.
        sockets: the node's open listeners.
        registry: the entities, which tell what must not stand in the access log.

    Attributes:
        gates: who may come in, by the name of the listener's property.
        closing: fire when sockets are closed that it has left (`leave`).
    """

    def __init__(self, reactor: Any, conf: Conf, sockets: Sequence[Opened], registry: Mapping[str, Entity]) -> None:
        self._reactor, self._conf = reactor, conf
        self._shown_path = PathMask(registry)
        self._sockets = [each for each in sockets if each.name in NAMES]
        self._tokens = Tokens(conf.admin_api_token)
        self.closing: list[Deferred[Any]] = []
        self.gates = {
            "admin_listen": Gate(self._guard("admin_listen"), self._tokens, reactor.seconds),
            "status_listen": Gate(self._guard("status_listen"), Tokens(), reactor.seconds, "Status API"),
        }
        self._sites: dict[str, AdminSite] = {}
        self._ports: dict[str, list[Any]] = {}
        self._logs: dict[str, AccessLog] = {}
        self._contexts: list[tuple[str, ServerContexts]] = []
        self._headless: set[Any] = set()  # connections whose PROXY header is waited for

    def _guard(self, name: str) -> Guard:
        listens = [each.listen for each in self._sockets if each.name == name]
        hosts = [listen.host for listen in listens if listen.host]
        conf = self._conf
        if conf.admin_gui_api_url:
            hosts.append(conf.admin_gui_api_url.partition("://")[2] or conf.admin_gui_api_url)
        loopback = any(listen.host for listen in listens) and not any(listen.wide for listen in listens)
        return Guard(loopback, [host.partition("/")[0] for host in hosts], conf.admin_gui_origin)

    # -- life ----------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Open the logs, and see whether certificates can be used. Raises ConfError; nothing stays open."""
        try:
            for name in dict.fromkeys(each.name for each in self._sockets):
                self._logs[name] = access_log_for(self._conf, name.replace("_listen", "_access_log"), self._reactor)
            for name in dict.fromkeys(each.name for each in self._sockets if each.listen.ssl):
                contexts_for(self._conf, name)
        except ConfError:
            self._close_logs(list(self._logs))
            raise

    def refuse(self) -> None:
        """What was prepared is not going to serve."""
        self._close_logs(list(self._logs))

    def listen(self, name: str, resource: Resource, room: DescriptorRoom, before: AdminPlane | None = None) -> None:
        """Serve an API on its listeners, if there are any.

        Args:
            name: of the listeners' property.
            resource: the API.
            room: what the process's listeners share.
            before: what serves it so far: its connections go on here, and it listens no more.

        Raises:
            ConfError: certificates or the log cannot be used.
        """
        known = None if before is None else before.leave(name)
        opened = [each for each in self._sockets if each.name == name]
        if not opened:
            if known is not None:
                known.renew()
            return
        conf = self._conf
        if name not in self._logs:
            self._logs[name] = access_log_for(conf, name.replace("_listen", "_access_log"), self._reactor)
        access = self._logs[name]

        def log(request: Request) -> None:
            access.log_request(request, self._shown_path(request.uri))

        logged = log if access.enabled else None
        if known is not None:
            site = known
            site.follow(resource, self.gates[name], _limits(conf), logged)
            if before is not None and (conf.admin_ssl_client_ca or before._conf.admin_ssl_client_ca):
                site.renew()  # whoever came by an authority that is no longer trusted has to leave
        else:
            site = AdminSite(resource, self._reactor, self.gates[name], _limits(conf), logged)
            site.tls_protocol = TLSTransport
        self._sites[name] = site
        for each in opened:
            contexts = contexts_for(conf, name) if each.listen.ssl else None
            if contexts is not None:
                self._contexts.append((name, contexts))
            proxied = None
            if each.listen.proxy_protocol:
                proxied = ProxyRules(conf.nginx_http_client_header_timeout, self._headless.add, self._headless.discard)
            for sock in each.sockets_for(0):
                port = listen_on(self._reactor, sock, site, room, contexts=contexts, privileged=True, proxied=proxied)
                self._ports.setdefault(name, []).append(port)

    def leave(self, name: str) -> AdminSite | None:
        """Listen no more, though connections that are open stay; gives who serves them, if anybody does."""
        for port in self._ports.pop(name, ()):
            port.accept_waiting()
            self.closing.append(maybeDeferred(port.stopListening))
        self._close_logs([name])
        return self._sites.pop(name, None)

    def _close_logs(self, names: Sequence[str]) -> None:
        for name in names:
            log = self._logs.pop(name, None)
            if log is not None:
                log.close()

    def warn(self) -> None:
        """Say in the log if strangers may control the gateway."""
        wide = [(each.address, each.listen.ssl) for each in self._sockets if _is_wide_admin(each)]
        sentence = exposure(wide, self._tokens.required, bool(self._conf.admin_ssl_client_ca))
        if sentence is not None:
            _log.warn("{sentence}", sentence=sentence)

    async def stop(self, name: str, seconds: float) -> None:
        """Listen no more, answer 503 to what still comes, let requests finish for ``seconds`` at most, then cut.

        Args:
            name: of the listeners' property.
            seconds: for requests that run.
        """
        await self.rest(name, seconds)
        if name in self._sites:
            self._sites[name].abort()
        for connection in list(self._headless):
            connection.cut()
        self._close_logs([name])

    async def rest(self, name: str, seconds: float, grace: float = 0.0) -> bool:
        """Listen no more, close idle connections, and let requests finish for ``seconds`` at most; whether all have. `listen` may be
        called again.

        Args:
            name: of the listeners' property.
            seconds: for requests that run.
            grace: seconds that connections are left alone before: the request of one that was just made is on its way.
        """
        sites = [self._sites[name]] if name in self._sites else []
        ports = self._ports.pop(name, [])
        closing = [] if grace else [site.close() for site in sites]
        await DeferredList([maybeDeferred(port.stopListening) for port in ports])
        if grace:
            over: Deferred[None] = Deferred()
            self._reactor.callLater(grace, over.callback, None)
            await over
            closing = [site.close() for site in sites]
        late: Deferred[Any] = Deferred()
        timer = self._reactor.callLater(seconds, late.callback, None)
        closed: Deferred[Any] = DeferredList(closing)
        await DeferredList([closed, late], fireOnOneCallback=True)
        if timer.active():
            timer.cancel()
        return bool(closed.called)

    def abort(self) -> None:
        """Cut all connections."""
        for site in self._sites.values():
            site.abort()
        for connection in list(self._headless):
            connection.cut()

    # -- while it runs -------------------------------------------------------------------------------------------------

    def check(self, conf: Conf) -> None:
        """Raise ConfError if `reload` could not follow ``conf``."""
        for name in {name for name, _ in self._contexts}:
            contexts_for(conf, name)

    def reload(self, conf: Conf) -> None:
        """Follow a configuration that was read again: certificates, authorities and tokens, from the next request on.

        Raises:
            ConfError: certificates cannot be used; see `check`.
        """
        for name, contexts in self._contexts:
            reconfigure(contexts, conf, name)
        self._tokens.replace(conf.admin_api_token)
        old, self._conf = self._conf, conf
        if conf.admin_ssl_client_ca != old.admin_ssl_client_ca or conf.admin_ssl_client_ca:
            for site in self._sites.values():
                site.renew()  # whoever came by an authority that is no longer trusted has to leave
        self.warn()

    def reopen_logs(self) -> None:
        """Open the access logs anew (after rotation)."""
        for log in self._logs.values():
            log.reopen()


def _is_wide_admin(opened: Opened) -> bool:
    return opened.name == "admin_listen" and opened.listen.wide


def _limits(conf: Conf) -> ConnectionLimits:
    number, size = conf.nginx_http_large_client_header_buffers
    return ConnectionLimits(
        connections=conf.admin_max_connections,
        body=conf.nginx_admin_client_max_body_size,
        bodies=conf.admin_max_body_memory,
        line=size,
        head=number * size,
        fields=conf.nginx_http_max_headers,
        head_timeout=conf.nginx_http_client_header_timeout,
        body_timeout=conf.nginx_http_client_body_timeout,
        keepalive_timeout=conf.nginx_http_keepalive_timeout,
        send_timeout=conf.nginx_http_send_timeout,
    )
