"""A reload takes up everything, and drops nothing: limits, listeners, plugins, logs, workers."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

from tests.live.support import PATIENCE, ROOT, GatewayProcess, LiveTestCase, free_port, request, wait_until


def reload(gateway: GatewayProcess, **properties: object) -> None:
    """Change the file, reload, and wait until the node has."""
    gateway.conf.update(properties)
    with open(os.path.join(gateway.folder, "kong.conf"), "w", encoding="utf-8") as file:
        file.writelines(f"{name} = {value}\n" for name, value in gateway.conf.items())
    before = gateway.log().count("reloaded;") + gateway.log().count("reload refused")
    os.kill(gateway.pid, signal.SIGHUP)
    wait_until(lambda: gateway.log().count("reloaded;") + gateway.log().count("reload refused") > before, "the reload")


class ReloadTests(LiveTestCase):
    """A node of one process."""

    def test_listeners_and_limits(self) -> None:
        """Listeners come and go; an idle connection has the new limits at its next request."""
        gateway = self.gateway()
        other = free_port()
        kept = http.client.HTTPConnection("127.0.0.1", gateway.proxy_port, timeout=PATIENCE)
        kept.request("GET", "/")
        self.assertEqual(kept.getresponse().read() and 404, 404)
        sock = kept.sock
        reload(
            gateway,
            proxy_listen=f"127.0.0.1:{gateway.proxy_port}, 127.0.0.1:{other}",
            nginx_http_max_headers=3,
            status_listen=f"127.0.0.1:{gateway.status_port}",
        )
        self.assertEqual(request(other, "GET", "/").status, 404)
        self.assertEqual(request(gateway.status_port, "GET", "/status/ready").status, 200)
        kept.request("GET", "/", headers={f"x-{n}": "y" for n in range(9)})
        self.assertIs(kept.sock, sock)
        self.assertEqual(kept.getresponse().status, 400)
        reload(gateway, proxy_listen=f"127.0.0.1:{other}", status_listen="off")
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gateway.status_port), PATIENCE)
        self.assertEqual(request(other, "GET", "/").status, 404)
        self.assertEqual(gateway.stop(), 0)

    def test_plugins(self) -> None:
        """Plugins come with their entities and go again; what is stored of them stays in the database."""
        gateway = self.gateway({"plugins": "cors"})
        self.assertEqual(gateway.admin("POST", "/plugins", json={"name": "key-auth"}).status, 400)
        reload(gateway, plugins="cors, key-auth")
        route = gateway.route("/a", "http://127.0.0.1:9")
        gateway.create("/plugins", name="key-auth", route={"id": route["id"]})
        gateway.create("/consumers", username="bob")
        gateway.create("/consumers/bob/key-auth", key="secret")
        self.assertEqual(gateway.get("/a").status, 401)
        self.assertEqual(gateway.get("/a", headers={"apikey": "secret"}).status, 502)
        reload(gateway, plugins="bundled")
        self.assertEqual(gateway.get("/a", headers={"apikey": "secret"}).status, 502)
        self.assertEqual(gateway.get("/a").status, 401)
        self.assertEqual(gateway.stop(), 0)

    def test_refused(self) -> None:
        """What is wrong is told, all of it, and everything stays."""
        gateway = self.gateway()
        reload(
            gateway,
            plugins="nothing-of-this-name",
            ssl_cert="/none",
            ssl_cert_key="/none",
            router_flavor="expressions",
            proxy_listen=f"127.0.0.1:{free_port()} ssl",
        )
        log = gateway.log()
        self.assertIn("plugin nothing-of-this-name: not bundled", log)
        self.assertIn("ssl_cert cannot read", log)
        self.assertEqual(gateway.get("/").status, 404)
        self.assertEqual(gateway.admin("GET", "/").json["configuration"]["router_flavor"], "traditional_compatible")


class WorkersReloadTests(ReloadTests):
    """The same of a node with workers, and their number."""

    def gateway(self, conf: Mapping[str, object] | None = None, **options: Any) -> GatewayProcess:
        return super().gateway({"nginx_worker_processes": 2, **(conf or {})}, **options)

    def test_count(self) -> None:
        """More and fewer workers: each request is served, also those that came to a socket whose worker is gone."""
        gateway = self.gateway({"proxy_listen": "off"})
        listen = f"127.0.0.1:{gateway.proxy_port} reuseport"
        reload(gateway, proxy_listen=listen)
        for count, wanted in ((3, 3), (1, 3), (2, 2)):  # to one process alone only a restart leads
            reload(gateway, nginx_worker_processes=count)
            wait_until(lambda wanted=wanted: len(self.pids(gateway)) == wanted, f"{wanted} workers")  # type: ignore[misc]
            for _ in range(40):
                self.assertEqual(gateway.get("/").status, 404)
        self.assertIn("these take effect at the next start: nginx_worker_processes", gateway.log())
        self.assertEqual(gateway.stop(), 0)

    def pids(self, gateway: GatewayProcess) -> list[int]:
        pids: list[int] = gateway.admin("GET", "/").json["pids"]["workers"]
        return pids


class StreamsReloadTests(LiveTestCase):
    """Many streams through changes and reloads of all kinds."""

    def test_one_process(self) -> None:
        """The streams of a node that serves by itself."""
        self.through_reloads({}, {"nginx_http_max_headers": 500}, {"upstream_keepalive_pool_size": 3})

    def test_workers(self) -> None:
        """Those of one with workers, whose number changes, too."""
        start = {"nginx_worker_processes": 2, "plugins": "bundled"}
        self.through_reloads(start, {"nginx_worker_processes": 3}, {"nginx_worker_processes": 2})

    def through_reloads(self, start: Mapping[str, object], *further: Mapping[str, object]) -> None:
        """500 WebSockets and 100 event streams: none is closed, no number is lost or comes twice."""
        gateway = self.gateway(start)
        gateway.route("/ws", f"http://127.0.0.1:{self.upstream('websocket')}", "ws")
        gateway.route("/sse", f"http://127.0.0.1:{self.upstream('events')}", "sse")
        words = [sys.executable, "-m", "tests.live.counted_streams", str(gateway.proxy_port), "500", "100"]
        streams = self.start(words, "streams", env={"PYTHONPATH": str(ROOT)})
        wait_until(lambda: "ready" in streams.output(), "the streams", 120)
        listen = f"{gateway.conf['proxy_listen']}, 127.0.0.1:{free_port()}"
        kinds = [
            {"proxy_listen": listen},
            {"plugins": "cors, key-auth, rate-limiting"},
            {"nginx_http_keepalive_timeout": "33s", "log_level": "notice"},
            *further,
        ]
        for kind in kinds:
            for number in range(10):
                gateway.create("/consumers", username=f"{len(kind)}-{kinds.index(kind)}-{number}")
            reload(gateway, **kind)
            self.assertEqual(gateway.get("/nowhere").status, 404)
        streams.signal(signal.SIGTERM)
        self.assertEqual(streams.wait(), 0, streams.output())
        told = json.loads(streams.output().splitlines()[-1])
        print(f"{self.id()}: longest wait for an echo {told['longest']} s of {told['echoes']}")
        self.assertEqual((told["open"], told["faults"]), (600, []), streams.output())
        self.assertGreater(told["echoes"], 500)
        self.assertEqual(gateway.stop(), 0)
