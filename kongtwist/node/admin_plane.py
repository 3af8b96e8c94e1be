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
from ..config.load import Conf
from ..entities import Entity
from ..net.listeners import DescriptorRoom, Opened, listen_on
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
    """

    def __init__(self, reactor: Any, conf: Conf, sockets: Sequence[Opened], registry: Mapping[str, Entity]) -> None:
        self._reactor, self._conf = reactor, conf
        self._shown_path = PathMask(registry)
        self._sockets = [each for each in sockets if each.name in NAMES]
        self._tokens = Tokens(conf.admin_api_token)
        self.gates = {
            "admin_listen": Gate(self._guard("admin_listen"), self._tokens, reactor.seconds),
            "status_listen": Gate(self._guard("status_listen"), Tokens(), reactor.seconds, "Status API"),
        }
        self._sites: list[tuple[str, AdminSite]] = []
        self._ports: list[tuple[str, Any]] = []
        self._logs: list[tuple[str, AccessLog]] = []
        self._contexts: list[tuple[str, ServerContexts]] = []

    def _guard(self, name: str) -> Guard:
        listens = [each.listen for each in self._sockets if each.name == name]
        hosts = [listen.host for listen in listens if listen.host]
        conf = self._conf
        if conf.admin_gui_api_url:
            hosts.append(conf.admin_gui_api_url.partition("://")[2] or conf.admin_gui_api_url)
        loopback = any(listen.host for listen in listens) and not any(listen.wide for listen in listens)
        return Guard(loopback, [host.partition("/")[0] for host in hosts], conf.admin_gui_origin)

    # -- life ----------------------------------------------------------------------------------------------------------

    def listen(self, name: str, resource: Resource, room: DescriptorRoom) -> None:
        """Serve an API on its listeners, if there are any.

        Args:
            name: of the listeners' property.
            resource: the API.
            room: what the process's listeners share.

        Raises:
            ConfError: certificates or the log cannot be used.
        """
        opened = [each for each in self._sockets if each.name == name]
        if not opened:
            return
        conf = self._conf
        access = access_log_for(conf, name.replace("_listen", "_access_log"), self._reactor)
        self._logs.append((name, access))

        def log(request: Request) -> None:
            access.log_request(request, self._shown_path(request.uri))

        site = AdminSite(resource, self._reactor, self.gates[name], _limits(conf), log if access.enabled else None)
        site.tls_protocol = TLSTransport
        self._sites.append((name, site))
        for each in opened:
            contexts = contexts_for(conf, name) if each.listen.ssl else None
            if contexts is not None:
                self._contexts.append((name, contexts))
            port = listen_on(self._reactor, each.socket_for(0), site, room, contexts=contexts, privileged=True)
            self._ports.append((name, port))

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
        for its, site in self._sites:
            if its == name:
                site.abort()
        for its, log in self._logs:
            if its == name:
                log.close()
        self._logs = [each for each in self._logs if each[0] != name]

    async def rest(self, name: str, seconds: float) -> bool:
        """Listen no more, close idle connections, and let requests finish for ``seconds`` at most; whether all have. `listen` may be
        called again."""
        sites = [site for its, site in self._sites if its == name]
        ports = [port for its, port in self._ports if its == name]
        self._ports = [each for each in self._ports if each[0] != name]
        closing = [site.close() for site in sites]
        await DeferredList([maybeDeferred(port.stopListening) for port in ports])
        late: Deferred[Any] = Deferred()
        timer = self._reactor.callLater(seconds, late.callback, None)
        closed: Deferred[Any] = DeferredList(closing)
        await DeferredList([closed, late], fireOnOneCallback=True)
        if timer.active():
            timer.cancel()
        return bool(closed.called)

    def abort(self) -> None:
        """Cut all connections."""
        for _, site in self._sites:
            site.abort()

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
            for _, site in self._sites:
                site.renew()  # whoever came by an authority that is no longer trusted has to leave
        self.warn()

    def reopen_logs(self) -> None:
        """Open the access logs anew (after rotation)."""
        for _, log in self._logs:
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
