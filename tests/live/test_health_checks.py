"""Health checks of targets that are real processes: killed, hanging, failing and back again."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from threading import Event, Thread
from typing import Any

from .pki import Signed, authority
from .support import ROOT, EventStream, GatewayProcess, LiveTestCase, Process, free_port, request, wait_until


class Peer:
    """A target of a test."""

    def __init__(self, case: LiveTestCase, kind: str = "http", certificate: Sequence[str] = ()) -> None:
        self._case, self._kind, self._certificate = case, kind, certificate
        self.port, self.control = free_port(), free_port()
        self.name = f"127.0.0.1:{self.port}"
        self.process: Process
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        program = str(ROOT / "tests" / "live" / "health_target.py")
        words = [sys.executable, program, self._kind, str(self.port), str(self.control), *self._certificate]
        self.process = self._case.start(words, f"target-{self._kind}")
        self._case.wait_for_port(self.port, self.process)
        self._case.wait_for_port(self.control, self.process)

    def mode(self, mode: str) -> None:
        request(self.control, "GET", f"/mode/{mode}")

    def state(self) -> Any:
        return request(self.control, "GET", "/state").json


class Load:
    """Requests one after the other, from several clients, until it is stopped."""

    def __init__(self, gateway: GatewayProcess, clients: int = 4) -> None:
        self._gateway, self._over = gateway, Event()
        self.statuses: list[int] = []
        self.bodies: list[str] = []
        self._threads = [Thread(target=self._run) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            answer = self._gateway.get("/")
            self.bodies.append(answer.body.decode())
            self.statuses.append(answer.status)

    def more(self, count: int) -> None:
        """Wait for so many further answers."""
        enough = len(self.statuses) + count
        wait_until(lambda: len(self.statuses) >= enough, "answers under load")

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


class HealthTestCase(LiveTestCase):
    """A gateway with one route to one upstream."""

    def balanced(
        self, peers: Sequence[Peer], checks: Mapping[str, Any], conf: Mapping[str, object] | None = None, **service: Any
    ) -> GatewayProcess:
        gateway = self.gateway(conf)
        gateway.create("/upstreams", name="up", healthchecks=checks)
        for peer in peers:
            gateway.create("/upstreams/up/targets", target=peer.name)
        gateway.create("/services", name="s", host="up", **service)
        gateway.create("/services/s/routes", name="r", paths=["/"])
        return gateway

    def healths(self, gateway: GatewayProcess) -> dict[str, str]:
        rows = gateway.admin("GET", "/upstreams/up/health").json["data"]
        return {row["target"]: row["health"] for row in rows}

    def wait_for(self, gateway: GatewayProcess, peer: Peer, health: str) -> None:
        wait_until(lambda: self.healths(gateway)[peer.name] == health, f"{peer.name} {health}")

    def loaded(self, gateway: GatewayProcess) -> Load:
        load = Load(gateway)
        self.addCleanup(load.stop)
        load.more(20)
        return load


class PassiveTests(HealthTestCase):
    def killed(self, conf: Mapping[str, object]) -> None:
        peers = [Peer(self) for _ in range(3)]
        checks = {
            "passive": {"unhealthy": {"tcp_failures": 1}},
            "active": {"http_path": "/health", "healthy": {"successes": 1}, "unhealthy": {"interval": 0.2}},
        }
        gateway = self.balanced(peers, checks, conf)
        load = self.loaded(gateway)
        peers[0].process.kill()
        self.wait_for(gateway, peers[0], "UNHEALTHY")
        load.more(50)
        self.assertEqual(set(load.statuses), {200})
        self.assertEqual(self.healths(gateway)[peers[1].name], "HEALTHY")
        before = len(load.bodies)
        peers[0].start()
        self.wait_for(gateway, peers[0], "HEALTHY")
        wait_until(lambda: str(peers[0].port) in load.bodies[before:], "requests to the target that is back")
        load.stop()
        self.assertEqual(set(load.statuses), {200})

    def test_killed_under_load(self) -> None:
        """A target is killed with -9: no request fails; it gets none until probes find that it is back."""
        self.killed({})

    def test_killed_with_workers(self) -> None:
        """The same with two workers."""
        self.killed({"nginx_worker_processes": 2})

    def test_hangs_under_load(self) -> None:
        """A target takes requests and does not answer: they go elsewhere when their time is over, and further ones at once."""
        peers = [Peer(self) for _ in range(3)]
        checks = {"passive": {"unhealthy": {"timeouts": 1}}}
        gateway = self.balanced(peers, checks, read_timeout=500)
        load = self.loaded(gateway)
        peers[0].mode("hang")
        self.wait_for(gateway, peers[0], "UNHEALTHY")
        load.more(50)
        served = peers[0].state()["served"]
        load.more(50)
        load.stop()
        self.assertEqual(set(load.statuses), {200})
        self.assertEqual(peers[0].state()["served"], served)

    def test_statuses(self) -> None:
        """Bad answers take a target out after so many; only an operator brings it back. With none left: 503."""
        peers = [Peer(self), Peer(self)]
        checks = {"passive": {"unhealthy": {"http_failures": 3, "http_statuses": [503]}}}
        gateway = self.balanced(peers, checks)
        peers[0].mode("fail")
        statuses = [gateway.get("/").status for _ in range(20)]
        self.assertEqual(statuses.count(503), 3)
        self.assertEqual(self.healths(gateway), {peers[0].name: "UNHEALTHY", peers[1].name: "HEALTHY"})
        peers[0].mode("ok")
        self.assertEqual({gateway.get("/").body for _ in range(10)}, {str(peers[1].port).encode()})
        peers[1].mode("fail")
        for _ in range(3):
            self.assertEqual(gateway.get("/").body, str(peers[1].port).encode())
        answer = gateway.get("/")
        self.assertEqual((answer.status, answer.json["message"]), (503, "failure to get a peer from the ring-balancer"))
        whole = gateway.admin("GET", "/upstreams/up/health?balancer_health=1").json["data"]
        self.assertEqual((whole["health"], whole["details"]["weight"]["unavailable"]), ("UNHEALTHY", 200))
        marked = gateway.admin("PUT", f"/upstreams/up/targets/{peers[0].name}/{peers[0].name}/healthy")
        self.assertEqual(marked.status, 204)
        self.assertEqual(gateway.get("/").body, str(peers[0].port).encode())

    def test_shared_by_workers(self) -> None:
        """Failures of all workers count together, all workers leave the target out, and one that is started anew does, too."""
        peers = [Peer(self), Peer(self)]
        checks = {"passive": {"unhealthy": {"http_failures": 8, "http_statuses": [503]}}}
        gateway = self.balanced(peers, checks, {"nginx_worker_processes": 2})
        peers[0].mode("fail")
        wait_until(lambda: gateway.get("/") and self.healths(gateway)[peers[0].name] == "UNHEALTHY", "unhealthy")
        served = peers[0].state()["served"]

        def settled() -> bool:
            return {gateway.get("/").status for _ in range(30)} == {200}

        wait_until(settled, "all workers leave it out")
        self.assertLess(peers[0].state()["served"] - served, 30)
        for pid in gateway.admin("GET", "/").json["pids"]["workers"]:
            served = peers[0].state()["served"]
            os.kill(pid, signal.SIGKILL)
            self.wait_for_another(gateway, pid)
            wait_until(settled, "requests")
            self.assertEqual(peers[0].state()["served"], served)
        self.assertEqual(self.healths(gateway)[peers[0].name], "UNHEALTHY")
        gateway.admin("PUT", f"/upstreams/up/targets/{peers[0].name}/healthy")
        wait_until(lambda: gateway.get("/").status == 503, "the target again")

    def wait_for_another(self, gateway: GatewayProcess, pid: int) -> None:
        """Wait until another worker has taken the place of one that was killed."""

        def there() -> bool:
            pids = gateway.admin("GET", "/").json["pids"]["workers"]
            return pid not in pids and len(pids) == 2

        wait_until(there, "another worker")

    def test_changes(self) -> None:
        """Neither a change of the upstream nor one of its targets brings an unhealthy target back."""
        peers = [Peer(self), Peer(self)]
        checks = {"passive": {"unhealthy": {"http_failures": 1, "http_statuses": [503]}}}
        gateway = self.balanced(peers, checks)
        peers[0].mode("fail")
        wait_until(lambda: gateway.get("/").status == 503, "a bad answer")
        peers[0].mode("ok")
        for path, change in (
            ("/upstreams/up", {"algorithm": "least-connections"}),
            ("/upstreams/up", {"algorithm": "round-robin"}),
            ("/upstreams/up", {"healthchecks": {"passive": {"unhealthy": {"http_failures": 5}}}}),
            (f"/upstreams/up/targets/{peers[0].name}", {"weight": 1000}),
        ):
            self.assertEqual(gateway.admin("PATCH", path, json=change).status, 200)
            self.assertEqual({gateway.get("/").body for _ in range(10)}, {str(peers[1].port).encode()}, path)
        gateway.create("/upstreams/up/targets", target=Peer(self).name)
        self.assertEqual(len({gateway.get("/").body for _ in range(20)}), 2)
        self.assertEqual(self.healths(gateway)[peers[0].name], "UNHEALTHY")

    def streams(self, closes: str) -> tuple[GatewayProcess, EventStream]:
        """An event stream on a target that turned unhealthy meanwhile."""
        peers = [Peer(self)]
        checks = {"passive": {"unhealthy": {"http_failures": 1, "http_statuses": [503]}}}
        gateway = self.balanced(peers, checks, {"upstream_close_unhealthy_streams": closes})
        stream = EventStream(gateway.proxy_port, "/events")
        self.addCleanup(stream.close)
        next(stream)
        peers[0].mode("fail")
        self.assertEqual([gateway.get("/").body for _ in range(1)], [str(peers[0].port).encode()])
        self.assertEqual(gateway.get("/").json["message"], "failure to get a peer from the ring-balancer")
        return gateway, stream

    def test_streams_stay(self) -> None:
        """A stream on a target that turned unhealthy goes on."""
        _, stream = self.streams("off")
        self.assertEqual(len([next(stream) for _ in range(20)]), 20)

    def test_streams_are_closed(self) -> None:
        """Where that is configured it is ended, behind a whole event."""
        _, stream = self.streams("on")
        self.assertTrue(all(len(event["data"].split()) == 2 for event in stream))


class ActiveTests(HealthTestCase):
    def probing(self, **more: Any) -> dict[str, Any]:
        return {
            "active": {
                "http_path": "/health",
                "timeout": 1,
                "healthy": {"interval": 0.1, "successes": 2},
                "unhealthy": {"interval": 0.1, "http_failures": 2, "tcp_failures": 2, "timeouts": 1},
                **more,
            }
        }

    def out_and_back(self, gateway: GatewayProcess, peer: Peer, bad: str) -> None:
        """It turns unhealthy without any traffic, and healthy again."""
        peer.mode(bad)
        self.wait_for(gateway, peer, "UNHEALTHY")
        peer.mode("ok")
        self.wait_for(gateway, peer, "HEALTHY")

    def test_http(self) -> None:
        """Probes come as configured, one connection each; a bad one or none takes a target out; they end with the upstream."""
        peers = [Peer(self), Peer(self)]
        gateway = self.balanced(peers, self.probing(headers={"X-Probe": ["one", "two"]}))
        wait_until(lambda: peers[0].state()["probes"] > 5, "probes")
        head = peers[0].state()["last"]
        self.assertTrue(head.startswith("GET /health HTTP/1.1\r\n"), head)
        for line in ("X-Probe: one", "X-Probe: two", "Host: 127.0.0.1", "Connection: close"):
            self.assertIn(f"\r\n{line}\r\n", head)
        for mode in ("fail", "hang"):
            self.out_and_back(gateway, peers[0], mode)
        state = peers[1].state()
        self.assertLess(state["connections"] - state["probes"], 4)  # those of the harness, and one under way
        self.assertEqual(gateway.admin("PATCH", "/upstreams/up", json={"host_header": "app.example"}).status, 200)
        wait_until(lambda: "\r\nHost: app.example\r\n" in peers[0].state()["last"], "another Host")
        gateway.admin("DELETE", f"/upstreams/up/targets/{peers[1].name}")
        wait_until(lambda: not peers[1].state()["open"], "the last probe")
        peers[0].process.kill()
        self.wait_for(gateway, peers[0], "UNHEALTHY")
        gone = peers[1].state()["probes"]
        peers[0].start()
        self.wait_for(gateway, peers[0], "HEALTHY")
        self.assertEqual(peers[1].state()["probes"], gone)
        gateway.admin("DELETE", "/services/s/routes/r")
        gateway.admin("DELETE", "/services/s")
        self.assertEqual(gateway.admin("DELETE", "/upstreams/up").status, 204)
        wait_until(lambda: not peers[0].state()["open"], "the last probe")
        gone = peers[0].state()["probes"]
        gateway.create("/upstreams", name="up", healthchecks=self.probing())
        gateway.create("/upstreams/up/targets", target=peers[1].name)
        seen = peers[1].state()["probes"]
        wait_until(lambda: peers[1].state()["probes"] > seen + 3, "probes of another upstream")
        self.assertEqual(peers[0].state()["probes"], gone)

    def test_one_process_probes(self) -> None:
        """With two workers there are as many probes as with one: the other target's tell how often."""
        peers = [Peer(self), Peer(self)]
        gateway = self.balanced(peers, self.probing(), {"nginx_worker_processes": 2})
        wait_until(lambda: peers[0].state()["probes"] > 2, "probes")
        self.out_and_back(gateway, peers[0], "fail")
        bodies = {str(peer.port).encode() for peer in peers}
        wait_until(lambda: {gateway.get("/").body for _ in range(20)} == bodies, "both serve")
        peers[1].mode("hang")
        self.wait_for(gateway, peers[1], "UNHEALTHY")
        wait_until(lambda: {gateway.get("/").body for _ in range(20)} == {str(peers[0].port).encode()}, "one serves")
        self.assertLessEqual(peers[1].state()["open"], 3)

    def certified(self, name: str) -> tuple[Signed, list[str]]:
        ca = authority()
        return ca, list(ca.sign(name).write(self.folder(), "target"))

    def trusting(self, ca: Signed) -> dict[str, object]:
        return {"lua_ssl_trusted_certificate": ca.write(self.folder(), "ca")[0]}

    def tls(self, kind: str, scheme: str) -> None:
        """A certificate is verified for the name that is asked for, or not at all."""
        ca, certificate = self.certified("target.example")
        peer = Peer(self, kind, certificate)
        good = self.probing(type=scheme, https_sni="target.example")
        gateway = self.balanced([peer], good, self.trusting(ca))
        wait_until(lambda: peer.state()["probes"] > 2, "probes")
        self.assertEqual(self.healths(gateway)[peer.name], "HEALTHY")
        self.out_and_back(gateway, peer, "fail")
        bad = self.probing(type=scheme, https_sni="other.example")
        self.assertEqual(gateway.admin("PATCH", "/upstreams/up", json={"healthchecks": bad}).status, 200)
        self.wait_for(gateway, peer, "UNHEALTHY")
        bad["active"]["https_verify_certificate"] = False
        gateway.admin("PATCH", "/upstreams/up", json={"healthchecks": bad})
        self.wait_for(gateway, peer, "HEALTHY")

    def test_https(self) -> None:
        self.tls("http", "https")

    def test_grpcs(self) -> None:
        self.tls("grpc", "grpcs")

    def test_grpc(self) -> None:
        """The health service of gRPC is asked: for the server, or for the service that the path names."""
        peer = Peer(self, "grpc")
        checks = self.probing(type="grpc", http_path="/demo.Sensors", headers={"X-Probe": ["one"]})
        gateway = self.balanced([peer], checks)
        wait_until(lambda: peer.state()["probes"] > 2, "probes")
        self.assertTrue(peer.state()["last"].startswith("demo.Sensors "), peer.state())
        self.assertIn("'x-probe': 'one'", peer.state()["last"])
        for mode in ("fail", "hang"):
            self.out_and_back(gateway, peer, mode)
        peer.process.kill()
        self.wait_for(gateway, peer, "UNHEALTHY")
        peer.start()
        self.wait_for(gateway, peer, "HEALTHY")

    def test_tcp(self) -> None:
        """A connection is enough."""
        peer = Peer(self)
        gateway = self.balanced([peer], self.probing(type="tcp"))
        peer.mode("fail")
        before = peer.state()["connections"]
        wait_until(lambda: peer.state()["connections"] > before + 3, "probes")
        self.assertEqual(self.healths(gateway)[peer.name], "HEALTHY")
        peer.process.kill()
        self.wait_for(gateway, peer, "UNHEALTHY")
        peer.start()
        self.wait_for(gateway, peer, "HEALTHY")

    def test_tutorial(self) -> None:
        """The lines of the tutorial: probes are off until an interval is given."""
        gateway = self.gateway()
        fields = {
            "name": "streaming-upstream", "hash_on": "ip", "hash_fallback": "none", "healthchecks.active.timeout": "5",
            "healthchecks.active.concurrency": "10", "healthchecks.active.http_path": "/health",
        }  # fmt: skip
        self.assertEqual(gateway.admin("POST", "/upstreams", form=fields).status, 201)
        form = {"target": "streaming-backend-1:8000", "weight": "100"}
        self.assertEqual(gateway.admin("POST", "/upstreams/streaming-upstream/targets", form=form).status, 201)
        changed = gateway.admin(
            "PATCH",
            "/upstreams/streaming-upstream",
            form={"healthchecks.active.healthy.interval": "0.1", "healthchecks.active.unhealthy.interval": "0.1"},
        )
        self.assertEqual(changed.json["healthchecks"]["active"]["healthy"]["interval"], 0.1)
        peer = Peer(self)
        gateway.admin("POST", "/upstreams/streaming-upstream/targets", form={"target": peer.name})
        wait_until(lambda: peer.state()["probes"], "a probe")
