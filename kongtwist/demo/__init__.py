"""What ``--demo`` adds: small upstreams, a broker of Kafka where there is one, a page that shows them live, and routes to them.

The upstreams listen on loopback ports (ports.py) and are ordinary servers that know nothing of the gateway (they are also
`examples/`). The routes are an overlay over the stored configuration: they are never stored, and carry the tag
``kongtwist-demo``. All lie under ``/demo``, but for the one that gRPC's own clients use: a call's path is its method.
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
from twisted.internet.protocol import Factory
from twisted.web.http import Request
from twisted.web.resource import NoResource, Resource
from twisted.web.server import Site

from .analytics.small_broker import binary
from .chat import chat_factory
from .demo_process import DemoProcess
from .ports import KeptPorts
from .ticker import ticker_factory

__all__ = ["TAG", "Demo", "DemoPages", "demo_overlay"]

TAG = "kongtwist-demo"
"""Tag of everything the demo adds to the configuration."""

SENSORS = "/sensor.DataService"
"""Where the paths of all calls to the sensor service begin."""

KAFKA: dict[str, tuple[str, dict[str, Any]]] = {
    "/demo/analytics": (
        "kafka-upstream",
        {"topic": "user-events", "key_template": "{body.user_id}", "producer_async": False},
    ),
    "/demo/counts": (
        "kafka-consume",
        {"topics": [{"name": "event-counts"}], "mode": "server-sent-events", "auto_offset_reset": "earliest"},
    ),
}
"""Path -> plugin and its configuration: pages send events to the first, and follow at the second what a pipeline makes of them."""

# Their names begin with no path of a route: "sensors.js" would be the sensor service.
_SCRIPTS = (
    b"common.js", b"demo.js", b"event_counts.js", b"event_tracker.js", b"readings.js", b"sensor_client.js", b"tracking.js",
)  # fmt: skip
_FILES = {
    b"": ("index.html", b"text/html; charset=utf-8"),
    b"demo.css": ("demo.css", b"text/css; charset=utf-8"),
    **{name: (name.decode(), b"text/javascript; charset=utf-8") for name in _SCRIPTS},
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
    rows: dict[str, dict[str, Any]] = {"services": {}, "routes": {}, "plugins": {}}

    def add(kind: str, key: str, /, **fields: Any) -> dict[str, str]:
        row_id = str(uuid5(NAMESPACE_DNS, f"{key}.{kind.removesuffix('s')}.kongtwist"))
        row = {"id": row_id, "tags": [TAG], **fields}
        rows[kind][row_id] = entities[kind].insert(row, now=now, new_id=str)
        return {"id": row_id}

    for path, url in urls.items():
        name = "-".join([TAG, *path.split("/")[2:]])
        at = urlsplit(url)
        if at.scheme == "kafka":
            plugin, config = KAFKA[path]
            route = add("routes", name, name=name, paths=[path])
            config = {"bootstrap_servers": [{"host": at.hostname, "port": at.port}], **config}
            add("plugins", name, name=plugin, route=route, config=config, protocols=["http", "https"])
            continue
        service = add("services", name, name=name, protocol=at.scheme, host=at.hostname, port=at.port)
        route = add("routes", name, name=name, paths=[path], service=service)
        if at.scheme == "grpc":
            config = {"pass_stripped_path": True}
            add("plugins", name, name="grpc-web", route=route, config=config, protocols=["http", "https"])
            native = f"{name}-native"
            add("routes", native, name=native, paths=[SENSORS], protocols=["grpc", "grpcs"], service=service)
    return rows


class Demo(MultiService):
    """The demo's upstreams. Start it before its overlay is asked for.

    Args:
        reactor: where the upstreams listen.
        entities: the configuration's entities by name.
        proxy: host and port at which the gateway is reached, for the lines printed at the start.
        admin: the Admin API's, likewise.
        kept: file in which ports are kept from one start to the next; None: nowhere.
        grpc: whether the gateway has what lets a page call gRPC services (its plugin grpc-web); without it there are no sensors.
        kafka: whether it has what puts requests into topics and gives them to pages (kafka-upstream, kafka-consume).
    """

    def __init__(
        self,
        reactor: IReactorTCP,
        entities: Mapping[str, _Entity],
        proxy: str = "localhost:8000",
        admin: str = "localhost:8001",
        kept: str | None = None,
        grpc: bool = True,
        kafka: bool = True,
    ) -> None:
        super().__init__()
        self._reactor: Any = reactor
        self._entities = entities
        self._proxy = proxy
        self._admin = admin
        self._kept = KeptPorts(kept)
        self._ports: list[IListeningPort] = []
        self._kafka = kafka
        self._processes: list[DemoProcess] = []
        self._grpc = grpc
        self.urls: dict[str, str] = {}  #: path to the address of the upstream behind it
        self.broker: str | None = None  #: address of the small broker, where there is one

    def startService(self) -> None:
        """Open the upstreams' ports.

        Raises:
            CannotListenError: there is no free port.
        """
        chat = self._listen("chat", chat_factory(self._reactor))
        ticker = self._listen("ticker", ticker_factory(self._reactor))
        pages = DemoPages()
        page = self._listen("page", Site(pages, reactor=self._reactor))
        self.urls = {"/demo": f"http://{page}", "/demo/chat": f"ws://{chat}", "/demo/ticker": f"http://{ticker}"}
        if self._grpc:
            port = self._free("sensors")
            self._run("sensor service", "sensors/sensor_service.py", str(port), "--bound")
            self.urls["/demo/sensors"] = f"grpc://127.0.0.1:{port}"
        if self._kafka and binary() is not None:
            port = self._free("kafka")
            self._run("small broker", "analytics/small_broker.py", str(port))
            self._run("event counter", "analytics/event_counter.py", f"127.0.0.1:{port}", "--bound")
            self.broker = f"127.0.0.1:{port}"
            self.urls.update(dict.fromkeys(KAFKA, f"kafka://{self.broker}"))
        self._kept.save()
        pages.tell_about({"admin": self._admin, "urls": self.urls, "broker": self.broker})
        super().startService()

    def _run(self, name: str, program: str, *words: str) -> None:
        process = DemoProcess(self._reactor, name, program)
        process.start(*words)
        self._processes.append(process)

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

    def _free(self, name: str) -> int:
        """A port for a process of ours to listen on. It is let go again before that begins; a name that goes with it is held, so
        that no other demo of this machine takes it meanwhile."""
        factory = Factory()
        factory.noisy = False

        def take(number: int) -> int:
            port = self._reactor.listenTCP(number, factory, interface="127.0.0.1")
            found: int = port.getHost().port
            try:
                self._ports.append(self._reactor.listenUNIX(f"\0{TAG}-{found}", factory))
            finally:
                _ = maybeDeferred(port.stopListening)
            return found

        number = self._kept.listen(name, take)
        self._kept.keep(name, number)
        return number

    def stopService(self) -> Deferred[Any]:
        """Close the ports; the ticker ends its streams with its port."""
        ports, self._ports = self._ports, []
        closing: list[Deferred[Any]] = [maybeDeferred(port.stopListening) for port in ports]
        # Last started, first told: the counter leaves its group while the broker is there.
        processes, self._processes = self._processes, []
        closing += [process.stop() for process in reversed(processes)]
        return gatherResults([maybeDeferred(super().stopService), *closing])

    def overlay(self) -> dict[str, dict[str, Any]]:
        """The demo's services and routes: entity to id to row."""
        return demo_overlay(self.urls, self._entities, round(self._reactor.seconds()))

    def lines(self) -> list[str]:
        """What to print at the start: where to look, how to go on, how to stop."""
        service = f"curl -X PUT http://{self._admin}/services/mine --data url={self.urls['/demo/ticker']}"
        route = f"curl -X PUT http://{self._admin}/services/mine/routes/mine --data paths=/mine"
        return [
            self._told_of_kafka(),
            f"open this page:             http://{self._proxy}/demo/",
            f"add a route and follow it:  {service} && {route} && curl -N http://{self._proxy}/mine",
            "stop:                       Ctrl-C",
        ]

    def _told_of_kafka(self) -> str:
        if self.broker is not None:
            return f"Kafka in the demo:          noida-db, a small broker for trying things, at {self.broker}"
        if not self._kafka:
            return "no Kafka in the demo:       the plugins kafka-upstream and kafka-consume are not loaded"
        return "no Kafka in the demo:       there is no small broker; get it with: pip install noida-db"
