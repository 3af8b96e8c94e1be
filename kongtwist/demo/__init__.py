"""What ``--demo`` adds: two small upstreams, a page that shows them live, and routes to them through the gateway.

The upstreams listen on loopback ports (ports.py) and are ordinary servers that know nothing of the gateway (they are also
`examples/`). The routes are an overlay over the stored configuration: they are never stored, all lie under ``/demo``
and carry the tag ``kongtwist-demo``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import NAMESPACE_DNS, uuid5

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorTCP
from twisted.web.http import Request
from twisted.web.resource import NoResource, Resource
from twisted.web.server import Site

from .chat import chat_factory
from .ports import KeptPorts
from .ticker import ticker_factory

__all__ = ["TAG", "Demo", "DemoPages", "demo_overlay"]

TAG = "kongtwist-demo"
"""Tag of everything the demo adds to the configuration."""

_FILES = {
    b"": ("index.html", b"text/html; charset=utf-8"),
    b"demo.css": ("demo.css", b"text/css; charset=utf-8"),
    b"demo.js": ("demo.js", b"text/javascript; charset=utf-8"),
    b"icon.svg": ("icon.svg", b"image/svg+xml"),
}

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' ws: wss:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _Entity(Protocol):
    """What is needed of an entity: to fill in what a row leaves open (entities/schema.py)."""

    def insert(self, data: dict[str, Any], *, now: int, new_id: Any) -> dict[str, Any]: ...


class DemoPages(Resource):
    """The demo's page and what belongs to it. Nothing is fetched from elsewhere."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        folder = files(__package__) / "pages"
        self._files = {name: ((folder / file).read_bytes(), kind) for name, (file, kind) in _FILES.items()}
        self.tell_about({})

    def tell_about(self, about: Mapping[str, Any]) -> None:
        """Give the page its facts: where the Admin API is, and which paths go where."""
        self._files[b"about.json"] = (json.dumps(about).encode(), b"application/json")

    def render_GET(self, request: Request) -> bytes:
        name = request.path.strip(b"/")
        # The page's links are relative to a folder. Which one the browser asked for, the gateway tells.
        asked = request.getHeader(b"X-Forwarded-Path") or request.path
        if not name and not asked.endswith(b"/"):
            request.redirect(asked.rsplit(b"/", 1)[1] + b"/")
            return b""
        if name not in self._files:
            missing: bytes = NoResource().render(request)
            return missing
        body, kind = self._files[name]
        for header, value in (
            (b"Content-Type", kind),
            (b"Cache-Control", b"no-cache"),
            (b"Content-Security-Policy", _POLICY),
            (b"X-Content-Type-Options", b"nosniff"),
            (b"Referrer-Policy", b"no-referrer"),
        ):
            request.setHeader(header, value)
        return body


def demo_overlay(urls: Mapping[str, str], entities: Mapping[str, _Entity], now: int) -> dict[str, dict[str, Any]]:
    """The demo's services and routes, in the shape of a stored dataset: entity to id to row.

    Args:
        urls: path to the address of the upstream behind it.
        entities: the configuration's entities by name.
        now: epoch seconds, their time of creation.
    """
    services, routes = {}, {}
    for path, url in urls.items():
        name = "-".join([TAG, *path.split("/")[2:]])
        service_id, route_id = (str(uuid5(NAMESPACE_DNS, f"{name}.{kind}.kongtwist")) for kind in ("service", "route"))
        at = urlsplit(url)
        service = {"name": name, "protocol": at.scheme, "host": at.hostname, "port": at.port, "tags": [TAG]}
        route = {"name": name, "paths": [path], "service": {"id": service_id}, "tags": [TAG]}
        services[service_id] = entities["services"].insert({"id": service_id, **service}, now=now, new_id=str)
        routes[route_id] = entities["routes"].insert({"id": route_id, **route}, now=now, new_id=str)
    return {"services": services, "routes": routes}


class Demo(MultiService):
    """The demo's upstreams. Start it before its overlay is asked for.

    Args:
        reactor: where the upstreams listen.
        entities: the configuration's entities by name.
        proxy: host and port at which the gateway is reached, for the lines printed at the start.
        admin: the Admin API's, likewise.
        kept: file in which ports are kept from one start to the next; None: nowhere.
    """

    def __init__(
        self,
        reactor: IReactorTCP,
        entities: Mapping[str, _Entity],
        proxy: str = "localhost:8000",
        admin: str = "localhost:8001",
        kept: str | None = None,
    ) -> None:
        super().__init__()
        self._reactor: Any = reactor
        self._entities = entities
        self._proxy = proxy
        self._admin = admin
        self._kept = KeptPorts(kept)
        self._ports: list[IListeningPort] = []
        self.urls: dict[str, str] = {}  #: path to the address of the upstream behind it

    def startService(self) -> None:
        """Open the upstreams' ports.

        Raises:
            CannotListenError: there is no free port.
        """
        chat = self._listen("chat", chat_factory(self._reactor))
        ticker = self._listen("ticker", ticker_factory(self._reactor))
        pages = DemoPages()
        page = self._listen("page", Site(pages, reactor=self._reactor))
        self._kept.save()
        self.urls = {"/demo": f"http://{page}", "/demo/chat": f"ws://{chat}", "/demo/ticker": f"http://{ticker}"}
        pages.tell_about({"admin": self._admin, "urls": self.urls})
        super().startService()

    def _listen(self, name: str, factory: Any) -> str:
        factory.noisy = False
        if isinstance(factory, Site):
            # The gateway's access log has these requests.
            factory.log = lambda request: None  # type: ignore[method-assign]
        port = self._kept.listen(name, lambda number: self._reactor.listenTCP(number, factory, interface="127.0.0.1"))
        self._ports.append(port)
        number = port.getHost().port
        self._kept.keep(name, number)
        return f"127.0.0.1:{number}"

    def stopService(self) -> Deferred[Any]:
        """Close the ports; the ticker ends its streams with its port."""
        ports, self._ports = self._ports, []
        closing = [maybeDeferred(port.stopListening) for port in ports]
        return gatherResults([maybeDeferred(super().stopService), *closing])

    def overlay(self) -> dict[str, dict[str, Any]]:
        """The demo's services and routes: entity to id to row."""
        return demo_overlay(self.urls, self._entities, round(self._reactor.seconds()))

    def lines(self) -> list[str]:
        """What to print at the start: where to look, how to go on, how to stop."""
        service = f"curl -X PUT http://{self._admin}/services/mine --data url={self.urls['/demo/ticker']}"
        route = f"curl -X PUT http://{self._admin}/services/mine/routes/mine --data paths=/mine"
        return [
            f"open this page:             http://{self._proxy}/demo/",
            f"add a route and follow it:  {service} && {route} && curl -N http://{self._proxy}/mine",
            "stop:                       Ctrl-C",
        ]
