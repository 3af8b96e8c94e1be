"""http-log with a real collector: up, killed, slow, refusing, behind TLS; with changes while it sends."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from contextlib import closing
from typing import Any

from .collector_process import Collector
from .support import PATIENCE, GatewayProcess, LiveTestCase, free_port, request, wait_until


def paths(records: list[dict[str, Any]]) -> list[str]:
    return [record["request"]["uri"] for record in records]


class HttpLogTests(LiveTestCase):
    maxDiff = None

    def logged(self, gateway: GatewayProcess, path: str, url: str, **config: Any) -> Any:
        """A route to the echo upstream with the plugin; gives the plugin."""
        route = gateway.route(path, f"http://127.0.0.1:{self.echo}")
        return gateway.create(
            f"/routes/{route['id']}/plugins", name="http-log", config={"http_endpoint": url, **config}
        )

    def setUp(self) -> None:
        super().setUp()
        self.echo = self.upstream("echo")

    def test_records(self) -> None:
        """The whole record of a request, of one answered here, of one whose upstream is gone, and of one under TLS."""
        gateway, collector = self.gateway(tls=True), Collector(self)
        plugin = self.logged(gateway, "/a", collector.url, headers={"X-From": "edge"})
        gateway.create("/plugins", name="correlation-id", config={"header_name": "X-Id"})
        answer = request(
            gateway.proxy_port, "POST", "/a/b?q=1", body=b"hello", headers={"X-Id": "i-1", "Authorization": "x"}
        )
        (record,) = collector.wait(1)
        (asked,) = collector.requests()
        self.assertEqual((asked["method"], asked["path"], asked["headers"]["x-from"]), ("POST", "/logs", "edge"))
        self.assertEqual(asked["headers"]["content-type"], "application/json")
        told = record["request"]
        self.assertEqual((told["method"], told["uri"], told["querystring"]), ("POST", "/a/b?q=1", {"q": "1"}))
        self.assertEqual(told["headers"]["authorization"], "REDACTED")
        self.assertEqual(told["url"], f"http://127.0.0.1:{gateway.proxy_port}/a/b?q=1")
        self.assertEqual(told["id"], answer.headers["X-Kong-Request-Id"])
        self.assertGreater(told["size"], 50)
        self.assertEqual(record["response"]["status"], 200)
        self.assertEqual(record["response"]["headers"]["content-length"], str(len(answer.body)))
        self.assertGreater(record["response"]["size"], len(answer.body) + 100)
        self.assertEqual((record["upstream_uri"], record["upstream_status"]), ("/b?q=1", "200"))
        (one_try,) = record["tries"]
        self.assertEqual((one_try["ip"], one_try["port"]), ("127.0.0.1", self.echo))
        self.assertEqual((record["route"]["id"], record["source"]), (plugin["route"]["id"], "upstream"))
        self.assertEqual(record["service"]["port"], self.echo)
        self.assertEqual((record["client_ip"], record["correlation_id"]), ("127.0.0.1", "i-1"))
        self.assertLess(abs(record["started_at"] / 1000 - time.time()), 300)
        self.assertGreaterEqual(record["latencies"]["request"], record["latencies"]["proxy"])
        gateway.create(f"/routes/{plugin['route']['id']}/plugins", name="key-auth")
        gateway.get("/a/own")
        record = collector.wait(2)[1]
        self.assertEqual((record["response"]["status"], record["source"], record["tries"]), (401, "kong", {}))
        self.assertEqual((record["upstream_status"], record["latencies"]["proxy"]), ("", -1))
        dead = gateway.route("/dead", f"http://127.0.0.1:{free_port()}", "dead")
        gateway.admin("PATCH", "/services/dead", json={"retries": 1})
        gateway.create(f"/routes/{dead['id']}/plugins", name="http-log", config={"http_endpoint": collector.url})
        gateway.get("/dead")
        record = collector.wait(3)[2]
        self.assertEqual([each["code"] for each in record["tries"]], [502, 502])
        self.assertEqual((record["upstream_status"], record["source"]), ("502, 502", "kong"))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with closing(http.client.HTTPSConnection("127.0.0.1", gateway.tls_port, context=context)) as connection:
            connection.request("GET", "/dead")
            connection.getresponse().read()
        tls = collector.wait(4)[3]["request"]["tls"]
        self.assertEqual((tls["version"], tls["client_verify"]), ("TLSv1.3", "NONE"))
        self.assertIn("AES", tls["cipher"])

    def test_streams(self) -> None:
        """A WebSocket is a record when it is over."""
        gateway, collector = self.gateway(tls=True), Collector(self)
        route = gateway.route("/w", f"http://127.0.0.1:{self.upstream('websocket')}", "w")
        gateway.create(f"/routes/{route['id']}/plugins", name="http-log", config={"http_endpoint": collector.url})
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for number, port in enumerate((gateway.proxy_port, gateway.tls_port), 1):
            client = socket.create_connection(("127.0.0.1", port), PATIENCE)
            if port == gateway.tls_port:
                client = context.wrap_socket(client)
            with closing(client):
                client.sendall(
                    b"GET /w HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
                )
                self.assertIn(b"101", client.recv(4096))
                self.assertEqual(len(collector.records()), number - 1)
            record = collector.wait(number)[-1]
            self.assertEqual((record["response"]["status"], record["upstream_status"]), (101, "101"))
            self.assertEqual(record["response"]["headers"]["upgrade"].lower(), "websocket")
            self.assertEqual(record["request"]["headers"]["upgrade"], "websocket")
            self.assertEqual("tls" in record["request"], port == gateway.tls_port)

    def test_killed_and_back(self) -> None:
        """What could not be sent is sent when the collector is there again; requests notice nothing."""
        gateway, collector = self.gateway(), Collector(self)
        self.logged(gateway, "/a", collector.url, queue={"max_retry_delay": 0.1})
        gateway.get("/a/1")
        collector.wait(1)
        collector.kill()
        for number in range(2, 12):
            self.assertEqual(gateway.get(f"/a/{number}").status, 200)
        wait_until(lambda: "could not process entries" in gateway.log(), "a line about it")
        collector.start()
        self.assertEqual(sorted(set(paths(collector.wait(11)))), sorted(f"/a/{number}" for number in range(1, 12)))

    def test_refused(self) -> None:
        """A collector that answers 500 is asked again; when the time for it is over the records are lost, and counted."""
        gateway, collector = self.gateway(), Collector(self)
        self.logged(gateway, "/a", collector.url, queue={"max_retry_time": 0.2, "max_retry_delay": 0.1})
        collector.mode("500")
        gateway.get("/a/lost")
        wait_until(
            lambda: "max_retry_time exceeded. 1 queue entries were lost" in gateway.log(), "the end of its tries"
        )
        self.assertIn(f"127.0.0.1:{collector.port} returned status code 500 and body not now", gateway.log())
        collector.mode("")
        gateway.get("/a/kept")
        self.assertEqual(paths(collector.wait(1)), ["/a/kept"])

    def test_slow_and_full(self) -> None:
        """A collector that takes its time holds up nobody; what waits is bounded, the oldest goes, and the log says so."""
        gateway, collector = self.gateway(), Collector(self)
        queue = {"max_entries": 5, "max_retry_delay": 0.1}
        self.logged(gateway, "/a", collector.url, timeout=500, queue=queue)
        collector.mode("slow")
        for number in range(40):
            self.assertEqual(gateway.get(f"/a/{number}").status, 200)
        wait_until(lambda: "queue full, dropping old entries" in gateway.log(), "a line about it")
        collector.mode("")
        wait_until(lambda: "/a/39" in paths(collector.records()), "the newest record")
        self.assertLessEqual(len(set(paths(collector.records()))), 7)

    def test_tls(self) -> None:
        """Behind TLS, whose certificate is not looked at, as in Kong; user and password are no part of the log."""
        gateway, collector = self.gateway({"log_level": "debug"}), Collector(self, tls=True)
        url = collector.url.replace("https://", "https://bob:hidden-word@")
        self.logged(gateway, "/a", url, queue={"max_batch_size": 2, "max_coalescing_delay": 0.1})
        gateway.get("/a/1")
        self.assertEqual(paths(collector.wait(1)), ["/a/1"])
        (asked,) = collector.requests()
        self.assertTrue(asked["body"].startswith("["))
        self.assertEqual(asked["headers"]["authorization"], "Basic Ym9iOmhpZGRlbi13b3Jk")
        collector.kill()
        gateway.get("/a/2")
        wait_until(lambda: "could not process entries" in gateway.log(), "a line about it")
        self.assertNotIn("hidden-word", gateway.log())

    def test_shared_queue(self) -> None:
        """Two rows that send to the same place fill one batch."""
        gateway, collector = self.gateway(), Collector(self)
        queue = {"max_batch_size": 2, "max_coalescing_delay": 600}
        for path in ("/a", "/b"):
            self.logged(gateway, path, collector.url, queue=queue)
        gateway.get("/a/1")
        gateway.get("/b/1")
        self.assertEqual(paths(collector.wait(2)), ["/a/1", "/b/1"])
        self.assertEqual(len(collector.requests()), 1)

    def test_changed_row(self) -> None:
        """A row that is changed keeps its queue: what waits goes out with the new settings. A deleted one sends what it has."""
        gateway, collector = self.gateway(), Collector(self)
        queue = {"max_batch_size": 10, "max_coalescing_delay": 600}
        plugin = self.logged(gateway, "/a", collector.url, queue=queue, headers={"X-Version": "1"})
        gateway.get("/a/1")
        changed = {"config": {"headers": {"X-Version": "2"}, "queue": {"max_batch_size": 2}}}
        self.assertEqual(gateway.admin("PATCH", f"/plugins/{plugin['id']}", json=changed).status, 200)
        gateway.get("/a/2")
        self.assertEqual(paths(collector.wait(2)), ["/a/1", "/a/2"])
        (asked,) = collector.requests()
        self.assertEqual(asked["headers"]["x-version"], "2")
        gateway.get("/a/3")
        gateway.admin("DELETE", f"/plugins/{plugin['id']}")
        self.assertEqual(paths(collector.wait(3))[2], "/a/3")

    def test_stop(self) -> None:
        """A gateway that stops sends what waits first."""
        gateway, collector = self.gateway(), Collector(self)
        self.logged(gateway, "/a", collector.url, queue={"max_batch_size": 10, "max_coalescing_delay": 600})
        gateway.get("/a/last")
        self.assertEqual(gateway.stop(), 0)
        self.assertEqual(paths(collector.wait(1)), ["/a/last"])

    def test_workers(self) -> None:
        """Every worker sends what it served."""
        gateway, collector = self.gateway({"nginx_worker_processes": 2}), Collector(self)
        self.logged(gateway, "/a", collector.url)
        for number in range(20):
            self.assertEqual(gateway.get(f"/a/{number}").status, 200)
        self.assertEqual(sorted(paths(collector.wait(20))), sorted(f"/a/{number}" for number in range(20)))
