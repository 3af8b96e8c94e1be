"""A gateway before two targets, with plugins that fail where they are told to: for tests of what counts on a target."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.server import Site

from kongtwist.core.balancing.balancer import Peer
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Answer, Exchange
from kongtwist.core.limits import Limits
from kongtwist.core.snapshot.snapshot import Snapshot
from kongtwist.proxy.tree import RouteTree
from kongtwist.proxy.websocket_route import WebSocketRoute

from ...proxy.relay_kit import Gateway, Wire, plugin_row
from ..routing.router_rows import route_row, service_row

__all__ = ["Awkward", "AwkwardBody", "Balanced", "SiteClient"]


class Awkward(Plugin):
    """Fails, answers or waits where it is told to."""

    name = "awkward"
    priority = 10

    def __init__(self) -> None:
        self.fails_in = ""
        self.waiting: Deferred[None] | None = None

    def _maybe(self, phase: str) -> None:
        if self.fails_in == phase:
            raise ZeroDivisionError(phase)

    def access(self, exchange: Exchange, conf: Any) -> Any:
        self._maybe("access")
        return self._later() if self.waiting is not None else None

    async def _later(self) -> Answer | None:
        assert self.waiting is not None
        await self.waiting
        return None

    def header_filter(self, exchange: Exchange, conf: Any) -> None:
        self._maybe("header_filter")

    def log(self, exchange: Exchange, conf: Any) -> None:
        self._maybe("log")


class AwkwardBody(Awkward):
    """The same with bodies."""

    def body_filter(self, exchange: Exchange, conf: Any, chunk: bytes, last: bool) -> bytes:
        self._maybe("body last" if last else "body piece")
        return chunk


class Balanced(Gateway):
    """A gateway with one service on an upstream of two targets, chosen by least-connections.

    Args:
        plugin: runs on the service.
        targets: hosts of the targets.
        upstream: fields of the upstream.
        service: fields of the service.
    """

    def __init__(
        self,
        plugin: Plugin | None = None,
        targets: tuple[str, ...] = ("127.0.0.1", "127.0.0.2"),
        limits: Limits | None = None,
        route: dict[str, Any] | None = None,
        upstream: dict[str, Any] | None = None,
        **service: Any,
    ) -> None:
        super().__init__(limits=limits)
        row = {"id": "u", "name": "up", "created_at": 1, "algorithm": "least-connections", "slots": 1000,
               "hash_on": "none", "hash_fallback": "none", "host_header": None, "client_certificate": None}  # fmt: skip
        row.update(upstream or {})
        fields = {"host": "up", "port": 80, "retries": 1} | service
        rows: dict[str, dict[str, Any]] = {
            "services": {"s": service_row("s", **fields)},
            "routes": {"r": route_row("r", "s", paths=["/st"], **(route or {}))},
            "upstreams": {"u": row},
            "targets": {
                name: {"id": name, "target": f"{name}:80", "weight": 1, "upstream": {"id": "u"}, "created_at": at}
                for at, name in enumerate(targets)
            },
            "plugins": {"p": plugin_row("awkward", service={"id": "s"})} if plugin is not None else {},
        }
        self.tree = self.factory.tree = RouteTree(self.context, WebSocketRoute.maker(self.reactor))
        self.plugins = {} if plugin is None else {"awkward": plugin}
        self.tree.publish(Snapshot.build(rows, self.plugins))

    @property
    def peers(self) -> tuple[Peer, ...]:
        snapshot = self.tree.snapshot
        assert snapshot is not None
        balancer = snapshot.routes["r"].balancer
        assert balancer is not None
        return balancer.peers

    @property
    def active(self) -> int:
        return sum(peer.active for peer in self.peers)


class SiteWire(Wire):
    """A transport as a Site wants it."""

    disconnecting = False

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))


class SiteClient:
    """A client's connection to a Site."""

    def __init__(self, gateway: Gateway, site: Site) -> None:
        self.gateway = gateway
        self.wire = SiteWire(gateway.reactor, ("127.0.0.1", 40000), ("127.0.0.1", 18000))
        self.wire.connect(site.buildProtocol(self.wire.peer))

    def send(self, data: bytes) -> None:
        """Send bytes and let everybody work."""
        self.wire.protocol.dataReceived(data)
        self.gateway.work()
